"""`/apus/v1/object`: the store as its operator sees it."""

from __future__ import annotations

from typing import Any, Final, cast

from apus.kernel.policy import Policy, Rule
from apus.services.object.assembly import ObjectStore
from apus.wire.app import Api
from apus.wire.faults import Faults, errors_fault
from apus.wire.route import ApiRequest, Reply, Route

PREFIX: Final = "/apus/v1/object"
POLICY: Final[Policy] = {"object:status": Rule.ADMIN}


async def show_status(request: ApiRequest) -> Reply:
    store = cast(ObjectStore, request.service)
    drives: list[dict[str, Any]] = []
    for drive in store.drives:
        try:
            free: int | None = await drive.free_bytes()
            trouble = None
        except OSError as error:
            free, trouble = None, error.strerror or str(error)
        drives.append({"id": drive.id, "path": str(drive.root), "free_bytes": free, "trouble": trouble})
    waiting = store.cluster.repairs.count()
    return Reply({"drives": drives, "partitions_to_check": waiting})


ROUTES: Final = (Route("GET", "/status", show_status, "object:status"),)


def operator_api(store: ObjectStore) -> Api:
    return Api(
        name="object-operator",
        prefix=PREFIX,
        routes=ROUTES,
        service=store,
        policy=POLICY,
        faults=Faults(errors_fault),
        service_type="apus",
    )

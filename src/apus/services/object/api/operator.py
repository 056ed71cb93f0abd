"""`/apus/v1/object`: the store as its operator sees it, and what he may change while it serves."""

from __future__ import annotations

from typing import Annotated, Any, Final, cast

import msgspec
from msgspec import UNSET, UnsetType

from apus.kernel.policy import Policy, Rule
from apus.services.object.api.drive_views import drive_views
from apus.services.object.assembly import HOST, ObjectStore
from apus.services.object.logic.drive_places import parse_place
from apus.services.object.logic.ring import DriveSpec
from apus.services.object.logic.rings import Rings, part_in
from apus.services.object.repair_status import repair_status
from apus.wire.app import Api
from apus.wire.faults import Faults, errors_fault
from apus.wire.route import ApiRequest, Reply, Route

PREFIX: Final = "/apus/v1/object"
CAP_MAX: Final = 1 << 40
POLICY: Final[Policy] = {"object:status": Rule.ADMIN, "object:operate": Rule.ADMIN}


class RepairBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays as it is."""

    paused: bool | UnsetType = UNSET
    cap_bytes_s: Annotated[int, msgspec.Meta(ge=0, le=CAP_MAX)] | UnsetType = UNSET
    """0: none."""


Text = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Weight = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class NewDrive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]
    """`PATH`, or `HOST:PATH` or `HOST:PORT:PATH` in a store of many hosts."""
    weight: Weight = 1.0
    region: Text = "region1"
    zone: Text = "zone1"
    host: Text | None = None
    """What is lost together; as in `path`, unless said otherwise."""


class ChangeDrive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is left out stays as it is.  Weight 0 drains."""

    weight: Weight | UnsetType = UNSET
    region: Text | UnsetType = UNSET
    zone: Text | UnsetType = UNSET
    host: Text | UnsetType = UNSET


class AdoptDrive(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    path: Annotated[str, msgspec.Meta(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")] | None = None
    """Where it is now, if not where it was."""


def store_of(request: ApiRequest) -> ObjectStore:
    return cast(ObjectStore, request.service)


async def show_status(request: ApiRequest) -> Reply:
    store = store_of(request)
    drives = await drive_views(store)
    waiting = store.cluster.repairs.count()
    repair = await repair_status(store.cluster)
    return Reply({"drives": drives, "partitions_to_check": waiting, "repair": repair})


async def show_repair(request: ApiRequest) -> Reply:
    return Reply({"repair": await repair_status(store_of(request).cluster)})


async def change_repair(request: ApiRequest) -> Reply:
    store, body = store_of(request), cast(RepairBody, request.body)
    await store.set_pace(msgspec.structs.replace(store.cluster.pace.wish, **_given(body)))
    return await show_repair(request)


async def list_drives(request: ApiRequest) -> Reply:
    return Reply({"drives": await drive_views(store_of(request))})


async def add_drive(request: ApiRequest) -> Reply:
    store, body = store_of(request), cast(NewDrive, request.body)
    place = parse_place(body.path)
    spec = DriveSpec("", body.weight, body.region, body.zone, body.host or place.host or HOST)
    return await _one(store, (await store.membership.add(place, spec)).id)


async def change_drive(request: ApiRequest) -> Reply:
    store, drive_id = store_of(request), request.params["id"]
    await store.membership.change(drive_id, **_given(request.body))
    return await _one(store, drive_id)


async def remove_drive(request: ApiRequest) -> Reply:
    await store_of(request).membership.remove(request.params["id"])
    return Reply(None, 204)


async def adopt_drive(request: ApiRequest) -> Reply:
    store, drive_id, body = store_of(request), request.params["id"], cast(AdoptDrive, request.body)
    await store.membership.adopt(drive_id, parse_place(body.path) if body.path else None)
    return await _one(store, drive_id)


async def show_ring(request: ApiRequest) -> Reply:
    store = store_of(request)
    ring, membership = store.cluster.ring, store.membership
    return Reply(
        {
            "ring": {
                "part_power": ring.part_power,
                "partitions": ring.parts,
                "copies": ring.copies,
                "quorum": ring.quorum,
                "policies": {name: _policy(ring, number) for number, name in enumerate(store.service.policies)},
                "drives": len(ring.drives),
                "changes_under_way": len(membership.layout.former),
            }
        }
    )


def _policy(ring: Rings, number: int) -> dict[str, Any]:
    copies = ring.by_policy()[number]
    code = ring.code_of(part_in(number, 0))
    fragments = {"data": code.data, "parity": code.parity, "quorum": code.quorum} if code is not None else None
    return {"copies": copies.copies, "quorum": copies.quorum, "fragments": fragments}


async def grow_ring(request: ApiRequest) -> Reply:
    await store_of(request).membership.grow()
    return await show_ring(request)


async def _one(store: ObjectStore, drive_id: str) -> Reply:
    return Reply({"drive": next(view for view in await drive_views(store) if view["id"] == drive_id)})


def _given(body: Any) -> dict[str, Any]:
    return {name: getattr(body, name) for name in body.__struct_fields__ if getattr(body, name) is not UNSET}


ROUTES: Final = (
    Route("GET", "/status", show_status, "object:status"),
    Route("GET", "/repair", show_repair, "object:status"),
    Route("PATCH", "/repair", change_repair, "object:operate", takes=RepairBody),
    Route("GET", "/drives", list_drives, "object:status"),
    Route("POST", "/drives", add_drive, "object:operate", takes=NewDrive, status=201),
    Route("PATCH", "/drives/{id}", change_drive, "object:operate", takes=ChangeDrive),
    Route("DELETE", "/drives/{id}", remove_drive, "object:operate", status=204),
    Route("GET", "/ring", show_ring, "object:status"),
    Route("POST", "/ring/grow", grow_ring, "object:operate"),
    Route("POST", "/drives/{id}/adopt", adopt_drive, "object:operate", takes=AdoptDrive),
)


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

"""Every route of identity, and the door made of them.  The tables stand beside their handlers."""

from __future__ import annotations

from typing import Any, Final

from apus.services.identity.api import auth, grants, limits, people, secrets, signed
from apus.services.identity.api.bodies import NewRegion, part
from apus.services.identity.api.crud import PREFIX, base_of, crud_routes
from apus.services.identity.api.faults import FAULTS
from apus.services.identity.api.resources import RESOURCES, new_region
from apus.services.identity.api.views import region
from apus.services.identity.logic.may import POLICY
from apus.services.identity.service import Identity
from apus.wire.app import Api
from apus.wire.route import ApiRequest, Reply, Route


async def put_region(request: ApiRequest) -> Reply:
    """A region with an id of the client's choice."""
    body, extra = part(request, "region", NewRegion)
    return Reply({"region": region(await new_region(request, body, extra), base_of(request))})


def _collections() -> list[Route]:
    routes = [route for resource in RESOURCES for route in crud_routes(resource)]
    # a project is shown with its family: the one call that differs
    return [route for route in routes if route.operation != "get_project"]


ROUTES: Final[tuple[Route, ...]] = (
    *auth.ROUTES,
    *_collections(),
    Route("GET", "/v3/projects/{id}", people.get_project, "identity:get_project"),
    Route("PUT", "/v3/regions/{id}", put_region, "identity:create_region", dict[str, Any], 201),
    *people.ROUTES,
    *grants.ROUTES,
    *secrets.ROUTES,
    *limits.ROUTES,
    *signed.ROUTES,
)


def identity_api(identity: Identity) -> Api:
    return Api(
        name="identity",
        prefix=PREFIX,
        routes=ROUTES,
        service=identity,
        policy=POLICY,
        faults=FAULTS,
        forgives_slash=True,
    )

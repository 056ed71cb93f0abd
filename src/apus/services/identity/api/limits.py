"""Unified limits: registered defaults and the limits of projects and domains.  They are made many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from apus.kernel.record import Record
from apus.services.identity import model
from apus.services.identity.api import bodies
from apus.services.identity.api.crud import Resource, base_of, collection, crud_routes, identity_of
from apus.services.identity.api.resources import LIMITS, REGISTERED_LIMITS
from apus.services.identity.service import kinds
from apus.services.identity.service.keeper import Kind, invalid
from apus.wire.route import ApiRequest, Reply, Route


async def _create(request: ApiRequest, resource: Resource[Any], kind: Kind[Any], records: Sequence[Record]) -> Reply:
    made = await identity_of(request).keeper.create_many(kind, request.who, records)
    return collection(request, resource.collection, [resource.view(record, base_of(request)) for record in made])


async def create_registered_limits(request: ApiRequest) -> Reply:
    core = identity_of(request).core
    records = [
        model.RegisteredLimit(id=core.new_id(), **msgspec.structs.asdict(body))
        for body in bodies.listed(request, "registered_limits", bodies.NewRegisteredLimit)
    ]
    return await _create(request, REGISTERED_LIMITS, kinds.REGISTERED_LIMIT, records)


async def create_limits(request: ApiRequest) -> Reply:
    core = identity_of(request).core
    wanted = bodies.listed(request, "limits", bodies.NewLimit)
    if any((body.project_id is None) == (body.domain_id is None) for body in wanted):
        raise invalid("limits", "each is of one project or of one domain")
    records = [model.Limit(id=core.new_id(), **msgspec.structs.asdict(body)) for body in wanted]
    return await _create(request, LIMITS, kinds.LIMIT, records)


async def get_limit_model(request: ApiRequest) -> Reply:
    text = "Limit enforcement and validation does not take project hierarchy into consideration."
    return Reply(
        {"model": {"name": "flat", "description": text}, "links": {"self": f"{base_of(request)}/limits/model"}}
    )


def _many(resource: Resource[Any], route: Route) -> list[Route]:
    """The five calls, with the creation replaced."""
    return [route, *(each for each in crud_routes(resource) if each.method != "POST")]


_BODY: Final = dict[str, Any]

ROUTES: Final = (
    Route("GET", "/v3/limits/model", get_limit_model, "identity:get_limit_model"),
    *_many(LIMITS, Route("POST", "/v3/limits", create_limits, "identity:create_limit", _BODY, 201)),
    *_many(
        REGISTERED_LIMITS,
        Route(
            "POST", "/v3/registered_limits", create_registered_limits, "identity:create_registered_limit", _BODY, 201
        ),
    ),
)

"""Handlers of host aggregates."""

from __future__ import annotations

from typing import Any

import msgspec

from apus.kernel.errors import Invalid, NotFound
from apus.services.compute.api import views
from apus.services.compute.api.bodies import AddHostBody, AggregateMetadataBody, RemoveHostBody
from apus.services.compute.api.servers import compute_of
from apus.services.compute.model import Aggregate
from apus.wire.route import ApiRequest, Reply, convert_body


async def list_aggregates(request: ApiRequest) -> Reply:
    return Reply({"aggregates": [_view(item) for item in await compute_of(request).aggregates.all()]})


async def create_aggregate(request: ApiRequest) -> Reply:
    body = request.body.aggregate
    made = _view(await compute_of(request).aggregates.create(request.who, body.name, body.availability_zone))
    # The reference: the reply of a create has neither hosts nor metadata.
    return Reply({"aggregate": {key: value for key, value in made.items() if key not in ("hosts", "metadata")}})


async def show_aggregate(request: ApiRequest) -> Reply:
    return Reply({"aggregate": _view(await compute_of(request).aggregates.get(_number(request)))})


async def update_aggregate(request: ApiRequest) -> Reply:
    body = request.body.aggregate
    if body.name is None and body.availability_zone is None:
        raise Invalid("compute.nothing", "aggregate: name or availability_zone, or both.", field="aggregate")
    changed = await compute_of(request).aggregates.rename(
        request.who, _number(request), body.name, body.availability_zone
    )
    return Reply({"aggregate": _view(changed)})


async def delete_aggregate(request: ApiRequest) -> Reply:
    await compute_of(request).aggregates.delete(request.who, _number(request))
    return Reply()


async def act_on_aggregate(request: ApiRequest) -> Reply:
    """The body's one key names what shall be done."""
    aggregates, who, number, body = compute_of(request).aggregates, request.who, _number(request), request.body
    if "add_host" in body:
        after = await aggregates.add_host(who, number, convert_body(body, AddHostBody).add_host.host)
    elif "remove_host" in body:
        after = await aggregates.remove_host(who, number, convert_body(body, RemoveHostBody).remove_host.host)
    elif "set_metadata" in body:
        new = convert_body(body, AggregateMetadataBody).set_metadata.metadata
        after = await aggregates.set_metadata(who, number, new)
    else:
        raise Invalid("compute.action_unknown", "The action is add_host, remove_host or set_metadata.")
    return Reply({"aggregate": _view(after)})


def _number(request: ApiRequest) -> int:
    text = request.params["id"]
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise NotFound("compute.no_aggregate", f"Aggregate {text[:60]} could not be found: it is called by its number.")
    return int(text)


def _view(item: Aggregate) -> dict[str, Any]:
    return {
        "id": item.number,
        "uuid": item.id,
        "name": item.name,
        "availability_zone": item.zone,
        "hosts": item.hosts,
        "metadata": msgspec.to_builtins(item.metadata),
        "created_at": views.moment_us(item.created_at_s),
        "updated_at": views.moment_us(item.updated_at_s),
        "deleted": False,
        "deleted_at": None,
    }

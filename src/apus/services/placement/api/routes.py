"""The Placement API v1 as one table.  Source: https://docs.openstack.org/api-ref/placement/"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from apus.kernel.errors import Conflict, Invalid, NotFound
from apus.kernel.policy import Policy, Rule
from apus.services.placement.api import bodies, queries, views
from apus.services.placement.api.changes import VERSIONS
from apus.services.placement.contract import Inventory
from apus.services.placement.inventory import Inventories
from apus.services.placement.logic.candidates import Forest, candidates, meets
from apus.services.placement.model import Allocation, Provider
from apus.wire.app import Api
from apus.wire.faults import Faults, errors_fault
from apus.wire.route import ApiRequest, Reply, Route

PREFIX: Final = "/placement"

POLICY: Final[Policy] = {
    "placement:discover": Rule.PUBLIC,
    "placement:read": Rule.SERVICE,
    "placement:usages": Rule.READER,
    "placement:write": Rule.SERVICE,
}


def _service(request: ApiRequest) -> Inventories:
    service: Inventories = request.service
    return service


# ---------------------------------------------------------------------- discovery
async def root(request: ApiRequest) -> Reply:
    version = {
        "id": "v1.0",
        "min_version": "1.0",
        "max_version": "1.39",
        "status": "CURRENT",
        "links": [{"rel": "self", "href": ""}],
    }
    return Reply({"versions": [version]})


# ---------------------------------------------------------------------- providers
async def list_providers(request: ApiRequest) -> Reply:
    wanted, exact = queries.provider_filters_of(request)
    await _service(request).check_names([wanted])
    everyone = await _service(request).providers()
    forest = Forest(everyone)
    found = [
        item
        for item in everyone
        if exact.get("name", item.name) == item.name
        and exact.get("uuid", item.id) == item.id
        and meets(wanted, forest, item)
    ]
    return Reply({"resource_providers": [views.provider_view(item, PREFIX) for item in found]})


async def create_provider(request: ApiRequest) -> Reply:
    body: bodies.ProviderBody = request.body
    parent_id = None if isinstance(body.parent_provider_uuid, msgspec.UnsetType) else body.parent_provider_uuid
    made = await _service(request).create_provider(body.name, body.uuid, parent_id)
    location = f"{request.base_url}{PREFIX}/resource_providers/{made.id}"
    if request.version is not None and request.version < (1, 20):  # the reply became a body in 1.20
        return Reply(None, 201, {"Location": location})
    return Reply(views.provider_view(made, PREFIX), 200, {"Location": location})


async def show_provider(request: ApiRequest) -> Reply:
    return Reply(views.provider_view(await _provider(request), PREFIX))


async def update_provider(request: ApiRequest) -> Reply:
    body: bodies.ProviderBody = request.body
    known, parent_id = await _provider(request), body.parent_provider_uuid
    if isinstance(parent_id, msgspec.UnsetType):
        parent_id = known.parent_id
    before_moves = request.version is not None and request.version < (1, 37)
    if before_moves and known.parent_id is not None and parent_id != known.parent_id:
        shown = "parent_provider_uuid: before version 1.37 a provider that has a parent keeps it."
        raise Invalid("placement.parent_fixed", shown, field="parent_provider_uuid")
    changed = await _service(request).change_provider(known.id, body.name, parent_id)
    return Reply(views.provider_view(changed, PREFIX))


async def delete_provider(request: ApiRequest) -> Reply:
    await _service(request).delete_provider(request.params["uuid"])
    return Reply()


async def _provider(request: ApiRequest) -> Provider:
    return await _service(request).provider(request.params["uuid"])


# ---------------------------------------------------------------------- inventories, usages, traits, aggregates
async def list_inventories(request: ApiRequest) -> Reply:
    return Reply(views.inventories_view(await _provider(request)))


async def put_inventories(request: ApiRequest) -> Reply:
    body: bodies.InventoriesBody = request.body
    made = {name: _inventory(item) for name, item in body.inventories.items()}
    changed = await _service(request).put_inventories(request.params["uuid"], body.resource_provider_generation, made)
    return Reply(views.inventories_view(changed))


async def add_inventory(request: ApiRequest) -> Reply:
    body: bodies.NewInventoryBody = request.body
    id, name = request.params["uuid"], body.resource_class
    changed = await _service(request).add_inventory(id, body.resource_provider_generation, name, _inventory(body))
    location = f"{request.base_url}{PREFIX}/resource_providers/{id}/inventories/{name}"
    view = views.inventory_view(changed.inventories[name]) | {"resource_provider_generation": changed.generation}
    return Reply(view, 201, {"Location": location})


async def delete_inventories(request: ApiRequest) -> Reply:
    await _service(request).put_inventories(request.params["uuid"], None, {})
    return Reply()


async def show_inventory(request: ApiRequest) -> Reply:
    provider, name = await _provider(request), request.params["name"]
    if name not in provider.inventories:
        raise NotFound("placement.no_inventory", f"Provider {provider.id} has no inventory of {name}.")
    generation = {"resource_provider_generation": provider.generation}
    return Reply(views.inventory_view(provider.inventories[name]) | generation)


async def put_inventory(request: ApiRequest) -> Reply:
    body: bodies.InventoryBody = request.body
    if body.resource_provider_generation is None:
        shown = "resource_provider_generation: it is required, so that no change of somebody else is lost."
        raise Invalid("placement.generation", shown, field="resource_provider_generation")
    name = request.params["name"]
    changed = await _service(request).put_inventories(
        request.params["uuid"], body.resource_provider_generation, {name: _inventory(body)}, replace=False
    )
    generation = {"resource_provider_generation": changed.generation}
    return Reply(views.inventory_view(changed.inventories[name]) | generation)


async def delete_inventory(request: ApiRequest) -> Reply:
    await _service(request).delete_inventory(request.params["uuid"], request.params["name"])
    return Reply()


def _inventory(body: bodies.InventoryBody) -> Inventory:
    return Inventory(
        total=body.total,
        reserved=body.reserved,
        allocation_ratio=body.allocation_ratio,
        min_unit=body.min_unit,
        max_unit=body.max_unit,
        step_size=body.step_size,
    )


async def provider_usages(request: ApiRequest) -> Reply:
    provider = await _provider(request)
    usages = {name: provider.used.get(name, 0) for name in provider.inventories}
    return Reply({"usages": usages, "resource_provider_generation": provider.generation})


async def provider_allocations(request: ApiRequest) -> Reply:
    provider = await _provider(request)
    held = await _service(request).allocations_of(provider_id=provider.id)
    allocations = {item.consumer_id: {"resources": item.resources} for item in held}
    return Reply({"allocations": allocations, "resource_provider_generation": provider.generation})


async def get_traits(request: ApiRequest) -> Reply:
    provider = await _provider(request)
    return Reply({"traits": list(provider.traits), "resource_provider_generation": provider.generation})


async def put_traits(request: ApiRequest) -> Reply:
    body: bodies.TraitsBody = request.body
    changed = await _service(request).put_traits(request.params["uuid"], body.resource_provider_generation, body.traits)
    return Reply({"traits": list(changed.traits), "resource_provider_generation": changed.generation})


async def delete_traits(request: ApiRequest) -> Reply:
    await _service(request).put_traits(request.params["uuid"], None, ())
    return Reply()


async def get_aggregates(request: ApiRequest) -> Reply:
    provider = await _provider(request)
    return Reply({"aggregates": list(provider.aggregates), "resource_provider_generation": provider.generation})


async def put_aggregates(request: ApiRequest) -> Reply:
    body: bodies.AggregatesBody = request.body
    changed = await _service(request).put_aggregates(
        request.params["uuid"], body.resource_provider_generation, body.aggregates
    )
    return Reply({"aggregates": list(changed.aggregates), "resource_provider_generation": changed.generation})


async def put_aggregates_list(request: ApiRequest) -> Reply:
    """Before 1.19 the body was the bare list."""
    changed = await _service(request).put_aggregates(request.params["uuid"], None, request.body)
    return Reply({"aggregates": list(changed.aggregates)})


# ---------------------------------------------------------------------- allocations
async def get_allocations(request: ApiRequest) -> Reply:
    held = await _service(request).allocations_of(consumer_id=request.params["consumer"])
    return Reply(views.consumer_view(held))


async def put_allocations(request: ApiRequest) -> Reply:
    await _service(request).put_allocations({request.params["consumer"]: request.body})
    return Reply()


async def post_allocations(request: ApiRequest) -> Reply:
    await _service(request).put_allocations(request.body)
    return Reply()


async def delete_allocations(request: ApiRequest) -> Reply:
    await _service(request).delete_allocations(request.params["consumer"])
    return Reply()


async def reshape(request: ApiRequest) -> Reply:
    body: bodies.ReshapeBody = request.body
    moved = {
        id: (item.resource_provider_generation, {name: _inventory(each) for name, each in item.inventories.items()})
        for id, item in body.inventories.items()
    }
    await _service(request).reshape(moved, body.allocations)
    return Reply()


async def get_candidates(request: ApiRequest) -> Reply:
    ask, limit = queries.candidates_of(request)
    service = _service(request)
    await service.check_names(ask.groups, ask.root_required | ask.root_forbidden)
    providers = await service.providers()
    return Reply(views.candidates_view(candidates(ask, providers, limit), providers, nested=ask.nested))


async def usages(request: ApiRequest) -> Reply:
    project_id = request.query("project_id")
    if not project_id:
        raise Invalid("placement.project", "project_id: it is required.", field="project_id")
    held = await _service(request).allocations_of_project(project_id, request.query("user_id"))
    if request.version is not None and request.version < (1, 38):
        return Reply({"usages": _total(held)})
    kind = request.query("consumer_type")
    if kind == "all":
        return Reply({"usages": {"all": _counted(held)} if held else {}})
    kinds = sorted({item.consumer_type for item in held if kind in (None, item.consumer_type)})
    by_kind = {each: _counted([item for item in held if item.consumer_type == each]) for each in kinds}
    return Reply({"usages": by_kind})


def _total(held: Sequence[Allocation]) -> dict[str, int]:
    total: dict[str, int] = {}
    for item in held:
        for name, amount in item.resources.items():
            total[name] = total.get(name, 0) + amount
    return total


def _counted(held: Sequence[Allocation]) -> dict[str, int]:
    return _total(held) | {"consumer_count": len({item.consumer_id for item in held})}


# ---------------------------------------------------------------------- classes and traits
async def list_classes(request: ApiRequest) -> Reply:
    names = await _service(request).classes()
    links = [{"name": name, "links": [{"rel": "self", "href": f"{PREFIX}/resource_classes/{name}"}]} for name in names]
    return Reply({"resource_classes": links})


async def create_class(request: ApiRequest) -> Reply:
    made = await _service(request).ensure_class(request.body.name)
    location = f"{request.base_url}{PREFIX}/resource_classes/{request.body.name}"
    if not made:
        raise Conflict("placement.class_exists", f"Conflicting resource class already exists: {request.body.name}.")
    return Reply(None, 201, {"Location": location})


async def put_class(request: ApiRequest) -> Reply:
    made = await _service(request).ensure_class(request.params["name"])
    return Reply(None, 201 if made else 204)


async def show_class(request: ApiRequest) -> Reply:
    name = request.params["name"]
    if name not in await _service(request).classes():
        raise NotFound("placement.no_class", f"There is no resource class {name}.")
    return Reply({"name": name, "links": [{"rel": "self", "href": f"{PREFIX}/resource_classes/{name}"}]})


async def delete_class(request: ApiRequest) -> Reply:
    await _service(request).delete_class(request.params["name"])
    return Reply()


async def list_traits(request: ApiRequest) -> Reply:
    names = await _service(request).traits()
    wanted = request.query("name") or ""
    kind, _, value = wanted.partition(":")
    if kind == "startswith":
        names = [name for name in names if name.startswith(value)]
    elif kind == "in":
        names = [name for name in names if name in value.split(",")]
    return Reply({"traits": names})


async def show_trait(request: ApiRequest) -> Reply:
    name = request.params["name"]
    if name not in await _service(request).traits():
        raise NotFound("placement.no_trait", f"There is no trait {name}.")
    return Reply(None, 204)


async def put_trait(request: ApiRequest) -> Reply:
    made = await _service(request).ensure_trait(request.params["name"])
    return Reply(None, 201 if made else 204)


async def delete_trait(request: ApiRequest) -> Reply:
    await _service(request).delete_trait(request.params["name"])
    return Reply()


_READ, _WRITE = "placement:read", "placement:write"
_ONE = "/resource_providers/{uuid}"
_CONSUMERS: Any = dict[str, bodies.AllocationsBody]
_UUIDS: Any = list[bodies.Uuid]

ROUTES: Final = (
    Route("GET", "", root, may="placement:discover"),
    Route("GET", "/", root, may="placement:discover"),
    Route("GET", "/resource_providers", list_providers, may=_READ),
    Route("POST", "/resource_providers", create_provider, may=_WRITE, takes=bodies.ProviderBody),
    Route("GET", _ONE, show_provider, may=_READ),
    Route("PUT", _ONE, update_provider, may=_WRITE, takes=bodies.ProviderBody),
    Route("DELETE", _ONE, delete_provider, may=_WRITE, status=204),
    Route("GET", _ONE + "/inventories", list_inventories, may=_READ),
    Route("PUT", _ONE + "/inventories", put_inventories, may=_WRITE, takes=bodies.InventoriesBody),
    Route("POST", _ONE + "/inventories", add_inventory, may=_WRITE, takes=bodies.NewInventoryBody),
    Route("DELETE", _ONE + "/inventories", delete_inventories, may=_WRITE, status=204, since=(1, 5)),
    Route("GET", _ONE + "/inventories/{name}", show_inventory, may=_READ),
    Route("PUT", _ONE + "/inventories/{name}", put_inventory, may=_WRITE, takes=bodies.InventoryBody),
    Route("DELETE", _ONE + "/inventories/{name}", delete_inventory, may=_WRITE, status=204),
    Route("GET", _ONE + "/usages", provider_usages, may=_READ),
    Route("GET", _ONE + "/allocations", provider_allocations, may=_READ),
    Route("GET", _ONE + "/traits", get_traits, may=_READ, since=(1, 6)),
    Route("PUT", _ONE + "/traits", put_traits, may=_WRITE, takes=bodies.TraitsBody, since=(1, 6)),
    Route("DELETE", _ONE + "/traits", delete_traits, may=_WRITE, status=204, since=(1, 6)),
    Route("GET", _ONE + "/aggregates", get_aggregates, may=_READ, since=(1, 1)),
    Route("PUT", _ONE + "/aggregates", put_aggregates, may=_WRITE, takes=bodies.AggregatesBody, since=(1, 19)),
    Route("PUT", _ONE + "/aggregates", put_aggregates_list, may=_WRITE, takes=_UUIDS, since=(1, 1), until=(1, 18)),
    Route("GET", "/allocations/{consumer}", get_allocations, may=_READ),
    Route("PUT", "/allocations/{consumer}", put_allocations, may=_WRITE, takes=bodies.AllocationsBody, status=204),
    Route("DELETE", "/allocations/{consumer}", delete_allocations, may=_WRITE, status=204),
    Route("POST", "/allocations", post_allocations, may=_WRITE, takes=_CONSUMERS, status=204, since=(1, 13)),
    Route("POST", "/reshaper", reshape, may=_WRITE, takes=bodies.ReshapeBody, status=204, since=(1, 30)),
    Route("GET", "/allocation_candidates", get_candidates, may=_READ, since=(1, 10)),
    Route("GET", "/usages", usages, may="placement:usages", since=(1, 9)),
    Route("GET", "/resource_classes", list_classes, may=_READ, since=(1, 2)),
    Route("POST", "/resource_classes", create_class, may=_WRITE, takes=bodies.ClassBody, since=(1, 2)),
    Route("GET", "/resource_classes/{name}", show_class, may=_READ, since=(1, 2)),
    Route("PUT", "/resource_classes/{name}", put_class, may=_WRITE, since=(1, 7)),
    Route("DELETE", "/resource_classes/{name}", delete_class, may=_WRITE, status=204, since=(1, 2)),
    Route("GET", "/traits", list_traits, may=_READ, since=(1, 6)),
    Route("GET", "/traits/{name}", show_trait, may=_READ, since=(1, 6)),
    Route("PUT", "/traits/{name}", put_trait, may=_WRITE, since=(1, 6)),
    Route("DELETE", "/traits/{name}", delete_trait, may=_WRITE, status=204, since=(1, 6)),
)


def placement_api(service: Inventories) -> Api:
    return Api(
        name="placement",
        prefix=PREFIX,
        routes=ROUTES,
        service=service,
        policy=POLICY,
        faults=Faults(errors_fault),
        versions=VERSIONS,
    )

"""Handlers of Placement.  Every change of a provider carries the generation that its caller has seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from apus.kernel.errors import Conflict, Invalid, NotFound
from apus.kernel.ids import child_id, is_uuid
from apus.kernel.record import changed
from apus.kernel.world import Transaction
from apus.services.placement import store
from apus.services.placement.api import views
from apus.services.placement.api.bodies import (
    NAME,
    AllocationsBody,
    aggregates_of,
    known_kind,
    resources_of,
    traits_of,
)
from apus.services.placement.contract import Inventory
from apus.services.placement.logic.snapshot import Snapshot
from apus.services.placement.model import ClaimRow, HostRow, NameRow
from apus.services.placement.service import Placement
from apus.services.placement.store import CLAIMS, HOSTS, NAMES
from apus.wire.listing import whole_number
from apus.wire.route import ApiRequest, Reply, convert_body

STANDARD_CLASSES: Final = (
    "VCPU", "MEMORY_MB", "DISK_GB", "PCI_DEVICE", "SRIOV_NET_VF", "NUMA_SOCKET", "NUMA_CORE", "NUMA_THREAD",
    "NUMA_MEMORY_MB", "IPV4_ADDRESS", "VGPU", "VGPU_DISPLAY_HEAD", "NET_BW_EGR_KILOBIT_PER_SEC",
    "NET_BW_IGR_KILOBIT_PER_SEC", "PCPU", "MEM_ENCRYPTION_CONTEXT", "FPGA", "PGPU", "NET_PACKET_RATE_KILOPACKET_PER_SEC",
)  # fmt: skip
Changed = tuple[HostRow, dict[str, HostRow]]


def placement_of(request: ApiRequest) -> Placement:
    service = request.service
    assert isinstance(service, Placement)
    return service


def _load(tx: Transaction, id: str) -> HostRow:
    row = HOSTS.get(tx, id)
    if row is None:
        raise NotFound("placement.undefined_code", f"No resource provider with uuid {id} found")
    return row


async def _row(request: ApiRequest) -> HostRow:
    return await placement_of(request).read(lambda tx: _load(tx, request.params["id"]))


async def _change(request: ApiRequest, seen: int | None, fields: Callable[[HostRow], Mapping[str, Any]]) -> HostRow:
    def work(tx: Transaction) -> Changed:
        row = _load(tx, request.params["id"])
        if seen is not None and seen != row.generation:
            raise Conflict(
                "placement.concurrent_update",
                f"resource provider generation conflict: it is {row.generation}, not {seen}; read it again",
            )
        row = HOSTS.put(tx, changed(row, **fields(row)))
        return row, {row.id: row}

    return await placement_of(request).change(work)


# ---------------------------------------------------------------------- versions and providers
async def list_versions(request: ApiRequest) -> Reply:
    view = {
        "id": "v1.0",
        "min_version": "1.0",
        "max_version": "1.39",
        "status": "CURRENT",
        "links": [{"rel": "self", "href": ""}],
    }
    return Reply({"versions": [view]})


async def list_providers(request: ApiRequest) -> Reply:
    snapshot = await placement_of(request).snapshot()
    rows = snapshot.rows
    for name, test in (
        ("name", lambda row, value: row.name == value),
        ("uuid", lambda row, value: row.id == value),
        ("in_tree", lambda row, value: value in (row.id, row.parent_id)),
    ):
        value = request.query(name)
        if value is not None:
            rows = [row for row in rows if test(row, value)]
    text = request.query("resources")
    if any(request.query(name) is not None for name in ("resources", "required", "member_of")):
        fits = _fitting(request, snapshot, resources_of(text) if text else {})
        kept = {snapshot.rows[place].id for place in fits}
        rows = [row for row in rows if row.id in kept]
    return Reply({"resource_providers": [views.provider_view(row) for row in rows]})


async def create_provider(request: ApiRequest) -> Reply:
    body = request.body
    id = body.uuid or child_id("provider", request.request_id)
    if not is_uuid(id):
        raise Invalid("placement.undefined_code", "uuid: it is not a UUID.", field="uuid")

    def work(tx: Transaction) -> Changed:
        if HOSTS.first(tx, name=body.name) is not None:
            raise Conflict(
                "placement.duplicate_name", f"Conflicting resource provider name: {body.name} already exists."
            )
        if body.parent_provider_uuid is not None and HOSTS.get(tx, body.parent_provider_uuid) is None:
            raise Invalid(
                "placement.undefined_code", "parent_provider_uuid: there is no such provider.", field="parent_provider_uuid"
            )
        row = HOSTS.insert(tx, HostRow(id=id, name=body.name, generation=0, parent_id=body.parent_provider_uuid))
        return row, {row.id: row}

    placement = placement_of(request)
    await placement.snapshot()
    row = await placement.change(work)
    headers = {"Location": f"{request.base_url}/placement/resource_providers/{row.id}"}
    # 1.20: the answer has a body; before, it was 201 without one.
    if request.version is not None and request.version >= (1, 20):
        return Reply(views.provider_view(row), headers=headers, status=200)
    return Reply(headers=headers, status=201)


async def show_provider(request: ApiRequest) -> Reply:
    return Reply(views.provider_view(await _row(request)))


async def update_provider(request: ApiRequest) -> Reply:
    name = request.body.name

    def work(tx: Transaction) -> Changed:
        row = _load(tx, request.params["id"])
        other = HOSTS.first(tx, name=name)
        if other is not None and other.id != row.id:
            raise Conflict("placement.duplicate_name", f"Conflicting resource provider name: {name} already exists.")
        row = HOSTS.put(tx, changed(row, name=name, parent_id=request.body.parent_provider_uuid or row.parent_id))
        return row, {row.id: row}

    return Reply(views.provider_view(await placement_of(request).change(work)))


async def delete_provider(request: ApiRequest) -> Reply:
    id = request.params["id"]

    def work(tx: Transaction) -> tuple[None, dict[str, HostRow]]:
        row = _load(tx, id)
        if row.used:
            raise Conflict(
                "placement.resource_provider.inuse", f"Unable to delete resource provider {id}: it has allocations."
            )
        HOSTS.delete(tx, id)
        return None, {}

    await placement_of(request).change(work)
    placement_of(request).dropped(id)
    return Reply(status=204)


# ---------------------------------------------------------------------- inventories and usages
async def list_inventories(request: ApiRequest) -> Reply:
    return Reply(views.inventories_view(await _row(request)))


async def put_inventories(request: ApiRequest) -> Reply:
    body = request.body
    new = {name: item.inventory(name) for name, item in body.inventories.items()}
    row = await _change(request, body.resource_provider_generation, lambda row: _with_inventories(row, new))
    return Reply(views.inventories_view(row))


def _with_inventories(row: HostRow, new: Mapping[str, Inventory]) -> dict[str, Any]:
    for name in new:
        _check_class(name)
    used = [name for name, amount in row.used.items() if amount and name not in new]
    if used:
        raise Conflict(
            "placement.inventory.inuse", f"Inventory for {', '.join(used)} on resource provider {row.id} in use."
        )
    return {"inventories": dict(new)}


def _check_class(name: str) -> None:
    if name not in STANDARD_CLASSES and not name.startswith("CUSTOM_"):
        raise Invalid("placement.undefined_code", f"Unknown resource class in inventory: {name}", field="resource_class")


async def post_inventory(request: ApiRequest) -> Reply:
    item = convert_body(request.body, _item_type())
    name = item.resource_class
    if not name:
        raise Invalid("placement.undefined_code", "resource_class: it is required.", field="resource_class")

    def add(row: HostRow) -> Mapping[str, Any]:
        if name in row.inventories:
            raise Conflict("placement.undefined_code", f"There is an inventory of {name} already.")
        return _with_inventories(row, {**row.inventories, name: item.inventory(name)})

    row = await _change(request, item.resource_provider_generation, add)
    return _one_inventory(row, name, status=201)


def _item_type() -> Any:
    from apus.services.placement.api.bodies import InventoryItem

    return InventoryItem


async def show_inventory(request: ApiRequest) -> Reply:
    row, name = await _row(request), request.params["name"]
    if name not in row.inventories:
        raise NotFound("placement.undefined_code", f"No inventory of class {name} for {row.id}")
    return _one_inventory(row, name)


def _one_inventory(row: HostRow, name: str, status: int = 200) -> Reply:
    view = {"resource_provider_generation": row.generation, **views.inventory_view(row.inventories[name])}
    return Reply(view, status=status)


async def put_inventory(request: ApiRequest) -> Reply:
    item, name = request.body, request.params["name"]

    def put(row: HostRow) -> Mapping[str, Any]:
        if name not in row.inventories:
            raise Invalid("placement.undefined_code", f"There is no inventory of {name} to update.", field=name)
        return _with_inventories(row, {**row.inventories, name: item.inventory(name)})

    return _one_inventory(await _change(request, item.resource_provider_generation, put), name)


async def delete_inventory(request: ApiRequest) -> Reply:
    name = request.params["name"]

    def drop(row: HostRow) -> Mapping[str, Any]:
        if name not in row.inventories:
            raise NotFound("placement.undefined_code", f"No inventory of class {name} found for delete")
        return _with_inventories(row, {key: value for key, value in row.inventories.items() if key != name})

    await _change(request, None, drop)
    return Reply(status=204)


async def delete_inventories(request: ApiRequest) -> Reply:
    await _change(request, None, lambda row: _with_inventories(row, {}))
    return Reply(status=204)


async def show_usages(request: ApiRequest) -> Reply:
    row = await _row(request)
    usages = {name: row.used.get(name, 0) for name in row.inventories}
    return Reply({"resource_provider_generation": row.generation, "usages": usages})


async def list_usages(request: ApiRequest) -> Reply:
    project_id = request.query("project_id")
    if not project_id:
        raise Invalid("placement.undefined_code", "project_id: it is required.", field="project_id")
    if project_id != request.who.project_id and not request.who.is_admin and "service" not in request.who.roles:
        raise NotFound("placement.undefined_code", "There is no such project.")
    user_id = request.query("user_id")
    claims = await placement_of(request).read(lambda tx: CLAIMS.find(tx, project_id=project_id))
    usages: dict[str, int] = {}
    consumers = [claim for claim in claims if user_id in (None, claim.user_id)]
    for claim in consumers:
        for resources in claim.allocations.values():
            for name, amount in resources.items():
                usages[name] = usages.get(name, 0) + amount
    # 1.38: grouped by the type of consumer.
    if request.version is not None and request.version >= (1, 38):
        kind = request.query("consumer_type") or "all"
        return Reply({"usages": {kind: {"consumer_count": len(consumers), **usages}} if consumers else {}})
    return Reply({"usages": usages})


# ---------------------------------------------------------------------- traits, classes, aggregates
async def list_traits(request: ApiRequest) -> Reply:
    placement = placement_of(request)
    names = {row.id.partition(":")[2] for row in await placement.read(lambda tx: NAMES.find(tx, kind="trait"))}
    used = {trait for row in (await placement.snapshot()).rows for trait in row.traits}
    wanted = request.query("name") or ""
    found = names | used
    if (request.query("associated") or "").lower() == "true":
        found = used
    if wanted.startswith("in:"):
        found &= set(wanted[3:].split(","))
    elif wanted.startswith("startswith:"):
        found = {name for name in found if name.startswith(wanted[11:])}
    elif wanted:
        raise Invalid("placement.undefined_code", "name: in:A,B or startswith:A.", field="name")
    return Reply({"traits": sorted(found)})


async def _has_name(request: ApiRequest, kind: str, name: str) -> bool:
    return await placement_of(request).read(lambda tx: NAMES.get(tx, f"{kind}:{name}")) is not None


async def show_trait(request: ApiRequest) -> Reply:
    name = request.params["name"]
    if not known_kind(name) and not await _has_name(request, "trait", name):
        raise NotFound("placement.undefined_code", f"No such trait(s): {name}.")
    return Reply(status=204)


async def put_trait(request: ApiRequest) -> Reply:
    return await _ensure_name(request, "trait")


async def delete_trait(request: ApiRequest) -> Reply:
    name = request.params["name"]
    if known_kind(name):
        raise Invalid("placement.undefined_code", f"Cannot delete standard trait {name}.", field="name")
    if any(name in row.traits for row in (await placement_of(request).snapshot()).rows):
        raise Conflict("placement.undefined_code", f"The trait {name} is in use by a resource provider.")
    return await _delete_name(request, "trait")


async def _ensure_name(request: ApiRequest, kind: str, name: str | None = None) -> Reply:
    name = name or request.params["name"]
    if not NAME.match(name) or not name.startswith("CUSTOM_"):
        raise Invalid("placement.undefined_code", f"{name[:60]!r}: a name of one's own begins with CUSTOM_.", field="name")

    def work(tx: Transaction) -> tuple[bool, dict[str, HostRow]]:
        if NAMES.get(tx, f"{kind}:{name}") is not None:
            return False, {}
        NAMES.insert(tx, NameRow(id=f"{kind}:{name}", kind=kind))
        return True, {}

    made = await placement_of(request).change(work)
    place = {"trait": "traits", "class": "resource_classes"}[kind]
    return Reply(status=201 if made else 204, headers={"Location": f"{request.base_url}/placement/{place}/{name}"})


async def _delete_name(request: ApiRequest, kind: str) -> Reply:
    name = request.params["name"]

    def work(tx: Transaction) -> tuple[None, dict[str, HostRow]]:
        if not NAMES.delete(tx, f"{kind}:{name}"):
            raise NotFound("placement.undefined_code", f"There is no such {kind}: {name}")
        return None, {}

    await placement_of(request).change(work)
    return Reply(status=204)


async def show_provider_traits(request: ApiRequest) -> Reply:
    return _traits(await _row(request))


def _traits(row: HostRow) -> Reply:
    return Reply({"resource_provider_generation": row.generation, "traits": list(row.traits)})


async def put_provider_traits(request: ApiRequest) -> Reply:
    body = request.body
    for name in body.traits:
        if not known_kind(name) and not await _has_name(request, "trait", name):
            raise Invalid("placement.undefined_code", f"No such trait {name}", field="traits")
    traits = tuple(sorted(set(body.traits)))
    return _traits(await _change(request, body.resource_provider_generation, lambda _: {"traits": traits}))


async def delete_provider_traits(request: ApiRequest) -> Reply:
    await _change(request, None, lambda _: {"traits": ()})
    return Reply(status=204)


def _class_view(name: str) -> dict[str, Any]:
    return {"name": name, "links": [{"rel": "self", "href": f"/placement/resource_classes/{name}"}]}


async def list_classes(request: ApiRequest) -> Reply:
    own = await placement_of(request).read(lambda tx: NAMES.find(tx, kind="class"))
    names = [*STANDARD_CLASSES, *sorted(row.id.partition(":")[2] for row in own)]
    return Reply({"resource_classes": [_class_view(name) for name in names]})


async def create_class(request: ApiRequest) -> Reply:
    reply = await _ensure_name(request, "class", request.body.name)
    if reply.status == 204:
        raise Conflict("placement.undefined_code", f"Conflicting resource class already exists: {request.body.name}")
    return reply


async def show_class(request: ApiRequest) -> Reply:
    name = request.params["name"]
    if name not in STANDARD_CLASSES and not await _has_name(request, "class", name):
        raise NotFound("placement.undefined_code", f"No such resource class {name}.")
    return Reply(_class_view(name))


async def put_class(request: ApiRequest) -> Reply:
    return await _ensure_name(request, "class")


async def delete_class(request: ApiRequest) -> Reply:
    name = request.params["name"]
    if name in STANDARD_CLASSES:
        raise Invalid("placement.undefined_code", f"Cannot delete standard resource class {name}", field="name")
    if any(name in row.inventories for row in (await placement_of(request).snapshot()).rows):
        raise Conflict("placement.undefined_code", f"The resource class {name} is in use by a resource provider.")
    return await _delete_name(request, "class")


async def show_aggregates(request: ApiRequest) -> Reply:
    return _aggregates(await _row(request))


def _aggregates(row: HostRow) -> Reply:
    return Reply({"resource_provider_generation": row.generation, "aggregates": list(row.aggregates)})


async def put_aggregates(request: ApiRequest) -> Reply:
    # Before 1.19 the body was a bare list, and no generation was checked.
    new = request.version is not None and request.version >= (1, 19)
    raw = msgspec.json.decode(await request.read() or b"null") if request.body is None else request.body
    ids = raw.get("aggregates") if isinstance(raw, dict) else raw
    seen = raw.get("resource_provider_generation") if isinstance(raw, dict) else None
    if not isinstance(ids, list) or any(not isinstance(id, str) or not is_uuid(id) for id in ids):
        raise Invalid("placement.undefined_code", "aggregates: a list of UUIDs.", field="aggregates")
    if new and not isinstance(seen, int):
        raise Invalid(
            "placement.undefined_code", "resource_provider_generation: it is required.", field="resource_provider_generation"
        )
    return _aggregates(await _change(request, seen, lambda _: {"aggregates": tuple(dict.fromkeys(ids))}))


# ---------------------------------------------------------------------- allocations
async def show_provider_allocations(request: ApiRequest) -> Reply:
    row = await _row(request)
    claims = await placement_of(request).read(CLAIMS.find)
    held = {
        claim.id: {"resources": claim.allocations[row.id], "consumer_generation": claim.generation}
        for claim in claims
        if row.id in claim.allocations
    }
    return Reply({"resource_provider_generation": row.generation, "allocations": held})


async def show_allocations(request: ApiRequest) -> Reply:
    def work(tx: Transaction) -> dict[str, Any]:
        claim = CLAIMS.get(tx, request.params["consumer"])
        rows = HOSTS.find(tx, id=list(claim.allocations)) if claim is not None else []
        return views.consumer_view(claim, {row.id: row.generation for row in rows})

    return Reply(await placement_of(request).read(work))


async def put_allocations(request: ApiRequest) -> Reply:
    consumer = request.params["consumer"]
    await _allocate(request, {consumer: request.body})
    return Reply(status=204)


async def post_allocations(request: ApiRequest) -> Reply:
    await _allocate(request, convert_body(request.body, dict[str, AllocationsBody]))
    return Reply(status=204)


async def _allocate(request: ApiRequest, asked: Mapping[str, AllocationsBody]) -> None:
    def work(tx: Transaction) -> tuple[None, dict[str, HostRow]]:
        after: dict[str, HostRow] = {}
        for consumer, body in asked.items():
            after.update(_put_consumer(tx, consumer, body))
        return None, after

    await placement_of(request).change(work)


def _put_consumer(tx: Transaction, consumer: str, body: AllocationsBody) -> dict[str, HostRow]:
    if not is_uuid(consumer):
        raise Invalid("placement.undefined_code", f"Malformed consumer uuid: {consumer[:60]}", field="consumer_uuid")
    known = CLAIMS.get(tx, consumer)
    generation = None if known is None else known.generation
    if not body.any_generation and body.consumer_generation != generation:
        raise Conflict(
            "placement.concurrent_update",
            f"consumer generation conflict - expected {generation} but got {body.consumer_generation}",
        )
    if not body.allocations:
        return store.replace_claim(tx, consumer, None)
    for provider in body.allocations:
        if HOSTS.get(tx, provider) is None:
            raise Invalid(
                "placement.undefined_code", f"Allocation for resource provider '{provider[:60]}' that does not exist.",
                field="allocations",
            )  # fmt: skip
    allocations = {provider: item.resources for provider, item in body.allocations.items()}
    claim = ClaimRow(
        id=consumer,
        host_id=next(iter(allocations)),
        allocations=allocations,
        project_id=body.project_id,
        user_id=body.user_id,
        consumer_type=body.consumer_type,
    )
    return store.replace_claim(tx, consumer, claim)


async def delete_allocations(request: ApiRequest) -> Reply:
    def work(tx: Transaction) -> tuple[None, dict[str, HostRow]]:
        if CLAIMS.get(tx, request.params["consumer"]) is None:
            raise NotFound("placement.undefined_code", f"No allocations for consumer '{request.params['consumer']}'")
        return None, store.replace_claim(tx, request.params["consumer"], None)

    await placement_of(request).change(work)
    return Reply(status=204)


# ---------------------------------------------------------------------- candidates
async def list_candidates(request: ApiRequest) -> Reply:
    text = request.query("resources")
    if not text:
        raise Invalid("placement.query", "resources: it is required, as CLASS:AMOUNT,…", field="resources")
    asked = resources_of(text)
    raw_limit = request.query("limit")
    limit = None if raw_limit is None else whole_number("limit", raw_limit, minimum=1)
    snapshot = await placement_of(request).snapshot()
    places = _fitting(request, snapshot, asked)
    return Reply(views.candidates_view(snapshot, places[:limit], asked))


def _fitting(request: ApiRequest, snapshot: Snapshot, asked: Mapping[str, int]) -> list[int]:
    if not len(snapshot):
        return []
    mask = snapshot.where(lambda row: True)
    for name, amount in asked.items():
        mask &= snapshot.capacity(name) - snapshot.used(name) >= amount
        mask &= (amount >= snapshot.unit(name, "min_unit")) & (amount <= snapshot.unit(name, "max_unit"))
        mask &= amount % snapshot.unit(name, "step_size") == 0
    required, forbidden = traits_of(value for key, value in request.queries if key == "required")
    for group in required:
        any_of = snapshot.has_trait(group[0]).copy()
        for name in group[1:]:
            any_of |= snapshot.has_trait(name)
        mask &= any_of
    for name in forbidden:
        mask &= ~snapshot.has_trait(name)
    for wanted, ids in aggregates_of(value for key, value in request.queries if key == "member_of"):
        any_of = snapshot.in_aggregate(ids[0]).copy()
        for id in ids[1:]:
            any_of |= snapshot.in_aggregate(id)
        mask &= any_of if wanted else ~any_of
    tree = request.query("in_tree")
    if tree is not None:
        mask &= snapshot.where(lambda row: tree in (row.id, row.parent_id))
    found: list[int] = mask.nonzero()[0].tolist()
    return found

"""Handlers of what servers are made with: flavors, key pairs, server groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from apus.kernel import policy
from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from apus.kernel.ids import child_id
from apus.kernel.table import Query
from apus.services.compute.api import views
from apus.services.compute.api.bodies import number, truth
from apus.services.compute.api.servers import base_of, compute_of
from apus.services.compute.flavors import usable_flavor
from apus.services.compute.model import Flavor
from apus.services.compute.policy import POLICY
from apus.wire.listing import boolean, next_href, page_of, whole_number
from apus.wire.route import ApiRequest, Reply

FLAVOR_SORT: Final = {
    "flavorid": "id", "id": "id", "name": "name", "memory_mb": "memory_mib", "vcpus": "vcpus", "root_gb": "disk_gib",
    "ephemeral_gb": "ephemeral_gib", "swap": "swap_mib", "rxtx_factor": "rxtx_factor", "is_public": "is_public",
    "disabled": "disabled", "created_at": "created_at_s", "updated_at": "created_at_s",
}  # fmt: skip
POLICIES: Final = ("affinity", "anti-affinity", "soft-affinity", "soft-anti-affinity")


# ---------------------------------------------------------------------- flavors
async def list_flavors(request: ApiRequest) -> Reply:
    base, (flavors, links) = base_of(request), await _flavors(request)
    brief = [
        {
            "id": flavor.id,
            "name": flavor.name,
            "description": flavor.description,
            "links": views.flavor_links(flavor.id, base),
        }
        for flavor in flavors
    ]
    return Reply({"flavors": brief, **links})


async def list_flavors_detail(request: ApiRequest) -> Reply:
    base, (flavors, links) = base_of(request), await _flavors(request)
    return Reply({"flavors": [views.flavor_view(flavor, base) for flavor in flavors], **links})


async def _flavors(request: ApiRequest) -> tuple[list[Flavor], dict[str, Any]]:
    caller, page = request.who, page_of(request, sort_keys=FLAVOR_SORT)
    least_memory = whole_number("minRam", request.query("minRam") or "0")
    least_disk = whole_number("minDisk", request.query("minDisk") or "0")
    public = (request.query("is_public") or "").lower()
    if public and public != "none":
        boolean("is_public", public)

    def matches(flavor: Flavor) -> bool:
        if flavor.memory_mib < least_memory or flavor.disk_gib < least_disk:
            return False
        if not caller.is_admin:
            return usable_flavor(flavor, caller)
        if public == "none":
            return True
        return flavor.is_public is (boolean("is_public", public) if public else True)

    query = Query(matches=matches, sort=page.sort or (("id", False),), marker=page.marker, limit=page.limit + 1)
    try:
        found = list(await compute_of(request).flavors.page(caller, query))
    except NotFound as error:
        raise Invalid("compute.marker", f"marker [{page.marker}] not found", field="marker") from error
    more = len(found) > page.limit or (page.limit_given and len(found) == page.limit)
    found = found[: page.limit]
    links = {"flavors_links": [{"rel": "next", "href": next_href(request, found[-1].id)}]} if more and found else {}
    return found, links


async def show_flavor(request: ApiRequest) -> Reply:
    flavor = await compute_of(request).flavors.get(request.who, request.params["id"])
    return Reply({"flavor": views.flavor_view(flavor, base_of(request))})


async def create_flavor(request: ApiRequest) -> Reply:
    item, compute = request.body.flavor, compute_of(request)
    name = item.name.strip()
    id = str(item.id) if item.id not in (None, "", "auto") else child_id("flavor", request.request_id)
    if not name or len(id) > 255 or id != id.strip():
        raise Invalid("compute.invalid", "flavor: name and id are texts of 1 to 255 characters.", field="flavor.name")
    flavor = Flavor(
        id=id,
        name=name,
        vcpus=number("flavor.vcpus", item.vcpus, 1),
        memory_mib=number("flavor.ram", item.ram, 1),
        disk_gib=number("flavor.disk", item.disk, 0),
        ephemeral_gib=number("flavor.OS-FLV-EXT-DATA:ephemeral", item.ephemeral, 0),
        swap_mib=number("flavor.swap", item.swap or 0, 0),
        rxtx_factor=_factor(item.rxtx_factor),
        is_public=truth("flavor.os-flavor-access:is_public", item.is_public),
        disabled=truth("flavor.OS-FLV-DISABLED:disabled", item.disabled),
        description=item.description,
        access=(),
    )
    return Reply({"flavor": views.flavor_view(await compute.flavors.create(flavor), base_of(request))})


def _factor(value: float | str) -> float:
    try:
        found = float(value)
    except ValueError:
        found = 0.0
    if not 0 < found <= 3.4e38:
        raise Invalid("compute.invalid", "flavor.rxtx_factor: a number above 0.", field="flavor.rxtx_factor")
    return found


async def update_flavor(request: ApiRequest) -> Reply:
    description = request.body.flavor.description
    flavor = await compute_of(request).flavors.change(request.params["id"], lambda _: {"description": description})
    return Reply({"flavor": views.flavor_view(flavor, base_of(request))})


async def delete_flavor(request: ApiRequest) -> Reply:
    await compute_of(request).flavors.delete(request.params["id"])
    return Reply()


async def list_extra_specs(request: ApiRequest) -> Reply:
    flavor = await compute_of(request).flavors.get(request.who, request.params["id"])
    return Reply({"extra_specs": flavor.extra_specs})


async def create_extra_specs(request: ApiRequest) -> Reply:
    new = {key: str(value) for key, value in request.body.extra_specs.items()}
    await compute_of(request).flavors.change(
        request.params["id"], lambda flavor: {"extra_specs": {**flavor.extra_specs, **new}}
    )
    return Reply({"extra_specs": new})


async def show_extra_spec(request: ApiRequest) -> Reply:
    flavor = await compute_of(request).flavors.get(request.who, request.params["id"])
    key = request.params["key"]
    return Reply({key: _spec(flavor, key)})


async def update_extra_spec(request: ApiRequest) -> Reply:
    key, body = request.params["key"], request.body
    if list(body) != [key] or not isinstance(body[key], (str, int, float)):
        raise Invalid(
            "compute.invalid", f"{key}: Request body and URI mismatch: one text by the path's key.", field=key
        )
    value = str(body[key])
    await compute_of(request).flavors.change(
        request.params["id"], lambda flavor: {"extra_specs": {**flavor.extra_specs, key: value}}
    )
    return Reply({key: value})


async def delete_extra_spec(request: ApiRequest) -> Reply:
    key = request.params["key"]

    def drop(flavor: Flavor) -> Mapping[str, object]:
        _spec(flavor, key)
        return {"extra_specs": {name: value for name, value in flavor.extra_specs.items() if name != key}}

    await compute_of(request).flavors.change(request.params["id"], drop)
    return Reply()


def _spec(flavor: Flavor, key: str) -> str:
    if key not in flavor.extra_specs:
        raise NotFound("compute.no_extra_spec", f"Flavor {flavor.id} has no extra specs with key {key}.")
    return flavor.extra_specs[key]


async def list_flavor_access(request: ApiRequest) -> Reply:
    flavor = await compute_of(request).flavors.get(request.who, request.params["id"])
    if flavor.is_public:
        raise NotFound("compute.flavor_is_public", "Access list not available for public flavors.")
    return _access(flavor)


async def act_on_flavor(request: ApiRequest) -> Reply:
    body = request.body
    name = next(iter(body), "")
    tenant = body[name].get("tenant") if len(body) == 1 and isinstance(body[name], dict) else None
    if name not in ("addTenantAccess", "removeTenantAccess") or not isinstance(tenant, str) or not tenant:
        raise Invalid("compute.action_unknown", "The action is addTenantAccess or removeTenantAccess, with a tenant.")

    def change(flavor: Flavor) -> Mapping[str, object]:
        if name == "addTenantAccess":
            if flavor.is_public:
                raise Conflict("compute.flavor_is_public", "Can not add access to a public flavor.")
            if tenant in flavor.access:
                raise Conflict(
                    "compute.flavor_access",
                    f"Flavor access already exists for flavor {flavor.id} and project {tenant}.",
                )
            return {"access": (*flavor.access, tenant)}
        if tenant not in flavor.access:
            raise NotFound("compute.flavor_access", f"Flavor access not found for {flavor.id} / {tenant} combination.")
        return {"access": tuple(project for project in flavor.access if project != tenant)}

    return _access(await compute_of(request).flavors.change(request.params["id"], change))


def _access(flavor: Flavor) -> Reply:
    return Reply({"flavor_access": [{"flavor_id": flavor.id, "tenant_id": tenant} for tenant in flavor.access]})


# ---------------------------------------------------------------------- key pairs
def _whose(request: ApiRequest, user_id: str | None) -> str:
    """An administrator may name another user (2.10)."""
    caller: Caller = request.who
    if user_id is None or user_id == caller.user_id:
        return caller.user_id
    policy.require(POLICY, "keypair:others", caller)
    return user_id


async def list_keypairs(request: ApiRequest) -> Reply:
    page = page_of(request)
    user_id = _whose(request, request.query("user_id"))
    query = Query(marker=page.marker, limit=page.limit)
    try:
        found = await compute_of(request).keypairs.page(user_id, query)
    except NotFound as error:
        raise Invalid("compute.marker", f"marker [{page.marker}] not found", field="marker") from error
    body: dict[str, Any] = {"keypairs": [{"keypair": views.keypair_view(item)} for item in found]}
    if page.limit_given and len(found) == page.limit and found:
        body["keypairs_links"] = [{"rel": "next", "href": next_href(request, found[-1].name)}]
    return Reply(body)


async def create_keypair(request: ApiRequest) -> Reply:
    item = request.body.keypair
    if item.type not in ("ssh", "x509"):
        raise Invalid("compute.invalid", "keypair.type: it is either ssh or x509.", field="keypair.type")
    if item.public_key is None and not item.generate:
        raise Invalid("compute.invalid", "keypair.public_key: it is required.", field="keypair.public_key")
    if item.name != item.name.strip():
        raise Invalid("compute.invalid", "keypair.name: it begins or ends with a blank.", field="keypair.name")
    user_id = _whose(request, item.user_id)
    made, private = await compute_of(request).keypairs.create(
        request.who, user_id, item.name, item.type, item.public_key
    )
    view = {**views.keypair_view(made), "user_id": made.user_id}
    if private is not None:
        view["private_key"] = private
    # 2.2 made the answer 201; before, it was 200.
    return Reply({"keypair": view}, status=201 if request.version and request.version >= (2, 2) else 200)


async def show_keypair(request: ApiRequest) -> Reply:
    user_id = _whose(request, request.query("user_id"))
    found = await compute_of(request).keypairs.get(user_id, request.params["name"])
    view = {
        **views.keypair_view(found),
        "user_id": found.user_id,
        "id": int(found.id[:7], 16),
        "created_at": views.moment_us(found.created_at_s),
        "updated_at": None,
        "deleted": False,
        "deleted_at": None,
    }
    return Reply({"keypair": view})


async def delete_keypair(request: ApiRequest) -> Reply:
    user_id = _whose(request, request.query("user_id"))
    await compute_of(request).keypairs.delete(user_id, request.params["name"])
    return Reply(status=204 if request.version and request.version >= (2, 2) else 202)


# ---------------------------------------------------------------------- server groups
async def list_groups(request: ApiRequest) -> Reply:
    caller, page = request.who, page_of(request)
    everything = request.query("all_projects") is not None and caller.is_admin
    offset = whole_number("offset", request.query("offset") or "0", minimum=0)
    where = {} if everything else {"project_id": caller.project_id}
    found = list(await compute_of(request).groups.page(Query(where=where)))[offset : offset + page.limit]
    return Reply({"server_groups": [views.group_view(group, members) for group, members in found]})


async def create_group(request: ApiRequest) -> Reply:
    item = request.body.server_group
    if item.policy not in POLICIES:
        raise Invalid(
            "compute.invalid", f"server_group.policy: one of {', '.join(POLICIES)}.", field="server_group.policy"
        )
    rules = {key: number(f"server_group.rules.{key}", value, 1) for key, value in item.rules.items()}
    if set(rules) - {"max_server_per_host"} or (rules and item.policy != "anti-affinity"):
        raise Invalid(
            "compute.invalid",
            "server_group.rules: only max_server_per_host, and only with anti-affinity.",
            field="server_group.rules",
        )
    if request.who.project_id is None:
        raise Forbidden("compute.no_project", "Server groups belong to a project: ask with a token of one.")
    group = await compute_of(request).groups.create(request.who, item.name, item.policy, rules)
    return Reply({"server_group": views.group_view(group, ())})


async def show_group(request: ApiRequest) -> Reply:
    group, members = await compute_of(request).groups.get(request.who, request.params["id"])
    return Reply({"server_group": views.group_view(group, members)})


async def delete_group(request: ApiRequest) -> Reply:
    await compute_of(request).groups.delete(request.who, request.params["id"])
    return Reply()

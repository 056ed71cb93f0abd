"""The Networking API v2.0 as one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from apus.kernel import errors
from apus.kernel.caller import Caller
from apus.kernel.errors import CloudError, NotFound
from apus.services.network.api import bodies, views
from apus.services.network.api.extensions import EXTENSIONS
from apus.services.network.api.lists import View, listed, picked
from apus.services.network.logic.limits import QUOTA_DEFAULTS, TAG_MAX, TAGS_MAX
from apus.services.network.model import Network, Port, Rule, SecurityGroup, Subnet
from apus.services.network.service.refusals import bad_input, missing
from apus.services.network.service.rights import POLICY
from apus.services.network.service.service import NetworkService
from apus.services.network.store import ADDRESSES
from apus.wire.app import Api
from apus.wire.faults import Faults, neutron_fault
from apus.wire.route import ApiRequest, Handler, Reply, Route

_ADMIN: Final = Caller(user_id="", roles=frozenset({"admin"}))


def _service(request: ApiRequest) -> NetworkService:
    service: NetworkService = request.service
    return service


@dataclasses.dataclass(frozen=True)
class Resource:
    """The five verbs of one kind of thing; each function takes the service and the caller."""

    noun: str
    plural: str
    create_body: Any
    update_body: Any
    find: Callable[[NetworkService, Caller, ApiRequest], Awaitable[Sequence[View]]]
    show: Callable[[NetworkService, Caller, str], Awaitable[View]]
    create: Callable[[NetworkService, Caller, Sequence[dict[str, Any]]], Awaitable[Sequence[View]]]
    update: Callable[[NetworkService, Caller, str, dict[str, Any]], Awaitable[View]] | None
    delete: Callable[[NetworkService, Caller, str], Awaitable[None]]
    known: frozenset[str]

    def routes(self, path: str) -> list[Route]:
        one = f"{path}/{{id}}"
        made = [
            Route("GET", path, self._list, "network:get", name=f"list_{self.plural}"),
            Route("POST", path, self._create, "network:write", self.create_body, 201, f"create_{self.noun}"),
            Route("GET", one, self._show, "network:get", name=f"show_{self.noun}"),
            Route("DELETE", one, self._delete, "network:write", None, 204, f"delete_{self.noun}"),
        ]
        if self.update is not None:
            made.append(Route("PUT", one, self._update, "network:write", self.update_body, 200, f"update_{self.noun}"))
        return made

    async def _list(self, request: ApiRequest) -> Reply:
        return listed(request, self.plural, await self.find(_service(request), request.who, request), self.known)

    async def _show(self, request: ApiRequest) -> Reply:
        view = await self.show(_service(request), request.who, request.params["id"])
        return Reply({self.noun: picked(view, frozenset(v for k, v in request.queries if k == "fields" and v))})

    async def _create(self, request: ApiRequest) -> Reply:
        one, many = request.body.one, request.body.many
        if (one is msgspec.UNSET) == (many is msgspec.UNSET):
            raise bad_input(self.noun, f"the body must have either '{self.noun}' or '{self.plural}'")
        asks = [one.given()] if many is msgspec.UNSET else [ask.given() for ask in many]
        made = await self.create(_service(request), request.who, asks)
        return Reply({self.noun: made[0]} if many is msgspec.UNSET else {self.plural: made})

    async def _update(self, request: ApiRequest) -> Reply:
        assert self.update is not None
        await self._check_revision(request)
        view = await self.update(_service(request), request.who, request.params["id"], request.body.one.given())
        return Reply({self.noun: view})

    async def _delete(self, request: ApiRequest) -> Reply:
        await self._check_revision(request)
        await self.delete(_service(request), request.who, request.params["id"])
        return Reply()

    async def _check_revision(self, request: ApiRequest) -> None:
        """`If-Match: revision_number=3`: only if it is that one still."""
        asked = request.headers.get("if-match", "")
        if asked.startswith("revision_number="):
            view = await self.show(_service(request), request.who, request.params["id"])
            if asked.partition("=")[2] != str(view["revision_number"]):
                raise CloudError(
                    "network.revision", f"Constrained to {asked.partition('=')[2]}, but current revision is"
                    f" {view['revision_number']}", details={"type": "RevisionNumberConstraintFailed"}
                )  # fmt: skip


def _networks() -> Resource:
    async def find(service: NetworkService, caller: Caller, request: ApiRequest) -> Sequence[View]:
        return [views.network_view(network, ids, caller) for network, ids in await service.networks(caller)]

    async def show(service: NetworkService, caller: Caller, id: str) -> View:
        return views.network_view(*await service.network(caller, id), caller)

    async def create(service: NetworkService, caller: Caller, asks: Sequence[dict[str, Any]]) -> Sequence[View]:
        return [views.network_view(made, (), caller) for made in await service.create_networks(caller, asks)]

    async def update(service: NetworkService, caller: Caller, id: str, fields: dict[str, Any]) -> View:
        return views.network_view(*await service.update_network(caller, id, fields), caller)

    return Resource(
        "network",
        "networks",
        bodies.created("network", "networks", bodies.NetworkCreate),
        bodies.updated("network", bodies.NetworkUpdate),
        find,
        show,
        create,
        update,
        lambda service, caller, id: service.delete_network(caller, id),
        frozenset(views.network_view(Network(id="", project_id=""), (), _ADMIN)),
    )


def _subnets() -> Resource:
    async def find(service: NetworkService, caller: Caller, request: ApiRequest) -> Sequence[View]:
        return [views.subnet_view(subnet) for subnet in await service.subnets(caller)]

    async def show(service: NetworkService, caller: Caller, id: str) -> View:
        return views.subnet_view(await service.subnet(caller, id))

    async def create(service: NetworkService, caller: Caller, asks: Sequence[dict[str, Any]]) -> Sequence[View]:
        return [views.subnet_view(subnet) for subnet in await service.create_subnets(caller, asks)]

    async def update(service: NetworkService, caller: Caller, id: str, fields: dict[str, Any]) -> View:
        return views.subnet_view(await service.update_subnet(caller, id, fields))

    sample = Subnet(id="", network_id="", project_id="", cidr="10.0.0.0/8", ip_version=4)
    return Resource(
        "subnet",
        "subnets",
        bodies.created("subnet", "subnets", bodies.SubnetCreate),
        bodies.updated("subnet", bodies.SubnetUpdate),
        find,
        show,
        create,
        update,
        lambda service, caller, id: service.delete_subnet(caller, id),
        frozenset(views.subnet_view(sample)),
    )


_PORT_COLUMNS: Final = ("network_id", "device_id", "project_id")


def _ports() -> Resource:
    async def find(service: NetworkService, caller: Caller, request: ApiRequest) -> Sequence[View]:
        where: dict[str, list[str]] = {}
        for key, value in request.queries:
            if key in _PORT_COLUMNS:
                where.setdefault(key, []).append(value)
        found, active = await service.ports(caller, where)
        return [views.port_view(port, port.id in active, caller) for port in found]

    async def show(service: NetworkService, caller: Caller, id: str) -> View:
        return views.port_view(*await service.port(caller, id), caller)

    async def create(service: NetworkService, caller: Caller, asks: Sequence[dict[str, Any]]) -> Sequence[View]:
        return [views.port_view(port, False, caller) for port in await service.create_ports(caller, asks)]

    async def update(service: NetworkService, caller: Caller, id: str, fields: dict[str, Any]) -> View:
        return views.port_view(*await service.update_port(caller, id, fields), caller)

    return Resource(
        "port",
        "ports",
        bodies.created("port", "ports", bodies.PortCreate),
        bodies.updated("port", bodies.PortUpdate),
        find,
        show,
        create,
        update,
        lambda service, caller, id: service.delete_port(caller, id),
        frozenset(views.port_view(Port(id="", project_id="", network_id="", mac=""), False, _ADMIN)),
    )


def _groups() -> Resource:
    async def find(service: NetworkService, caller: Caller, request: ApiRequest) -> Sequence[View]:
        return [views.group_view(group, rules) for group, rules in await service.security_groups(caller)]

    async def show(service: NetworkService, caller: Caller, id: str) -> View:
        return views.group_view(*await service.security_group(caller, id))

    async def create(service: NetworkService, caller: Caller, asks: Sequence[dict[str, Any]]) -> Sequence[View]:
        return [views.group_view(group, rules) for group, rules in await service.create_security_groups(caller, asks)]

    async def update(service: NetworkService, caller: Caller, id: str, fields: dict[str, Any]) -> View:
        return views.group_view(*await service.update_security_group(caller, id, fields))

    return Resource(
        "security_group",
        "security_groups",
        bodies.created("security_group", "security_groups", bodies.GroupCreate),
        bodies.updated("security_group", bodies.GroupUpdate),
        find,
        show,
        create,
        update,
        lambda service, caller, id: service.delete_security_group(caller, id),
        frozenset(views.group_view(SecurityGroup(id="", project_id="", name=""), ())),
    )


def _rules() -> Resource:
    async def find(service: NetworkService, caller: Caller, request: ApiRequest) -> Sequence[View]:
        return [views.rule_view(rule) for rule in await service.rules(caller)]

    async def show(service: NetworkService, caller: Caller, id: str) -> View:
        return views.rule_view(await service.rule(caller, id))

    async def create(service: NetworkService, caller: Caller, asks: Sequence[dict[str, Any]]) -> Sequence[View]:
        return [views.rule_view(rule) for rule in await service.create_rules(caller, asks)]

    sample = Rule(id="", project_id="", group_id="", direction="ingress", ethertype="IPv4")
    return Resource(
        "security_group_rule",
        "security_group_rules",
        bodies.created("security_group_rule", "security_group_rules", bodies.RuleCreate),
        None,
        find,
        show,
        create,
        None,
        lambda service, caller, id: service.delete_rule(caller, id),
        frozenset(views.rule_view(sample)),
    )


async def show_quota(request: ApiRequest) -> Reply:
    found = await _service(request).quotas(_quota_project(request))
    return Reply({"quota": {noun: limit for noun, (limit, _) in found.items()}})


async def show_quota_details(request: ApiRequest) -> Reply:
    found = await _service(request).quotas(_quota_project(request))
    details = {noun: {"limit": limit, "used": used, "reserved": 0} for noun, (limit, used) in found.items()}
    return Reply({"quota": details})


async def show_quota_defaults(request: ApiRequest) -> Reply:
    return Reply({"quota": dict(QUOTA_DEFAULTS)})


async def show_quota_project(request: ApiRequest) -> Reply:
    project = request.who.project_id
    return Reply({request.raw_path.rpartition("/")[2]: {"tenant_id": project, "project_id": project}})


def _quota_project(request: ApiRequest) -> str:
    project = request.params["id"]
    if not request.who.is_admin and project != request.who.project_id:
        shown = "Only admin can view or configure quota"
        raise errors.Forbidden("network.quota", shown, details={"type": "AdminRequired"})
    return project


async def list_quotas(request: ApiRequest) -> Reply:
    """Of the projects for which an operator set one."""
    rows = []
    for quota in await _service(request).set_quotas_of_all():
        rows.append({**QUOTA_DEFAULTS, **quota.limits, "project_id": quota.id, "tenant_id": quota.id})
    return Reply({"quotas": rows})


async def update_quota(request: ApiRequest) -> Reply:
    """`check_limit` refuses a limit below what is in use; `force`, its opposite, is what happens without it."""
    limits: dict[str, int] = {}
    said: dict[str, bool] = {"check_limit": False, "force": False}
    for noun, value in request.body.quota.items():
        if noun in ("project_id", "tenant_id"):
            continue
        if noun in said:
            if not isinstance(value, bool):
                raise bad_input(noun, f"'{value}' is not true or false")
            said[noun] = value
            continue
        try:
            limits[noun] = int(value)
        except (TypeError, ValueError):
            raise bad_input(noun, f"'{value}' is not a whole number") from None
    above_use = said["check_limit"] and not said["force"]
    await _service(request).set_quotas(request.params["id"], limits, above_use=above_use)
    return await show_quota(request)


async def reset_quota(request: ApiRequest) -> Reply:
    await _service(request).reset_quotas(request.params["id"])
    return Reply()


async def list_tags(request: ApiRequest) -> Reply:
    return Reply({"tags": await _change_tags(request, lambda tags: tags)})


async def replace_tags(request: ApiRequest) -> Reply:
    return Reply({"tags": await _change_tags(request, lambda tags: set(request.body.tags))})


async def add_tags(request: ApiRequest) -> Reply:
    return Reply({"tags": await _change_tags(request, lambda tags: tags | set(request.body.tags))})


async def remove_tags(request: ApiRequest) -> Reply:
    await _change_tags(request, lambda tags: set())
    return Reply()


async def add_tag(request: ApiRequest) -> Reply:
    tag = request.params["tag"]
    if len(tag) > TAG_MAX:
        raise bad_input("tag", f"it is longer than {TAG_MAX} characters")
    await _change_tags(request, lambda tags: tags | {tag})
    return Reply()


async def remove_tag(request: ApiRequest) -> Reply:
    tag = request.params["tag"]

    def without(tags: set[str]) -> set[str]:
        if tag not in tags:
            raise missing("TagNotFound", "Tag", tag)
        return tags - {tag}

    await _change_tags(request, without)
    return Reply()


async def show_tag(request: ApiRequest) -> Reply:
    if request.params["tag"] not in await _change_tags(request, lambda tags: tags):
        raise missing("TagNotFound", "Tag", request.params["tag"])
    return Reply()


async def _change_tags(request: ApiRequest, change: Callable[[set[str]], set[str]]) -> list[str]:
    def bounded(tags: set[str]) -> set[str]:
        new = change(tags)
        if len(new) > TAGS_MAX:
            raise bad_input("tags", f"there are more than {TAGS_MAX}")
        return new

    noun, id = request.params["noun"].replace("_", "-"), request.params["id"]
    return await _service(request).change_tags(request.who, noun, id, bounded, write=request.method != "GET")


async def list_extensions(request: ApiRequest) -> Reply:
    return Reply({"extensions": [_extension(alias) for alias in EXTENSIONS]})


async def show_extension(request: ApiRequest) -> Reply:
    alias = request.params["id"]
    if alias not in EXTENSIONS:
        shown = f"Extension with alias {alias} does not exist"
        raise NotFound("network.no_extension", shown, details={"type": "HTTPNotFound"})
    return Reply({"extension": _extension(alias)})


def _extension(alias: str) -> View:
    name, description = EXTENSIONS[alias]
    updated = "2026-01-01T00:00:00-00:00"
    return {"alias": alias, "name": name, "description": description, "updated": updated, "links": []}


async def list_agents(request: ApiRequest) -> Reply:
    """As Neutron: who may not see agents sees a list without any."""
    now_s = _service(request).now_s()
    agents = await _service(request).host_agents() if request.who.is_admin else []
    found = [views.agent_view(agent, now_s) for agent in agents]
    return listed(request, "agents", found, _AGENT_KEYS)


_AGENT_KEYS: Final = frozenset(
    ("id", "agent_type", "binary", "host", "topic", "alive", "admin_state_up", "availability_zone", "description")
)


async def show_agent(request: ApiRequest) -> Reply:
    for agent in await _service(request).host_agents():
        if agent.id == request.params["id"]:
            return Reply({"agent": views.agent_view(agent, _service(request).now_s())})
    raise missing("AgentNotFound", "Agent", request.params["id"])


async def list_zones(request: ApiRequest) -> Reply:
    zone = {"name": "nova", "resource": "network", "state": "available"}
    return Reply({"availability_zones": [zone]})


async def list_service_providers(request: ApiRequest) -> Reply:
    return Reply({"service_providers": []})


async def list_ip_availability(request: ApiRequest) -> Reply:
    found = await _availability(request)
    wanted = {key: value for key, value in request.queries if key in ("network_id", "network_name", "project_id")}
    rows = [row for row in found if all(str(row[key]) == value for key, value in wanted.items())]
    return Reply({"network_ip_availabilities": rows})


async def show_ip_availability(request: ApiRequest) -> Reply:
    for row in await _availability(request):
        if row["network_id"] == request.params["id"]:
            return Reply({"network_ip_availability": row})
    raise missing("NetworkNotFound", "Network", request.params["id"])


async def _availability(request: ApiRequest) -> list[View]:
    service = _service(request)
    subnets = await service.subnets(request.who)
    used = await service.read(lambda tx: {subnet.id: ADDRESSES.count(tx, subnet_id=subnet.id) for subnet in subnets})
    rows = []
    for network, _ in await service.networks(request.who):
        below = [subnet for subnet in subnets if subnet.network_id == network.id]
        rows.append(views.availability_view(network, below, used))
    return rows


async def show_versions(request: ApiRequest) -> Reply:
    links = [{"rel": "self", "href": f"{request.base_url}{_prefix(request)}/v2.0/"}]
    return Reply({"versions": [{"id": "v2.0", "status": "CURRENT", "links": links}]})


async def show_resources(request: ApiRequest) -> Reply:
    base = f"{request.base_url}{_prefix(request)}/v2.0"
    rows = [
        {"name": name[:-1], "collection": name, "links": [{"rel": "self", "href": f"{base}/{name}"}]}
        for name in ("networks", "subnets", "ports")
    ]
    return Reply({"resources": rows})


def _prefix(request: ApiRequest) -> str:
    return request.raw_path.partition("/v2.0")[0].rstrip("/")


def _table() -> tuple[Route, ...]:
    get, write, admin = "network:get", "network:write", "network:admin"
    made = [
        Route("GET", "", show_versions, "version:get"),
        Route("GET", "/", show_versions, "version:get", name="show_versions_slash"),
        Route("GET", "/v2.0", show_resources, "version:get"),
        Route("GET", "/v2.0/", show_resources, "version:get", name="show_resources_slash"),
        Route("GET", "/v2.0/extensions", list_extensions, "extension:get"),
        Route("GET", "/v2.0/extensions/{id}", show_extension, "extension:get"),
        Route("GET", "/v2.0/quotas", list_quotas, admin),
        Route("GET", "/v2.0/quotas/tenant", show_quota_project, "quota:get"),
        Route("GET", "/v2.0/quotas/project", show_quota_project, "quota:get"),
        Route("GET", "/v2.0/quotas/{id}", show_quota, "quota:get"),
        Route("GET", "/v2.0/quotas/{id}/default", show_quota_defaults, "quota:get"),
        Route("GET", "/v2.0/quotas/{id}/details", show_quota_details, "quota:get"),
        Route("PUT", "/v2.0/quotas/{id}", update_quota, admin, bodies.QuotaBody),
        Route("DELETE", "/v2.0/quotas/{id}", reset_quota, admin, None, 204),
        Route("GET", "/v2.0/agents", list_agents, get),
        Route("GET", "/v2.0/agents/{id}", show_agent, admin),
        Route("GET", "/v2.0/availability_zones", list_zones, get),
        Route("GET", "/v2.0/service-providers", list_service_providers, get),
        Route("GET", "/v2.0/network-ip-availabilities", list_ip_availability, admin),
        Route("GET", "/v2.0/network-ip-availabilities/{id}", show_ip_availability, admin),
    ]
    for path, resource in _RESOURCES.items():
        made += resource.routes(f"/v2.0/{path}")
    tags, tag = "/v2.0/{noun}/{id}/tags", "/v2.0/{noun}/{id}/tags/{tag}"
    changes: tuple[tuple[str, str, Handler, str, Any, int], ...] = (
        ("GET", tags, list_tags, get, None, 200),
        ("PUT", tags, replace_tags, write, bodies.TagsBody, 200),
        ("POST", tags, add_tags, write, bodies.TagsBody, 200),
        ("DELETE", tags, remove_tags, write, None, 204),
        ("GET", tag, show_tag, get, None, 204),
        ("PUT", tag, add_tag, write, None, 201),
        ("DELETE", tag, remove_tag, write, None, 204),
    )
    return (*made, *(Route(*change) for change in changes))


_RESOURCES: Final = {
    "networks": _networks(),
    "subnets": _subnets(),
    "ports": _ports(),
    "security-groups": _groups(),
    "security-group-rules": _rules(),
}
ROUTES: Final = _table()
FAULTS: Final = Faults(
    neutron_fault, statuses={errors.OverQuota: 409, errors.NoRoom: 409}, codes={"network.revision": 412}
)


def network_api(service: NetworkService, prefix: str = "/network") -> Api:
    return Api(
        name="network", prefix=prefix, routes=ROUTES, service=service, policy=POLICY, faults=FAULTS, forgives_slash=True
    )

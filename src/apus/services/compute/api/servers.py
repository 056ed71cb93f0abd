"""Handlers of servers: list, show, create, update, delete, actions, metadata, tags, addresses, instance actions."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from apus.kernel import policy
from apus.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from apus.kernel.table import Query
from apus.services.compute.api import views
from apus.services.compute.api.bodies import (
    create_command,
    number,
    truth,
    update_command,
)
from apus.services.compute.contract import Power
from apus.services.compute.logic.status import project
from apus.services.compute.model import Action, Server
from apus.services.compute.policy import POLICY
from apus.services.compute.service import Compute
from apus.services.network.contract import ServerPort
from apus.wire.listing import boolean, next_href, page_of
from apus.wire.route import ApiRequest, Reply

SORT_KEYS: Final = {
    "created_at": "created_at_s", "updated_at": "updated_at_s", "launched_at": "launched_at_s",
    "display_name": "name", "name": "name", "uuid": "id", "id": "id", "project_id": "project_id",
    "user_id": "user_id", "host": "host", "key_name": "id", "display_description": "description",
    "vm_state": "wanted", "task_state": "wanted", "power_state": "wanted", "availability_zone": "zone",
    "locked": "locked", "access_ip_v4": "access_ipv4", "access_ip_v6": "access_ipv6", "config_drive": "config_drive",
    "auto_disk_config": "disk_config", "image_ref": "created_at_s", "instance_type_id": "vcpus",
    "launch_index": "launch_index", "node": "host", "hostname": "hostname", "progress": "created_at_s",
    "root_device_name": "root_device_name", "terminated_at": "terminated_at_s", "uuid_": "id",
}  # fmt: skip
_PASSWORD: Final = string.ascii_letters + string.digits


def base_of(request: ApiRequest) -> str:
    return f"{request.base_url}/compute"


def compute_of(request: ApiRequest) -> Compute:
    service = request.service
    assert isinstance(service, Compute)
    return service


# ---------------------------------------------------------------------- lists
async def list_servers(request: ApiRequest) -> Reply:
    servers, links = await _page(request)
    base = base_of(request)
    body: dict[str, Any] = {"servers": [views.brief(server, base) for server in servers]}
    return Reply({**body, **links})


async def list_servers_detail(request: ApiRequest) -> Reply:
    servers, links = await _page(request)
    base, admin, silent = base_of(request), request.who.is_admin, compute_of(request).hosts.silent
    body: dict[str, Any] = {
        "servers": [
            views.server_view(server, base, admin=admin, listed=True, silent=server.host in silent)
            for server in servers
        ]
    }
    return Reply({**body, **links})


async def _page(request: ApiRequest) -> tuple[list[Server], dict[str, Any]]:
    page = page_of(request, sort_keys=SORT_KEYS)
    where, matches = filters_of(request)
    if request.query("limit") == "0":  # Nova: none, where other services say all
        return [], {}
    query = Query(
        where=where,
        matches=matches,
        sort=page.sort or (("created_at_s", True), ("id", True)),
        marker=page.marker,
        limit=page.limit + 1,
    )
    try:
        servers = list(await compute_of(request).servers(request.who, query))
    except NotFound as error:
        raise Invalid("compute.marker", f"marker [{page.marker}] not found", field="marker") from error
    if len(servers) <= page.limit:
        # Nova answers a next link on every full page, and clients follow it until a page is empty.
        full = page.limit_given and len(servers) == page.limit
        links = (
            {"servers_links": [{"rel": "next", "href": next_href(request, servers[-1].id)}]} if full and servers else {}
        )
        return servers, links
    servers = servers[: page.limit]
    return servers, {"servers_links": [{"rel": "next", "href": next_href(request, servers[-1].id)}]}


Matches = Callable[[Server], bool]


def filters_of(request: ApiRequest) -> tuple[dict[str, Any], Matches | None]:
    """The conditions that columns can check, and a test for the rest.  Unknown filters are ignored, as in Nova."""
    caller = request.who
    given: dict[str, list[str]] = {}
    for key, value in request.queries:
        given.setdefault(key, []).append(value)
    where: dict[str, Any] = {"deleted": False, "project_id": caller.project_id}
    all_tenants = given.get("all_tenants", given.get("all_projects", ["0"]))[-1]
    if all_tenants == "" or boolean("all_tenants", all_tenants):
        policy.require(POLICY, "server:all_tenants", caller)
        del where["project_id"]
    if caller.is_admin:
        if "deleted" in given:
            where["deleted"] = boolean("deleted", given["deleted"][-1])
        for name in ("project_id", "tenant_id"):
            if name in given and "project_id" not in where:
                where["project_id"] = given[name]
        for name in ("host", "node", "hypervisor_hostname"):
            if name in given:
                where["host"] = given[name]
    if "changes-since" in given:
        del where["deleted"]
    if "user_id" in given:
        where["user_id"] = given["user_id"]
    if "reservation_id" in given:
        where["reservation_id"] = given["reservation_id"]
    if "uuid" in given:
        where["id"] = given["uuid"]
    tests = [test for name, make in _TESTS.items() if name in given for test in [make(given[name])] if test]
    if "status" in given and any(status.upper() == "DELETED" for status in given["status"]):
        if not caller.is_admin:
            raise Forbidden("policy.forbidden", "Only administrators may list deleted servers")
        where.pop("deleted", None)
    if not tests:
        return where, None
    return where, lambda server: all(test(server) for test in tests)


def _regex(field: str, getter: Callable[[Server], str | None]) -> Callable[[list[str]], Matches | None]:
    def make(values: list[str]) -> Matches | None:
        text = values[-1]
        if not text:
            return None
        if not any(char in text for char in r".^$*+?{}[]\|()"):
            return lambda server: text in (getter(server) or "")
        if len(text) > 255:
            raise Invalid("compute.filter", f"{field}: the expression is too long.", field=field)
        # A pattern could be made to run for ever; only plain ones are tried as such.
        if re.search(r"[*+}][*+{]|\)[*+{]", text):
            raise Invalid("compute.filter", f"{field}: nested repetition is not possible here.", field=field)
        try:
            pattern = re.compile(text)
        except re.error as error:
            raise Invalid(
                "compute.filter", f"{field}: {text!r} is not a regular expression: {error}.", field=field
            ) from None
        return lambda server: pattern.search(getter(server) or "") is not None

    return make


def _status(values: list[str]) -> Matches:
    allowed = {value.upper() for value in values}
    return lambda server: project(server).status in allowed


def _vm_state(values: list[str]) -> Matches:
    allowed = set(values)
    return lambda server: project(server).vm_state in allowed


def _task_state(values: list[str]) -> Matches:
    return lambda server: project(server).task_state in values


def _power_state(values: list[str]) -> Matches:
    allowed = {number("power_state", value, 0, 9) for value in values}
    return lambda server: project(server).power_state in allowed


def _image(values: list[str]) -> Matches:
    return lambda server: server.image is not None and server.image.id in values


def _flavor(values: list[str]) -> Matches:
    return lambda server: server.flavor.id in values


def _addresses(version: int) -> Callable[[list[str]], Matches | None]:
    def text(server: Server) -> str:
        return "\n".join(fixed.address for port in server.ports for fixed in port.fixed_ips if fixed.version == version)

    return lambda values: _regex(f"ip{'6' if version == 6 else ''}", text)(
        [value.removeprefix("^") for value in values]
    )


def _moment(field: str, later: bool) -> Callable[[list[str]], Matches]:
    def make(values: list[str]) -> Matches:
        try:
            at = datetime.fromisoformat(values[-1].replace(" ", "+"))
        except ValueError:
            raise Invalid("compute.filter", f"{field}: {values[-1]!r} is not a time.", field=field) from None
        at_s = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
        return lambda server: (server.updated_at_s >= at_s) if later else (server.updated_at_s <= at_s)

    return make


def _tags(test: Callable[[set[str], set[str]], bool]) -> Callable[[list[str]], Matches]:
    def make(values: list[str]) -> Matches:
        wanted = set(values[-1].split(","))
        return lambda server: test(wanted, set(server.tags))

    return make


_TESTS: Final[Mapping[str, Callable[[list[str]], Matches | None]]] = {
    "name": _regex("name", lambda server: server.name),
    "display_name": _regex("display_name", lambda server: server.name),
    "hostname": _regex("hostname", lambda server: server.hostname),
    "description": _regex("description", lambda server: server.description),
    "status": _status,
    "vm_state": _vm_state,
    "task_state": _task_state,
    "power_state": _power_state,
    "image": _image,
    "flavor": _flavor,
    "ip": _addresses(4),
    "ip6": _addresses(6),
    "changes-since": _moment("changes-since", True),
    "changes-before": _moment("changes-before", False),
    "tags": _tags(lambda wanted, held: wanted <= held),
    "tags-any": _tags(lambda wanted, held: bool(wanted & held)),
    "not-tags": _tags(lambda wanted, held: not wanted <= held),
    "not-tags-any": _tags(lambda wanted, held: not wanted & held),
    "key_name": lambda values: lambda server: server.key is not None and server.key.name in values,
    "availability_zone": lambda values: lambda server: (server.zone or "nova") in values,
    "config_drive": lambda values: lambda server: server.config_drive is boolean("config_drive", values[-1]),
    "locked": lambda values: lambda server: server.locked is boolean("locked", values[-1]),
    "access_ip_v4": lambda values: lambda server: server.access_ipv4 in values,
    "access_ip_v6": lambda values: lambda server: server.access_ipv6 in values,
}


# ---------------------------------------------------------------------- one server
async def show_server(request: ApiRequest) -> Reply:
    server = await compute_of(request).server(request.who, request.params["id"])
    return Reply({"server": _view(request, server)})


def _view(request: ApiRequest, server: Server) -> dict[str, Any]:
    silent = server.host in compute_of(request).hosts.silent
    return views.server_view(server, base_of(request), admin=request.who.is_admin, silent=silent)


async def create_server(request: ApiRequest) -> Reply:
    body = request.body
    command = create_command(body, request.who)
    password = body.server.adminPass or "".join(secrets.choice(_PASSWORD) for _ in range(12))
    servers = await compute_of(request).create_servers(request.who, command)
    if truth("server.return_reservation_id", body.server.return_reservation_id):
        return Reply({"reservation_id": servers[0].reservation_id})
    first = servers[0]
    base = base_of(request)
    view = {
        "id": first.id,
        "links": views.server_links(first.id, base),
        "OS-DCF:diskConfig": first.disk_config,
        "security_groups": [{"name": name} for name in first.security_groups or ("default",)],
        "adminPass": password,
    }
    return Reply({"server": view}, headers={"Location": f"{base}/v2.1/servers/{first.id}"})


async def update_server(request: ApiRequest) -> Reply:
    server = await compute_of(request).update(request.who, request.params["id"], update_command(request.body))
    return Reply({"server": _view(request, server)})


async def delete_server(request: ApiRequest) -> Reply:
    await compute_of(request).delete(request.who, request.params["id"])
    return Reply()


# ---------------------------------------------------------------------- addresses, security groups, ports
async def list_addresses(request: ApiRequest) -> Reply:
    server = await compute_of(request).server(request.who, request.params["id"])
    found = views.addresses(server.ports)
    return Reply({"addresses": {name: [_plain(item) for item in items] for name, items in found.items()}})


async def show_addresses(request: ApiRequest) -> Reply:
    server = await compute_of(request).server(request.who, request.params["id"])
    found, label = views.addresses(server.ports), request.params["label"]
    if label not in found:
        raise NotFound("compute.no_network", f"Network {label} not found for instance {server.id}")
    return Reply({label: [_plain(item) for item in found[label]]})


def _plain(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"version": item["version"], "addr": item["addr"]}


async def list_security_groups(request: ApiRequest) -> Reply:
    server = await compute_of(request).server(request.who, request.params["id"])
    groups = [
        {"id": id, "name": name, "description": "", "tenant_id": server.project_id, "rules": []}
        for id, name in views.security_groups(server.ports).items()
    ]
    return Reply({"security_groups": groups})


async def list_interfaces(request: ApiRequest) -> Reply:
    server = await compute_of(request).server(request.who, request.params["id"])
    return Reply({"interfaceAttachments": [_interface(server, port) for port in server.ports]})


async def show_interface(request: ApiRequest) -> Reply:
    server = await compute_of(request).server(request.who, request.params["id"])
    for port in server.ports:
        if port.id == request.params["port_id"]:
            return Reply({"interfaceAttachment": _interface(server, port)})
    shown = f"Instance {server.id} does not have a port with id {request.params['port_id']}"
    raise NotFound("compute.no_interface", shown)


def _interface(server: Server, port: ServerPort) -> dict[str, Any]:
    return {
        "port_id": port.id,
        "net_id": port.network_id,
        "mac_addr": port.mac,
        "port_state": "ACTIVE" if server.launched_at_s else "DOWN",
        "fixed_ips": [{"subnet_id": ip.subnet_id, "ip_address": ip.address} for ip in port.fixed_ips],
        "tag": port.tag,
    }


async def list_volume_attachments(request: ApiRequest) -> Reply:
    await compute_of(request).server(request.who, request.params["id"])
    return Reply({"volumeAttachments": []})


async def show_topology(request: ApiRequest) -> Reply:
    """Guests have no NUMA nodes of their own, and the pages that the host happens to have."""
    await compute_of(request).server(request.who, request.params["id"])
    return Reply({"nodes": [], "pagesize_kb": None})


async def diagnostics(request: ApiRequest) -> Reply:
    server = await compute_of(request).server(request.who, request.params["id"])
    if server.seen is None or server.seen.power is not Power.ON:
        raise Conflict("compute.wrong_state", f"Cannot 'get_diagnostics' instance {server.id} while it is not running")
    return Reply(views.diagnostics(server))


async def show_password(request: ApiRequest) -> Reply:
    server = await compute_of(request).server(request.who, request.params["id"])
    return Reply({"password": server.password})


async def forget_password(request: ApiRequest) -> Reply:
    await compute_of(request).forget_password(request.who, request.params["id"])
    return Reply()


# ---------------------------------------------------------------------- metadata
async def list_metadata(request: ApiRequest) -> Reply:
    server = await compute_of(request).server(request.who, request.params["id"])
    return Reply({"metadata": server.metadata})


async def replace_metadata(request: ApiRequest) -> Reply:
    return Reply({"metadata": await _set_metadata(request, lambda _: dict(request.body.metadata))})


async def merge_metadata(request: ApiRequest) -> Reply:
    return Reply({"metadata": await _set_metadata(request, lambda old: {**old, **request.body.metadata})})


async def show_metadata_item(request: ApiRequest) -> Reply:
    server = await compute_of(request).server(request.who, request.params["id"])
    return Reply({"meta": {request.params["key"]: _item(server.metadata, request.params["key"])}})


async def set_metadata_item(request: ApiRequest) -> Reply:
    key, meta = request.params["key"], request.body.meta
    if list(meta) != [key]:
        raise Invalid("compute.metadata", "meta: Request body and URI mismatch: the one key of the path.", field="meta")
    await _set_metadata(request, lambda old: {**old, **meta})
    return Reply({"meta": meta})


async def delete_metadata_item(request: ApiRequest) -> Reply:
    key = request.params["key"]

    def drop(old: dict[str, str]) -> dict[str, str]:
        _item(old, key)
        return {name: value for name, value in old.items() if name != key}

    await _set_metadata(request, drop)
    return Reply()


async def _set_metadata(request: ApiRequest, decide: Callable[[dict[str, str]], dict[str, str]]) -> dict[str, str]:
    return await compute_of(request).set_metadata(request.who, request.params["id"], decide)


def _item(metadata: Mapping[str, str], key: str) -> str:
    if key not in metadata:
        raise NotFound("compute.no_metadata", f"Metadata item was not found: {key[:255]}")
    return metadata[key]


# ---------------------------------------------------------------------- tags
async def list_tags(request: ApiRequest) -> Reply:
    server = await compute_of(request).server(request.who, request.params["id"])
    return Reply({"tags": server.tags})


async def replace_tags(request: ApiRequest) -> Reply:
    return Reply({"tags": await _set_tags(request, lambda _: tuple(dict.fromkeys(request.body.tags)))})


async def delete_tags(request: ApiRequest) -> Reply:
    await _set_tags(request, lambda _: ())
    return Reply()


async def check_tag(request: ApiRequest) -> Reply:
    server = await compute_of(request).server(request.who, request.params["id"])
    if request.params["tag"] not in server.tags:
        raise NotFound("compute.no_tag", f"Server {server.id} has no tag '{request.params['tag']}'")
    return Reply()


async def add_tag(request: ApiRequest) -> Reply:
    tag = request.params["tag"]
    if not 1 <= len(tag) <= 60 or "," in tag or "/" in tag:
        raise Invalid("compute.tag", "tag: 1 to 60 characters without ',' and '/'.", field="tag")
    known: list[bool] = []

    def add(old: tuple[str, ...]) -> tuple[str, ...]:
        known.append(tag in old)
        if tag not in old and len(old) >= 50:
            raise Invalid("compute.tag", "tags: a server has at most 50.", field="tags")
        return old if tag in old else (*old, tag)

    await _set_tags(request, add)
    here = f"{base_of(request)}/v2.1/servers/{request.params['id']}/tags/{tag}"
    return Reply(status=204) if known[-1] else Reply(status=201, headers={"Location": here})


async def delete_tag(request: ApiRequest) -> Reply:
    tag = request.params["tag"]

    def drop(old: tuple[str, ...]) -> tuple[str, ...]:
        if tag not in old:
            raise NotFound("compute.no_tag", f"Server {request.params['id']} has no tag '{tag}'")
        return tuple(item for item in old if item != tag)

    await _set_tags(request, drop)
    return Reply()


async def _set_tags(request: ApiRequest, decide: Callable[[tuple[str, ...]], tuple[str, ...]]) -> tuple[str, ...]:
    return await compute_of(request).set_tags(request.who, request.params["id"], decide)


# ---------------------------------------------------------------------- instance actions
async def list_actions(request: ApiRequest) -> Reply:
    page = page_of(request)
    found = list(await compute_of(request).actions(request.who, request.params["id"]))
    if page.marker is not None:
        places = [place for place, action in enumerate(found) if action.request_id == page.marker]
        if not places:
            raise Invalid("compute.marker", f"marker [{page.marker}] not found", field="marker")
        found = found[places[0] + 1 :]
    return Reply({"instanceActions": [views.action_view(action) for action in found[: page.limit]]})


async def show_action(request: ApiRequest) -> Reply:
    found = await compute_of(request).actions(request.who, request.params["id"])
    action: Action | None = next((a for a in found if a.request_id == request.params["request_id"]), None)
    if action is None:
        raise NotFound("compute.no_action", f"Action for request_id {request.params['request_id']} not found")
    view = views.action_view(action)
    view["events"] = views.events_view(action, admin=request.who.is_admin)
    return Reply({"instanceAction": view})

"""Compute microversions 2.1 to 2.100 as translations: what each took from or gave to the bodies of our operations.

Source: Nova's "REST API Version History".  Versions that touch only what we do not have yet (volumes, migrations,
shelving) change nothing here and are answered like their neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from apus.kernel.errors import Invalid
from apus.wire.versions import Body, Change, Version, VersionChain

MINIMUM: Final[Version] = (2, 1)
MAXIMUM: Final[Version] = (2, 100)

_SHOWS: Final = ("show_server", "list_servers_detail")
_CHANGES: Final = ("update_server",)

Down = Callable[[Body], Body]


def _each_server(body: Body) -> Iterable[dict[str, Any]]:
    if "server" in body:
        return (body["server"],)
    servers: list[dict[str, Any]] = body.get("servers", [])
    return servers


def _drop(*keys: str) -> Down:
    def down(body: Body) -> Body:
        for server in _each_server(body):
            for key in keys:
                server.pop(key, None)
        return body

    return down


def _flavor_as_link(body: Body) -> Body:
    """Before 2.47 a server showed its flavor as an id with a link."""
    for server in _each_server(body):
        links = server.get("links") or []
        base = links[1]["href"].rsplit("/servers/", 1)[0] if len(links) > 1 else ""
        id = server["flavor"].get("_id")
        server["flavor"] = {"id": id, "links": [{"rel": "bookmark", "href": f"{base}/flavors/{id}"}]}
    return body


def _image_without_properties(body: Body) -> Body:
    for server in _each_server(body):
        if isinstance(server.get("image"), dict):
            server["image"].pop("properties", None)
    return body


def _attributes_for_admins_only_from_2_3(body: Body) -> Body:
    """The attributes that 2.3 brought; `hostname` was among them."""
    names = ("hostname", "kernel_id", "launch_index", "ramdisk_id", "reservation_id", "root_device_name", "user_data")
    return _drop(*(f"OS-EXT-SRV-ATTR:{name}" for name in names))(body)


def _hostname_for_admins_before_2_90(body: Body) -> Body:
    for server in _each_server(body):
        if "OS-EXT-SRV-ATTR:host" not in server:
            server.pop("OS-EXT-SRV-ATTR:hostname", None)
    return body


def _on(operations: Iterable[str], since: Version, down: Down) -> list[Change]:
    return [Change(since, operation, down=down) for operation in operations]


# ---------------------------------------------------------------------- requests
def _refuse(where: str, *fields: str) -> Callable[[Body], Body]:
    """A field that this version did not know yet."""

    def up(body: Body) -> Body:
        inner = body.get(where)
        for field in fields:
            if isinstance(inner, dict) and field in inner:
                raise Invalid(
                    "compute.unknown_field",
                    f"Invalid input for field/attribute {where}. Additional properties are not allowed ('{field}' was "
                    "unexpected in this microversion)",
                    field=f"{where}.{field}",
                )
        return body

    return up


def _optional_networks(body: Body) -> Body:
    """Before 2.37 networks could be left out: the project's own, or none when it has none."""
    server = body.get("server")
    if isinstance(server, dict):
        server = {**server}
        if server.get("networks") in ("auto", "none"):
            raise Invalid(
                "compute.networks", "networks: 'auto' and 'none' need microversion 2.37.", field="server.networks"
            )
        if server.get("networks") is None:
            server["networks"] = "default"
        return {**body, "server": server}
    return body


def _personality_allowed(body: Body) -> Body:
    """2.57 took file injection away; the body of older versions still carries it, under a name of ours."""
    server = body.get("server")
    if isinstance(server, dict) and "personality" in server:
        server = {**server, "_personality": server["personality"]}
        del server["personality"]
        return {**body, "server": server}
    return body


def _generated_key_allowed(body: Body) -> Body:
    """2.92 stopped making key pairs; older versions ask for one by leaving the public key out."""
    keypair = body.get("keypair")
    return {**body, "keypair": {**keypair, "_generate": True}} if isinstance(keypair, dict) else body


def _policies_as_list_up(body: Body) -> Body:
    """Before 2.64 a group had a list with one policy."""
    group = body.get("server_group")
    if not isinstance(group, dict):
        return body
    policies = group.get("policies")
    if not isinstance(policies, list) or len(policies) != 1 or not isinstance(policies[0], str):
        raise Invalid(
            "compute.policies", "server_group.policies: a list of exactly one policy.", field="server_group.policies"
        )
    rest = {key: value for key, value in group.items() if key != "policies"}
    if "policy" in rest or "rules" in rest:
        raise Invalid(
            "compute.policies", "server_group: policy and rules need microversion 2.64.", field="server_group"
        )
    return {**body, "server_group": {**rest, "policy": policies[0]}}


def _group_down(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Down:
    def down(body: Body) -> Body:
        if "server_group" in body:
            return {**body, "server_group": change(body["server_group"])}
        if "server_groups" in body:
            return {**body, "server_groups": [change(group) for group in body["server_groups"]]}
        return body

    return down


def _group_without_owner(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in ("project_id", "user_id")}


def _policies_as_list(group: dict[str, Any]) -> dict[str, Any]:
    rest = {key: value for key, value in group.items() if key not in ("policy", "rules")}
    return {**rest, "policies": [group["policy"]], "metadata": {}}


# ---------------------------------------------------------------------- other replies
def _flavors(change: Callable[[dict[str, Any]], None]) -> Down:
    def down(body: Body) -> Body:
        for flavor in (body["flavor"],) if "flavor" in body else body.get("flavors", ()):
            change(flavor)
        return body

    return down


def _drop_from_flavor(*keys: str) -> Down:
    def change(flavor: dict[str, Any]) -> None:
        for key in keys:
            flavor.pop(key, None)

    return _flavors(change)


def _swap_as_text(flavor: dict[str, Any]) -> None:
    if flavor.get("swap") == 0:
        flavor["swap"] = ""


def _keypairs_without(*keys: str) -> Down:
    def down(body: Body) -> Body:
        items = [body["keypair"]] if "keypair" in body else [item["keypair"] for item in body.get("keypairs", ())]
        for item in items:
            for key in keys:
                item.pop(key, None)
        return body

    return down


def _actions_without(*keys: str) -> Down:
    def down(body: Body) -> Body:
        action = body.get("instanceAction")
        for item in [action] if action else body.get("instanceActions", ()):
            for key in keys:
                item.pop(key, None)
        return body

    return down


def _events_without(*keys: str) -> Down:
    def down(body: Body) -> Body:
        for event in body.get("instanceAction", {}).get("events", ()):
            for key in keys:
                event.pop(key, None)
        return body

    return down


def _limits_with(**extra: int) -> Down:
    def down(body: Body) -> Body:
        body["limits"]["absolute"].update(extra)
        return body

    return down


def _quota_with(**extra: int) -> Down:
    def down(body: Body) -> Body:
        for value in body.values():
            detailed = isinstance(value.get("instances"), dict)
            for key, default in extra.items():
                limit = value.get("_old", {}).get(key, default)
                value[key] = {"in_use": 0, "limit": limit, "reserved": 0} if detailed else limit
        return body

    return down


def _quota_class_without(*keys: str) -> Down:
    def down(body: Body) -> Body:
        for key in keys:
            body["quota_class_set"].pop(key, None)
        return body

    return down


def _services(change: Callable[[dict[str, Any]], None]) -> Down:
    def down(body: Body) -> Body:
        for item in body.get("services", ()):
            change(item)
        return body

    return down


def _hypervisors(change: Callable[[dict[str, Any]], None]) -> Down:
    def down(body: Body) -> Body:
        for item in (body["hypervisor"],) if "hypervisor" in body else body.get("hypervisors", ()):
            change(item)
        return body

    return down


def _hypervisor_numbers(item: dict[str, Any]) -> None:
    item.update(item.pop("_resources", {}))
    item.pop("uptime", None)


def _hypervisor_by_number(item: dict[str, Any]) -> None:
    item["id"] = item.pop("_number")
    service = item.get("service")
    if service:
        service["id"] = service.pop("_number")


def _without_servers(item: dict[str, Any]) -> None:
    item.pop("servers", None)


def _service_by_number(item: dict[str, Any]) -> None:
    item["id"] = item.pop("_number")


def _without_forced_down(item: dict[str, Any]) -> None:
    item.pop("forced_down", None)


def _cpu_info_as_text(item: dict[str, Any]) -> None:
    if "cpu_info" in item:
        item["cpu_info"] = "{}"


def _interfaces_without_tag(body: Body) -> Body:
    one = body.get("interfaceAttachment")
    for item in [one] if one else body["interfaceAttachments"]:
        del item["tag"]
    return body


def _aggregates_without_uuid(body: Body) -> Body:
    for item in (body["aggregate"],) if "aggregate" in body else body.get("aggregates", ()):
        del item["uuid"]
    return body


_AGGREGATES: Final = (
    "list_aggregates", "create_aggregate", "show_aggregate", "update_aggregate", "act_on_aggregate",
)  # fmt: skip
_FLAVORS: Final = ("show_flavor", "list_flavors_detail", "create_flavor", "update_flavor")
_QUOTAS: Final = ("show_quota", "default_quota", "update_quota", "detail_quota")
_QUOTA_CLASSES: Final = ("show_quota_class", "update_quota_class")
_GROUPS: Final = ("create_group", "show_group", "list_groups")
_HYPERVISORS: Final = ("list_hypervisors", "list_hypervisors_detail", "show_hypervisor")

_ALL_VIEWS: Final = (*_SHOWS, *_CHANGES)

_UPDATE_BEFORE_2_75: Final = frozenset({
    "id", "name", "status", "tenant_id", "user_id", "metadata", "hostId", "image", "flavor", "created", "updated",
    "addresses", "accessIPv4", "accessIPv6", "links", "OS-DCF:diskConfig", "progress", "fault", "locked",
    "description", "tags", "trusted_image_certificates", "server_groups", "locked_reason",
})  # fmt: skip


def _only(body: Body, keys: frozenset[str]) -> Body:
    return {**body, "server": {key: value for key, value in body["server"].items() if key in keys}}


CHANGES: Final = (
    Change((2, 2), "create_keypair", up=_refuse("keypair", "type"), down=_keypairs_without("type")),
    *_on(("show_keypair", "list_keypairs"), (2, 2), _keypairs_without("type")),
    *_on(_ALL_VIEWS, (2, 3), _attributes_for_admins_only_from_2_3),
    *_on(_ALL_VIEWS, (2, 9), _drop("locked")),
    Change((2, 10), "create_keypair", up=_refuse("keypair", "user_id")),
    *_on(("list_services",), (2, 11), _services(_without_forced_down)),
    *_on(_GROUPS, (2, 13), _group_down(_group_without_owner)),
    *_on(_ALL_VIEWS, (2, 16), _drop("host_status")),
    *_on(_ALL_VIEWS, (2, 19), _drop("description")),
    Change((2, 19), "create_server", up=_refuse("server", "description")),
    Change((2, 19), "update_server", up=_refuse("server", "description")),
    *_on(_ALL_VIEWS, (2, 26), _drop("tags")),
    *_on(_HYPERVISORS, (2, 28), _hypervisors(_cpu_info_as_text)),
    *_on(_QUOTAS, (2, 36), _quota_with(floating_ips=-1, fixed_ips=-1, security_groups=-1, security_group_rules=-1)),
    *_on(_QUOTA_CLASSES, (2, 50), _quota_class_without("server_groups", "server_group_members")),
    *_on(_QUOTA_CLASSES, (2, 50), _quota_with(
        floating_ips=-1, fixed_ips=-1, security_groups=-1, security_group_rules=-1,
    )),
    *_on(("limits",), (2, 36), _limits_with(
        maxSecurityGroups=-1, maxSecurityGroupRules=-1, maxTotalFloatingIps=-1, totalFloatingIpsUsed=0,
        totalSecurityGroupsUsed=0,
    )),
    Change((2, 37), "create_server", up=_optional_networks),
    *_on(("limits",), (2, 39), _limits_with(maxImageMeta=128)),
    *_on(_ALL_VIEWS, (2, 47), _flavor_as_link),
    *_on(_AGGREGATES, (2, 41), _aggregates_without_uuid),
    Change((2, 48), "diagnostics", down=lambda body: {"memory": body["memory_details"]["maximum"] << 10}),
    *_on(("show_action",), (2, 51), _actions_without("updated_at")),
    Change((2, 52), "create_server", up=_refuse("server", "tags")),
    *_on((*_HYPERVISORS, "hypervisor_servers"), (2, 53), _hypervisors(_hypervisor_by_number)),
    *_on(_HYPERVISORS, (2, 53), _hypervisors(_without_servers)),
    *_on(("list_services",), (2, 53), _services(_service_by_number)),
    *_on((*_FLAVORS, "list_flavors"), (2, 55), _drop_from_flavor("description")),
    Change((2, 55), "create_flavor", up=_refuse("flavor", "description")),
    Change((2, 57), "create_server", up=_personality_allowed),
    *_on((*_QUOTAS, *_QUOTA_CLASSES), (2, 57), _quota_with(
        injected_files=5, injected_file_content_bytes=10240, injected_file_path_bytes=255,
    )),
    *_on(("limits",), (2, 57), _limits_with(maxPersonality=5, maxPersonalitySize=10240)),
    *_on(("list_actions",), (2, 58), _actions_without("updated_at")),
    *_on(_FLAVORS, (2, 61), _drop_from_flavor("extra_specs")),
    *_on(("show_action",), (2, 62), _events_without("host", "hostId")),
    *_on(_ALL_VIEWS, (2, 63), _drop("trusted_image_certificates")),
    Change((2, 63), "create_server", up=_refuse("server", "trusted_image_certificates")),
    Change((2, 64), "create_group", up=_policies_as_list_up, down=_group_down(_policies_as_list)),
    *_on(("show_group", "list_groups"), (2, 64), _group_down(_policies_as_list)),
    *_on(("list_interfaces", "show_interface"), (2, 70), _interfaces_without_tag),
    *_on(_ALL_VIEWS, (2, 71), _drop("server_groups")),
    *_on(_ALL_VIEWS, (2, 73), _drop("locked_reason")),
    Change((2, 74), "create_server", up=_refuse("server", "host", "hypervisor_hostname")),
    *_on(_FLAVORS, (2, 75), _flavors(_swap_as_text)),
    Change((2, 75), "update_server", down=lambda body: _only(body, _UPDATE_BEFORE_2_75)),
    *_on(("show_action",), (2, 84), _events_without("details")),
    *_on(_HYPERVISORS, (2, 88), _hypervisors(_hypervisor_numbers)),
    *_on(_ALL_VIEWS, (2, 90), _hostname_for_admins_before_2_90),
    Change((2, 90), "create_server", up=_refuse("server", "hostname")),
    Change((2, 90), "update_server", up=_refuse("server", "hostname")),
    Change((2, 92), "create_keypair", up=_generated_key_allowed),
    *_on(_ALL_VIEWS, (2, 96), _drop("pinned_availability_zone")),
    *_on(_ALL_VIEWS, (2, 98), _image_without_properties),
    *_on(_ALL_VIEWS, (2, 100), _drop("scheduler_hints")),
)  # fmt: skip


class ComputeVersions(VersionChain):
    """A chain whose views carry, under names with an underscore, what only older versions show."""

    def downgrade(self, view: Body, operation: str, asked: Version) -> Body:
        view = super().downgrade(view, operation, asked)
        for server in _each_server(view) if operation in _ALL_VIEWS else ():
            if isinstance(server.get("flavor"), dict):
                server["flavor"].pop("_id", None)
        for kind in ("hypervisors", "services"):
            for item in view.get(kind, ()) if isinstance(view.get(kind), list) else ():
                _hide(item)
        if operation in (*_QUOTAS, *_QUOTA_CLASSES):
            for limits in view.values():
                limits.pop("_old", None)
        if operation in _HYPERVISORS and "hypervisor" in view:
            _hide(view["hypervisor"])
        return view


def _hide(item: dict[str, Any]) -> None:
    for key in ("_number", "_resources"):
        item.pop(key, None)
    if isinstance(item.get("service"), dict):
        item["service"].pop("_number", None)


class WithoutMicroversions(ComputeVersions):
    """Of `/v2`: the oldest, whatever the headers say."""

    def negotiate(self, headers: Mapping[str, str]) -> Version:
        return self.minimum


VERSIONS: Final = ComputeVersions("compute", MINIMUM, MAXIMUM, CHANGES, legacy_header="x-openstack-nova-api-version")
OLDEST: Final = WithoutMicroversions("compute", MINIMUM, MINIMUM, CHANGES)

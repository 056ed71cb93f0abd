"""Bodies of the Networking API v2.0 (network API reference), and their fields in our own words.

An attribute that was not given is UNSET and never reaches the service: an update changes what it names.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from apus.services.network.logic import limits

Name = Annotated[str, Meta(max_length=limits.NAME_MAX)]
Description = Annotated[str, Meta(max_length=limits.DESCRIPTION_MAX)]
Tag = Annotated[str, Meta(min_length=1, max_length=limits.TAG_MAX)]
Text = Annotated[str, Meta(max_length=255)]
Whole = int | Annotated[str, Meta(pattern=r"^[0-9]{1,9}\Z")]
"""The `openstack` command sends some numbers as texts."""


class Attributes(msgspec.Struct, forbid_unknown_fields=True):
    def given(self) -> dict[str, Any]:
        """Attribute -> value of those that were given, nested ones as plain values; `tenant_id` is an old name."""
        fields = {
            name: msgspec.to_builtins(value)
            for name in self.__struct_fields__
            if (value := getattr(self, name)) is not UNSET
        }
        tenant = fields.pop("tenant_id", None)
        return {"project_id": tenant, **fields} if tenant else fields


class NetworkUpdate(Attributes):
    name: Name | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    shared: bool | UnsetType = UNSET
    external: bool | UnsetType = msgspec.field(default=UNSET, name="router:external")
    is_default: bool | UnsetType = UNSET
    mtu: Whole | UnsetType = UNSET
    dns_domain: Text | UnsetType | None = UNSET
    port_security: bool | UnsetType = msgspec.field(default=UNSET, name="port_security_enabled")

    def given(self) -> dict[str, Any]:
        fields = super().given()
        return fields | {name: int(fields[name]) for name in ("mtu", "vlan_id") if fields.get(name) is not None}


class NetworkCreate(NetworkUpdate):
    project_id: Text | UnsetType = UNSET
    tenant_id: Text | UnsetType = UNSET
    provider_type: str | UnsetType = msgspec.field(default=UNSET, name="provider:network_type")
    physical_network: str | UnsetType | None = msgspec.field(default=UNSET, name="provider:physical_network")
    vlan_id: Whole | UnsetType | None = msgspec.field(default=UNSET, name="provider:segmentation_id")
    availability_zone_hints: list[Text] | UnsetType = UNSET


class PoolBody(Attributes):
    start: Text
    end: Text


class RouteBody(Attributes):
    destination: Text
    nexthop: Text


Mode = Literal["slaac", "dhcpv6-stateful", "dhcpv6-stateless"]


class SubnetUpdate(Attributes):
    name: Name | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    gateway_ip: Text | UnsetType | None = UNSET
    enable_dhcp: bool | UnsetType = UNSET
    dns_nameservers: Annotated[list[Text], Meta(max_length=limits.NAMESERVERS_MAX)] | UnsetType | None = UNSET
    host_routes: Annotated[list[RouteBody], Meta(max_length=limits.ROUTES_MAX)] | UnsetType | None = UNSET
    allocation_pools: Annotated[list[PoolBody], Meta(max_length=limits.POOLS_MAX)] | UnsetType | None = UNSET
    service_types: list[Text] | UnsetType = UNSET
    dns_publish_fixed_ip: bool | UnsetType = UNSET


class SubnetCreate(SubnetUpdate, kw_only=True):
    project_id: Text | UnsetType = UNSET
    tenant_id: Text | UnsetType = UNSET
    network_id: Text
    ip_version: int = 4
    cidr: Text | UnsetType | None = UNSET
    ipv6_ra_mode: Mode | UnsetType | None = UNSET
    ipv6_address_mode: Mode | UnsetType | None = UNSET


class FixedIpBody(Attributes):
    subnet_id: Text | None = None
    ip_address: Text | None = None


class PairBody(Attributes):
    ip_address: Text
    mac_address: Text | None = None


class DhcpOptionBody(Attributes):
    opt_name: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-z0-9-]+\Z")]
    opt_value: Annotated[str, Meta(max_length=255, pattern=r"^[\x20-\x7e]*\Z")] | None = None
    ip_version: Literal[4, 6, "4", "6"] = 4


class PortUpdate(Attributes):
    name: Name | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    admin_state_up: bool | UnsetType = UNSET
    mac_address: Text | UnsetType = UNSET
    fixed_ips: Annotated[list[FixedIpBody], Meta(max_length=limits.FIXED_IPS_MAX)] | UnsetType = UNSET
    device_id: Text | UnsetType = UNSET
    device_owner: Text | UnsetType = UNSET
    security_groups: Annotated[list[Text], Meta(max_length=limits.GROUPS_PER_PORT_MAX)] | UnsetType | None = UNSET
    allowed_address_pairs: Annotated[list[PairBody], Meta(max_length=limits.PAIRS_MAX)] | UnsetType | None = UNSET
    extra_dhcp_opts: Annotated[list[DhcpOptionBody], Meta(max_length=20)] | UnsetType | None = UNSET
    port_security_enabled: bool | UnsetType = UNSET
    host_id: Text | UnsetType | None = msgspec.field(default=UNSET, name="binding:host_id")
    vnic_type: Literal["normal"] | UnsetType = msgspec.field(default=UNSET, name="binding:vnic_type")
    profile: dict[str, Any] | UnsetType | None = msgspec.field(default=UNSET, name="binding:profile")
    dns_name: Annotated[str, Meta(max_length=63, pattern=r"^[A-Za-z0-9-]*\Z")] | UnsetType | None = UNSET

    def given(self) -> dict[str, Any]:
        fields = super().given()
        for short in ("host_id", "vnic_type", "profile"):
            if short in fields:
                fields[f"binding:{short}"] = fields.pop(short)
        return fields


class PortCreate(PortUpdate, kw_only=True):
    project_id: Text | UnsetType = UNSET
    tenant_id: Text | UnsetType = UNSET
    network_id: Text


class GroupUpdate(Attributes):
    name: Name | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    stateful: bool | UnsetType = UNSET


class GroupCreate(Attributes, kw_only=True):
    project_id: Text | UnsetType = UNSET
    tenant_id: Text | UnsetType = UNSET
    name: Name
    description: Description | UnsetType = UNSET
    stateful: bool | UnsetType = UNSET


class RuleCreate(Attributes, kw_only=True):
    project_id: Text | UnsetType = UNSET
    tenant_id: Text | UnsetType = UNSET
    security_group_id: Text
    direction: Literal["ingress", "egress"]
    ethertype: Text | None = None
    protocol: str | int | None = None
    port_range_min: int | None = None
    port_range_max: int | None = None
    remote_ip_prefix: Text | None = None
    remote_group_id: Text | None = None
    description: Description = ""


class QuotaBody(msgspec.Struct):
    quota: dict[str, Any]


class TagsBody(Attributes):
    tags: Annotated[list[Tag], Meta(max_length=limits.TAGS_MAX)]


def created(noun: str, plural: str, type_: type[Attributes]) -> Any:
    """`{"port": {…}}`, or `{"ports": [{…}, …]}` for many at once."""
    many = Annotated[list[type_], Meta(min_length=1, max_length=limits.BULK_MAX)]  # type: ignore[valid-type]
    return msgspec.defstruct(
        f"{type_.__name__}Body",
        [("one", type_ | UnsetType, msgspec.field(default=UNSET, name=noun)),
         ("many", many | UnsetType, msgspec.field(default=UNSET, name=plural))],
        forbid_unknown_fields=True,
    )  # fmt: skip


def updated(noun: str, type_: type[Attributes]) -> Any:
    return msgspec.defstruct(
        f"{type_.__name__}Body", [("one", type_, msgspec.field(name=noun))], forbid_unknown_fields=True
    )

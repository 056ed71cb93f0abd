"""What the network service keeps.  Addresses and memberships are rows of their own, so that the store itself holds
that an address belongs to one port.
"""

from __future__ import annotations

import msgspec

from apus.kernel.record import Record


class Network(Record, frozen=True, kw_only=True):
    project_id: str
    name: str = ""
    description: str = ""
    admin_state_up: bool = True
    shared: bool = False
    external: bool = False
    is_default: bool = False
    mtu: int = 1500
    dns_domain: str = ""
    port_security: bool = True
    physical_network: str | None = None
    vlan_id: int | None = None
    nat: bool = True
    """Guests reach the outside behind their host (until routers decide it)."""
    host_reachable: bool = False
    """The host reaches the guests; only the operator's own network, for ranges of tenants overlap."""
    availability_zone_hints: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    created_at_s: float = 0.0
    updated_at_s: float = 0.0


class Route(msgspec.Struct, frozen=True, kw_only=True):
    destination: str
    nexthop: str


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    start: str
    end: str


class Subnet(Record, frozen=True, kw_only=True):
    network_id: str
    project_id: str
    cidr: str
    ip_version: int
    name: str = ""
    description: str = ""
    gateway_ip: str | None = None
    service_ip: str | None = None
    """Where DHCP answers from when there is no gateway."""
    enable_dhcp: bool = True
    dns_nameservers: tuple[str, ...] = ()
    host_routes: tuple[Route, ...] = ()
    allocation_pools: tuple[Pool, ...] = ()
    ipv6_ra_mode: str | None = None
    ipv6_address_mode: str | None = None
    service_types: tuple[str, ...] = ()
    dns_publish_fixed_ip: bool = False
    tags: tuple[str, ...] = ()
    created_at_s: float = 0.0
    updated_at_s: float = 0.0

    @property
    def self_addressed(self) -> bool:
        """Guests make their own address from the router's advertisement and their MAC."""
        return self.ip_version == 6 and self.ipv6_address_mode in ("slaac", "dhcpv6-stateless")


class FixedIp(msgspec.Struct, frozen=True, kw_only=True):
    subnet_id: str
    ip_address: str


class AddressPair(msgspec.Struct, frozen=True, kw_only=True):
    ip_address: str
    mac_address: str


class DhcpOption(msgspec.Struct, frozen=True, kw_only=True):
    opt_name: str
    opt_value: str
    ip_version: int = 4


class Port(Record, frozen=True, kw_only=True):
    project_id: str
    network_id: str
    mac: str
    name: str = ""
    description: str = ""
    admin_state_up: bool = True
    device_id: str = ""
    device_owner: str = ""
    host: str = ""
    vnic_type: str = "normal"
    binding_profile: dict[str, object] = {}
    fixed_ips: tuple[FixedIp, ...] = ()
    allowed_address_pairs: tuple[AddressPair, ...] = ()
    dhcp_options: tuple[DhcpOption, ...] = ()
    security_groups: tuple[str, ...] = ()
    port_security: bool = True
    dns_name: str = ""
    made_for_server: bool = False
    place: int = 0
    """Order among the ports of its server."""
    device_tag: str | None = None
    tags: tuple[str, ...] = ()
    created_at_s: float = 0.0
    updated_at_s: float = 0.0


class Address(Record, frozen=True, kw_only=True):
    """An address in use; its id is `subnet/address`, so there is one of it."""

    subnet_id: str
    port_id: str
    address: str


class Membership(Record, frozen=True, kw_only=True):
    """A port in a security group; its id is `port/group`."""

    port_id: str
    group_id: str


class Plugged(Record, frozen=True, kw_only=True):
    """The host's own word: this port (its id) is plugged there."""

    host: str


class SecurityGroup(Record, frozen=True, kw_only=True):
    project_id: str
    name: str
    description: str = ""
    stateful: bool = True
    tags: tuple[str, ...] = ()
    created_at_s: float = 0.0
    updated_at_s: float = 0.0


class Rule(Record, frozen=True, kw_only=True):
    project_id: str
    group_id: str
    direction: str
    ethertype: str
    protocol: str | None = None
    port_min: int | None = None
    port_max: int | None = None
    remote_ip_prefix: str | None = None
    remote_group_id: str | None = None
    description: str = ""
    created_at_s: float = 0.0
    updated_at_s: float = 0.0


class Quota(Record, frozen=True, kw_only=True):
    """What an operator set for a project (its id); absent keys are the defaults."""

    limits: dict[str, int] = {}


class HostAgent(Record, frozen=True, kw_only=True):
    """A host's network agent as it last reported; its id is the host's name."""

    driver: str
    seen_at_s: float
    started_at_s: float

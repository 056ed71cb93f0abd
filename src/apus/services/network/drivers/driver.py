"""What one host must have of the cloud's networks, and the contract of whatever provides it.

Every verb is level-triggered: it is given the whole of what is wanted and makes it so, whatever was there before;
the second call with the same wish does nothing, and what is absent already is fine.  The specs carry all that a
driver needs, so that it asks nobody and goes on working when the control plane is away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import msgspec

from apus.services.network.contract import UserNetwork


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A value; equal when all its fields are."""


class HostRoute(Spec, frozen=True):
    destination: str
    next_hop: str


Ipv6Mode = Literal["slaac", "dhcpv6-stateful", "dhcpv6-stateless"]


class SubnetSpec(Spec, frozen=True):
    id: str
    cidr: str
    gateway_ip: str | None = None
    """What guests are told to route through."""
    gateway_here: bool = True
    """The driver holds the gateway's address; False when a router outside of this cloud has it."""
    service_ip: str | None = None
    """The address that DHCP and DNS answer from where the gateway is not here."""
    enable_dhcp: bool = True
    dns_nameservers: tuple[str, ...] = ()
    """Empty: the driver's own resolver."""
    host_routes: tuple[HostRoute, ...] = ()
    ipv6_ra_mode: Ipv6Mode | None = None
    ipv6_address_mode: Ipv6Mode | None = None


class DhcpOption(Spec, frozen=True):
    name: str
    """A name that dnsmasq knows, or a number."""
    value: str
    ip_version: Literal[4, 6] = 4


OPTION_NAMES = frozenset(
    [
        "bootfile-name",
        "boot-file-url",
        "classless-static-route",
        "client-last-transaction-time",
        "dns-server",
        "domain-name",
        "domain-search",
        "hostname",
        "information-refresh-time",
        "lease-time",
        "log-server",
        "mtu",
        "netbios-ns",
        "netmask",
        "ntp-server",
        "router",
        "server-ip-address",
        "sip-server",
        "sip-server-domain",
        "smtp-server",
        "static-route",
        "tftp-server",
        "tftp-server-address",
        "tzdb-timezone",
        "vendor-class",
        "vendor-encap",
    ]
)
"""Of dnsmasq's names those that a tenant may set; any other option goes by its number."""


class Reservation(Spec, frozen=True):
    """What DHCP and DNS say about one port; without one, a guest gets no address."""

    port_id: str
    mac: str
    ips: tuple[str, ...]
    hostname: str | None = None
    options: tuple[DhcpOption, ...] = ()
    lease_s: int = 86_400


class NetworkSpec(Spec, frozen=True):
    id: str
    mtu: int = 1500
    vlan_id: int | None = None
    physical_network: str | None = None
    """Name of a physical segment that this host must be attached to; None keeps the network on this host."""
    subnets: tuple[SubnetSpec, ...] = ()
    nat: bool = False
    """Guests reach the outside behind the host's address."""
    host_reachable: bool = False
    """The host itself reaches guests by their fixed addresses."""
    dns_domain: str = ""
    reservations: tuple[Reservation, ...] = ()


class SecurityRule(Spec, frozen=True):
    """One permission.  What no rule permits is dropped; answers to what was permitted always pass."""

    direction: Literal["ingress", "egress"]
    ethertype: Literal["IPv4", "IPv6"]
    protocol: int | None = None
    port_min: int | None = None
    """First port, or the ICMP type."""
    port_max: int | None = None
    """Last port, or the ICMP code."""
    remote_cidrs: tuple[str, ...] = ()
    remote_set: str | None = None
    """Name of an AddressSet.  With neither, any remote address."""


class AddressSet(Spec, frozen=True):
    """The addresses of a security group's members, shared by all the rules that name it."""

    name: str
    addresses: tuple[str, ...]


class AddressPair(Spec, frozen=True):
    mac: str
    cidr: str


class PortSpec(Spec, frozen=True):
    id: str
    network_id: str
    mac: str
    mtu: int = 1500
    fixed_ips: tuple[str, ...] = ()
    allowed_address_pairs: tuple[AddressPair, ...] = ()
    port_security: bool = True
    rules: tuple[SecurityRule, ...] = ()
    admin_state_up: bool = True
    owner_uid: int | None = None
    """The user that the guest's process runs as, who must be able to open the device."""


class Plug(msgspec.Struct, frozen=True, tag_field="kind", tag="none"):
    """How the hypervisor joins a guest to the port; this one: not at all."""


class TapPlug(Plug, frozen=True, tag="tap"):
    tap_name: str


class UserPlug(Plug, frozen=True, tag="user"):
    network: UserNetwork | None = None
    host_forwards: tuple[str, ...] = ()
    """Slirp's `hostfwd` rules: a loopback port of the host leads to the guest's port 22."""


class Capabilities(Spec, frozen=True):
    name: str
    security_groups: bool
    metadata_address: bool
    """Guests reach the metadata service at its address; without it they need a config drive."""
    guest_to_guest: bool
    physical_networks: tuple[str, ...] = ()
    ipv6: bool = True


class Inventory(Spec, frozen=True):
    """What is on the host now, ours by its name, whoever made it."""

    networks: tuple[str, ...]
    ports: tuple[str, ...]
    orphans: tuple[str, ...] = ()
    """Names of things of this cloud that belong to no network or port that can be told; `absent_orphans` ends them."""


class NetworkDriver(Protocol):
    async def start(self) -> None:
        """Make what is common to all networks; raise Unavailable that says what the machine lacks."""
        ...

    def capabilities(self) -> Capabilities: ...

    async def ensure_network(self, wanted: NetworkSpec) -> None: ...

    async def absent_network(self, network_id: str) -> None: ...

    async def ensure_port(self, wanted: PortSpec) -> Plug:
        """The network must have been ensured.  The filter is in place before the first packet can pass."""
        ...

    async def absent_port(self, port_id: str) -> None: ...

    async def update_sets(self, sets: Sequence[AddressSet]) -> None:
        """Replace the members of these sets, without touching a port."""
        ...

    async def absent_sets(self, names: Sequence[str]) -> None:
        """No port's rule may name them any more."""
        ...

    async def inventory(self) -> Inventory: ...

    async def absent_orphans(self) -> None: ...

    async def sweep(self) -> None:
        """Remove everything of this cloud from this host, and nothing else."""
        ...

    async def close(self) -> None:
        """Let go of sockets and tasks of this process; guests' networks go on."""
        ...

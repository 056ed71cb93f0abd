"""Network, as others see it: ports for servers on the control side, plugs for guests on the host side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

from apus.kernel.caller import Caller

SERVER_HINT: Final = "network.server."
"""With a server's id, the subject on which is said that a port of that server was changed."""


class PortAsk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One network interface as a user asks for it: a port that exists, or a network (and maybe an address)."""

    network_id: str | None = None
    port_id: str | None = None
    fixed_ip: str | None = None
    tag: str | None = None


class FixedIp(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    address: str
    subnet_id: str
    cidr: str
    gateway_ip: str | None = None
    dns_nameservers: tuple[str, ...] = ()
    host_routes: tuple[tuple[str, str], ...] = ()
    """(destination, nexthop)."""
    dhcp: bool = True
    ipv6_address_mode: str | None = None

    @property
    def version(self) -> int:
        return 6 if ":" in self.address else 4


class ServerPort(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A port as its server sees it."""

    id: str
    network_id: str
    network_name: str
    project_id: str
    server_id: str
    mac: str
    fixed_ips: tuple[FixedIp, ...]
    mtu: int
    host: str | None
    vif_type: str = "bridge"
    made_for_server: bool = True
    """Deleted with the server; a port that the user made himself is only unbound."""
    security_group_ids: tuple[str, ...] = ()
    security_group_names: tuple[str, ...] = ()
    tag: str | None = None
    active: bool = False
    """Found plugged on its host."""
    dns_name: str = ""


class NetworkService(Protocol):
    async def check_ports(
        self, caller: Caller, asks: Sequence[PortAsk] | None, security_groups: Sequence[str]
    ) -> Sequence[PortAsk]:
        """Before anything is made: resolve and validate.  `None`: the project's only network (or the shared ones
        if it has none of its own).  Raise Invalid or NotFound naming the field, Conflict when a port is in use or
        several networks are possible.
        """
        ...

    async def ensure_ports(
        self,
        server_id: str,
        server_name: str,
        caller: Caller,
        asks: Sequence[PortAsk],
        security_groups: Sequence[str],
        host: str,
    ) -> Sequence[ServerPort]:
        """Make (or take) the ports and bind them to the host, in the order of the asks.

        Twice with the same server is once: port ids derive from the server's id and the place in `asks`.  Raise
        NoRoom (no address left), OverQuota, Conflict.
        """
        ...

    async def release_ports(self, server_id: str) -> None:
        """Delete the ports made for the server, unbind the others; nothing is fine."""
        ...

    async def regroup(self, caller: Caller, server_id: str, group: str, *, add: bool) -> Sequence[ServerPort]:
        """Put the server's ports into a security group (by name or id), or take them out; all its ports as they are
        then.  Raise NotFound when there is no such group or, to take out, no port is in it; Invalid when no port
        can be in one.
        """
        ...

    async def ports_of(self, server_ids: Sequence[str]) -> Mapping[str, Sequence[ServerPort]]:
        """Ports by server, in the order in which they were attached; servers without ports may be missing."""
        ...

    async def server_at(self, network_id: str, address: str) -> str | None:
        """Whose address this is on that network: for the metadata door."""
        ...


class UserNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """QEMU's user-mode network (slirp) of one guest; its own DHCP gives out `guest`."""

    cidr: str
    gateway: str
    dns: str
    guest: str
    outside: bool = True
    """Guests reach what is beyond this network."""


class Plug(msgspec.Struct, frozen=True, kw_only=True):
    """How QEMU reaches a port: a TAP by name, or its own user-mode network."""

    port_id: str
    kind: str
    """tap | user | none."""
    tap_name: str | None = None
    host_forwards: tuple[str, ...] = ()
    """user: slirp hostfwd rules, e.g. `tcp:127.0.0.1:2201-:22`."""
    user: UserNetwork | None = None
    """user: the addresses of the network; None: the port has no IPv4 address, and QEMU's own are as good."""
    mtu: int = 1500
    needs_config_drive: bool = False
    """The metadata address cannot be reached through this plug."""


class HostPlugs(Protocol):
    """The network agent of a host, as the compute agent of the same host uses it."""

    async def plug(self, port: ServerPort) -> Plug:
        """Make the port's network and plug be there.  Twice is once.  Raise Unavailable."""
        ...

    async def unplug(self, port_id: str) -> None:
        """Already gone is fine."""
        ...

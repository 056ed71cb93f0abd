"""Networks without root: QEMU's own user-mode network (slirp), one for each guest.

Guests reach the outside and the host reaches a guest's SSH through a loopback port; guests do not reach one another,
there are no security groups, and the metadata address leads nowhere, so a config drive is demanded.
The loopback ports are remembered in one file, as a guest keeps its port over a restart of ours.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec

from apus.kernel.errors import Conflict, NoRoom
from apus.kernel.world import Disk, Runner
from apus.services.network.contract import UserNetwork
from apus.services.network.drivers.driver import (
    AddressSet,
    Capabilities,
    Inventory,
    NetworkSpec,
    Plug,
    PortSpec,
    UserPlug,
)

SSH_PORTS = range(22_000, 26_000)


class _Remembered(msgspec.Struct):
    networks: dict[str, NetworkSpec] = {}
    ssh_ports: dict[str, int] = {}
    """Port id -> loopback port."""


class UserDriver:
    def __init__(self, run: Runner, disk: Disk, *, state_path: Path, upstream_dns: Sequence[str] = ()) -> None:
        self._run, self._disk, self._path, self._dns = run, disk, state_path, tuple(upstream_dns)
        self._state = _Remembered()

    async def start(self) -> None:
        try:
            self._state = msgspec.json.decode(await self._disk.read(self._path), type=_Remembered)
        except FileNotFoundError:
            return

    async def _save(self) -> None:
        await self._disk.write_synced(self._path, msgspec.json.encode(self._state))

    def capabilities(self) -> Capabilities:
        return Capabilities(name="user", security_groups=False, metadata_address=False, guest_to_guest=False)

    async def ensure_network(self, wanted: NetworkSpec) -> None:
        kept = msgspec.structs.replace(wanted, reservations=())
        if self._state.networks.get(wanted.id) != kept:
            self._state.networks[wanted.id] = kept
            await self._save()

    async def absent_network(self, network_id: str) -> None:
        if self._state.networks.pop(network_id, None) is not None:
            await self._save()

    async def ensure_port(self, wanted: PortSpec) -> Plug:
        network = self._state.networks.get(wanted.network_id)
        if network is None:
            raise Conflict("network.network_not_here", f"network {wanted.network_id} is not on this host yet")
        if not wanted.admin_state_up:
            return Plug()
        if wanted.id not in self._state.ssh_ports:
            self._state.ssh_ports[wanted.id] = await self._run.in_thread(self._free_ssh_port)
            await self._save()
        ssh_port = self._state.ssh_ports[wanted.id]
        return UserPlug(network=user_network(network, wanted), host_forwards=(_ssh_forward(wanted, ssh_port),))

    def _free_ssh_port(self) -> int:
        taken = set(self._state.ssh_ports.values())
        for port in SSH_PORTS:
            if port in taken:
                continue
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    continue
            return port
        raise NoRoom("network.no_loopback_port", f"no loopback port of {SSH_PORTS[0]} to {SSH_PORTS[-1]} is free")

    async def absent_port(self, port_id: str) -> None:
        if self._state.ssh_ports.pop(port_id, None) is not None:
            await self._save()

    async def update_sets(self, sets: Sequence[AddressSet]) -> None:
        return

    async def absent_sets(self, names: Sequence[str]) -> None:
        return

    async def inventory(self) -> Inventory:
        return Inventory(networks=tuple(sorted(self._state.networks)), ports=tuple(sorted(self._state.ssh_ports)))

    async def absent_orphans(self) -> None:
        return

    async def sweep(self) -> None:
        self._state = _Remembered()
        await self._disk.remove(self._path)

    async def close(self) -> None:
        return


def user_network(network: NetworkSpec, port: PortSpec) -> UserNetwork | None:
    """Addresses that make slirp's own DHCP give the guest its fixed one."""
    guest = _guest_ip(port)
    for subnet in network.subnets:
        cidr = ipaddress.ip_network(subnet.cidr)
        if guest is None or guest not in cidr:
            continue
        gateway = subnet.gateway_ip or str(_other_address(cidr, {guest}))
        resolver = _other_address(cidr, {guest, ipaddress.ip_address(gateway)})
        return UserNetwork(
            cidr=str(cidr), gateway=gateway, dns=str(resolver), guest=str(guest), outside=network.nat
        )  # fmt: skip
    return None


def _guest_ip(port: PortSpec) -> ipaddress.IPv4Address | None:
    return next((ip for ip in map(ipaddress.ip_address, port.fixed_ips) if isinstance(ip, ipaddress.IPv4Address)), None)


def _ssh_forward(port: PortSpec, ssh_port: int) -> str:
    return f"tcp:127.0.0.1:{int(ssh_port)}-{_guest_ip(port) or ''}:22"


def _other_address(
    cidr: ipaddress.IPv4Network | ipaddress.IPv6Network, taken: set[ipaddress.IPv4Address | ipaddress.IPv6Address]
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address for slirp itself, from the end of the range, where guests rarely are."""
    last = int(cidr.broadcast_address) - 1
    return next(ip for ip in (ipaddress.ip_address(last - step) for step in range(4)) if ip not in taken)

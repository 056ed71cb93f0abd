"""Real networks of one host from what Linux has: bridges, TAPs, namespaces, dnsmasq, nftables.

Each network is a bridge; a namespace of its own, joined to the bridge, holds the gateway's address, DHCP, DNS, the
metadata sockets and the way out through a transit link with an address that no tenant can have.  So tenants' ranges
may overlap, and no tenant's address ever exists in the host's own namespace, save where `host_reachable` asks for a
route.  What is there is found by its name and alias on the machine: after a restart of ours nothing is remade.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec.structs

from apus.kernel.errors import Conflict, Unavailable
from apus.kernel.world import Disk, Runner
from apus.services.network.drivers.driver import (
    AddressSet,
    Capabilities,
    Inventory,
    NetworkSpec,
    PortSpec,
    TapPlug,
)
from apus.services.network.drivers.flat import netns, plan, ruleset
from apus.services.network.drivers.flat.commands import (
    Commands,
    lacking,
    link_alias,
    link_exists,
    link_index,
    present_links,
    present_namespaces,
)
from apus.services.network.drivers.flat.dnsmasq_process import DnsmasqProcess
from apus.services.network.drivers.flat.names import Names, TransitLink, short
from apus.services.network.drivers.flat.ruleset import METADATA_IPV4, METADATA_IPV6, Tracking

ServeMetadata = Callable[[str, socket.socket], Awaitable[asyncio.Server]]
"""Serves a listening socket at the metadata address of the network (`MetadataServer.serve`)."""
PORT_CHAIN = re.compile(r"(?:[sle]|a[le])_([0-9a-f]{9})|z_([0-9a-f]{9})p")
_NETWORK_CHAIN = re.compile(r"z_([0-9a-f]{9})")


class FlatDriver:
    def __init__(
        self,
        run: Runner,
        disk: Disk,
        *,
        prefix: str,
        run_directory: Path,
        serve_metadata: ServeMetadata | None = None,
        physical: Mapping[str, str] | None = None,
        upstream_dns: Sequence[str] = (),
        guest_ports: Sequence[int] = (),
    ) -> None:
        """`run_directory` must be readable by the user `dnsmasq` and may vanish with a reboot (below /run).

        `physical` maps names of physical networks to interfaces; `guest_ports` are TCP ports of the host that
        guests may reach.
        """
        self._run, self._disk, self._commands = run, disk, Commands(run)
        self._names, self._directory = Names(prefix), run_directory
        self._serve_metadata, self._physical = serve_metadata, dict(physical or {})
        self._upstream, self._guest_ports = tuple(upstream_dns), tuple(guest_ports)
        self._tracking = Tracking.IP_LAYER
        self._networks: dict[str, NetworkSpec] = {}
        self._ports: dict[str, PortSpec] = {}
        self._sets: dict[str, AddressSet] = {}
        self._links: dict[str, TransitLink] = {}
        self._daemons: dict[str, DnsmasqProcess] = {}
        self._servers: dict[str, list[asyncio.Server]] = {}

    async def start(self) -> None:
        missing = lacking()
        if missing:
            raise Unavailable("network.machine_lacks", f"the flat network needs {', '.join(missing)}")
        self._tracking = await self._probe_tracking()
        rules = ruleset.host_rules(self._names, self._tracking, self._guest_ports)
        await self._commands.nft(ruleset.text(rules))
        await self._disk.make_directory(self._directory)

    async def _probe_tracking(self) -> Tracking:
        if await self._commands.nft_would_take(ruleset.PROBE_BRIDGE_TRACKING.format(table="apus_probe")):
            return Tracking.BRIDGE
        if Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists():
            return Tracking.IP_LAYER
        raise Unavailable(
            "network.no_bridge_tracking",
            "security groups need root, nftables, and the kernel module nf_conntrack_bridge or br_netfilter",
        )

    def capabilities(self) -> Capabilities:
        return Capabilities(
            name="flat",
            security_groups=True,
            metadata_address=self._serve_metadata is not None,
            guest_to_guest=True,
            physical_networks=tuple(sorted(self._physical)),
        )

    async def ensure_network(self, wanted: NetworkSpec) -> None:
        known = self._networks.get(wanted.id)
        there = link_exists(self._names.bridge(wanted.id))
        if not there or known is None or _shape(known) != _shape(wanted):
            self._networks.pop(wanted.id, None)
            await self._ensure_links(wanted)
            await self._ensure_inside(wanted)
        await self._ensure_metadata(wanted.id)
        daemon = self._daemons.get(wanted.id)
        if daemon is None:
            directory = self._directory / short(wanted.id)
            daemon = DnsmasqProcess(self._run, self._disk, directory, self._names.namespace(wanted.id), self._upstream)
            self._daemons[wanted.id] = daemon
        await daemon.ensure(wanted)
        self._networks[wanted.id] = wanted

    async def _ensure_links(self, wanted: NetworkSpec) -> None:
        found = await self._commands.found_host()
        promised = [
            ip for id, held in self._links.items() if id != wanted.id for ip in (held.host_ip, held.namespace_ip)
        ]
        link = plan.uplink(wanted, self._names, found, promised)
        if link is None:
            self._links.pop(wanted.id, None)
        else:
            self._links[wanted.id] = link
        via_ip_layer = self._tracking is Tracking.IP_LAYER
        await self._commands.ip(plan.host_commands(wanted, self._names, found, link, self._physical, via_ip_layer))
        zone = self._zone(wanted.id)
        rules = ruleset.network_rules(self._names, wanted.id, zone, self._tracking)
        await self._commands.nft(ruleset.text(rules))

    async def _ensure_inside(self, wanted: NetworkSpec) -> None:
        namespace, link = self._names.namespace(wanted.id), self._links.get(wanted.id)
        found = await self._commands.found_namespace(namespace)
        rules = ruleset.namespace_rules(wanted, link.host_ip if link else None)
        await self._commands.nft_inside(namespace, ruleset.text(rules))
        await self._run.in_thread(lambda: netns.inside(namespace, _prepare_namespace))
        await self._commands.ip(plan.namespace_commands(wanted, found, link), namespace=namespace)
        if wanted.nat:
            await self._run.in_thread(lambda: netns.write_settings({"net/ipv4/ip_forward": "1"}))

    async def _ensure_metadata(self, network_id: str) -> None:
        if self._serve_metadata is None or network_id in self._servers:
            return
        namespace = self._names.namespace(network_id)
        listeners = await self._run.in_thread(lambda: netns.inside(namespace, _metadata_sockets))
        self._servers[network_id] = [await self._serve_metadata(network_id, listener) for listener in listeners]

    def _zone(self, network_id: str) -> int:
        return link_index(self._names.bridge(network_id)) & 0xFFFF or 0xFFFF

    async def absent_network(self, network_id: str) -> None:
        self._networks.pop(network_id, None)
        self._links.pop(network_id, None)
        self._close_metadata(network_id)
        daemon = self._daemons.pop(network_id, None)
        if daemon is not None:
            await daemon.stop()
        await self._network_gone(short(network_id))

    def _close_metadata(self, network_id: str) -> None:
        for server in self._servers.pop(network_id, []):
            server.close()

    async def _network_gone(self, key: str) -> None:
        prefix = self._names.prefix
        directory = self._directory / key
        await DnsmasqProcess(self._run, self._disk, directory, f"{prefix}n{key}", ()).stop()
        devices = [f"{prefix}{kind}{key}" for kind in "tgvb"]
        await self._commands.absent(devices, [f"{prefix}n{key}"])
        await self._commands.nft(ruleset.text(ruleset.network_absent_rules(self._names, key, self._tracking)))
        await self._disk.remove(directory)

    async def ensure_port(self, wanted: PortSpec) -> TapPlug:
        device = self._names.tap(wanted.id)
        present = link_exists(device)
        known = self._ports.get(wanted.id)
        if not (present and known == wanted):
            bridge = self._names.bridge(wanted.network_id)
            if not link_exists(bridge):
                raise Conflict("network.network_not_here", f"network {wanted.network_id} is not on this host yet")
            self._ports.pop(wanted.id, None)
            rules = ruleset.port_rules(self._names, wanted, self._zone(wanted.network_id), self._tracking)
            await self._commands.nft(ruleset.text(rules))
            await self._commands.ip(plan.port_commands(wanted, self._names, present))
            self._ports[wanted.id] = wanted
        return TapPlug(tap_name=device)

    async def absent_port(self, port_id: str) -> None:
        self._ports.pop(port_id, None)
        await self._port_gone(short(port_id))

    async def _port_gone(self, key: str) -> None:
        await self._commands.absent([f"{self._names.prefix}p{key}"], [])
        await self._commands.nft(ruleset.text(ruleset.port_absent_rules(self._names, key, self._tracking)))

    async def update_sets(self, sets: Sequence[AddressSet]) -> None:
        new = [wanted for wanted in sets if self._sets.get(wanted.name) != wanted]
        if new:
            for wanted in new:
                self._sets.pop(wanted.name, None)
            await self._commands.nft(ruleset.text(ruleset.set_rules(self._names, new)))
            self._sets.update({wanted.name: wanted for wanted in new})

    async def absent_sets(self, names: Sequence[str]) -> None:
        for name in names:
            self._sets.pop(name, None)
        if names:
            await self._commands.nft(ruleset.text(ruleset.set_absent_rules(self._names, names)))

    async def inventory(self) -> Inventory:
        networks, ports, orphans = self._found_things()
        chains = await self._commands.nft_chains(ruleset.table_name(self._names))
        port_keys, network_keys = {short(id) for id in ports}, {short(id) for id in networks}
        for chain in chains:
            of_port, of_network = PORT_CHAIN.fullmatch(chain), _NETWORK_CHAIN.fullmatch(chain)
            if (of_port and (of_port[1] or of_port[2]) not in port_keys) or (
                of_network and of_network[1] not in network_keys
            ):
                orphans.append(chain)
        chained = {match[1] for match in map(PORT_CHAIN.fullmatch, chains) if match}
        for id, known in list(self._ports.items()):
            if id not in ports or (known.port_security and short(id) not in chained):
                del self._ports[id]  # somebody took it from us: the next ensure makes it anew
                self._sets.clear()
        return Inventory(networks=tuple(networks), ports=tuple(ports), orphans=tuple(orphans))

    def _found_things(self) -> tuple[list[str], list[str], list[str]]:
        networks, ports, orphans = [], [], []
        names = self._names
        ours = sorted(name for name in present_links() if names.owns(name))
        for name in ours:
            kind, _, rest = link_alias(name).partition(":")
            id = rest.split(":")[0]
            if kind == "network" and names.bridge(id) == name:
                networks.append(id)
            elif kind == "port" and names.tap(id) == name:
                ports.append(id)
        keys = {short(id) for id in networks}
        known = {names.tap(id) for id in ports}
        others = [*ours, *sorted(name for name in present_namespaces() if names.owns(name))]
        orphans = [name for name in others if name not in known and name[-9:] not in keys]
        return networks, ports, orphans

    async def absent_orphans(self) -> None:
        for name in (await self.inventory()).orphans:
            of_port = PORT_CHAIN.fullmatch(name)
            if of_port:
                await self._port_gone(of_port[1] or of_port[2])
            elif name.startswith(f"{self._names.prefix}p"):
                await self._port_gone(name[-9:])
            else:
                await self._network_gone(name[-9:])

    async def sweep(self) -> None:
        await self.close()
        self._networks.clear()
        self._ports.clear()
        self._sets.clear()
        self._links.clear()
        self._daemons.clear()
        for key in await self._disk.names(self._directory):
            daemon = DnsmasqProcess(self._run, self._disk, self._directory / key, f"{self._names.prefix}n{key}", ())
            await daemon.stop()
        devices = sorted(name for name in present_links() if self._names.owns(name))
        namespaces = sorted(name for name in present_namespaces() if self._names.owns(name))
        await self._commands.absent(devices, namespaces)
        await self._commands.nft(ruleset.text(ruleset.sweep_rules(self._names)))
        await self._disk.remove(self._directory)

    async def close(self) -> None:
        for network_id in list(self._servers):
            self._close_metadata(network_id)


def _shape(network: NetworkSpec) -> NetworkSpec:
    """What decides links, addresses and rules: all but the reservations."""
    return msgspec.structs.replace(network, reservations=())


def _prepare_namespace() -> None:
    netns.write_settings({"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"})
    netns.full_checksums("gw")


def _metadata_sockets() -> list[socket.socket]:
    return [netns.listening_socket(ip, 80, "gw") for ip in (METADATA_IPV4, METADATA_IPV6)]

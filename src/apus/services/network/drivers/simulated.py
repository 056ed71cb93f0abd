"""Networks in memory, by the same contract: for the simulator, `apus up --sim-hosts`, and tests.

The machine is an object of its own, because it outlives the driver as a real one outlives our process.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Awaitable, Callable, Sequence

from apus.kernel.errors import Conflict
from apus.services.network.drivers.driver import (
    AddressSet,
    Capabilities,
    Inventory,
    NetworkSpec,
    Plug,
    PortSpec,
    SecurityRule,
    TapPlug,
)

Mishap = Callable[[str, str], Exception | None]
"""(verb, id) -> what goes wrong this time, before anything is done."""


Pause = Callable[[], Awaitable[None]]
"""How long one thing takes, as programs on a real machine do: much else happens meanwhile."""


def no_mishap(verb: str, id: str) -> Exception | None:
    return None


@dataclasses.dataclass(slots=True)
class SimulatedMachine:
    networks: dict[str, NetworkSpec] = dataclasses.field(default_factory=dict)
    ports: dict[str, PortSpec] = dataclasses.field(default_factory=dict)
    sets: dict[str, AddressSet] = dataclasses.field(default_factory=dict)
    made: dict[str, int] = dataclasses.field(default_factory=dict)
    """How often each port's device was made: another one is not the one that a guest has open."""
    changes: int = 0
    """Counts what was really done, so that a test sees that the second of two equal calls did nothing."""

    def lease(self, network_id: str, mac: str) -> tuple[str, ...]:
        """What DHCP would give."""
        network = self.networks.get(network_id)
        reservations = network.reservations if network else ()
        return next((r.ips for r in reservations if r.mac == mac), ())

    def passes(self, source_id: str, target_id: str, protocol: int, port: int) -> bool:
        """Would the first packet of a connection between two ports arrive?"""
        source, target = self.ports.get(source_id), self.ports.get(target_id)
        if source is None or target is None or source.network_id != target.network_id:
            return False
        if not (source.admin_state_up and target.admin_state_up and source.fixed_ips and target.fixed_ips):
            return False
        return self._permits(source, "egress", target.fixed_ips[0], protocol, port) and self._permits(
            target, "ingress", source.fixed_ips[0], protocol, port
        )

    def _permits(self, port: PortSpec, direction: str, remote: str, protocol: int, number: int) -> bool:
        return not port.port_security or any(
            rule.direction == direction and self._matches(rule, remote, protocol, number) for rule in port.rules
        )

    def _matches(self, rule: SecurityRule, remote: str, protocol: int, number: int) -> bool:
        ip = ipaddress.ip_address(remote)
        if (rule.ethertype == "IPv6") != (ip.version == 6):
            return False
        if rule.protocol is not None and rule.protocol != protocol:
            return False
        if rule.port_min is not None and not rule.port_min <= number <= (rule.port_max or rule.port_min):
            return False
        members = self.sets.get(rule.remote_set or "", AddressSet(name="", addresses=())).addresses
        ranges = (*rule.remote_cidrs, *members)
        if not ranges:
            return rule.remote_set is None
        return any(ip in ipaddress.ip_network(cidr, strict=False) for cidr in ranges)


class SimulatedDriver:
    def __init__(
        self, machine: SimulatedMachine | None = None, mishap: Mishap = no_mishap, pause: Pause | None = None
    ) -> None:
        self.machine = machine or SimulatedMachine()
        self._mishap, self._pause = mishap, pause

    async def _go(self, verb: str, id: str) -> None:
        if self._pause is not None:
            await self._pause()
        trouble = self._mishap(verb, id)
        if trouble is not None:
            raise trouble

    async def start(self) -> None:
        await self._go("start", "")

    def capabilities(self) -> Capabilities:
        return Capabilities(name="simulated", security_groups=True, metadata_address=True, guest_to_guest=True)

    async def ensure_network(self, wanted: NetworkSpec) -> None:
        await self._go("ensure_network", wanted.id)
        if self.machine.networks.get(wanted.id) != wanted:
            self.machine.networks[wanted.id] = wanted
            self.machine.changes += 1

    async def absent_network(self, network_id: str) -> None:
        await self._go("absent_network", network_id)
        self.machine.changes += self.machine.networks.pop(network_id, None) is not None

    async def ensure_port(self, wanted: PortSpec) -> Plug:
        await self._go("ensure_port", wanted.id)
        if wanted.network_id not in self.machine.networks:
            raise Conflict("network.network_not_here", f"network {wanted.network_id} is not on this host yet")
        if wanted.id not in self.machine.ports:
            self.machine.made[wanted.id] = self.machine.made.get(wanted.id, 0) + 1
        if self.machine.ports.get(wanted.id) != wanted:
            self.machine.ports[wanted.id] = wanted
            self.machine.changes += 1
        return TapPlug(tap_name=f"sim{wanted.id[:11]}")

    async def absent_port(self, port_id: str) -> None:
        await self._go("absent_port", port_id)
        self.machine.changes += self.machine.ports.pop(port_id, None) is not None

    async def update_sets(self, sets: Sequence[AddressSet]) -> None:
        for wanted in sets:
            await self._go("update_sets", wanted.name)
            self.machine.sets[wanted.name] = wanted

    async def absent_sets(self, names: Sequence[str]) -> None:
        for name in names:
            await self._go("absent_sets", name)
            self.machine.sets.pop(name, None)

    async def inventory(self) -> Inventory:
        await self._go("inventory", "")
        machine = self.machine
        return Inventory(networks=tuple(sorted(machine.networks)), ports=tuple(sorted(machine.ports)))

    async def absent_orphans(self) -> None:
        await self._go("absent_orphans", "")

    async def sweep(self) -> None:
        await self._go("sweep", "")
        self.machine.networks.clear()
        self.machine.ports.clear()
        self.machine.sets.clear()

    async def close(self) -> None:
        return

"""The network agent of one host: pulls what the host must have, makes it so by the driver, says what it found.

`plug` and `unplug` serve the hypervisor's agent of the same host; everything else is the loop, for which one key, the
host, stands for all that there is.

A look of the loop takes a while, and plugs go on meanwhile.  So each port is changed by one at a time, and of a port
that was plugged or unplugged since the look began the loop leaves its hands: what it saw of it is old.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from apus.kernel.errors import Unavailable
from apus.kernel.log import get_logger
from apus.kernel.loop.loop import Mailbox
from apus.kernel.turns import Gate, Turns
from apus.kernel.world import Subscription, World
from apus.services.network.agent.wanted import HostWanted, NetworkControl, host_subject
from apus.services.network.contract import Plug, ServerPort
from apus.services.network.drivers import driver as drivers
from apus.services.network.drivers.driver import Inventory, NetworkDriver, PortSpec, TapPlug, UserPlug

_log = get_logger("apus.network.agent")
GRACE_S = 10.0
"""A network without a port stays as long, for the next port is often on its way."""


GATHER_S = 0.3
"""How long hints gather: a hundred ports at once change a group's members a hundred times, and one look is enough."""


class NetworkAgent:
    """Implements HostPlugs and Loop."""

    name = "network_agent"

    def __init__(
        self, world: World, control: NetworkControl, driver: NetworkDriver, *, host: str, period_s: float = 30.0
    ) -> None:
        self._world, self._control, self._driver, self._host = world, control, driver, host
        self.period_s = period_s
        self.mailbox = Mailbox()
        self._turns = Turns()
        """Of networks and ports, by their ids."""
        self._gate = Gate()
        """What is half made looks as if it had no owner: things without one are removed while nothing is made."""
        self._moved: dict[str, bool] = {}
        """Ports plugged (True) or unplugged since the look that is under way began."""
        self._applied = 0
        """How often something wanted was made so: who finds it raised meanwhile may have made older wishes so."""
        self._idle_since_s: dict[str, float] = {}
        self._started_at_s = world.clock.now_s()
        self._ear: Subscription | None = None
        self._due: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Then run `drive(agent, agent.mailbox, clock)`."""
        await self._driver.start()

        async def hinted(subject: str, body: bytes) -> None:
            self._look_soon()

        self._ear = await self._world.bus.listen(host_subject(self._host), hinted)

    def _look_soon(self) -> None:
        if self._due is None or self._due.done():
            self._due = asyncio.create_task(self._kick_soon(), name="network-agent-kick")

    async def _kick_soon(self) -> None:
        await self._world.clock.sleep(GATHER_S)
        self.mailbox.kick(self._host)

    async def close(self) -> None:
        if self._due is not None:
            self._due.cancel()
        if self._ear is not None:
            await self._ear.stop()
        await self._driver.close()

    async def plug(self, port: ServerPort) -> Plug:
        async with self._gate.together(), self._turns.of(port.id):
            made = await self._make(port.id)
            self._moved[port.id] = True
        await self._control.plugged(self._host, port.id)
        no_metadata = not self._driver.capabilities().metadata_address
        if isinstance(made, TapPlug):
            return Plug(
                port_id=port.id, kind="tap", tap_name=made.tap_name, mtu=port.mtu, needs_config_drive=no_metadata
            )
        if isinstance(made, UserPlug):
            return Plug(
                port_id=port.id, kind="user", host_forwards=made.host_forwards, user=made.network,
                mtu=port.mtu, needs_config_drive=no_metadata,
            )  # fmt: skip
        return Plug(port_id=port.id, kind="none", mtu=port.mtu, needs_config_drive=no_metadata)

    async def unplug(self, port_id: str) -> None:
        async with self._gate.together(), self._turns.of(port_id):
            await self._driver.absent_port(port_id)
            self._moved[port_id] = False
        with contextlib.suppress(Unavailable):  # the next inventory says it, too
            await self._control.unplugged(self._host, port_id)
        self.mailbox.kick(self._host)

    async def _make(self, port_id: str) -> drivers.Plug:
        before = self._applied
        wanted = await self._control.wanted(self._host, [port_id])
        spec = next((spec for spec in wanted.ports if spec.id == port_id), None)
        if spec is None:
            raise Unavailable("network.port_not_here", f"port {port_id} is not bound to host {self._host}")
        await self._ensure_networks(wanted)
        # together, so that a driver can make one transaction of both
        _, made = await asyncio.gather(self._driver.update_sets(wanted.sets), self._driver.ensure_port(spec))
        self._was_applied(before)
        return made

    async def _ensure_networks(self, wanted: HostWanted) -> None:
        for network in wanted.networks:
            async with self._turns.of(network.id):
                self._idle_since_s.pop(network.id, None)
                await self._driver.ensure_network(network)

    def _was_applied(self, before: int) -> None:
        """Two who read what is wanted and then made it so may have done it in the other order: look again."""
        if self._applied != before:
            self._look_soon()
        self._applied += 1

    async def keys(self) -> Iterable[str]:
        return [self._host]

    async def settle(self, key: str) -> None:
        self._moved.clear()
        before = self._applied
        # the inventory first: what is plugged in it was bound before, so that what is wanted, read later, has it
        found = await self._driver.inventory()
        wanted = await self._control.wanted(self._host, None)
        await self._ensure_networks(wanted)
        await self._driver.update_sets(wanted.sets)
        specs = {port.id: port for port in wanted.ports}
        there = {id for id in found.ports if await self._settle_port(id, specs.get(id))}
        await self._remove_idle(found, wanted)
        if found.orphans:
            async with self._gate.alone():
                _log.info("things without an owner removed", names=", ".join(found.orphans))
                await self._driver.absent_orphans()
        self._was_applied(before)
        there |= {id for id, plugged in self._moved.items() if plugged}
        there -= {id for id, plugged in self._moved.items() if not plugged}
        await self._control.heard(self._host, self._driver.capabilities().name, self._started_at_s, sorted(there))

    async def _settle_port(self, id: str, wanted: PortSpec | None) -> bool:
        """Make a port that was seen as it is wanted; returns whether it is there now."""
        async with self._turns.of(id):
            if id in self._moved:
                return self._moved[id]
            if wanted is not None:
                await self._driver.ensure_port(wanted)
                return True
            _log.info("port without an owner removed", port=id)
            await self._driver.absent_port(id)
            return False

    async def _remove_idle(self, found: Inventory, wanted: HostWanted) -> None:
        now_s = self._world.clock.monotonic_s()
        needed = {network.id for network in wanted.networks}
        for id in sorted(set(found.networks) - needed):
            since_s = self._idle_since_s.setdefault(id, now_s)
            if now_s - since_s < GRACE_S:
                continue
            async with self._turns.of(id):
                if id in self._idle_since_s:  # a plug may have wanted it meanwhile
                    await self._driver.absent_network(id)
                    self._idle_since_s.pop(id, None)

"""The network agent of one host: pulls what the host must have, makes it so by the driver, says what it found.

`plug` and `unplug` serve the hypervisor's agent of the same host; everything else is the loop, for which one key, the
host, stands for all that there is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from apus.kernel.errors import Unavailable
from apus.kernel.log import get_logger
from apus.kernel.loop.loop import Mailbox
from apus.kernel.world import Subscription, World
from apus.services.network.agent.wanted import HostWanted, NetworkControl, host_subject
from apus.services.network.contract import Plug, ServerPort
from apus.services.network.drivers.driver import Inventory, NetworkDriver, TapPlug, UserPlug

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
        self._locks: dict[str, asyncio.Lock] = {}
        self._idle_since_s: dict[str, float] = {}
        self._started_at_s = world.clock.now_s()
        self._ear: Subscription | None = None
        self._due: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Then run `drive(agent, agent.mailbox, clock)`."""
        await self._driver.start()

        async def hinted(subject: str, body: bytes) -> None:
            if self._due is None or self._due.done():
                self._due = asyncio.create_task(self._kick_soon(), name="network-agent-kick")

        self._ear = await self._world.bus.listen(host_subject(self._host), hinted)

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
        wanted = await self._control.wanted(self._host, [port.id])
        spec = next((spec for spec in wanted.ports if spec.id == port.id), None)
        if spec is None:
            raise Unavailable("network.port_not_here", f"port {port.id} is not bound to host {self._host}")
        await self._ensure_networks(wanted)
        # together, so that a driver can make one transaction of both
        _, made = await asyncio.gather(self._driver.update_sets(wanted.sets), self._driver.ensure_port(spec))
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
        await self._driver.absent_port(port_id)
        with contextlib.suppress(Unavailable):  # the next inventory says it, too
            await self._control.unplugged(self._host, port_id)
        self.mailbox.kick(self._host)

    async def _ensure_networks(self, wanted: HostWanted) -> None:
        for network in wanted.networks:
            async with self._locks.setdefault(network.id, asyncio.Lock()):
                self._idle_since_s.pop(network.id, None)
                await self._driver.ensure_network(network)

    async def keys(self) -> Iterable[str]:
        return [self._host]

    async def settle(self, key: str) -> None:
        # the inventory first: what is plugged in it was bound before, so that what is wanted, read later, has it
        found = await self._driver.inventory()
        wanted = await self._control.wanted(self._host, None)
        await self._ensure_networks(wanted)
        await self._driver.update_sets(wanted.sets)
        there = set(found.ports)
        for port in wanted.ports:
            if port.id in there:
                await self._driver.ensure_port(port)
        for id in sorted(there - {port.id for port in wanted.ports}):
            _log.info("port without an owner removed", port=id)
            await self._driver.absent_port(id)
            there.discard(id)
        await self._remove_idle(found, wanted)
        if found.orphans:
            _log.info("things without an owner removed", names=", ".join(found.orphans))
            await self._driver.absent_orphans()
        await self._control.heard(self._host, self._driver.capabilities().name, self._started_at_s, sorted(there))

    async def _remove_idle(self, found: Inventory, wanted: HostWanted) -> None:
        now_s = self._world.clock.monotonic_s()
        needed = {network.id for network in wanted.networks}
        for id in sorted(set(found.networks) - needed):
            since_s = self._idle_since_s.setdefault(id, now_s)
            if now_s - since_s < GRACE_S:
                continue
            async with self._locks.setdefault(id, asyncio.Lock()):
                if id in self._idle_since_s:  # a plug may have wanted it meanwhile
                    await self._driver.absent_network(id)
                    self._idle_since_s.pop(id, None)
            self._locks.pop(id, None)

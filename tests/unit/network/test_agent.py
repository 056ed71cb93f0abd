"""A host's network agent while plugs, unplugs and its own looks cross each other: in virtual time, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec.structs
import pytest

from apus.kernel import loop as loops
from apus.kernel.turns import Gate, Turns
from apus.services.network.agent.agent import NetworkAgent
from apus.services.network.agent.wanted import HostWanted
from apus.services.network.contract import ServerPort
from apus.services.network.drivers.driver import Inventory, NetworkSpec, Plug, PortSpec
from apus.services.network.drivers.simulated import SimulatedDriver
from tests.flow.virtual import memory_world, run_virtual

HOST, NETWORK = "h1", NetworkSpec(id="n", dns_domain="old")
SPEC = PortSpec(id="p", network_id="n", mac="fa:16:3e:00:00:01")
PORT = ServerPort(
    id="p", network_id="n", network_name="n", project_id="", server_id="s", mac=SPEC.mac, fixed_ips=(), mtu=1500, host=HOST
)  # fmt: skip


class Control:
    """What is wanted of the host; an answer is of the moment of the question, and takes as long as it is told."""

    def __init__(self) -> None:
        self.now = HostWanted(networks=(NETWORK,), ports=(SPEC,))
        self.answers_after_s: list[float] = []
        self.plugged_there: set[str] = set()

    async def wanted(self, host: str, port_ids: Sequence[str] | None) -> HostWanted:
        answer = self.now
        await asyncio.sleep(self.answers_after_s.pop(0) if self.answers_after_s else 0)
        return answer

    async def plugged(self, host: str, port_id: str) -> None:
        self.plugged_there.add(port_id)

    async def unplugged(self, host: str, port_id: str) -> None:
        self.plugged_there.discard(port_id)

    async def heard(self, host: str, driver: str, started_at_s: float, plugged: Sequence[str]) -> None:
        self.plugged_there = set(plugged)


class Driver(SimulatedDriver):
    """Its devices come after their rules: between them there is something that nothing seems to own."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []
        self.half_made: dict[str, None] = {}
        self.ensure_takes_s = 0.0

    async def ensure_port(self, wanted: PortSpec) -> Plug:
        if wanted.id not in self.machine.ports:
            self.made.append(wanted.id)
            self.half_made[wanted.id] = None
            await asyncio.sleep(self.ensure_takes_s)
            assert wanted.id in self.half_made, "it was swept away while it was made"
            del self.half_made[wanted.id]
        return await super().ensure_port(wanted)

    async def inventory(self) -> Inventory:
        found = await super().inventory()
        return msgspec.structs.replace(found, orphans=tuple(self.half_made))

    async def absent_orphans(self) -> None:
        self.half_made.clear()


class Bench:
    def __init__(self, world: Any) -> None:
        self.control, self.driver = Control(), Driver()
        self.agent = NetworkAgent(world, self.control, self.driver, host=HOST)
        self.ports = self.driver.machine.ports


def story(tell: Callable[[Bench], Awaitable[None]]) -> None:
    async def told() -> None:
        world = await memory_world()
        bench = Bench(world)
        await bench.agent.start()
        await tell(bench)
        await bench.agent.close()

    run_virtual(told())


def test_a_look_does_not_make_again_what_was_unplugged_meanwhile() -> None:
    async def tell(bench: Bench) -> None:
        await bench.agent.plug(PORT)
        bench.control.answers_after_s = [1.0]
        looking = asyncio.create_task(bench.agent.settle(HOST))
        await asyncio.sleep(0.5)
        await bench.agent.unplug("p")
        await looking
        assert not bench.ports
        assert bench.driver.made == ["p"]
        assert not bench.control.plugged_there

    story(tell)


def test_a_look_does_not_take_away_what_was_plugged_meanwhile() -> None:
    """The port of one server is given to the next, on the same host."""

    async def tell(bench: Bench) -> None:
        await bench.agent.plug(PORT)
        there, bench.control.now = bench.control.now, HostWanted()
        bench.control.answers_after_s = [1.0]
        looking = asyncio.create_task(bench.agent.settle(HOST))
        await asyncio.sleep(0.5)
        bench.control.now = there
        await bench.agent.plug(PORT)
        await looking
        assert list(bench.ports) == ["p"]
        assert bench.control.plugged_there == {"p"}

    story(tell)


def test_a_look_that_began_before_a_plug_tells_of_it() -> None:
    async def tell(bench: Bench) -> None:
        bench.control.answers_after_s = [1.0, 0.0]
        looking = asyncio.create_task(bench.agent.settle(HOST))
        await asyncio.sleep(0.5)
        await bench.agent.plug(PORT)
        await looking
        assert bench.control.plugged_there == {"p"}

    story(tell)


@pytest.mark.parametrize("after_s", [0.0, 0.5, 1.5])
def test_what_is_half_made_is_not_swept_away_as_nobodys(after_s: float) -> None:
    async def tell(bench: Bench) -> None:
        bench.driver.ensure_takes_s = 1.0
        plugging = asyncio.create_task(bench.agent.plug(PORT))
        await asyncio.sleep(after_s)
        await bench.agent.settle(HOST)
        await plugging
        assert list(bench.ports) == ["p"]

    story(tell)


def test_what_nobody_owns_is_swept_away_when_nothing_is_made() -> None:
    async def tell(bench: Bench) -> None:
        bench.driver.half_made["q"] = None
        await bench.agent.settle(HOST)
        assert not bench.driver.half_made

    story(tell)


def test_an_older_wish_that_comes_later_does_not_stay() -> None:
    """A plug read what is wanted, a look read and made newer things, then the plug makes its older ones."""

    async def tell(bench: Bench) -> None:
        driving = asyncio.create_task(loops.drive(bench.agent, bench.agent.mailbox, bench.agent._world.clock))
        await asyncio.sleep(1)
        bench.control.answers_after_s = [1.0, 0.0]
        plugging = asyncio.create_task(bench.agent.plug(PORT))
        await asyncio.sleep(0.1)
        bench.control.now = HostWanted(networks=(NetworkSpec(id="n", dns_domain="new"),), ports=(SPEC,))
        bench.agent.mailbox.kick(HOST)
        await plugging
        assert bench.driver.machine.networks["n"].dns_domain == "old"
        await asyncio.sleep(1)
        assert bench.driver.machine.networks["n"].dns_domain == "new"
        driving.cancel()

    story(tell)


def test_turns_are_taken_in_order_and_forgotten() -> None:
    async def told() -> None:
        turns, order = Turns(), []

        async def go(key: str, name: str, takes_s: float) -> None:
            async with turns.of(key):
                await asyncio.sleep(takes_s)
                order.append(name)

        await asyncio.gather(go("a", "a1", 3), go("a", "a2", 1), go("b", "b1", 2), go("a", "a3", 0))
        assert order == ["b1", "a1", "a2", "a3"]
        assert not turns._locks
        assert not turns._wanted

    run_virtual(told())


def test_who_waits_to_be_alone_is() -> None:
    async def told() -> None:
        gate, inside, seen = Gate(), set(), []

        async def go(name: str, after_s: float) -> None:
            await asyncio.sleep(after_s)
            async with gate.together():
                inside.add(name)
                await asyncio.sleep(2)
                inside.discard(name)

        async def sweep() -> None:
            await asyncio.sleep(1)
            async with gate.alone():
                seen.append(set(inside))
                await asyncio.sleep(1)
                seen.append(set(inside))

        await asyncio.gather(go("early", 0), go("beside", 0.5), go("late", 1.5), sweep())
        assert seen == [set(), set()]

    run_virtual(told())

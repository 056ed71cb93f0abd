"""Conditional writes through two proxies over four hosts, while directions between them are cut and their clocks
differ: of all who found the same, one writes."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from random import Random
from typing import Final

import pytest

from apus.kernel.errors import CloudError, Conflict, Unavailable
from apus.services.object.drivers.leases import LEASE_S, MemoryLeases
from apus.services.object.engine import Found
from apus.services.object.model import Place
from apus.services.object.service import Objects
from apus.services.object.turns import ASK_TIMEOUT_S, Turns
from apus.sim.loop import run
from tests.object_store import FixedClock, all_of, awaited, chunks, intent
from tests.sim.kept_seeds import kept
from tests.sim.object_net import proxies
from tests.sim.running_store import RunningStore, live
from tests.sim.test_object_hosts import HOSTS, cuts

SEEDS: Final = 12
CLIENTS: Final = 4
STORY_S: Final = 60.0
NAMES: Final = ("one", "two")


class Counter:
    """Writes the next value of whatever it finds."""

    def __init__(self, made: list[RunningStore], number: int, dice: Random) -> None:
        self._made, self._number, self._dice, self._count = made, number, dice, 0
        self.sure = list[tuple[str, str, str]]()
        """(name, what it found, what it wrote) of all that was acknowledged."""
        self.begun = set[str]()
        self.refused = 0

    async def live(self) -> None:
        while True:
            await asyncio.sleep(self._dice.uniform(0, 0.5))
            one, name = self._dice.choice(self._made), self._dice.choice(NAMES)
            try:
                await asyncio.create_task(self._advance(one, name))
            except CloudError:
                self.refused += 1

    async def _advance(self, one: RunningStore, name: str) -> None:
        self._count += 1
        value = f"{self._number}.{self._count}"
        async with one.store.service.alone("AUTH_a", "c", name) as found:
            before = await text_of(one, found)
            self.begun.add(value)
            await one.store.service.engine.put(intent(name), chunks(value.encode()))
        self.sure.append((name, before, value))


async def text_of(one: RunningStore, found: Found | None) -> str:
    if found is None:
        return ""
    return (await all_of(one.store.service.engine.read(found, 0, found.head.size_bytes))).decode()


async def story(seed: int) -> int:
    """How many were acknowledged."""
    dice = Random(f"turns/{seed}")
    async with proxies(dice, len(HOSTS), 2) as (net, made):
        for one in made:
            await one.until(one.is_whole, 60)
        made[1].cluster.world.clock.step(dice.choice((-2.0, 0.0, 30.0)))  # type: ignore[attr-defined]
        counters = [Counter(made, number, Random(f"{seed}/{number}")) for number in range(CLIENTS)]
        await live([cuts(net, dice), *(counter.live() for counter in counters)], STORY_S)
        net.cut.clear()
        for one in made:
            await one.cluster.settle()
        sure = [told for counter in counters for told in counter.sure]
        begun = set.union(*(counter.begun for counter in counters))
        found = collections.Counter((name, before) for name, before, _ in sure)
        assert found.total() == len(found), [one for one, count in found.items() if count > 1]
        assert {before for _, before, _ in sure} <= begun | {""}
        for one in made:
            await one.until(one.is_whole, 120)
        for name in NAMES:
            last = [await one.read(name) for one in made]
            assert last[0] == last[1]
            replaced = {before for other, before, _ in sure if other == name}
            assert (last[0] or b"").decode() not in replaced, "a write that was acknowledged is gone"
    return len(sure)


def in_turns(seed: int) -> None:
    assert run(story(seed)) > 5


@pytest.mark.parametrize("seed", dict.fromkeys([*range(SEEDS), *kept("turns")]))
def test_of_two_that_found_the_same_one_writes(seed: int) -> None:
    in_turns(seed)


@awaited
async def test_a_lease_is_one_owners_until_it_ends_or_is_given_back() -> None:
    """A drive that was just opened gives none: it may have forgotten one."""
    clock = FixedClock(100.0)
    leases = MemoryLeases(clock)
    assert not await leases.take("n", "a")
    clock.at_s += LEASE_S
    assert await leases.take("n", "a")
    assert not await leases.take("n", "b")
    assert await leases.take("another", "b")
    await leases.release("n", "b")  # it is not his
    assert not await leases.take("n", "b")
    await leases.release("n", "a")
    assert await leases.take("n", "b")
    clock.at_s += LEASE_S
    assert await leases.take("n", "c")


@pytest.mark.parametrize(("away", "error"), [(HOSTS[:1], None), (HOSTS[:3], Unavailable)])
def test_who_cannot_have_a_turn_is_refused(away: tuple[str, ...], error: type[CloudError] | None) -> None:
    async def story() -> None:
        async with proxies(Random("refused"), len(HOSTS), 1) as (net, [one]):
            await one.until(one.is_whole, 60)
            await asyncio.sleep(LEASE_S)
            net.cut.update(("proxy1", host) for host in away)
            with pytest.raises(error) if error is not None else contextlib.nullcontext():
                async with one.store.service.alone("AUTH_a", "c", "name") as found:
                    assert found is None

    run(story())


def test_a_host_that_does_not_answer_keeps_nobody_waiting() -> None:
    async def story() -> None:
        async with proxies(Random("dumb"), len(HOSTS), 1) as (net, [one]):
            await one.until(one.is_whole, 60)
            await asyncio.sleep(LEASE_S)
            net.cut.add(("proxy1", HOSTS[0]))
            clock, turns = one.cluster.world.clock, Turns(one.cluster)
            began_s = clock.monotonic_s()
            for number in range(10):
                async with turns.of(one.cluster.place("AUTH_a", "c", f"name{number}")):
                    pass
            assert clock.monotonic_s() - began_s < ASK_TIMEOUT_S

    run(story())


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.1])
def test_who_goes_away_keeps_nobody_waiting(after_s: float) -> None:
    """While he asks for a turn, or in the middle of it."""

    async def story() -> None:
        async with proxies(Random("gone"), len(HOSTS), 2) as (_, made):
            for one in made:
                await one.until(one.is_whole, 60)
            await asyncio.sleep(LEASE_S)
            first, second = (Turns(one.cluster) for one in made)
            clock, place = made[1].cluster.world.clock, made[1].cluster.place("AUTH_a", "c", "name")
            gone = asyncio.create_task(forever(first, place))
            await asyncio.sleep(after_s)
            gone.cancel()
            began_s = clock.monotonic_s()
            async with second.of(place):
                assert clock.monotonic_s() - began_s < ASK_TIMEOUT_S

    async def forever(turns: Turns, place: Place) -> None:
        async with turns.of(place):
            await asyncio.sleep(LEASE_S)

    run(story())


def test_a_turn_that_lasted_too_long_says_so() -> None:
    """Somebody else may have had it too: what was written may be gone, or come first."""

    async def story() -> None:
        async with proxies(Random("long"), len(HOSTS), 2) as (_, made):
            for one in made:
                await one.until(one.is_whole, 60)
            services = [one.store.service for one in made]
            with pytest.raises(Conflict):
                await too_long(*services)

    async def too_long(one: Objects, another: Objects) -> None:
        async with one.alone("AUTH_a", "c", "name"):
            await asyncio.sleep(LEASE_S)
            async with another.alone("AUTH_a", "c", "name") as found:
                assert found is None

    run(story())

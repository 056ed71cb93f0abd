"""Histories in virtual time of two proxies over four hosts, while directions between them are cut: strong reads are
linearizable whichever proxy gives them, and a session reads its own writes through the other one."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Final, cast

import pytest

from apus.services.object.consistency import READING, Level, Reading
from apus.services.object.pace import Wish
from apus.services.object.repair_status import repair_status
from apus.sim.loop import run
from tests.history.checker import Operation
from tests.object_store import chunks, intent
from tests.sim.kept_seeds import kept
from tests.sim.object_net import Net, proxies
from tests.sim.running_store import RunningStore, live
from tests.sim.test_object_consistency import NAMES, Client, judge

SEEDS: Final = 12
CLIENTS: Final = 3
STORY_S: Final = 40.0
HOSTS: Final = tuple(f"host{number}" for number in range(1, 5))
PROXIES: Final = ("proxy1", "proxy2")


class Either:
    """A store, through one proxy now and another then."""

    def __init__(self, made: list[RunningStore], dice: Random) -> None:
        self._made, self._dice = made, dice

    @property
    def store(self) -> Any:
        return self._dice.choice(self._made).store

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()


async def cuts(net: Net, dice: Random) -> None:
    """Some hosts, from some proxies, in some directions."""
    while True:
        await asyncio.sleep(dice.uniform(0.2, 3))
        for _ in range(dice.randint(1, 6)):
            net.cut.clear()
            for host in dice.sample(HOSTS, dice.choice((1, 1, 2, 3))):
                for proxy in dice.sample(PROXIES, dice.choice((1, 2))):
                    ways = [(proxy, host), (host, proxy)]
                    net.cut.update(dice.sample(ways, dice.choice((1, 2))))
            await asyncio.sleep(dice.uniform(0.05, 6))
        net.cut.clear()


async def story(seed: int) -> tuple[int, int]:
    """(strong reads that were answered, and refused).  Every other seed has two drives on each host."""
    dice, history = Random(f"hosts/{seed}"), list[Operation]()
    async with proxies(dice, len(HOSTS), len(PROXIES), 1 + seed % 2) as (net, made):
        for one in made:
            await one.until(one.is_whole, 60)
        either = cast(RunningStore, Either(made, dice))
        clients = [Client(either, number, Random(f"{seed}/{number}"), history) for number in range(CLIENTS)]
        await live([cuts(net, dice), *(client.live() for client in clients)], STORY_S)
        net.cut.clear()
        for one in made:
            await one.cluster.settle()  # what a client began that is over may still be on its way
        for one in made:
            await one.until(one.is_whole, 120)
        for name in NAMES:
            assert await made[0].read(name) == await made[1].read(name)
    judge(history)
    return sum(client.answered for client in clients), sum(client.refused for client in clients)


def through_either_proxy(seed: int) -> None:
    answered, _refused = run(story(seed))
    assert answered > 5


@pytest.mark.parametrize("seed", dict.fromkeys([*range(SEEDS), *kept("hosts")]))
def test_strong_reads_are_linearizable_through_either_proxy(seed: int) -> None:
    through_either_proxy(seed)


def test_a_strong_read_does_not_wait_for_a_host_that_is_dumb() -> None:
    """What it is asked it hears, and nobody hears of it: neither the first reader waits for it, nor any other."""

    async def story() -> None:
        async with proxies(Random("dumb"), len(HOSTS), 1) as (net, [one]):
            await one.until(one.is_whole, 60)
            names = [f"name{number}" for number in range(10)]
            for name in names:
                await one.store.service.engine.put(intent(name), chunks(name.encode()))
            net.cut.add((HOSTS[0], PROXIES[0]))
            READING.set(Reading(Level.STRONG))
            for name in names:
                began_s = one.now_s
                assert await one.read(name) == name.encode()
                assert one.now_s - began_s < 0.5
                await asyncio.sleep(1)

    run(story())


def test_proxies_share_the_cap_and_each_knows_how_long_it_takes() -> None:
    """Of a host that is silent: nobody waits for it, and what one copies the other does not."""
    cap, size, count = 1 << 20, 64 << 10, 400

    async def story() -> None:
        async with proxies(Random("cap"), len(HOSTS), len(PROXIES), part_power=7) as (net, made):
            one, two = made
            await one.store.set_pace(Wish(cap_bytes_s=cap))
            await two.until(lambda: _has(two, cap), 10)
            for proxy in made:
                await proxy.until(proxy.is_whole, 60)
            await one.fill(count, size)
            net.cut.update((proxy, HOSTS[3]) for proxy in PROXIES)
            await one.until(lambda: _copied(made, 20), 60)
            before = [proxy.cluster.pace.copied for proxy in made]
            await asyncio.sleep(4)
            copied = [proxy.cluster.pace.copied - first for proxy, first in zip(made, before, strict=True)]
            told = await repair_status(two.cluster)
            assert sum(copied) * size / 4 == pytest.approx(cap, rel=0.1)
            assert min(copied) >= 0.4 * sum(copied)
            assert told.bytes_per_s == pytest.approx(cap, rel=0.1)
            assert told.seconds_left is not None
            began_s = one.now_s
            while await one.lacking():
                await asyncio.sleep(0.25)
            left_s = one.now_s - began_s
            assert told.seconds_left == pytest.approx(left_s, rel=0.2)
            assert sum(proxy.cluster.pace.copied for proxy in made) < 1.1 * count * 3 / 4

    run(story())


async def _has(proxy: RunningStore, cap: int) -> bool:
    return proxy.cluster.pace.wish.cap_bytes_s == cap


async def _copied(made: list[RunningStore], at_least: int) -> bool:
    return all(proxy.cluster.pace.copied >= at_least for proxy in made)

"""Clients write, overwrite, delete, list and read through two proxies while hosts and proxies are killed and cut off from
each other, also in one direction: no acknowledged write is lost or replaced by an older one, no delete comes back,
listings are complete, strong reads are linearizable whichever proxy gives them, a session reads its own writes.

`--history-s 3600` (`make history-long`) is the long run.
"""

from __future__ import annotations

import asyncio
import collections
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import aiohttp
import pytest

from tests.history.clients import Clients, chapters, judge, live, sizes_of, told
from tests.history.healing import Healing
from tests.host.machines import Way
from tests.host.object_cluster import Host, ObjectCluster, object_cluster

OBJECTS = [f"name{number}" for number in range(16)]
CLIENTS = 6
PACE_S = 0.02
FAULT_S = 2.0
HOSTS, PROXIES = 4, 2

pytestmark = [pytest.mark.root, pytest.mark.nats, pytest.mark.timeout(7200)]


class Trouble:
    """One fault at a time, now and then a second one before the first is healed."""

    def __init__(self, c: ObjectCluster, dice: Random) -> None:
        self._c, self._dice = c, dice
        self.counts = collections.Counter[str]()
        self.healing = Healing(
            lambda: sorted(c.root.glob("*/node.log")), lambda: [c.status(number) for number in range(PROXIES)]
        )

    async def one(self) -> None:
        faults: list[Callable[[], Awaitable[None]]] = [
            self._host_killed, self._host_alone, self._host_deaf, self._host_dumb, self._proxies_see_other_hosts,
            self._proxy_killed, self._two_hosts_killed,
        ]  # fmt: skip
        fault = self._dice.choice(faults)
        self.counts[fault.__name__.strip("_")] += 1
        await fault()
        await self.heal(fault.__name__.strip("_"))

    async def heal(self, fault: str = "all") -> None:
        """All machines hear each other."""
        await self.healing.wait(fault, FAULT_S)

    async def _host_killed(self) -> None:
        await self._killed(self._any_host())

    async def _two_hosts_killed(self) -> None:
        """Copies of some partitions are then fewer than a quorum: what needs one is refused."""
        await self._killed(*self._dice.sample(self._c.hosts, 2))

    async def _proxy_killed(self) -> None:
        await self._killed(self._dice.choice(self._c.proxies))

    async def _killed(self, *hosts: Host) -> None:
        for host in hosts:
            host.node.kill()
        await asyncio.sleep(FAULT_S)
        for host in hosts:
            host.node.start()

    async def _host_alone(self) -> None:
        await self._cut("both")

    async def _host_deaf(self) -> None:
        """Others hear it, and it hears nobody."""
        await self._cut("in")

    async def _host_dumb(self) -> None:
        """What it is told it does, and nobody hears of it."""
        await self._cut("out")

    async def _cut(self, way: Way) -> None:
        host = self._any_host()
        host.machine.cut(way=way)
        await asyncio.sleep(2 * FAULT_S)
        host.machine.heal()

    async def _proxies_see_other_hosts(self) -> None:
        """Each proxy is cut off from a host that the other one reaches."""
        one, two = self._dice.sample(self._c.hosts, 2)
        first, second = self._c.proxies
        one.machine.cut(first.machine)
        two.machine.cut(second.machine, way=self._dice.choice(("both", "in", "out")))
        await asyncio.sleep(2 * FAULT_S)
        one.machine.heal()
        two.machine.heal()

    def _any_host(self) -> Host:
        return self._dice.choice(self._c.hosts)


def test_nothing_acknowledged_is_lost_between_hosts(
    tmp_path: Path, pytestconfig: pytest.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    duration_s, seed = float(pytestconfig.getoption("--history-s")), int(pytestconfig.getoption("--history-seed"))
    with object_cluster(tmp_path, HOSTS, PROXIES) as c:
        for number, chapter_s in enumerate(chapters(duration_s)):
            account, dice = f"AUTH_{c.project('demo')}", Random(f"{seed}/{number}")
            urls = [f"{c.url(proxy)}/v1/{account}/history{number}" for proxy in range(PROXIES)]
            clients, trouble = Clients(urls, c.token("demo"), OBJECTS, dice), Trouble(c, dice)
            asyncio.run(story(c, clients, trouble, urls, chapter_s))
            with capsys.disabled():
                print(f"\n{told(clients, trouble.counts, trouble.healing)}", file=sys.stderr)


async def story(c: ObjectCluster, clients: Clients, trouble: Trouble, urls: list[str], duration_s: float) -> None:
    async with aiohttp.ClientSession(headers=clients.headers, raise_for_status=True) as session:
        for container in (urls[0], f"{urls[0]}-own"):
            await session.put(container)
    await live(clients, trouble, duration_s, count=CLIENTS, pace_s=PACE_S)
    async with aiohttp.ClientSession(headers=clients.headers) as session:
        after = await judge(clients, session, OBJECTS, urls[0])
        for url in urls:
            assert await clients.names(session, url) == sizes_of(after)
        for host in c.hosts:  # whichever host is away, the others say the same, through either proxy
            host.machine.cut()
            try:
                for url in urls:
                    for name in OBJECTS:
                        assert await clients.read(session, name, url, x_newest="true") == after[name], (url, name)
            finally:
                host.machine.heal()

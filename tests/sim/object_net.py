"""Disk hosts and proxies of an object store in virtual time, on a network whose directions can be cut one by one.

What is sent while a direction is cut arrives when it is whole again, as TCP has it, unless who waits gives up before.
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast

from apus.kernel import loop as loops
from apus.platform.bus_local import LocalBus
from apus.services.object.assembly import Shared, drives_in, open_store
from apus.services.object.drivers.fence import DriveIdentity
from apus.services.object.drivers.local import LocalSite
from apus.services.object.drivers.remote.channel import GREET_S, Channel
from apus.services.object.drivers.remote.drive import RemoteDrive
from apus.services.object.drivers.remote.server import DriveServer
from apus.services.object.logic.drive_places import DrivePlace
from apus.services.object.model import DriveTrouble
from apus.sim.clock import SimClock
from tests.object_hosts import SharedLayout
from tests.object_store import make_world
from tests.sim.running_store import RunningStore
from tests.sim.slow_disk import SlowDisk

RETRY_S = 0.2
DELAY_S = 0.002


class Net:
    def __init__(self, dice: Random) -> None:
        self._dice = dice
        self.cut: set[tuple[str, str]] = set()
        """From whom to whom nothing goes."""

    def delay_s(self) -> float:
        return self._dice.uniform(0, DELAY_S)


class End:
    """One end of a connection.  What is used of Channel."""

    def __init__(self, net: Net, here: str, there: str) -> None:
        self._net, self._way = net, (here, there)
        self.other: End
        self._coming: deque[bytes | None] = deque()
        self._going: deque[bytes | None] = deque()
        self._heard = asyncio.Event()
        self._pumps = False
        self.is_open, self.is_clogged = True, False
        self.opened_s = asyncio.get_running_loop().time()

    def send(self, *parts: bytes | memoryview) -> None:
        self._push(b"".join(parts))

    async def drain(self, timeout_s: float) -> None:
        if not self.is_open:
            raise self.broken("closed")

    async def receive(self) -> bytes:
        while not self._coming and self.is_open:
            self._heard.clear()
            await self._heard.wait()
        frame = self._coming.popleft() if self._coming else None
        if frame is None:
            raise self.broken("closed")
        return frame

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            self._heard.set()
            self._push(None)

    def broken(self, why: object) -> DriveTrouble:
        self.close()
        return why if isinstance(why, DriveTrouble) else DriveTrouble(errno.ECONNRESET, str(why))

    def _push(self, frame: bytes | None) -> None:
        self._going.append(frame)
        if not self._pumps:
            self._pumps = True
            asyncio.get_running_loop().call_later(self._net.delay_s(), self._pump)

    def _pump(self) -> None:
        if self._way in self._net.cut:
            asyncio.get_running_loop().call_later(RETRY_S, self._pump)
            return
        self._pumps = False
        while self._going:
            self.other.arrived(self._going.popleft())

    def arrived(self, frame: bytes | None) -> None:
        if self.is_open:
            self._coming.append(frame)
            self.is_open = frame is not None
            self._heard.set()


class SimSite(LocalSite):
    """A host, as one proxy reaches it.  Directories are looked over without the network: no drive joins here."""

    def __init__(self, world: Any, net: Net, proxy: str, host: str, server: DriveServer) -> None:
        super().__init__(world)
        self._net, self._proxy, self._host, self._server = net, proxy, host, server

    def open(self, path: Path, identity: DriveIdentity, part_power: int, policies: int, turn: int = 0) -> Any:
        return RemoteDrive(self._dial, str(path), identity, part_power=part_power, policies=policies, turn=turn)

    async def _dial(self) -> Channel:
        there = (self._proxy, self._host)
        if there in self._net.cut or there[::-1] in self._net.cut:
            await asyncio.sleep(GREET_S)
            raise DriveTrouble(errno.EHOSTUNREACH, "cut off")
        near, far = End(self._net, *there), End(self._net, *there[::-1])
        near.other, far.other = far, near
        serving = asyncio.ensure_future(self._server.serve(cast(Channel, far)))
        serving.add_done_callback(lambda ended: ended.cancelled() or (ended.exception(), far.close()))
        return cast(Channel, near)


@asynccontextmanager
async def proxies(
    dice: Random, hosts: int, count: int, drives_each: int = 1, part_power: int = 4
) -> AsyncIterator[tuple[Net, list[RunningStore]]]:
    """Proxies whose loops run, over hosts with so many drives each."""
    net, home, bus = Net(dice), SharedLayout(), LocalBus()
    worlds = {f"host{number}": make_world(SlowDisk(dice), SimClock()) for number in range(1, hosts + 1)}

    def memory(path: Path) -> sqlite3.Connection:
        return sqlite3.connect(":memory:", isolation_level=None)

    servers = {host: DriveServer(b"", LocalSite(world, connect=memory)) for host, world in worlds.items()}
    places = [f"{host}:/sim/d{number}" for host in worlds for number in range(drives_each)]
    made: list[RunningStore] = []
    tasks: list[asyncio.Task[Any]] = []
    for number in range(1, count + 1):
        name = f"proxy{number}"

        def site(place: DrivePlace, name: str = name) -> SimSite:
            return SimSite(worlds[place.host], net, name, place.host, servers[place.host])

        world = make_world(SlowDisk(dice), SimClock(), bus=bus)
        shared = Shared(home, site, partial(bool, number == 1))
        drives = drives_in(places if number == 1 else [])
        store = await open_store(world, drives, Path("/unused"), node=name, part_power=part_power, shared=shared)
        tasks.append(asyncio.create_task(store.replicator.run()))
        tasks += [asyncio.create_task(loops.drive(loop, loops.Mailbox(), world.clock)) for loop in store.loops]
        made.append(RunningStore(store, cast(Any, world.disk)))
    try:
        yield net, made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await bus.close()

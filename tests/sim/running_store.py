"""A store on simulated drives whose loops run, in virtual time."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from apus.kernel import loop as loops
from apus.services.object.assembly import ObjectStore, drives_in, open_store
from apus.services.object.repair_status import repair_status
from apus.services.object.service import DEFAULTS, Options
from apus.sim.clock import SimClock
from tests.object_store import all_of, chunks, drive_paths, intent, make_world
from tests.sim.object_disk import FaultyDisk, sqlite_on

ROOT = Path("/sim")
LOST = ROOT / "d1"


class RunningStore:
    """A store whose loops run, in virtual time."""

    def __init__(self, store: ObjectStore, disk: FaultyDisk) -> None:
        self.store, self.disk, self.cluster = store, disk, store.cluster

    async def fill(self, count: int, size: int = 1000) -> None:
        for number in range(count):
            await self.store.service.engine.put(intent(f"o{number}"), chunks(b"x" * size))

    async def read(self, name: str) -> bytes | None:
        found = await self.store.service.engine.find("AUTH_a", "c", name)
        if found is None:
            return None
        return await all_of(self.store.service.engine.read(found, 0, found.head.size_bytes))

    async def lacking(self) -> int:
        return (await repair_status(self.cluster)).copies_to_make

    async def until(self, what: Callable[[], Awaitable[bool]], within_s: float) -> float:
        """Virtual seconds until it is so."""
        began_s = self.now_s
        while not await what():
            assert self.now_s - began_s < within_s, await repair_status(self.cluster)
            await asyncio.sleep(0.01)
        return self.now_s - began_s

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def is_whole(self) -> bool:
        return self.cluster.repairs.count() == 0

    def wipe(self) -> None:
        """Another disk, empty, that is marked as the one that was there."""
        mark = self.disk.files[LOST / "drive.json"]
        self.disk.wipe(LOST)
        self.disk.files[LOST / "drive.json"] = self.disk.synced[LOST / "drive.json"] = mark


def in_memory(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(":memory:", isolation_level=None)


@asynccontextmanager
async def running(
    count: int = 4,
    disk: FaultyDisk | None = None,
    options: Options = DEFAULTS,
    *,
    keeps_indexes: bool = False,
    code: str = "",
) -> AsyncIterator[RunningStore]:
    """`keeps_indexes`: they are on the disk, with all that becomes of it, and not in memory.
    `code`: of the policy of the container that is filled; empty: the first policy."""
    disk = disk or FaultyDisk()
    world = make_world(disk, SimClock())
    store = await open_store(
        world,
        drives_in(drive_paths(ROOT, count)),
        ROOT / "layout.json",
        part_power=4,
        connect=sqlite_on(disk) if keeps_indexes else in_memory,
        options=options,
        policies={"coded": code} if code else {},
    )
    if code:
        await store.service.make_container("AUTH_a", "c", {}, "coded")
    tasks = [asyncio.create_task(store.replicator.run())]
    tasks += [asyncio.create_task(loops.drive(loop, loops.Mailbox(), world.clock)) for loop in store.loops]
    try:
        yield RunningStore(store, disk)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def live(stories: Iterable[Coroutine[Any, Any, None]], for_s: float) -> None:
    """All at once for so long: clients, and what befalls the store.  What one of them raises ends it."""
    tasks = [asyncio.create_task(story) for story in stories]
    done, _ = await asyncio.wait(tasks, timeout=for_s, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

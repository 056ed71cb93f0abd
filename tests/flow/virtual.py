"""Virtual time for tests: an event loop whose clock jumps when every task sleeps, so that an hour costs nothing."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from random import Random
from typing import Any, TypeVar

from apus.kernel.table import metadata
from apus.kernel.world import World
from apus.platform.bus_local import LocalBus
from apus.platform.disk import LocalDisk
from apus.platform.process import LocalRunner
from apus.platform.store_sqlite import SqliteStore

T = TypeVar("T")


class Deadlock(Exception):
    """Every task waits and no timer is set."""


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now_s = 0.0
        super().__init__(_NoSockets(self))

    def time(self) -> float:
        return self.now_s


class _NoSockets(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Deadlock("every task waits and no timer is set")
        self._loop.now_s += max(timeout, 0.0)
        return []


class VirtualClock:
    def now_s(self) -> float:
        return 1_700_000_000.0 + asyncio.get_running_loop().time()

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, duration_s: float) -> None:
        await asyncio.sleep(duration_s)


async def memory_world(seed: int = 1) -> World:
    """Everything in memory, one seed."""
    clock = VirtualClock()
    store = SqliteStore(None, clock)
    await store.create_schema(metadata)
    return World(clock=clock, dice=Random(seed), bus=LocalBus(), store=store, disk=LocalDisk(), run=LocalRunner())


def run_virtual(story: Coroutine[Any, Any, T]) -> T:
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(story)

"""What the object store's tests share: worlds, bodies, and stores on small rings."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar, cast

from apus.kernel.world import World
from apus.platform.clock import SystemClock
from apus.platform.disk import LocalDisk
from apus.services.object.engine import Intent

T = TypeVar("T")


class InlineRunner:
    """Runs at once what production runs on a thread."""

    async def in_thread(self, work: Callable[[], T]) -> T:
        return work()


def make_world(disk: Any = None, clock: Any = None, runner: Any = None, bus: Any = None) -> World:
    unused = cast(Any, None)
    return World(
        clock=clock or SystemClock(),
        dice=random.Random(7),
        bus=bus,
        store=unused,
        disk=disk or LocalDisk(),
        run=runner or cast(Any, InlineRunner()),
    )


async def chunks(data: bytes, size: int = 1 << 16) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def intent(name: str, size: int | None = None, **headers: str) -> Intent:
    return Intent("AUTH_a", "c", name, "text/plain", headers, size)


async def all_of(stream: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in stream])


def drive_paths(root: Path, count: int = 4) -> list[Path]:
    return [root / f"d{number}" for number in range(1, count + 1)]


def awaited(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """An async test in a loop of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


class FixedClock:
    """Time passes when the test says so."""

    def __init__(self, at_s: float) -> None:
        self.at_s = at_s

    def now_s(self) -> float:
        return self.at_s

    def monotonic_s(self) -> float:
        return self.at_s

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)

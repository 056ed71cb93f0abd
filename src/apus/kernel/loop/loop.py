"""Reconcilers: what should stay true is a loop that takes no orders.

A kick says where to look, never what to do, and the periodic scan takes the same path: read wanted and found afresh,
act on the difference.  Losing a kick costs at most one period.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Protocol

from apus.kernel.errors import CloudError
from apus.kernel.limits import MAILBOX_MAX
from apus.kernel.log import get_logger
from apus.kernel.world import Clock

_log: Final = get_logger("apus.loop")


class Loop(Protocol):
    name: str
    period_s: float

    async def keys(self) -> Iterable[str]:
        """Everything to look at in a full scan."""
        ...

    async def settle(self, key: str) -> None:
        """Make this one so.  Called again and again; a call that changes nothing is the usual one."""
        ...


class Mailbox:
    """Keys that somebody hinted at, each once.  Too many of them become one full scan."""

    def __init__(self) -> None:
        self._keys: dict[str, None] = {}
        self._everything = True
        self._filled = asyncio.Event()
        self._filled.set()

    def kick(self, key: str | None = None) -> None:
        """Look at this key soon; at everything when there is none."""
        if key is None or len(self._keys) >= MAILBOX_MAX:
            self._everything = True
        else:
            self._keys[key] = None
        self._filled.set()
        assert len(self._keys) <= MAILBOX_MAX

    async def next(self, scan_every_s: float) -> list[str] | None:
        """Wait for hints; None means that a full scan is due."""
        try:
            async with asyncio.timeout(scan_every_s):
                await self._filled.wait()
        except TimeoutError:
            self._everything = True
        self._filled.clear()
        keys, self._keys = list(self._keys), {}
        if self._everything:
            self._everything = False
            return None
        return keys


async def drive(
    loop: Loop,
    mailbox: Mailbox,
    clock: Clock,
    *,
    at_once: int = 32,
    measured: Callable[[str, float], None] | None = None,
) -> None:
    """Run a loop until cancelled: serial per key, `at_once` keys in parallel.  One key's failure is only its own.

    `measured` hears the loop's name, and what each round took.
    """
    places = asyncio.Semaphore(at_once)

    async def settle(key: str) -> None:
        async with places:
            await attempted(loop.name, key, loop.settle(key))

    while True:
        hinted = await mailbox.next(loop.period_s)
        began_s = clock.monotonic_s()
        try:
            keys = list(await loop.keys()) if hinted is None else hinted
        except CloudError as error:
            _log.warning("scan put off", loop=loop.name, code=error.code, why=error.shown)
            await clock.sleep(min(1.0, loop.period_s))
            mailbox.kick()
            continue
        if len(keys) == 1:
            await settle(keys[0])
        elif keys:
            async with asyncio.TaskGroup() as tasks:
                for key in keys:
                    tasks.create_task(settle(key), name=f"{loop.name}-{key}")
        if measured is not None:
            measured(loop.name, clock.monotonic_s() - began_s)


async def attempted(loop_name: str, key: str, work: Awaitable[object]) -> None:
    """Await it.  What it fails with is logged and is only this key's."""
    try:
        await work
    except CloudError as error:
        _log.warning("put off", loop=loop_name, key=key, code=error.code, why=error.shown)
    except Exception:
        _log.exception("settling failed", loop=loop_name, key=key)

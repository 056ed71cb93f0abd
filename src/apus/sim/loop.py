"""An event loop in which time moves only when nothing else can: an hour of waiting costs nothing.

Nothing from outside can wake it (no sockets, no threads), so a run is a function of its code and its seed, and
"every task waits and no timer is set" is an error that is found at once instead of a test that hangs.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(Exception):
    """Every task waits, and no timer is set: nothing will ever happen again."""


class _NoSockets(selectors.BaseSelector):
    """Where the loop would sleep until a socket or a timer is ready, its time jumps to the timer."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop
        self._keys: dict[int, selectors.SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("every task waits and no timer is set")
        self._loop.now_s += max(timeout, 0.0)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        # The loop's own wake-up pipe, which asyncio makes whatever we do.
        handle = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        self._keys[handle] = selectors.SelectorKey(fileobj, handle, events, data)
        return self._keys[handle]

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys[fileobj if isinstance(fileobj, int) else fileobj.fileno()]

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class SimLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now_s = 0.0
        super().__init__(_NoSockets(self))

    def time(self) -> float:
        return self.now_s

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        raise AssertionError("a thread in a simulation: blocking work goes through World.run")

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is none."""


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run to the end in virtual time.  Raises Deadlock when it can have none."""
    with asyncio.Runner(loop_factory=SimLoop) as runner:
        return runner.run(main)

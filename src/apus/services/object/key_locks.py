"""One writer at a time for a key, among those that ask."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class KeyLocks:
    """Locks by name, there only while somebody holds or awaits them."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, ...], tuple[asyncio.Lock, int]] = {}

    @contextlib.asynccontextmanager
    async def held(self, *name: str) -> AsyncIterator[None]:
        lock, holders = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = lock, holders + 1
        try:
            async with lock:
                yield
        finally:
            _, holders = self._locks.pop(name)
            if holders > 1:
                self._locks[name] = lock, holders - 1

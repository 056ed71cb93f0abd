"""Whether something that was acknowledged may be on stand-ins alone: a mark beside the layout, so that a process that
begins knows what the one before it did.

It says that there is something, and not where: that is known of each partition while the process runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from apus.kernel.world import Disk


class StrandedMark:
    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk, self._path = disk, path
        self._is_there = False
        """For sure."""
        self._is_left = False
        """Perhaps: what could not be removed is tried again."""
        self._turns = asyncio.Lock()

    async def load(self) -> bool:
        """Whether the last process left one."""
        try:
            await self._disk.read(self._path)
        except FileNotFoundError:
            return False
        self._is_there = self._is_left = True
        return True

    async def set(self) -> None:
        """Durable when it returns.  Raise OSError."""
        if self._is_there:
            return
        async with self._turns:
            if not self._is_there:
                self._is_left = True
                await self._disk.write_synced(self._path, b"")
                self._is_there = True

    async def clear(self, if_none: Callable[[], bool]) -> None:
        """Unless there is something.  Raise OSError."""
        if not self._is_left or not if_none():
            return
        async with self._turns:
            if if_none():
                self._is_there = False  # who strands something from here on waits, and sets it anew
                await self._disk.remove(self._path)
                self._is_left = False

"""A faulty disk on which everything takes time, so that what goes on at once meets in every order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.sim.object_disk import FaultyDisk, FaultyOpenFile


class SlowDisk(FaultyDisk):
    def __init__(self, dice: Random) -> None:
        super().__init__(dice)
        self.slowest_s = 0.02

    async def wait(self) -> None:
        await asyncio.sleep(self.dice.uniform(0, self.slowest_s))

    async def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> bytes:
        await self.wait()
        return await super().read(path, offset=offset, length=length)

    async def write_synced(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        await self.wait()
        await super().write_synced(path, data, mode=mode)

    async def open(self, path: Path, *, make: bool = False) -> FaultyOpenFile:
        await super().open(path, make=make)
        return SlowOpenFile(self, path)


class SlowOpenFile(FaultyOpenFile):
    def read_cached(self, offset: int, length: int) -> bytes | None:
        return None

    async def read(self, offset: int, length: int) -> bytes:
        await self._wait()
        return await super().read(offset, length)

    async def write_synced(self, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        await self._wait()
        await super().write_synced(offset, parts)
        await self._wait()

    async def _wait(self) -> None:
        assert isinstance(self._disk, SlowDisk)
        await self._disk.wait()

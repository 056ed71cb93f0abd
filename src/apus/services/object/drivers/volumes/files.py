"""The volumes of a drive: which there are, how much of each is dead, and the one that grows."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.world import OpenFile, World
from apus.services.object.drivers.quarantine import Quarantine
from apus.services.object.drivers.volumes.record import (
    MARKER_BYTES,
    VOLUME_HEADER_BYTES,
    marker_of,
    volume_header,
)
from apus.services.object.model import CorruptCopy

VOLUME_BYTES: Final = 1 << 30
"""A volume that has grown to this takes no more: what compaction rewrites in one go, at most."""

OPEN_MAX: Final = 64
"""Volumes of a drive that are open at once."""


class Usage(msgspec.Struct):
    """How much of a volume is in use."""

    marker: bytes
    total_bytes: int
    dead_bytes: int = 0

    @property
    def live_bytes(self) -> int:
        return self.total_bytes - self.dead_bytes - VOLUME_HEADER_BYTES


class Volumes:
    def __init__(self, world: World, directory: Path, volume_bytes: int = VOLUME_BYTES) -> None:
        self.directory = directory
        self.usage: dict[int, Usage] = {}
        self.active: int | None = None
        self.last = 0
        """The highest number that a volume has had."""
        self.volume_bytes = volume_bytes
        self.appended_bytes = 0
        self._disk, self._dice = world.disk, world.dice
        self._quarantine = Quarantine(world, directory.parent)
        self._open: OrderedDict[int, OpenFile] = OrderedDict()

    def path(self, number: int) -> Path:
        return self.directory / f"{number:010d}.volume"

    async def numbers(self) -> list[int]:
        names = await self._disk.names(self.directory)
        return sorted(int(name[:10]) for name in names if name.endswith(".volume") and name[:10].isdigit())

    async def learn(self, number: int) -> Usage:
        """Of a volume that is on the drive and not known yet; raise CorruptCopy when its header is damaged."""
        file = await self._file(number)
        marker = marker_of(await file.read(0, VOLUME_HEADER_BYTES), number)
        self.usage[number] = Usage(marker, file.size_bytes)
        return self.usage[number]

    async def size(self, number: int) -> int:
        return (await self._file(number)).size_bytes

    async def position(self) -> tuple[int, int, bytes]:
        """Where the next record goes, and the marker that it begins with."""
        if self.active is None or self.usage[self.active].total_bytes >= self.volume_bytes:
            self.active = None
            self.last += 1
            marker = self._dice.randbytes(MARKER_BYTES)
            file = await self._disk.open(self.path(self.last), make=True)
            self._keep(self.last, file)
            try:
                await file.write_synced(0, [volume_header(self.last, marker)])
            except OSError:
                with contextlib.suppress(OSError):
                    await self.remove(self.last)  # each try on a full drive would leave one
                raise
            self.usage[self.last] = Usage(marker, VOLUME_HEADER_BYTES)
            self.active = self.last
        usage = self.usage[self.active]
        return self.active, usage.total_bytes, usage.marker

    async def append(self, parts: Sequence[bytes | memoryview]) -> None:
        """At `position`.  After a failure nobody knows what came to the drive: the volume takes no more."""
        assert self.active is not None
        number = self.active
        usage = self.usage[number]
        try:
            await (await self._file(number)).write_synced(usage.total_bytes, parts)
        except BaseException:
            self.active = None
            raise
        size = sum(len(part) for part in parts)
        usage.total_bytes += size
        self.appended_bytes += size

    def died(self, number: int, length: int) -> None:
        usage = self.usage.get(number)
        if usage is not None:
            usage.dead_bytes += length

    def read_cached(self, number: int, offset: int, length: int) -> bytes | None:
        file = self._open.get(number)
        return None if file is None else file.read_cached(offset, length)

    async def read(self, number: int, offset: int, length: int) -> bytes:
        """As `OpenFile.read`.  Raise CorruptCopy when the volume is gone."""
        return await (await self._file(number)).read(offset, length)

    def view_cached(self, number: int, offset: int, length: int) -> memoryview | None:
        file = self._open.get(number)
        return None if file is None else file.view_cached(offset, length)

    def handle(self, number: int) -> int | None:
        """As `OpenFile.handle`; None where it is not open."""
        file = self._open.get(number)
        return None if file is None else file.handle

    async def view(self, number: int, offset: int, length: int, check: Callable[[memoryview], None]) -> memoryview:
        """As `OpenFile.view`.  Raise CorruptCopy when the volume is gone."""
        return await (await self._file(number)).view(offset, length, check)

    async def remove(self, number: int) -> None:
        """Nobody points into it any more."""
        assert number != self.active
        file = self._open.pop(number, None)
        if file is not None:
            await file.close()
        await self._disk.remove(self.path(number))
        self.usage.pop(number, None)

    async def put_aside(self, number: int) -> None:
        """It cannot be read, and nobody points into it.  One whose header never came has nothing in it."""
        file = self._open.pop(number, None)
        if file is None:
            return  # it is gone
        await file.close()
        path = self.path(number)
        if file.size_bytes <= VOLUME_HEADER_BYTES:
            await self._disk.remove(path)
            return
        await self._quarantine.take(path, path.name)

    async def close(self) -> None:
        while self._open:
            await self._open.popitem()[1].close()

    async def _file(self, number: int) -> OpenFile:
        file = self._open.get(number)
        if file is None:
            try:
                file = await self._disk.open(self.path(number))
            except FileNotFoundError as error:
                raise CorruptCopy(f"volume {number} is gone") from error
            file = await self._keep_one(number, file)
        self._open.move_to_end(number)
        return file

    async def _keep_one(self, number: int, file: OpenFile) -> OpenFile:
        """Two readers may have opened it at the same time."""
        if number in self._open:
            await file.close()
            return self._open[number]
        self._keep(number, file)
        while len(self._open) > OPEN_MAX:
            eldest = next(other for other in self._open if other not in (self.active, number))
            await self._open.pop(eldest).close()
        return file

    def _keep(self, number: int, file: OpenFile) -> None:
        self._open[number] = file

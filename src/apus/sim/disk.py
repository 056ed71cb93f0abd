"""A disk in memory that keeps no more than it promised.

Every file is there twice: as programs see it, and as it lies on the platter.  `sync` copies one to the other; a
power cut copies back, and on the way forgets, keeps or tears what was not synced.  A file that was removed may be
back, since removing syncs nothing.  A program that dies loses nothing: the page cache is the machine's.
"""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Final

from apus.kernel.world import Stat
from apus.sim.life import Life
from apus.sim.trace import Trace

SECTOR_BYTES: Final = 512
"""What a drive writes whole; a tear goes along these."""


@dataclasses.dataclass(slots=True, eq=False)
class _File:
    seen: bytes = b""
    on_platter: bytes = b""
    modified_s: float = 0.0


@dataclasses.dataclass(slots=True)
class DiskFaults:
    delay_max_s: float = 0.002
    sync_delay_max_s: float = 0.01
    refused: float = 0.0
    """Probability, for each call, of an input/output error."""


class SimDrive:
    """What is on one machine's disk; it outlives the machine's processes, and mostly its power."""

    def __init__(self, dice: Random, trace: Trace, *, name: str = "disk", capacity_bytes: int = 1 << 40) -> None:
        self.faults = DiskFaults()
        self.capacity_bytes = capacity_bytes
        self.files: dict[Path, _File] = {}
        self.directories: dict[Path, None] = {Path("/"): None}
        self.name = name
        self.dice, self.trace = dice, trace
        self._removed: dict[Path, _File] = {}
        """Gone for programs, and still named on the platter."""

    def used_bytes(self) -> int:
        return sum(len(file.seen) for file in self.files.values())

    def make_directory(self, path: Path) -> None:
        for directory in (*reversed(path.parents), path):
            if directory in self.files:
                raise NotADirectoryError(errno.ENOTDIR, "a file is in the way", str(directory))
            self.directories[directory] = None

    def sync_names(self, directory: Path) -> None:
        for path in [path for path in self._removed if path.parent == directory]:
            del self._removed[path]

    def remove(self, path: Path) -> None:
        for below in [p for p in self.files if p == path or path in p.parents]:
            self._removed[below] = self.files.pop(below)
        for below in [p for p in self.directories if p == path or path in p.parents]:
            del self.directories[below]

    def put(self, path: Path, file: _File) -> None:
        self.make_directory(path.parent)
        if path in self.directories:
            raise IsADirectoryError(errno.EISDIR, "is a directory", str(path))
        self.files[path] = file
        self._removed.pop(path, None)

    def write(self, file: _File, data: bytes) -> None:
        if self.used_bytes() - len(file.seen) + len(data) > self.capacity_bytes:
            raise OSError(errno.ENOSPC, "the simulated disk is full")
        file.seen = data

    def power_cut(self) -> None:
        """Everything falls back to what is on the platter, more or less."""
        for path, file in sorted(self._removed.items()):
            if path not in self.files and self.dice.random() < 0.5:
                self.put(path, file)
        self._removed.clear()
        for path, file in sorted(self.files.items()):
            file.seen = file.on_platter = self._after_cut(file)
            self.trace.note("power cut", self.name, path, len(file.seen))

    def _after_cut(self, file: _File) -> bytes:
        if file.seen == file.on_platter:
            return file.seen
        fate = self.dice.randrange(4)
        if fate == 0:
            return file.on_platter
        if fate == 1:
            return file.seen
        both = zip(file.seen, file.on_platter, strict=False)
        shorter = min(len(file.seen), len(file.on_platter))
        kept = next((place for place, (mine, platter) in enumerate(both) if mine != platter), shorter)
        torn = file.seen[: self.dice.randint(kept, len(file.seen))]
        if fate == 3 and len(torn) > kept:
            # The length came to the platter before one of the sectors did.
            hole = self.dice.randrange(kept, len(torn)) // SECTOR_BYTES * SECTOR_BYTES
            start, end = max(hole, kept), min(hole + SECTOR_BYTES, len(torn))
            torn = torn[:start] + bytes(end - start) + torn[end:]
        return torn

    def flip_bit(self, path: Path) -> None:
        """As drives do in the course of years."""
        file = self.files[path]
        place = self.dice.randrange(len(file.seen))
        flipped = bytes([file.seen[place] ^ (1 << self.dice.randrange(8))])
        file.seen = file.on_platter = file.seen[:place] + flipped + file.seen[place + 1 :]


class SimFileWriter:
    def __init__(self, disk: SimDisk, file: _File) -> None:
        self._disk, self._file = disk, file
        self._closed = False

    async def write(self, data: bytes | memoryview) -> None:
        if self._closed:
            raise ValueError("the file is closed")
        await self._disk.wait()
        self._disk.drive.write(self._file, self._file.seen + bytes(data))
        self._file.modified_s = self._disk.now_s()

    async def sync(self) -> None:
        if self._closed:
            raise ValueError("the file is closed")
        synced = self._file.seen
        await self._disk.wait_for_sync()
        self._file.on_platter = synced

    async def close(self) -> None:
        self._closed = True


class SimOpenFile:
    def __init__(self, disk: SimDisk, file: _File) -> None:
        self._disk, self._file = disk, file
        self._closed = False
        self.size_bytes = len(file.seen)

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """Half of what is read is in the page cache."""
        data = self._file.seen[offset : offset + length]
        return data if len(data) == length and self._disk.is_cached() else None

    async def read(self, offset: int, length: int) -> bytes:
        self._require_open()
        await self._disk.wait()
        return self._file.seen[offset : offset + length]

    def view_cached(self, offset: int, length: int) -> memoryview | None:
        data = self.read_cached(offset, length)
        return None if data is None else memoryview(data)

    async def view(self, offset: int, length: int, check: Callable[[memoryview], None]) -> memoryview:
        data = memoryview(await self.read(offset, length))
        check(data)
        return data

    @property
    def handle(self) -> int | None:
        return None

    async def write_synced(self, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        self._require_open()
        await self._disk.wait()
        seen = self._file.seen.ljust(offset, b"\0")
        data = b"".join(parts)
        self._disk.drive.write(self._file, seen[:offset] + data + seen[offset + len(data) :])
        self._file.modified_s = self._disk.now_s()
        self.size_bytes = len(self._file.seen)
        synced = self._file.seen
        await self._disk.wait_for_sync()
        self._file.on_platter = synced

    async def close(self) -> None:
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("the file is closed")


class SimDisk:
    """The drive as one process sees it."""

    def __init__(self, drive: SimDrive, now_s: Callable[[], float], life: Life | None = None) -> None:
        self.drive, self.now_s = drive, now_s
        self._life = life or Life(drive.name)

    async def wait(self) -> None:
        drive = self.drive
        await self._life.pause(drive.dice.uniform(0, drive.faults.delay_max_s))
        if drive.faults.refused and drive.dice.random() < drive.faults.refused:
            drive.trace.note("disk refused", drive.name)
            raise OSError(errno.EIO, "the simulated disk refused")

    async def wait_for_sync(self) -> None:
        await self._life.pause(self.drive.dice.uniform(0, self.drive.faults.sync_delay_max_s))
        await self.wait()

    def is_cached(self) -> bool:
        return not self._life.ended and self.drive.dice.random() < 0.5

    def _file(self, path: Path) -> _File:
        file = self.drive.files.get(path)
        if file is None:
            if path in self.drive.directories:
                raise IsADirectoryError(errno.EISDIR, "is a directory", str(path))
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return file

    async def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> bytes:
        await self.wait()
        seen = self._file(path).seen
        return seen[offset:] if length is None else seen[offset : offset + length]

    async def stream(
        self, path: Path, *, offset: int = 0, length: int | None = None, chunk_bytes: int = 1 << 18
    ) -> AsyncIterator[bytes]:
        file = self._file(path)
        end = None if length is None else offset + length
        while True:
            await self.wait()
            stop = offset + chunk_bytes if end is None else min(offset + chunk_bytes, end)
            chunk = file.seen[offset:stop]
            if not chunk:
                return
            offset += len(chunk)
            yield chunk

    async def create(self, path: Path, *, append: bool = False) -> SimFileWriter:
        await self.wait()
        file = self.drive.files.get(path)
        if file is None:
            file = _File(modified_s=self.now_s())
            self.drive.put(path, file)
            self.drive.sync_names(path.parent)
        elif not append:
            file.seen = b""
        return SimFileWriter(self, file)

    async def open(self, path: Path, *, make: bool = False) -> SimOpenFile:
        await self.wait()
        if make and path not in self.drive.files:
            self.drive.put(path, _File(modified_s=self.now_s()))
            self.drive.sync_names(path.parent)
        return SimOpenFile(self, self._file(path))

    async def write_synced(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        await self.wait()
        file = _File(modified_s=self.now_s())
        self.drive.write(file, bytes(data))
        file.on_platter = file.seen
        await self.wait_for_sync()
        self.drive.put(path, file)
        self.drive.sync_names(path.parent)
        self.drive.trace.note("disk wrote", self.drive.name, path, len(data))
        await self.wait()

    async def rename_synced(self, source: Path, target: Path) -> None:
        await self.wait()
        file = self._file(source)
        self.drive.put(target, file)
        del self.drive.files[source]
        self.drive.sync_names(target.parent)
        self.drive.trace.note("disk renamed", self.drive.name, source, target)
        await self.wait_for_sync()

    async def remove(self, path: Path) -> None:
        await self.wait()
        self.drive.remove(path)
        self.drive.trace.note("disk removed", self.drive.name, path)

    async def make_directory(self, path: Path) -> None:
        await self.wait()
        self.drive.make_directory(path)

    async def names(self, path: Path) -> Sequence[str]:
        await self.wait()
        return sorted(p.name for p in (*self.drive.files, *self.drive.directories) if p.parent == path and p != path)

    async def stat(self, path: Path) -> Stat | None:
        await self.wait()
        if path in self.drive.directories:
            return Stat(0, 0.0, True)
        file = self.drive.files.get(path)
        return None if file is None else Stat(len(file.seen), file.modified_s, False)

    async def free_bytes(self, path: Path) -> int:
        await self.wait()
        return self.drive.capacity_bytes - self.drive.used_bytes()

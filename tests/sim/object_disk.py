"""A disk in memory that does to files what real ones do: forgets what was not synced, fills, flips bits, goes away."""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from apus.kernel.world import Stat


class PowerCut(BaseException):
    """The machine stops here."""


def _is_in(path: Path, root: Path) -> bool:
    """As `is_relative_to`, which took a third of the time of a history."""
    return f"{path}/".startswith(f"{root}/")


class FaultyDisk:
    """Names and bytes are kept twice: as a running system sees them, and as a power cut would leave them."""

    def __init__(self, dice: Random | None = None) -> None:
        self.dice = dice or Random(1)
        self.files: dict[Path, bytes] = {}
        self.synced: dict[Path, bytes] = {}
        self.full: set[Path] = set()
        self.read_only: set[Path] = set()
        self.away: set[Path] = set()
        self.writes = 0
        self.cut_at: int | None = None
        self.open_files: set[Path] = set()

    def power_cut(self) -> None:
        """What was not synced is lost or torn."""
        survivors = dict(self.synced)
        for path, data in self.files.items():
            if path not in self.synced and self.dice.random() < 0.3:
                survivors[path] = data[: self.dice.randrange(len(data) + 1)]
            elif path in self.open_files and data != self.synced.get(path):
                survivors[path] = self._torn(data, self.synced.get(path, b""))
        self.files, self.synced = dict(survivors), dict(survivors)
        self.open_files.clear()
        self.cut_at = None

    def _torn(self, seen: bytes, kept: bytes) -> bytes:
        """Written in place and not synced: any part of it may be there, also the end without the middle."""
        torn = seen[: self.dice.randrange(len(kept), len(seen) + 1)]
        if len(torn) > len(kept) and self.dice.random() < 0.5:
            hole = self.dice.randrange(len(kept), len(torn))
            torn = torn[:hole] + bytes(min(512, len(torn) - hole)) + torn[hole + 512 :]
        return torn

    def wipe(self, root: Path) -> None:
        for path in [path for path in self.files if _is_in(path, root)]:
            self.files.pop(path, None)
            self.synced.pop(path, None)

    def snapshot(self, root: Path) -> dict[Path, bytes]:
        return {path: data for path, data in self.files.items() if _is_in(path, root)}

    def restore(self, root: Path, snapshot: dict[Path, bytes]) -> None:
        self.wipe(root)
        self.files.update(snapshot)
        self.synced.update(snapshot)

    def unmount(self, root: Path) -> dict[Path, bytes]:
        """Nothing is at its path any more, but who has a file open keeps it.  What went is to be given to `mount`."""
        gone = {path: data for path, data in self.snapshot(root).items() if path not in self.open_files}
        for path in gone:
            del self.files[path]
        return gone

    def mount(self, files: dict[Path, bytes]) -> None:
        self.files.update(files)

    def flip_bit(self, path: Path) -> None:
        data = bytearray(self.files[path])
        at = self.dice.randrange(len(data))
        data[at] ^= 1 << self.dice.randrange(8)
        self.files[path] = self.synced[path] = bytes(data)

    def _look(self, path: Path) -> None:
        if any(_is_in(path, root) for root in self.away):
            raise OSError(errno.EIO, "the drive is away")

    def _change(self, path: Path, *, grows: bool = False) -> None:
        self._look(path)
        self.writes += 1
        if self.cut_at is not None and self.writes >= self.cut_at:
            raise PowerCut
        if any(_is_in(path, root) for root in self.read_only):
            raise OSError(errno.EROFS, "read-only")
        if grows and any(_is_in(path, root) for root in self.full):
            raise OSError(errno.ENOSPC, "no space left")

    async def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> bytes:
        self._look(path)
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, str(path))
        data = self.files[path][offset:]
        return data if length is None else data[:length]

    async def stream(
        self, path: Path, *, offset: int = 0, length: int | None = None, chunk_bytes: int = 1 << 18
    ) -> AsyncIterator[bytes]:
        data = await self.read(path, offset=offset, length=length)
        for at in range(0, len(data), chunk_bytes):
            yield data[at : at + chunk_bytes]

    async def create(self, path: Path, *, append: bool = False) -> FaultyWriter:
        self._change(path, grows=True)
        self.files[path] = self.files.get(path, b"") if append else b""
        return FaultyWriter(self, path)

    async def open(self, path: Path, *, make: bool = False) -> FaultyOpenFile:
        self._look(path)
        if path not in self.files:
            if not make:
                raise FileNotFoundError(errno.ENOENT, str(path))
            self._change(path)  # a full disk still has room for a name
            self.files[path] = self.synced[path] = b""
        self.open_files.add(path)
        return FaultyOpenFile(self, path)

    async def write_synced(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        self._change(path, grows=True)
        self.files[path] = self.synced[path] = data

    async def rename_synced(self, source: Path, target: Path) -> None:
        self._look(source)
        if source not in self.files:
            raise FileNotFoundError(errno.ENOENT, str(source))
        self._change(target)
        data = self.files.pop(source)
        kept = self.synced.pop(source, data[: len(data) // 2])
        self.files[target], self.synced[target] = data, kept

    async def remove(self, path: Path) -> None:
        self._change(path)
        for inside in [other for other in self.files if other == path or _is_in(other, path)]:
            self.files.pop(inside)
            self.synced.pop(inside, None)

    async def make_directory(self, path: Path) -> None:
        self._change(path)

    async def names(self, path: Path) -> Sequence[str]:
        self._look(path)
        depth = len(path.parts)
        return sorted({other.parts[depth] for other in self.files if _is_in(other, path) and other != path})

    async def stat(self, path: Path) -> Stat | None:
        self._look(path)
        return Stat(len(self.files[path]), 0.0, False) if path in self.files else None

    async def free_bytes(self, path: Path) -> int:
        self._look(path)
        return 0 if path in self.full else 1 << 40


class FaultyWriter:
    def __init__(self, disk: FaultyDisk, path: Path) -> None:
        self._disk, self._path = disk, path

    async def write(self, data: bytes | memoryview) -> None:
        self._disk._change(self._path, grows=True)
        self._disk.files[self._path] += bytes(data)

    async def sync(self) -> None:
        self._disk._change(self._path)
        self._disk.synced[self._path] = self._disk.files[self._path]

    async def close(self) -> None: ...


class FaultyOpenFile:
    """Written in place: what is not synced may be torn.  Once open it can be read, also when it was removed."""

    def __init__(self, disk: FaultyDisk, path: Path) -> None:
        self._disk, self._path = disk, path
        self._last = disk.files[path]

    @property
    def size_bytes(self) -> int:
        return len(self._data())

    def read_cached(self, offset: int, length: int) -> bytes | None:
        if any(_is_in(self._path, root) for root in self._disk.away):
            return None
        data = self._data()[offset : offset + length]
        return data if len(data) == length and self._disk.dice.random() < 0.5 else None

    async def read(self, offset: int, length: int) -> bytes:
        self._disk._look(self._path)
        return self._data()[offset : offset + length]

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
        self._disk._change(self._path, grows=True)
        before, data = self._data().ljust(offset, b"\0"), b"".join(parts)
        self._disk.files[self._path] = before[:offset] + data + before[offset + len(data) :]
        self._disk._change(self._path)
        self._disk.synced[self._path] = self._disk.files[self._path]

    async def close(self) -> None: ...

    def _data(self) -> bytes:
        self._last = self._disk.files.get(self._path, self._last)
        return self._last


def sqlite_on(disk: FaultyDisk) -> Callable[[Path], sqlite3.Connection]:
    """Indexes on this disk: a commit is there whole after a power cut, or not at all."""

    def connect(path: Path) -> sqlite3.Connection:
        class OnDisk(sqlite3.Connection):
            def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
                if sql != "COMMIT":
                    return super().execute(sql, *values)
                disk._change(path, grows=True)
                cursor = super().execute(sql)
                disk.files[path] = disk.synced[path] = self.serialize()
                return cursor

        connection = sqlite3.connect(":memory:", isolation_level=None, factory=OnDisk)
        if path in disk.files:
            connection.deserialize(disk.files[path])
        return connection

    return connect

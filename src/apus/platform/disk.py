"""Files on the local disk, with the durability that the `Disk` Protocol states; all that may wait runs on threads."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from apus.kernel.buffers import BUFFER_BYTES, take_buffer
from apus.kernel.world import Stat
from apus.platform.direct import DirectHandle, write_all
from apus.platform.threads import Tell, Threads, tell_waiter

T = TypeVar("T")

_FRESH_BYTES = 64 << 10
THREADS_MAX = 16
"""More than a drive's queue can use well; the rest wait in line."""
_TEMPORARY = ".apus-writing"
"""Suffix of a file on its way to be another.  Nobody is shown it; found later, it is the rest of a crash."""
_writings = itertools.count()


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable, which syncing the files does not."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directories(path: Path) -> None:
    """Make a directory and its parents, each name durable in the one above."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir(exist_ok=True)
        sync_directory(directory.parent)


class LocalFileWriter:
    def __init__(self, disk: LocalDisk, handle: int) -> None:
        self._disk = disk
        self._handle, self._direct = handle, DirectHandle(handle)
        self._end = os.fstat(handle).st_size

    async def write(self, data: bytes | memoryview) -> None:
        handle = self._open_handle()
        self._end += await self._disk.in_thread(lambda: write_all(handle, self._direct, [data], self._end))

    async def sync(self) -> None:
        handle = self._open_handle()
        await self._disk.in_thread(lambda: os.fdatasync(handle))

    async def close(self) -> None:
        if self._handle >= 0:
            handle, self._handle = self._handle, -1

            def close() -> None:
                self._direct.close()
                os.close(handle)

            await self._disk.in_thread(close)

    def _open_handle(self) -> int:
        if self._handle < 0:
            raise ValueError("the file is closed")
        return self._handle


class LocalOpenFile:
    def __init__(self, disk: LocalDisk, handle: int) -> None:
        self._disk, self._handle, self._direct = disk, handle, DirectHandle(handle)
        self.size_bytes = os.fstat(handle).st_size
        self._users = 0
        self._closing = False

    def read_cached(self, offset: int, length: int) -> bytes | None:
        # Memory that was used before: new pages cost as much as the copy out of it.
        buffer = take_buffer()[:length] if _FRESH_BYTES < length <= BUFFER_BYTES else memoryview(bytearray(length))
        return bytes(buffer) if self._fill_cached(buffer, offset) else None

    async def read(self, offset: int, length: int) -> bytes:
        return await self._in_thread(lambda: _pread_full(self._handle, offset, length))

    def view_cached(self, offset: int, length: int) -> memoryview | None:
        buffer = take_buffer()[:length]
        return buffer.toreadonly() if self._fill_cached(buffer, offset) else None

    async def view(self, offset: int, length: int, check: Callable[[memoryview], None]) -> memoryview:
        buffer = take_buffer()[:length]

        def read() -> memoryview:
            view = buffer[: _preadv_full(self._handle, buffer, offset)].toreadonly()
            check(view)
            return view

        return await self._in_thread(read)

    def _fill_cached(self, buffer: memoryview, offset: int) -> bool:
        try:
            return os.preadv(self._handle, (buffer,), offset, os.RWF_NOWAIT) == len(buffer)
        except OSError:  # not cached, a file system that cannot say, or a drive that fails: who waits for it finds out
            return False

    @property
    def handle(self) -> int | None:
        if self._handle < 0:
            raise ValueError("the file is closed")
        return self._handle

    async def write_synced(self, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        def write() -> int:
            written = write_all(self._handle, self._direct, parts, offset)
            os.fdatasync(self._handle)
            return written

        self.size_bytes = max(self.size_bytes, offset + await self._in_thread(write))

    async def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._close_if_idle()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """The handle stays open until the thread is done, even when its waiter is cancelled: its number may go to
        another file."""
        if self._closing:
            raise ValueError("the file is closed")
        self._users += 1
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._disk.threads.begin(work, done, self._used)
        return await done

    def _used(self, done: asyncio.Future[T], tell: Tell) -> None:
        self._users -= 1
        tell_waiter(done, tell)
        if self._closing:
            self._close_if_idle()

    def _close_if_idle(self) -> None:
        if not self._users and self._handle >= 0:
            handle, self._handle = self._handle, -1
            self._direct.close()
            os.close(handle)


class LocalDisk:
    def __init__(self) -> None:
        self.threads = Threads(THREADS_MAX, "apus-disk")

    async def in_thread(self, work: Callable[[], T]) -> T:
        return await self.threads.run(work)

    def close(self) -> None:
        self.threads.close()

    async def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> bytes:
        def read() -> bytes:
            with path.open("rb", buffering=0) as file:
                file.seek(offset)
                return _read_full(file.fileno(), length)

        return await self.in_thread(read)

    async def stream(
        self, path: Path, *, offset: int = 0, length: int | None = None, chunk_bytes: int = 1 << 18
    ) -> AsyncIterator[bytes]:
        file = await self.in_thread(lambda: path.open("rb", buffering=0))
        try:
            handle, left = file.fileno(), length
            await self.in_thread(lambda: file.seek(offset))
            while left is None or left > 0:
                wanted = chunk_bytes if left is None else min(chunk_bytes, left)
                chunk = await self.in_thread(lambda wanted=wanted: _read_full(handle, wanted))  # type: ignore[misc]
                if not chunk:
                    return
                left = None if left is None else left - len(chunk)
                yield chunk
        finally:
            file.close()

    async def create(self, path: Path, *, append: bool = False) -> LocalFileWriter:
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if append else os.O_TRUNC)

        def create() -> int:
            make_directories(path.parent)
            made = not path.exists()
            handle = os.open(path, flags, 0o600)
            if made:
                sync_directory(path.parent)
            return handle

        return LocalFileWriter(self, await self.in_thread(create))

    async def open(self, path: Path, *, make: bool = False) -> LocalOpenFile:
        def open_file() -> LocalOpenFile:
            made = make and not path.exists()
            if made:
                make_directories(path.parent)
            try:
                handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if make else 0), 0o600)
            except OSError as error:
                if make or error.errno != errno.EROFS:
                    raise
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # it can still be read
            if made:
                sync_directory(path.parent)
            return LocalOpenFile(self, handle)

        return await self.in_thread(open_file)

    async def write_synced(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        def write() -> None:
            make_directories(path.parent)
            temporary = path.with_name(f".{path.name}.{os.getpid()}-{next(_writings)}{_TEMPORARY}")
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
            try:
                os.fchmod(handle, mode)
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(handle, rest) :]
                os.fsync(handle)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            finally:
                os.close(handle)
            os.replace(temporary, path)
            sync_directory(path.parent)

        await self.in_thread(write)

    async def rename_synced(self, source: Path, target: Path) -> None:
        def rename() -> None:
            make_directories(target.parent)
            os.replace(source, target)
            sync_directory(target.parent)

        await self.in_thread(rename)

    async def remove(self, path: Path) -> None:
        def remove() -> None:
            try:
                path.unlink()
            except FileNotFoundError:
                return
            except (IsADirectoryError, PermissionError):
                if path.is_symlink() or not path.is_dir():
                    raise
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(path)

        await self.in_thread(remove)

    async def make_directory(self, path: Path) -> None:
        await self.in_thread(lambda: make_directories(path))

    async def names(self, path: Path) -> Sequence[str]:
        def names() -> list[str]:
            try:
                return sorted(name for name in os.listdir(path) if not name.endswith(_TEMPORARY))
            except FileNotFoundError:
                return []

        return await self.in_thread(names)

    async def stat(self, path: Path) -> Stat | None:
        def look() -> Stat | None:
            try:
                found = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return Stat(found.st_size, found.st_mtime, stat.S_ISDIR(found.st_mode))

        return await self.in_thread(look)

    async def free_bytes(self, path: Path) -> int:
        def free() -> int:
            found = os.statvfs(path)
            return found.f_bavail * found.f_frsize

        return await self.in_thread(free)


def _pread_full(handle: int, offset: int, length: int) -> bytes:
    data = os.pread(handle, length, offset)
    while len(data) < length:  # a signal, or more than one call gives
        more = os.pread(handle, length - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data


def _preadv_full(handle: int, buffer: memoryview, offset: int) -> int:
    """How much there was, up to all that fits."""
    count = 0
    while count < len(buffer):
        more = os.preadv(handle, (buffer[count:],), offset + count)
        if not more:
            break
        count += more
    return count


def _read_full(handle: int, length: int | None) -> bytes:
    """Up to `length` bytes, short only at the end of the file."""
    parts: list[bytes] = []
    left = length
    while left is None or left > 0:
        part = os.read(handle, 1 << 20 if left is None else min(left, 1 << 20))
        if not part:
            break
        parts.append(part)
        left = None if left is None else left - len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)

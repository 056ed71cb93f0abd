"""Objects too large to be moved around: one file each, under `large/`, that a record in a volume makes visible.

A file is written under its own name from the start and never renamed: until its record is in the log nobody looks for
it, and what no record names is swept away.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final

from apus.kernel.buffers import FilePart
from apus.kernel.world import Disk, FileWriter, OpenFile, World
from apus.services.object.drivers.quarantine import Quarantine
from apus.services.object.drivers.trailer import blocks_of
from apus.services.object.drivers.verified import verified
from apus.services.object.model import BLOCK_BYTES, STRIDE_BYTES, Head, Place, trouble_of

DIRECTORY: Final = "large"
_HASH_DIGITS: Final = 32

Commit = Callable[[Place, Head, str], Awaitable[bool]]
"""Makes the file at this path the version in its place; false when a newer one is there."""
InUse = Callable[[bytes, str], Awaitable[bool]]


class LargeFiles:
    def __init__(self, world: World, root: Path) -> None:
        self._world, self._disk, self._root = world, world.disk, root
        self.quarantine = Quarantine(world, root)
        self.uploading: set[str] = set()
        """Files that are written now."""

    async def begin(self, place: Place, commit: Commit) -> LargeCopyWriter:
        token = self._world.dice.getrandbits(64)
        path = f"{DIRECTORY}/{place.hash[:2]}/{place.hash}-{token:016x}"
        self.uploading.add(path)
        try:
            return LargeCopyWriter(self, place, path, await self._disk.create(self._root / path), commit)
        except BaseException:
            self.uploading.discard(path)
            raise

    async def read(self, path: str, head: Head, offset: int, length: int) -> AsyncGenerator[memoryview]:
        """Checked before it is given.  Raise CorruptCopy, FileNotFoundError."""
        file = await self._disk.open(self._root / path)
        try:
            async with aclosing(verified(head, file, offset, length)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            await file.close()

    def part(self, path: str, head: Head) -> FilePart:
        """All of it."""
        return _Part(self._disk, self._root / path, head, 0, head.kept_bytes)

    async def is_there(self, path: str) -> bool:
        return await self._disk.stat(self._root / path) is not None

    async def remove(self, path: str) -> None:
        await self._disk.remove(self._root / path)

    async def put_aside(self, path: str) -> None:
        """A bad file."""
        source = self._root / path
        await self.quarantine.take(source, source.name[:_HASH_DIGITS])

    async def sweep(self, in_use: InUse) -> None:
        for path in await self.strays(in_use):
            await self.remove(path)

    async def strays(self, in_use: InUse) -> list[str]:
        """What a crash left: files that are neither written nor named by a record."""
        found = []
        for directory in await self._disk.names(self._root / DIRECTORY):
            for name in await self._disk.names(self._root / DIRECTORY / directory):
                path = f"{DIRECTORY}/{directory}/{name}"
                if path not in self.uploading and not await in_use(bytes.fromhex(name[:_HASH_DIGITS]), path):
                    found.append(path)
        return found

    def ended(self, path: str) -> None:
        """Of a writer: it is committed or removed."""
        self.uploading.discard(path)


class _Part:
    """Bytes of one file.  Implements `FilePart`."""

    block_bytes = BLOCK_BYTES

    def __init__(self, disk: Disk, path: Path, head: Head, offset: int, length: int) -> None:
        self._disk, self._path, self._head = disk, path, head
        self.size_bytes = length
        first, end = offset // BLOCK_BYTES, blocks_of(offset + length)
        self._start, self.skip_bytes = first * BLOCK_BYTES, offset % BLOCK_BYTES
        self.blocks_bytes = min(end * BLOCK_BYTES, head.kept_bytes) - self._start
        self.checksums = head.checksums[4 * first : 4 * end]
        self._file: OpenFile | None = None

    def piece(self, offset: int, length: int) -> FilePart | None:
        if length == self.size_bytes:
            return self
        return _Part(self._disk, self._path, self._head, offset, length) if length > STRIDE_BYTES else None

    async def __aenter__(self) -> tuple[int, int]:
        self._file = await self._disk.open(self._path)
        handle = self._file.handle
        if handle is None:
            await self.__aexit__(None, None, None)
            raise ValueError("not a file of the system")
        return handle, self._start

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._file is not None:
            await self._file.close()

    def read(self) -> None:
        """It is long, and is read piece by piece."""


class LargeCopyWriter:
    def __init__(self, files: LargeFiles, place: Place, path: str, file: FileWriter, commit: Commit) -> None:
        self._files, self._place, self._path, self._file, self._commit = files, place, path, file, commit
        self._open = True

    async def write(self, data: bytes | memoryview) -> None:
        try:
            await self._file.write(data)
        except OSError as error:
            raise trouble_of(error) from error

    async def commit(self, head: Head) -> None:
        assert self._open
        try:
            await self._file.sync()
            await self._file.close()
        except OSError as error:
            raise trouble_of(error) from error
        self._open = False  # if this fails, its record may be in the log all the same: the sweep decides
        kept = await self._commit(self._place, head, self._path)
        if not kept:
            await self._files.remove(self._path)
        self._files.ended(self._path)

    async def abort(self) -> None:
        if self._open:
            self._open = False
            try:
                await self._file.close()
                await self._files.remove(self._path)
            except OSError as error:
                raise trouble_of(error) from error
            finally:
                self._files.ended(self._path)

"""Copies of objects as one file each: `objects/PARTITION/HASH`, and `HASH.meta` for metadata set later.

A file is replaced by one rename, so a crash leaves the old version or the new one.  This object is the only writer
of its drive; what it knows of a place (`_known`) is therefore never older than the disk.
"""

from __future__ import annotations

import asyncio
import errno
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.world import FileWriter, World
from apus.services.object.drivers.fence import Fence
from apus.services.object.drivers.trailer import (
    FOOTER_BYTES,
    TAIL_BYTES,
    blocks_of,
    seal,
    trailer_bytes,
    unseal,
    verify_block,
)
from apus.services.object.drivers.unbroken import unbroken
from apus.services.object.logic.merge import digest_of, fingerprint
from apus.services.object.model import (
    BLOCK_BYTES,
    CorruptCopy,
    DriveTrouble,
    Head,
    Meta,
    Place,
    ReplacedCopy,
    trouble_of,
)

FETCH_BYTES: Final = 128 << 10
"""One read brings a whole object of up to about this size."""

KNOWN_MAX: Final = 4096
"""Heads kept in memory: about 1 KiB each."""

_meta_decoder = msgspec.json.Decoder(Meta)


class FileCopies:
    def __init__(self, world: World, root: Path, fence: Fence) -> None:
        self._world, self._disk, self._root, self._fence = world, world.disk, root, fence
        self._known: OrderedDict[str, Head | None] = OrderedDict()
        self._digests: dict[int, int] = {}
        self._changes = 0
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._uploads = 0

    async def store(self, place: Place, head: Head, data: bytes) -> None:
        assert len(data) == head.size_bytes
        assert len(head.checksums) == 4 * blocks_of(len(data))
        await self._fence.check(0 if head.gone else len(data) + TAIL_BYTES)
        await unbroken(self._store(place, _bare(head), data))

    async def begin(self, place: Place) -> FileCopyWriter:
        await self._fence.check(BLOCK_BYTES)
        self._uploads += 1
        path = self._root / "tmp" / f"{place.hash}-{self._uploads}-{self._world.dice.getrandbits(32):08x}"
        with _trouble(self._fence):
            return FileCopyWriter(self, place, path, await self._disk.create(path))

    async def finish(self, place: Place, head: Head, path: Path, file: FileWriter) -> None:
        """Of a writer: make what it wrote the version in this place."""
        await self._fence.check()
        with _trouble(self._fence):
            await file.write(seal(_bare(head)))
            await file.sync()
            await file.close()
        await unbroken(self._move_in(place, _bare(head), path))

    async def discard(self, path: Path) -> None:
        with _trouble(self._fence):
            await self._disk.remove(path)

    async def describe(self, place: Place, meta: Meta) -> None:
        await self._fence.check()
        await unbroken(self._describe(place, meta))

    async def head(self, place: Place) -> Head | None:
        await self._fence.check()
        if place.hash in self._known:
            return self._known[place.hash]
        async with self._alone(place):
            return await self._head(place)

    async def fetch(self, place: Place) -> tuple[Head, bytes | None] | None:
        await self._fence.check()
        known = self._known.get(place.hash)
        if known is not None and known.size_bytes > FETCH_BYTES:
            return known, None
        async with self._alone(place):
            return await self._fetch(place)

    async def read(self, place: Place, head: Head, offset: int, length: int) -> AsyncIterator[bytes]:
        await self._fence.check()
        first, end = offset // BLOCK_BYTES, offset + length
        start = first * BLOCK_BYTES
        wanted = min(blocks_of(end) * BLOCK_BYTES, head.size_bytes) - start
        index, rest = first, b""
        try:
            async for chunk in self._disk.stream(
                self._path(place), offset=start, length=wanted, chunk_bytes=BLOCK_BYTES
            ):
                rest = rest + chunk if rest else chunk
                while len(rest) >= BLOCK_BYTES or (rest and index * BLOCK_BYTES + len(rest) == head.size_bytes):
                    block, rest = rest[:BLOCK_BYTES], rest[BLOCK_BYTES:]
                    verify_block(head, index, block)
                    at = index * BLOCK_BYTES
                    yield block[max(0, offset - at) : max(0, min(len(block), end - at))]
                    index += 1
            if index * BLOCK_BYTES < min(end, head.size_bytes):
                raise CorruptCopy("the file ends early")
        except (CorruptCopy, FileNotFoundError) as error:
            await self._suspect(place, head, error)
        except OSError as error:
            raise _as_trouble(error, self._fence) from error

    async def audit(self, place: Place) -> Head | None:
        self._known.pop(place.hash, None)
        head = await self.head(place)
        if head is not None and head.size_bytes:
            async for _block in self.read(place, head, 0, head.size_bytes):
                pass
        return head

    async def drop(self, place: Place, version: tuple[str, str]) -> None:
        await self._fence.check()
        await unbroken(self._drop(place, version))

    async def parts(self) -> Sequence[int]:
        await self._fence.check()
        with _trouble(self._fence):
            names = await self._disk.names(self._root / "objects")
        return sorted(int(name) for name in names if name.isdigit())

    async def digest(self, part: int) -> int:
        await self._fence.check()
        if part not in self._digests:
            await self.inventory(part)
        if part not in self._digests:  # it changed while it was counted
            return self._world.dice.getrandbits(64)
        return self._digests[part]

    async def inventory(self, part: int) -> Mapping[str, tuple[str, str]]:
        await self._fence.check()
        began, found = self._changes, dict[str, tuple[str, str]]()
        with _trouble(self._fence):
            names = await self._disk.names(self._root / "objects" / str(part))
        for name in names:
            if len(name) != 32:
                continue
            try:
                head = await self.head(Place(part, name))
            except CorruptCopy:
                continue
            if head is not None:
                found[name] = head.version
        if began == self._changes:
            self._digests[part] = digest_of(found.items())
        return found

    def forget(self) -> None:
        """What was known of this drive may be another drive's."""
        self._changes += 1
        self._known.clear()
        self._digests.clear()

    async def clear_uploads(self) -> None:
        """What a crash left half written; called before the first upload."""
        with _trouble(self._fence):
            await self._disk.remove(self._root / "tmp")
            await self._disk.make_directory(self._root / "tmp")

    async def _store(self, place: Place, head: Head, data: bytes) -> None:
        async with self._alone(place):
            before = await self._head(place)
            if before is None or before.stamp < head.stamp:
                with _trouble(self._fence):
                    await self._disk.write_synced(self._path(place), data + seal(head))
                await self._replaced(place, before, head)

    async def _move_in(self, place: Place, head: Head, path: Path) -> None:
        async with self._alone(place):
            before = await self._head(place)
            if before is not None and before.stamp >= head.stamp:
                await self.discard(path)
                return
            with _trouble(self._fence):
                await self._disk.rename_synced(path, self._path(place))
            await self._replaced(place, before, head)

    async def _describe(self, place: Place, meta: Meta) -> None:
        async with self._alone(place):
            before = await self._head(place)
            if before is None or before.stamp < meta.of:
                raise DriveTrouble(errno.ENOENT, "the version to describe is not here")
            if before.stamp > meta.of or before.version[1] >= meta.stamp:
                return
            with _trouble(self._fence):
                await self._disk.write_synced(self._meta_path(place), msgspec.json.encode(meta))
            self._learn(place, before, msgspec.structs.replace(before, meta=meta))

    async def _drop(self, place: Place, version: tuple[str, str]) -> None:
        async with self._alone(place):
            before = await self._head(place)
            if before is None or before.version != version:
                return
            with _trouble(self._fence):
                await self._disk.remove(self._path(place))
                await self._disk.remove(self._meta_path(place))
            self._learn(place, before, None)

    # Below, the caller holds the lock of the place.

    async def _head(self, place: Place) -> Head | None:
        if place.hash in self._known:
            self._known.move_to_end(place.hash)
            return self._known[place.hash]
        try:
            found = await self._fetch(place)
        except CorruptCopy:
            return None
        return found[0] if found else None

    async def _fetch(self, place: Place) -> tuple[Head, bytes | None] | None:
        path = self._path(place)
        try:
            with _trouble(self._fence):
                start = await self._disk.read(path, length=FETCH_BYTES + TAIL_BYTES)
                if len(start) < FETCH_BYTES + TAIL_BYTES:
                    head, data = unseal(start, len(start)), start
                else:
                    head, data = await self._tail(path), None
            if data is not None:
                data = data[: head.size_bytes]
                for index in range(blocks_of(head.size_bytes)):
                    verify_block(head, index, data[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES])
        except FileNotFoundError:
            self._remember(place, None)
            return None
        except CorruptCopy:
            await self._put_aside(place)
            raise
        head = await self._with_meta(place, head)
        self._remember(place, head)
        return head, data

    async def _tail(self, path: Path) -> Head:
        found = await self._disk.stat(path)
        size = found.size_bytes if found else 0
        tail = await self._disk.read(path, offset=max(0, size - TAIL_BYTES), length=TAIL_BYTES)
        length = trailer_bytes(tail)
        if FOOTER_BYTES + TAIL_BYTES < length <= size or len(tail) < length <= size:
            tail = await self._disk.read(path, offset=size - length, length=length)
        return unseal(tail, size)

    async def _with_meta(self, place: Place, head: Head) -> Head:
        if place.hash in self._known:
            known = self._known[place.hash]
            return msgspec.structs.replace(head, meta=known.meta) if known is not None and known.meta else head
        if head.gone:
            return head
        try:
            with _trouble(self._fence):
                meta = _meta_decoder.decode(await self._disk.read(self._meta_path(place)))
        except (FileNotFoundError, msgspec.DecodeError):
            return head
        return msgspec.structs.replace(head, meta=meta) if meta.of == head.stamp else head

    async def _replaced(self, place: Place, before: Head | None, head: Head) -> None:
        if before is not None and before.meta is not None:
            with _trouble(self._fence):
                await self._disk.remove(self._meta_path(place))
        self._learn(place, before, head)

    def _learn(self, place: Place, before: Head | None, after: Head | None) -> None:
        """The place has changed on disk."""
        self._changes += 1
        if place.part in self._digests:
            for head in (before, after):
                if head is not None:
                    self._digests[place.part] ^= fingerprint(place.hash, head.version)
        self._remember(place, after)

    def _remember(self, place: Place, head: Head | None) -> None:
        self._known[place.hash] = head
        self._known.move_to_end(place.hash)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)

    async def _suspect(self, place: Place, head: Head, error: OSError) -> None:
        """A read of this version went wrong: was it replaced meanwhile, or is it bad?"""
        async with self._alone(place):
            self._known.pop(place.hash, None)
            found = await self._head(place)
            if found is None or found.stamp != head.stamp:
                raise ReplacedCopy(errno.ESTALE, "another version took its place") from error
            await unbroken(self._put_aside(place))
        raise CorruptCopy(errno.EIO, f"{place.hash}: {error}") from error

    async def _put_aside(self, place: Place) -> None:
        aside = self._root / "quarantine" / f"{place.hash}-{int(self._world.clock.now_s() * 1000)}"
        with _trouble(self._fence):
            await self._disk.make_directory(aside.parent)
            await self._disk.rename_synced(self._path(place), aside)
        self._changes += 1
        self._digests.pop(place.part, None)
        self._remember(place, None)

    def _path(self, place: Place) -> Path:
        return self._root / "objects" / str(place.part) / place.hash

    def _meta_path(self, place: Place) -> Path:
        return self._root / "objects" / str(place.part) / f"{place.hash}.meta"

    @asynccontextmanager
    async def _alone(self, place: Place) -> AsyncIterator[None]:
        lock, users = self._locks.get(place.hash) or (asyncio.Lock(), 0)
        self._locks[place.hash] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[place.hash]
            if users == 1:
                del self._locks[place.hash]
            else:
                self._locks[place.hash] = lock, users - 1


class FileCopyWriter:
    def __init__(self, copies: FileCopies, place: Place, path: Path, file: FileWriter) -> None:
        self._copies, self._place, self._path, self._file = copies, place, path, file
        self._open = True

    async def write(self, data: bytes | memoryview) -> None:
        with _trouble(None):
            await self._file.write(data)

    async def commit(self, head: Head) -> None:
        assert self._open
        await self._copies.finish(self._place, head, self._path, self._file)
        self._open = False

    async def abort(self) -> None:
        if self._open:
            self._open = False
            try:
                with _trouble(None):
                    await self._file.close()
            finally:
                await self._copies.discard(self._path)


class _trouble:  # noqa: N801  (reads as a keyword: `with _trouble(fence):`)
    """Every failure of the disk, but that of a file that is not there, becomes DriveTrouble."""

    def __init__(self, fence: Fence | None) -> None:
        self._fence = fence

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError | DriveTrouble):
            raise _as_trouble(error, self._fence) from error


def _as_trouble(error: OSError, fence: Fence | None) -> DriveTrouble:
    if fence is not None:
        fence.doubt()
    return trouble_of(error)


def _bare(head: Head) -> Head:
    return head if head.meta is None else msgspec.structs.replace(head, meta=None)

"""The copies of one drive: what the engine asks, answered from volumes, index and large files."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.buffers import Chunk, FilePart
from apus.kernel.log import get_logger
from apus.kernel.world import World
from apus.services.object.drivers.fence import Fence
from apus.services.object.drivers.trailer import blocks_of
from apus.services.object.drivers.unbroken import unbroken
from apus.services.object.drivers.verified import verified
from apus.services.object.drivers.volumes.adopt import adopt_files
from apus.services.object.drivers.volumes.checkpoint import Checkpointer
from apus.services.object.drivers.volumes.compaction import compact, most_wasteful
from apus.services.object.drivers.volumes.files import VOLUME_BYTES
from apus.services.object.drivers.volumes.journal import Drop, Journal, Lose, Put
from apus.services.object.drivers.volumes.large import LargeCopyWriter, LargeFiles
from apus.services.object.drivers.volumes.record import RECORD_BYTES_MAX, Record, unpack, verify_data
from apus.services.object.drivers.volumes.recovery import recover
from apus.services.object.drivers.volumes.run import Cold, Entry, IndexDamaged
from apus.services.object.logic.merge import Fingerprint, fingerprint
from apus.services.object.model import (
    BLOCK_BYTES,
    NO_VERSION,
    CorruptCopy,
    DriveTrouble,
    Head,
    Meta,
    Place,
    ReplacedCopy,
    trouble_of,
)

HEAD_ROOM_BYTES: Final = 8 << 10
"""What a record needs beside its data, about."""

_AT_ONCE_BYTES: Final = 64 << 10
"""Records up to this are read by one call; the data of longer ones into the buffer that they are sent from."""

_log: Final = get_logger("apus.object.volumes")


class VolumeCopies:
    def __init__(
        self,
        world: World,
        root: Path,
        fence: Fence,
        *,
        part_power: int,
        volume_bytes: int = VOLUME_BYTES,
        mark: Fingerprint = fingerprint,
    ) -> None:
        self._world, self._root, self._fence = world, root, fence
        self._part_power, self._volume_bytes, self._mark = part_power, volume_bytes, mark
        self.large = LargeFiles(world, root)
        self._journal: Journal | None = None
        self._checkpointer: Checkpointer | None = None
        self._opening = asyncio.Lock()
        self._swept = self._index_damaged = False

    # What the engine asks.

    def store(self, place: Place, head: Head, data: bytes | memoryview) -> Awaitable[object]:
        assert len(data) == head.kept_bytes
        assert len(head.checksums) == 4 * blocks_of(len(data))
        room = 0 if head.gone else len(data) + HEAD_ROOM_BYTES
        wish = Put(bytes.fromhex(place.hash), head, data)
        if self._journal is not None and self._fence.lets_in(room):
            return self._journal.submit(wish)
        return self._submit(wish, room)

    async def begin(self, place: Place) -> LargeCopyWriter:
        await self._ready(BLOCK_BYTES)
        with _trouble(self._fence):
            return await self.large.begin(place, self._commit_large)

    async def describe(self, place: Place, meta: Meta) -> None:
        path_hash = bytes.fromhex(place.hash)
        while True:
            journal = await self._ready()
            entry = await self._find(journal, path_hash)
            if entry is None or entry.stamp < meta.of:
                raise DriveTrouble(errno.ENOENT, "the version to describe is not here")
            if entry.stamp > meta.of or entry.told >= meta.stamp:
                return
            record, data = await self._record(journal, path_hash, entry, entry.length)
            head = msgspec.structs.replace(record.head, meta=meta)
            wish = Put(path_hash, head, data[record.head_bytes :], record.path, replaces=entry)
            if await journal.submit(wish):
                return

    def glance(self, place: Place) -> tuple[str, str] | None:
        if self._journal is None or not self._fence.lets_in():
            return None
        try:
            entry = self._journal.index.glance(bytes.fromhex(place.hash))
        except IndexDamaged:
            return None  # who asks for more finds out
        if isinstance(entry, Cold):
            return None
        return entry.version if entry is not None else NO_VERSION

    def at_hand(self, place: Place, upto_bytes: int) -> tuple[Head, Chunk | FilePart | None] | None:
        journal = self._journal
        if journal is None or not self._fence.lets_in():
            return None
        path_hash = bytes.fromhex(place.hash)
        try:
            entry = journal.index.glance(path_hash)
            if entry is None or isinstance(entry, Cold):
                return None
            return _cached(journal, self.large, path_hash, entry, upto_bytes)
        except (IndexDamaged, CorruptCopy):
            return None

    async def head(self, place: Place) -> Head | None:
        found = await self._look(place, 0)
        return found[0] if found else None

    async def fetch(self, place: Place, upto_bytes: int = RECORD_BYTES_MAX) -> tuple[Head, bytes | None] | None:
        return await self._look(place, upto_bytes)

    async def read(self, place: Place, head: Head, offset: int, length: int) -> AsyncGenerator[Chunk]:
        journal = await self._ready()
        path_hash = bytes.fromhex(place.hash)
        entry = await self._find(journal, path_hash)
        if entry is None or entry.stamp != head.stamp:
            raise ReplacedCopy(errno.ESTALE, "another version took its place")
        try:
            if entry.in_file:
                record, _ = await self._record(journal, path_hash, entry, entry.head_bytes)
                bytes_of = self.large.read(record.path, head, offset, length)
            else:
                bytes_of = verified(head, _Data(journal, entry), offset, length)
            async with aclosing(bytes_of) as chunks:
                async for chunk in chunks:
                    yield chunk
        except FileNotFoundError as error:
            await self._must_be_there(record.path)
            await self._suspect(journal, path_hash, entry, error)
        except CorruptCopy as error:
            await self._suspect(journal, path_hash, entry, error)
        except OSError as error:
            self._fence.doubt()
            raise trouble_of(error) from error

    async def audit(self, place: Place) -> Head | None:
        found = await self._look(place, RECORD_BYTES_MAX)
        if found is None:
            return None
        head, data = found
        if data is None:
            async for _block in self.read(place, head, 0, head.size_bytes):
                pass
        return head

    async def drop(self, place: Place, version: tuple[str, str]) -> None:
        await (await self._ready()).submit(Drop(bytes.fromhex(place.hash), version))

    async def unlisted(self) -> Mapping[str, str]:
        journal = await self._ready()
        return {path_hash.hex(): changed for path_hash, changed in journal.unlisted.items()}

    def listed(self, place: Place, changed: str) -> None:
        journal, path_hash = self._journal, bytes.fromhex(place.hash)
        if journal is not None and journal.unlisted.get(path_hash) == changed:
            del journal.unlisted[path_hash]

    async def parts(self) -> Sequence[int]:
        return sorted((await self._ready()).index.parts)

    async def digest(self, part: int) -> int:
        return (await self._ready()).index.parts.get(part, (0, 0))[1]

    async def census(self) -> Mapping[int, tuple[int, int]]:
        return dict((await self._ready()).index.parts)

    async def inventory(self, part: int) -> Mapping[str, tuple[str, str]]:
        journal = await self._ready()
        try:
            with _trouble(self._fence):
                return await journal.index.versions(part)
        except IndexDamaged:
            self._damaged()
            raise

    # What the drive asks.

    async def start(self) -> None:
        """Read what is there.  Raise DriveTrouble unless it is the drive."""
        await self._ready()

    def forget(self) -> None:
        """What was known of this drive may be another drive's: it is read again before the next use."""
        if self._journal is not None:
            self._journal.abandon()
            self._journal = None

    async def repartition(self, part_power: int) -> None:
        """Count by these partitions from now on.  Who asks meanwhile waits for the index to be read again."""
        async with self._opening:
            if self._journal is not None:
                self._journal.abandon()
            await self.close()
            self._part_power = part_power

    def _damaged(self) -> None:
        """The index is made again from the volumes before the next use."""
        self._index_damaged = True
        self.forget()

    async def strays(self) -> list[str]:
        """Files that nobody needs; the next start removes them."""
        await self._ready()
        return await self.large.strays(self._is_in_use)

    async def tidy(self) -> int:
        """Give back what dead bytes take, and what a crash left; returns how many bytes were moved."""
        journal = await self._ready()
        with _trouble(self._fence):
            await self.large.quarantine.sweep(all_of_it=not self._fence.lets_in(self._volume_bytes))
            if not self._swept:
                await self.large.sweep(self._is_in_use)
                self._swept = True
            moved, number = 0, most_wasteful(journal.volumes)
            while number is not None and journal is self._journal:
                moved += await compact(self._world, journal, number)
                number = most_wasteful(journal.volumes)
        return moved

    async def close(self) -> None:
        """Leave little to read again."""
        journal, self._journal = self._journal, None
        if journal is None or self._checkpointer is None:
            return
        await journal.settle()
        await self._checkpointer.settle()
        try:
            await self._checkpointer.save()
        except OSError as error:
            _log.warning("not saved", drive=str(self._root), error=str(error))
        await self._checkpointer.close()

    # How.

    async def _ready(self, room: int = 0) -> Journal:
        if self._journal is not None and self._fence.lets_in(room):
            return self._journal
        await self._fence.check(room)
        async with self._opening:
            if self._journal is None:
                await unbroken(self._open())
        assert self._journal is not None
        return self._journal

    async def _open(self) -> None:
        if self._checkpointer is not None:
            await self._checkpointer.close()
        with _trouble(self._fence):
            journal = await recover(
                self._world,
                self._root / "volumes",
                self._part_power,
                self._fence,
                self._volume_bytes,
                self._mark,
                trust_index=not self._index_damaged,
            )
            await adopt_files(self._world, self._root, journal)
        journal.on_damage = self._damaged
        self._swept = self._index_damaged = False
        self._checkpointer = Checkpointer(self._world, journal, self.large)
        journal.after_commit = self._checkpointer.look
        self._journal = journal

    async def _submit(self, wish: Put, room: int) -> bool:
        return await (await self._ready(room)).submit(wish)

    async def _look(self, place: Place, upto_bytes: int) -> tuple[Head, bytes | None] | None:
        """The head, and the bytes if they are in the volume and no more than this with it."""
        journal = await self._ready()
        path_hash = bytes.fromhex(place.hash)
        while True:
            entry = await self._find(journal, path_hash)
            if entry is None:
                return None
            whole = entry.length <= upto_bytes
            length = entry.length if whole else entry.head_bytes
            try:
                record, data = await self._record(journal, path_hash, entry, length)
                head = record.head
                if entry.in_file or not whole:
                    return head, None
                body = data[record.head_bytes :]
                verify_data(head, body)
                return head, body
            except CorruptCopy as error:
                try:
                    await self._suspect(journal, path_hash, entry, error)
                except ReplacedCopy:
                    continue

    async def _find(self, journal: Journal, path_hash: bytes) -> Entry | None:
        try:
            entry = journal.index.glance(path_hash)
            if not isinstance(entry, Cold):
                return entry
            with _trouble(self._fence):
                return await journal.index.find(path_hash)
        except IndexDamaged:
            self._damaged()
            raise

    async def _record(self, journal: Journal, path_hash: bytes, entry: Entry, length: int) -> tuple[Record, bytes]:
        """The record and as many bytes of it.  Raise CorruptCopy unless its head is sound; its data are not checked."""
        volumes = journal.volumes
        data = volumes.read_cached(entry.volume, entry.offset, length)
        if data is None:
            with _trouble(self._fence):
                data = await volumes.read(entry.volume, entry.offset, length)
        usage = volumes.usage.get(entry.volume)
        if usage is None:
            raise CorruptCopy("the volume is gone")
        return unpack(data, usage.marker, path_hash), data

    async def _suspect(self, journal: Journal, path_hash: bytes, entry: Entry, error: OSError) -> None:
        """A read of this went wrong: was it moved or replaced meanwhile, or is it bad?  Raises either."""
        self._fence.doubt()
        await self._fence.check()  # volumes that are not open are missing, too, where the drive is unmounted
        if await self._find(journal, path_hash) == entry:
            _log.warning("bad copy", drive=str(self._root), hash=path_hash.hex(), error=str(error))
            if entry.in_file:
                await self._put_aside(journal, path_hash, entry)
            if await journal.submit(Lose(path_hash, entry)):
                raise CorruptCopy(errno.EIO, f"{path_hash.hex()}: {error}") from error
        raise ReplacedCopy(errno.ESTALE, "another version took its place") from error

    async def _must_be_there(self, path: str) -> None:
        """A file was missing: where a drive is unmounted all of them are, and none is lost.  Raise DriveTrouble.

        Its log is still open then, so without a look whatever is asked for would be put down as lost.
        """
        there = False
        for _ in range(2):
            self._fence.doubt()
            await self._fence.check()
            there = there or await self.large.is_there(path)
        if there:
            raise DriveTrouble(errno.EAGAIN, "the drive was away for a moment")

    async def _put_aside(self, journal: Journal, path_hash: bytes, entry: Entry) -> None:
        try:
            record, _ = await self._record(journal, path_hash, entry, entry.head_bytes)
        except CorruptCopy:
            return
        with _trouble(self._fence):
            await self.large.put_aside(record.path)

    async def _commit_large(self, place: Place, head: Head, path: str) -> bool:
        return await self._submit(Put(bytes.fromhex(place.hash), head, b"", path), 0)

    async def _is_in_use(self, path_hash: bytes, path: str) -> bool:
        journal = await self._ready()
        entry = await self._find(journal, path_hash)
        if entry is None or not entry.in_file:
            return False
        record, _ = await self._record(journal, path_hash, entry, entry.head_bytes)
        return record.path == path


def _cached(
    journal: Journal, large: LargeFiles, path_hash: bytes, entry: Entry, upto_bytes: int
) -> tuple[Head, Chunk | FilePart | None] | None:
    """The head, and the bytes if they are no more than this with it: read if they are few, else where they are.  None
    where the drive has to be waited for.  Raise CorruptCopy."""
    volumes, usage = journal.volumes, journal.volumes.usage.get(entry.volume)
    whole = entry.length <= upto_bytes and not entry.in_file
    at_once = whole and entry.length <= _AT_ONCE_BYTES
    data = volumes.read_cached(entry.volume, entry.offset, entry.length if at_once else entry.head_bytes)
    if data is None or usage is None:
        return None
    record = unpack(data, usage.marker, path_hash)
    head = record.head
    if entry.in_file and upto_bytes > entry.length:
        return head, large.part(record.path, head)
    if not whole:
        return head, None
    if not at_once:
        part = _Part(journal, entry, head)
        if volumes.handle(entry.volume) is not None:
            return head, part
        read = part.read()
        return None if read is None else (head, read)
    body = data[record.head_bytes :]
    verify_data(head, body)
    return head, body


class _Data:
    """The data of a record."""

    def __init__(self, journal: Journal, entry: Entry) -> None:
        self._volumes, self._volume, self._start = journal.volumes, entry.volume, entry.offset + entry.head_bytes

    def view_cached(self, offset: int, length: int) -> memoryview | None:
        return self._volumes.view_cached(self._volume, self._start + offset, length)

    async def view(self, offset: int, length: int, check: Callable[[memoryview], None]) -> memoryview:
        return await self._volumes.view(self._volume, self._start + offset, length, check)


class _Part(_Data):
    """All of them.  Implements `FilePart`."""

    block_bytes, skip_bytes = BLOCK_BYTES, 0

    def __init__(self, journal: Journal, entry: Entry, head: Head) -> None:
        super().__init__(journal, entry)
        self._head, self.size_bytes, self.checksums = head, head.kept_bytes, head.checksums
        self.blocks_bytes = self.size_bytes

    def piece(self, offset: int, length: int) -> FilePart | None:
        return self if length == self.size_bytes else None

    async def __aenter__(self) -> tuple[int, int]:
        handle = self._volumes.handle(self._volume)
        if handle is None:
            raise ValueError("the volume is closed")
        return handle, self._start

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None: ...

    def read(self) -> Chunk | None:
        body = self.view_cached(0, self.size_bytes)
        try:
            if body is not None:
                verify_data(self._head, body)
            return body
        except CorruptCopy:
            return None  # who waits for it finds out, and says so


class _trouble:  # noqa: N801  (reads as a keyword: `with _trouble(fence):`)
    """Every failure of the disk, but that of a file that is not there, becomes DriveTrouble."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError) and not isinstance(error, FileNotFoundError | DriveTrouble):
            self._fence.doubt()
            raise trouble_of(error) from error

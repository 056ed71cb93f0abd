"""Objects on drives: written to a quorum before the answer, read from any good copy.

Nothing here knows of containers or callers; `service.py` joins the two.  Bodies pass through in strides, so memory
is bounded whatever their size.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from apus.kernel.buffers import Chunk, FilePart
from apus.kernel.errors import Invalid, NotFound, Unavailable
from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.consistency import READING, Level, noted
from apus.services.object.drivers.drive import Drive
from apus.services.object.drivers.trailer import checksums_of
from apus.services.object.drivers.unbroken import unbroken
from apus.services.object.fragment_reading import read_fragments
from apus.services.object.fragments import FRAGMENTS_FROM_BYTES, FragmentUpload
from apus.services.object.logic.code import Code, archive_hash, group_of
from apus.services.object.logic.hidden import described
from apus.services.object.logic.merge import merge
from apus.services.object.logic.rings import archives_part
from apus.services.object.model import STRIDE_BYTES, Head, Meta, Place, ReplacedCopy
from apus.services.object.strides import LONG_STRIDE_BYTES, strides
from apus.services.object.strong import newest_of_quorum, outrank
from apus.services.object.upload import Upload

OBJECT_BYTES_MAX: Final = 5 * (1 << 30) + 2
"""As Swift's default `max_file_size`."""

READ_TIMEOUT_S: Final = 5.0
"""A drive that does not find an object for so long is passed over."""

READERS_S: Final = 60.0
"""Who found a version before it was overwritten may go on to read its archives for so long."""

UNCLAIMED_MAX: Final = 100_000
"""Archives to be looked at that are remembered; past it, the scan finds them."""

AT_HAND_BYTES: Final = 256 << 10
"""What is read with its head in one go, unless the reader says how much he wants; more is streamed."""

LONG_FROM_BYTES: Final = 4 * LONG_STRIDE_BYTES
"""Bodies from this length on come in long strides, while there are few of them: two strides of each are in memory."""
LONG_MAX: Final = 8

INLINE_BYTES: Final = 64 << 10
"""Hashing less than this takes less than the way to a thread and back."""


class Found(msgspec.Struct, frozen=True):
    """A version, and where it was seen; small ones come with their bytes, or with where these are."""

    place: Place
    head: Head
    drive: Drive
    data: Chunk | None
    part: FilePart | None = None

    @classmethod
    def at(cls, place: Place, head: Head, drive: Drive, kept: Chunk | FilePart | None) -> Found:
        """`kept`: what the drive keeps beside the head, which is nothing of an object in fragments."""
        if head.coded is not None:
            return cls(place, head, drive, None)
        if kept is None or isinstance(kept, bytes | memoryview):
            return cls(place, head, drive, kept)
        return cls(place, head, drive, None, kept)


@dataclasses.dataclass(frozen=True, slots=True)
class Removed:
    """What a delete left, and what was there before."""

    tombstone: Head
    before: Head


@dataclasses.dataclass(frozen=True, slots=True)
class Intent:
    """An object that is being written, all but its bytes."""

    account: str
    container: str
    name: str
    content_type: str
    headers: Mapping[str, str]
    """Read when the body has ended, so that what streams it may add what is known only then."""
    size_bytes: int | None = None
    etag: str | None = None
    """The MD5 that the client expects."""
    stamp: str = ""
    """Its time, when it is not that of the end of the body."""


class _Hash(Protocol):
    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


PolicyOf = Callable[[str, str], Awaitable[int]]
"""The number of the storage policy of an account's container."""


class Engine:
    def __init__(self, cluster: Cluster, policy_of: PolicyOf) -> None:
        self.cluster, self._policy_of = cluster, policy_of
        self._run = cluster.world.run
        self._long = 0
        """Bodies that come in long strides now."""

    async def place(self, account: str, container: str, name: str) -> Place:
        """Where an object is, by the storage policy of its container.  Raise Unavailable when nobody can say that."""
        return self.cluster.place(account, container, name, policy=await self._policy_of(account, container))

    async def put(self, intent: Intent, data: AsyncIterator[Chunk]) -> Head:
        """Write it; when `data` raises, nothing is left."""
        place = await self.place(intent.account, intent.container, intent.name)
        reading = READING.get()
        if reading is not None and reading.level is Level.STRONG:
            await outrank(self.cluster, place)
        code = self.cluster.ring.code_of(place.part)
        if code is not None:
            return await self._write(intent, data, place, code, code.segment_bytes)
        if self._long == LONG_MAX or (intent.size_bytes or 0) < LONG_FROM_BYTES:
            return await self._write(intent, data, place, None, STRIDE_BYTES)
        self._long += 1
        try:
            return await self._write(intent, data, place, None, LONG_STRIDE_BYTES)
        finally:
            self._long -= 1

    async def _write(
        self, intent: Intent, data: AsyncIterator[Chunk], place: Place, code: Code | None, stride_bytes: int
    ) -> Head:
        md5 = hashlib.md5(usedforsecurity=False)
        before = await self._before(place) if code is not None else None
        body = strides(data, intent.size_bytes, OBJECT_BYTES_MAX, stride_bytes)
        first = await anext(body, b"")
        whole = len(first) < stride_bytes or len(first) == intent.size_bytes
        if whole and (code is None or len(first) < FRAGMENTS_FROM_BYTES):
            checksums = await self._digest(md5, first)
            head = self._head(intent, len(first), md5, checksums)
            await self.cluster.spread("objects", place.part, lambda drive: drive.copies.store(place, head, first))
            self._let_go(place, before)
            return noted(head)
        upload = _CopiesUpload(self.cluster, place) if code is None else FragmentUpload(self.cluster, place, code)
        try:
            await unbroken(upload.open())
            checksums, size, stride = b"", 0, first
            while stride:
                size += len(stride)
                stride, sums = await _next(body, asyncio.gather(upload.write(stride), self._digest(md5, stride)))
                checksums += sums
            head = await unbroken(upload.commit(self._head(intent, size, md5, checksums)))
            self._let_go(place, before)
            return noted(head)
        finally:
            await unbroken(upload.close())

    async def find(
        self, account: str, container: str, name: str, *, newest: bool = False, upto_bytes: int = AT_HAND_BYTES
    ) -> Found | None:
        """The object, or None; a deleted one is not found.  `newest` asks every copy, not just one."""
        place = await self.place(account, container, name)
        found = await self.locate(place, newest=newest, upto_bytes=upto_bytes)
        return None if found is None or found.head.gone else found

    async def locate(self, place: Place, *, newest: bool = False, upto_bytes: int = AT_HAND_BYTES) -> Found | None:
        """The version in this place, a tombstone too: as fresh as the request asks for; small ones with their bytes."""
        reading = READING.get()
        if reading is None:
            return await self._look(place, newest, upto_bytes)
        if reading.level is not Level.STRONG:
            doubt_s = self.cluster.doubt_s("objects", place.part)
            found = await self._look(place, newest, upto_bytes)
            if reading.is_met_by(found.head if found else None):
                reading.saw(doubt_s)
                return found
        sure = await newest_of_quorum(self.cluster, place)
        return None if sure is None else Found.at(place, *sure)

    async def _look(self, place: Place, newest: bool, upto_bytes: int) -> Found | None:
        """One copy, or all where one may not be enough."""
        if not newest and not self.cluster.repairs.suspects("objects", place.part):
            found = await self._first(place, upto_bytes)
            if found is not None:
                return found
        return await self._newest(place, upto_bytes)

    async def read(self, found: Found, offset: int, length: int) -> AsyncIterator[Chunk]:
        """Bytes of the version that was found; another copy takes over where one fails."""
        data = found.part.read() if found.part is not None else found.data
        if data is not None:
            if length:
                yield data[offset : offset + length]
            return
        if found.head.coded is not None:
            async for segment in read_fragments(self.cluster, found.place, found.head, offset, length):
                yield segment
            return
        end = offset + length
        others = [drive for drive in self.cluster.candidates(found.place.part) if drive is not found.drive]
        for drive in (found.drive, *others):
            try:
                if drive is not found.drive:
                    head = await drive.copies.head(found.place)
                    if head is None or head.stamp != found.head.stamp:
                        continue
                async for chunk in drive.copies.read(found.place, found.head, offset, end - offset):
                    offset += len(chunk)
                    yield chunk
                if offset == end:
                    return
            except ReplacedCopy:
                continue
            except OSError as error:
                self._note(drive, found.place, error)
        raise Unavailable("object.no_good_copy", "No copy of this version could be read to its end.")

    async def delete(
        self, account: str, container: str, name: str, *, if_stamp: str | None = None, stamp: str = ""
    ) -> Removed:
        """Leave a tombstone.  Raise NotFound when there is nothing (or no longer that version) to delete."""
        place = await self.place(account, container, name)
        found = await self.locate(place, newest=True, upto_bytes=0)
        if found is None or found.head.gone or (if_stamp is not None and found.head.changed != if_stamp):
            raise NotFound("object.absent", "The resource could not be found.")
        tombstone = Head(account, container, name, stamp or self.cluster.stamp(), gone=True)
        await self.cluster.spread("objects", place.part, lambda drive: drive.copies.store(place, tombstone, b""))
        self._let_go(place, found.head)
        return Removed(noted(tombstone), found.head)

    async def describe(
        self, account: str, container: str, name: str, content_type: str | None, headers: Mapping[str, str]
    ) -> Head:
        """Replace the metadata, keep the bytes, and of the system's headers those not named; an empty one removes."""
        place = await self.place(account, container, name)
        found = await self.locate(place, newest=True, upto_bytes=0)
        if found is None or found.head.gone:
            raise NotFound("object.absent", "The resource could not be found.")
        shown = content_type or found.head.shown_type
        kept = described(found.head.shown_headers, headers)
        meta = Meta(found.head.stamp, self.cluster.stamp(), shown, kept)
        await self.cluster.spread("objects", place.part, lambda drive: drive.copies.describe(place, meta))
        return noted(msgspec.structs.replace(found.head, meta=meta))

    async def _first(self, place: Place, upto_bytes: int) -> Found | None:
        """The first primary that has it.  A missing or failing copy is noted, so the next reader asks them all."""
        for drive in self.cluster.primaries(place.part):
            if self.cluster.resting(drive):
                self.cluster.repairs.suspect("objects", place.part)
                continue
            got = drive.copies.at_hand(place, upto_bytes)
            if got is None:
                try:
                    async with asyncio.timeout(READ_TIMEOUT_S):
                        got = await drive.copies.fetch(place, min(upto_bytes, AT_HAND_BYTES))
                except OSError as error:
                    self._note(drive, place, error)
                    continue
            if got is None:
                return None
            return Found.at(place, got[0], drive, got[1])
        return None

    async def _newest(self, place: Place, upto_bytes: int) -> Found | None:
        """The newest among all copies, wherever they may be; with its bytes if they are no more than this."""
        drives = self.cluster.candidates(place.part)
        found = await self._alike(place, drives, upto_bytes)
        if found is not None:
            return found
        primaries = {drive.id for drive in self.cluster.primaries(place.part)}
        upto_bytes = min(upto_bytes, AT_HAND_BYTES)  # of each copy
        answers = await ask_each(drives, lambda drive: drive.copies.fetch(place, upto_bytes), READ_TIMEOUT_S)
        best: Found | None = None
        heard = 0
        for drive, answer in zip(drives, answers, strict=True):
            if isinstance(answer, OSError):
                self._note(drive, place, answer)
                continue
            heard += drive.id in primaries
            if answer is None:
                continue
            if best is None or merge(best.head, answer[0]) is not best.head:
                best = Found.at(place, answer[0], drive, answer[1])
        if best is None and heard < self._enough(place.part):
            raise Unavailable("object.copies_away", "Too many copies are away to say whether this exists.")
        if best is not None:
            held = [
                answer is not None and answer[0].version == best.head.version
                for drive, answer in zip(drives, answers, strict=True)
                if drive.id in primaries and not isinstance(answer, OSError)
            ]
            if not all(held):
                self.cluster.repairs.add("objects", place.part)
            elif len(held) < self.cluster.copies(place.part):
                self.cluster.repairs.suspect("objects", place.part)
        return best

    async def _alike(self, place: Place, drives: Sequence[Drive], upto_bytes: int) -> Found | None:
        """The version that all primaries have and nobody a newer one, where all can say so at once; else None."""
        first, *others = drives
        version = first.copies.glance(place)
        if version is None:
            return None
        primaries = self.cluster.ring.primaries(place.part)
        for drive in others:
            seen = drive.copies.glance(place)
            if seen is None or seen > version or (seen < version and drive.id in primaries):
                return None
        try:
            got = first.copies.at_hand(place, upto_bytes) or await first.copies.fetch(place, upto_bytes)
        except OSError:
            return None
        return Found.at(place, got[0], first, got[1]) if got is not None and got[0].version == version else None

    async def _before(self, place: Place) -> Head | None:
        """What is about to be overwritten, as far as one drive can say: a scan finds what this misses."""
        for drive in self.cluster.primaries(place.part):
            if not self.cluster.resting(drive):
                (answer,) = await ask_each([drive], lambda drive: drive.copies.head(place), READ_TIMEOUT_S)
                return None if isinstance(answer, OSError) else answer
        return None

    def _let_go(self, place: Place, before: Head | None) -> None:
        """Of a version that is no longer the newest, the archives may go."""
        if before is not None and before.coded is not None and len(self.cluster.unclaimed) < UNCLAIMED_MAX:
            group = group_of(archive_hash(place.hash, before.coded.nonce, 0))
            at_s = self.cluster.world.clock.monotonic_s() + READERS_S
            self.cluster.unclaimed[archives_part(place.part), group] = at_s

    def _enough(self, part: int) -> int:
        """So many copies that one of any quorum is among them."""
        return self.cluster.copies(part) - self.cluster.quorum(part) + 1

    def _note(self, drive: Drive, place: Place, error: OSError) -> None:
        self.cluster.trouble(drive, place.part, error)

    async def _digest(self, md5: _Hash, data: bytes | memoryview) -> bytes:
        def work() -> bytes:
            md5.update(data)
            return checksums_of(data)

        return work() if len(data) <= INLINE_BYTES else await self._run.in_thread(work)

    def _head(self, intent: Intent, size: int, md5: _Hash, checksums: bytes) -> Head:
        etag = md5.hexdigest()
        if intent.size_bytes is not None and size != intent.size_bytes:
            raise Invalid("object.length", f"{intent.size_bytes} bytes were announced and {size} came.")
        if intent.etag is not None and intent.etag != etag:
            raise Invalid("object.etag", f"The MD5 of what came is {etag}, not {intent.etag}.", field="ETag")
        return Head(
            intent.account,
            intent.container,
            intent.name,
            intent.stamp or self.cluster.stamp(),
            size_bytes=size,
            etag=etag,
            content_type=intent.content_type,
            headers=dict(intent.headers),
            checksums=checksums,
        )


class _CopiesUpload:
    """One body on its way to several drives, each of which gets all of it."""

    def __init__(self, cluster: Cluster, place: Place) -> None:
        self._upload = Upload(cluster, place.part, lambda drive: drive.copies.begin(place))

    async def open(self) -> None:
        await self._upload.open()

    async def write(self, data: bytes | memoryview) -> None:
        await self._upload.on_each(lambda _, writer: writer.write(data))

    async def commit(self, head: Head) -> Head:
        await self._upload.commit(lambda _, writer: writer.commit(head))
        return head

    async def close(self) -> None:
        await self._upload.close()


async def _next(
    body: AsyncGenerator[bytes | memoryview], work: asyncio.Future[tuple[None, bytes]]
) -> tuple[bytes | memoryview, bytes]:
    """The stride that comes while the one before is worked on, and the checksums of that."""
    coming = asyncio.ensure_future(anext(body, b""))
    try:
        _, sums = await unbroken(work)
        return await coming, sums
    finally:
        if not coming.cancel() and not coming.cancelled():
            coming.exception()  # where the work has failed too, that is what is told
        del coming, work  # their exceptions lead back here: all that the upload holds would wait for the collector

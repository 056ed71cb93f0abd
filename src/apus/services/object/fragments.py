"""Writes an object in fragments: its archives to a quorum first, then the head that says where they are.

The head is a small version like any other: it is spread, read, compared and outranked as those of whole copies, and
nobody sees the object before it is there.  Archives are never replaced, so versions cannot mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from apus.kernel.buffers import BUFFER_BYTES, take_buffer
from apus.kernel.errors import Unavailable
from apus.services.object.cluster import Cluster
from apus.services.object.drivers.drive import CopyWriter, Drive
from apus.services.object.drivers.trailer import Checksums
from apus.services.object.logic import codec
from apus.services.object.logic.code import Code, archive_hash
from apus.services.object.logic.rings import archives_part
from apus.services.object.model import Coded, Head, Place
from apus.services.object.upload import Upload

FRAGMENTS_FROM_BYTES: Final = 128 << 10
"""Smaller objects are kept in whole copies beside their heads: one copy more than there are parity fragments."""

HEAD_WITHIN_S: Final = 600.0
"""The head follows its archives within this, or not at all: much later these may be taken for left behind."""

Pieces = Sequence[memoryview]
"""Of one segment or some in a row, by the numbers of the archives."""


class FragmentUpload:
    """One body on its way to its archives: at once where each is short, else as they fill."""

    def __init__(self, cluster: Cluster, place: Place, code: Code) -> None:
        self._cluster, self._place, self._code = cluster, place, code
        self._part = archives_part(place.part)
        self._nonce = cluster.world.dice.getrandbits(56)
        self._sums = [Checksums() for _ in range(code.fragments)]
        self._seats = _Seats(cluster, self._part)
        self._held: Pieces = ()
        """What is not written yet."""
        self._buffers: list[memoryview] = []
        """Where it is, when it is of several segments: long pieces are cheaper to write."""
        self._upload: Upload | None = None

    async def open(self) -> None: ...

    async def write(self, segment: bytes | memoryview) -> None:
        """The next one: a whole segment, unless it is the last.  Raise Unavailable."""
        if self._held and len(self._held[0]) + self._code.fragment_bytes(len(segment)) > BUFFER_BYTES:
            await self._flush()
        if self._held and not self._buffers:
            self._buffers = [take_buffer() for _ in self._held]
            await self._cluster.world.run.in_thread(lambda: self._gather((), self._held))
        await self._cluster.world.run.in_thread(lambda: self._encode(segment))

    async def commit(self, head: Head) -> Head:
        """Make it the newest version.  Raise Unavailable."""
        began_s = self._cluster.world.clock.monotonic_s()
        coded = Coded(
            self._code.data, self._code.parity, self._code.segment_bytes, size_bytes=head.size_bytes, nonce=self._nonce
        )
        head = msgspec.structs.replace(head, checksums=b"", coded=coded)
        heads = [self._archive(head, index) for index in range(self._code.fragments)]
        if self._upload is not None:
            await self._flush()
            await self._upload.commit(lambda name, writer: writer.commit(heads[self._seats.of[name]]))
        else:
            await self._cluster.spread("objects", self._part, lambda drive: self._store(drive, heads))
        if self._cluster.world.clock.monotonic_s() - began_s > HEAD_WITHIN_S:
            raise Unavailable("object.slow", "The drives took too long to keep this object.")
        await self._cluster.spread(
            "objects", self._place.part, lambda drive: drive.copies.store(self._place, head, b"")
        )
        return head

    async def close(self) -> None:
        """Leave nothing of what was not committed."""
        upload, self._upload = self._upload, None  # which knows this one: both would wait for the collector
        if upload is not None:
            await upload.close()

    def _encode(self, segment: bytes | memoryview) -> None:
        pieces = codec.encode(self._code, segment)
        for sums, piece in zip(self._sums, pieces, strict=True):
            sums.add(piece)
        if self._buffers:
            self._gather(self._held, pieces)
        else:
            self._held = pieces

    def _gather(self, held: Pieces, pieces: Pieces) -> None:
        """Put them behind those that are held in the buffers."""
        start = len(held[0]) if held else 0
        end = start + len(pieces[0])
        for buffer, piece in zip(self._buffers, pieces, strict=True):
            buffer[start:end] = piece
        self._held = [buffer[:end] for buffer in self._buffers]

    async def _flush(self) -> None:
        if self._upload is None:
            self._upload = Upload(self._cluster, self._part, self._begin)
            await self._upload.open()
        pieces = self._held
        await self._upload.on_each(lambda name, writer: writer.write(pieces[self._seats.of[name]]))
        self._held, self._buffers = (), []

    def _archive(self, head: Head, index: int) -> Head:
        """What the archive says of itself: all that is known of the object, too."""
        assert head.coded is not None
        size = self._code.archive_bytes(head.size_bytes)
        coded = msgspec.structs.replace(head.coded, index=index)
        return msgspec.structs.replace(head, size_bytes=size, checksums=self._sums[index].value(), coded=coded)

    def _at(self, index: int) -> Place:
        return Place(self._part, archive_hash(self._place.hash, self._nonce, index))

    async def _begin(self, drive: Drive) -> CopyWriter:
        index = self._seats.take(drive.id)
        try:
            return await drive.copies.begin(self._at(index))
        except OSError:
            self._seats.free(drive.id)
            raise

    async def _store(self, drive: Drive, heads: Sequence[Head]) -> None:
        index = self._seats.take(drive.id)
        try:
            await drive.copies.store(self._at(index), heads[index], self._held[index])
        except OSError:
            self._seats.free(drive.id)
            raise


class _Seats:
    """Which drive gets which archive: each of the partition's own drives that of its place, stand-ins what is left."""

    def __init__(self, cluster: Cluster, part: int) -> None:
        primaries = cluster.ring.primaries(part)
        asked = {drive.id for drive in cluster.candidates(part)[: len(primaries)]}
        self._homes = {name: index for index, name in enumerate(primaries) if name in asked}
        self._left = [index for index, name in enumerate(primaries) if name not in asked]
        self.of: dict[str, int] = {}

    def take(self, name: str) -> int:
        index = self._homes.pop(name, None)
        self.of[name] = self._left.pop(0) if index is None else index
        return self.of[name]

    def free(self, name: str) -> None:
        self._left.append(self.of.pop(name))

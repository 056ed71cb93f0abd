"""What a client reads of an object: its bytes, or those of the segments that it lists, as one body.

Every door reads through `open_parts`, so a large object made by one is whole at the other.  A segment is looked up
when its turn comes; one that is not what the manifest says ends the reply rather than mixing versions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final, Protocol
from urllib.parse import unquote

import msgspec

from apus.kernel.buffers import Chunk, FilePart, Stored
from apus.kernel.errors import Conflict, Forbidden, NotFound, Unauthenticated
from apus.services.object.engine import AT_HAND_BYTES, Found
from apus.services.object.logic import manifest
from apus.services.object.logic.conditions import CONDITIONS
from apus.services.object.logic.hidden import is_hidden
from apus.services.object.logic.listed import MANIFEST, listed
from apus.services.object.logic.manifest import DEPTH_MAX, Segment
from apus.services.object.logic.symlink import LINKS_MAX, etag_behind, target_of
from apus.services.object.model import STRIDE_BYTES, ListingAsk, Row, Subdir

DYNAMIC: Final = "x-object-manifest"
"""`CONTAINER/PREFIX`, percent-encoded: the object is all objects there whose names begin so, whenever it is read."""

DYNAMIC_MAX: Final = 100_000

_WITH_HEAD_BYTES: Final = STRIDE_BYTES + (64 << 10)
"""Enough for any object that is packed."""
_PARTIAL: Final = CONDITIONS | {"range"}
"""Headers with which not all of an object may be sent."""

MayRead = Callable[[str, str, str], Awaitable[None]]
"""(account, container, name): raise unless the reader may read that too.  An empty name is the container's listing."""


class Opened(msgspec.Struct, frozen=True):
    """A body that can be read from anywhere."""

    size_bytes: int
    etag: str
    stream: Callable[[int, int], AsyncIterator[Chunk]]
    """(offset, length)"""
    data: Chunk | None = None
    """All of it, when it is small and at hand."""
    part: FilePart | None = None
    """Where all of it lies, when it was not read."""
    segmented: bool = False

    def body(self, offset: int, length: int) -> Chunk | Stored | None:
        """What answers with so much of it, but for what has to be streamed."""
        if self.data is not None:
            return self.data[offset : offset + length]
        piece = self.part.piece(offset, length) if self.part is not None else None
        return None if piece is None else Stored(piece, lambda at: self.stream(offset + at, length - at))


def bytes_with_head(method: str, headers: Mapping[str, str]) -> int:
    """How much of an object is best read together with its head for this request."""
    if method != "GET":
        return 0
    return _WITH_HEAD_BYTES if _PARTIAL.isdisjoint(headers) else AT_HAND_BYTES


class Source(Protocol):
    """What is needed of the store."""

    async def find(self, account: str, container: str, name: str, *, newest: bool = False) -> Found | None: ...

    def stored(self, found: Found, offset: int, length: int, customer_key: bytes | None = None) -> AsyncIterator[Chunk]:
        """The bytes of the object itself, decrypted."""
        ...

    def at_hand(self, found: Found, customer_key: bytes | None = None) -> Chunk | None:
        """All of them, if they came with it."""
        ...

    def lying(self, found: Found) -> FilePart | None:
        """Where all of them lie, if they are there as they are read."""
        ...

    async def listing(self, account: str, container: str, ask: ListingAsk) -> Sequence[Row | Subdir]: ...


class Opening:
    def __init__(self, source: Source) -> None:
        self._source = source

    async def follow(self, found: Found, may_read: MayRead | None = None, *, static_only: bool = False) -> Found:
        """What symbolic links, or static ones, lead to; any other object itself.  Raise NotFound, Conflict."""
        for _ in range(LINKS_MAX):
            target = target_of(found.head)
            if target is None or (static_only and not target.etag):
                return found
            where = {"target": target.path}
            if may_read is not None:
                try:
                    await may_read(target.account, target.container, target.name)
                except (Forbidden, NotFound, Unauthenticated) as error:
                    error.details = {**error.details, **where}
                    raise
            following = await self._source.find(target.account, target.container, target.name)
            if following is None:
                raise NotFound("object.symlink_target", "The resource could not be found.", details=where)
            if target.etag and etag_behind(following.head) != target.etag:
                shown = f"Object Etag {etag_behind(following.head)!r} does not match X-Symlink-Target-Etag header"
                raise Conflict("object.symlink_etag", f"{shown} {target.etag!r}", details=where)
            found = following
        if target_of(found.head) is not None:
            shown = f"Too many levels of symbolic links, maximum allowed is {LINKS_MAX}"
            raise Conflict("object.symlink_loop", shown)
        return found

    async def open(
        self, found: Found, may_read: MayRead | None = None, depth: int = 0, customer_key: bytes | None = None
    ) -> Opened:
        head = found.head
        if MANIFEST in head.headers:

            def parts(offset: int, length: int) -> AsyncIterator[Chunk]:
                return self._static(found, offset, length, may_read, depth, customer_key)

            return Opened(head.shown_size_bytes, head.shown_etag, parts, segmented=True)
        if DYNAMIC in head.shown_headers:
            segments = await self._matching(found, may_read)

            def matching(offset: int, length: int) -> AsyncIterator[Chunk]:
                return self._read(segments, offset, length, may_read, depth)

            return Opened(manifest.total_bytes(segments), manifest.etag_of(segments), matching, segmented=True)

        def plain(offset: int, length: int) -> AsyncIterator[Chunk]:
            return self._source.stored(found, offset, length, customer_key)

        data = self._source.at_hand(found, customer_key)
        return Opened(head.shown_size_bytes, head.shown_etag, plain, data, self._source.lying(found))

    async def segments(self, found: Found, customer_key: bytes | None = None) -> tuple[Segment, ...]:
        """What a manifest lists.  Raise Conflict when it cannot be read."""
        assert MANIFEST in found.head.headers
        text = [chunk async for chunk in self._source.stored(found, 0, found.head.size_bytes, customer_key)]
        return manifest.decode_manifest(b"".join(text))

    async def _static(
        self,
        found: Found,
        offset: int,
        length: int,
        may_read: MayRead | None,
        depth: int,
        customer_key: bytes | None,
    ) -> AsyncIterator[Chunk]:
        segments = await self.segments(found, customer_key)
        async for chunk in self._read(segments, offset, length, may_read, depth, customer_key):
            yield chunk

    async def _read(
        self,
        segments: Sequence[Segment],
        offset: int,
        length: int,
        may_read: MayRead | None,
        depth: int,
        customer_key: bytes | None = None,
    ) -> AsyncIterator[Chunk]:
        if depth >= DEPTH_MAX:
            raise Conflict("object.manifest_depth", f"Manifests are nested deeper than {DEPTH_MAX}.")
        for segment, start, size in manifest.pieces(segments, offset, length):
            if segment.data:
                yield segment.data[start : start + size]
                continue
            if may_read is not None and not is_hidden(segment.account, segment.container):
                try:
                    await may_read(segment.account, segment.container, segment.name)
                except (Forbidden, Unauthenticated) as error:  # who asks may read the object, but not all of it
                    shown = f"Segment {segment.container}/{segment.name} may not be read."
                    raise Conflict("object.segment", shown) from error
            opened = await self._segment(segment, may_read, depth, customer_key)
            async for chunk in opened.stream(start, size):
                yield chunk

    async def _segment(
        self, segment: Segment, may_read: MayRead | None, depth: int, customer_key: bytes | None
    ) -> Opened:
        found = await self._source.find(segment.account, segment.container, segment.name)
        if found is None:
            raise Conflict("object.segment", f"Segment {segment.container}/{segment.name} is not there.")
        opened = await self.open(await self.follow(found, may_read), may_read, depth + 1, customer_key)
        if opened.size_bytes != segment.size_bytes or (segment.etag and opened.etag != segment.etag):
            raise Conflict("object.segment", f"Segment {segment.container}/{segment.name} is not what it was.")
        return opened

    async def _matching(self, found: Found, may_read: MayRead | None) -> list[Segment]:
        account = found.head.account
        container, _, prefix = unquote(found.head.shown_headers[DYNAMIC]).partition("/")
        if may_read is not None:
            try:
                await may_read(account, container, "")
            except NotFound:
                return []
        segments: list[Segment] = []
        ask = ListingAsk(prefix=prefix)
        while rows := await self._source.listing(account, container, ask):
            for row in rows:
                assert isinstance(row, Row)
                shown = listed(row)
                etag = shown.manifest_etag or shown.link_etag or shown.etag
                segments.append(Segment(account, container, row.name, etag, shown.link_bytes or shown.size_bytes))
            if len(segments) > DYNAMIC_MAX:
                raise Conflict("object.manifest", f"More than {DYNAMIC_MAX} segments match.")
            ask = ListingAsk(prefix=prefix, marker=rows[-1].name)
        return segments

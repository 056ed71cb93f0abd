"""Reads an object that is kept in fragments: only the segments that are asked for, from any k archives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Final, NamedTuple

from apus.services.object.archives import Archives, everywhere
from apus.services.object.cluster import Cluster
from apus.services.object.logic import codec
from apus.services.object.logic.code import Code
from apus.services.object.logic.rings import archives_part
from apus.services.object.model import Coded, Head, Place

INLINE_BYTES: Final = 1 << 20
"""Joining less than this takes less than the way to a thread and back."""

WINDOW_SEGMENTS: Final = 4
"""What is read at a time: an archive's turn costs as much as copying some 100 KiB of it."""


class Window(NamedTuple):
    """Some segments in a row."""

    segments: tuple[int, ...]
    """How long each is."""
    at: int
    """Where the first begins in the object."""
    offset: int
    """Where its fragments begin in the archives."""
    length: int
    """Of the fragments of all."""


def windows(coded: Coded, offset: int, length: int) -> Iterator[Window]:
    """Those that have these bytes of the object."""
    code, size = Code(coded.data, coded.parity), coded.segment_bytes
    fragment = code.fragment_bytes(size)
    first, last = offset // size, -(-(offset + length) // size)
    for number in range(first, last, WINDOW_SEGMENTS):
        several = range(number, min(number + WINDOW_SEGMENTS, last))
        segments = tuple(min(size, coded.size_bytes - one * size) for one in several)
        yield Window(segments, number * size, number * fragment, sum(map(code.fragment_bytes, segments)))


async def read_fragments(cluster: Cluster, place: Place, head: Head, offset: int, length: int) -> AsyncIterator[bytes]:
    """Bytes of this version.  What comes next is read while these are sent.  Raise Unavailable."""
    coded = head.coded
    assert coded is not None
    part = archives_part(place.part)
    code = Code(coded.data, coded.parity)
    archives = Archives(cluster, part, place.hash, coded, everywhere(cluster, part, code))
    coming: asyncio.Future[list[bytes]] | None = None
    try:
        for window, following in _pairs(windows(coded, offset, length)):
            segments = await (coming or _segments(cluster, archives, window))
            coming = following and asyncio.ensure_future(_segments(cluster, archives, following))
            at = window.at
            for segment in segments:
                low, high = max(0, offset - at), offset + length - at
                yield segment if not low and high >= len(segment) else segment[low:high]
                at += len(segment)
    finally:
        if coming is not None:
            coming.cancel()


async def _segments(cluster: Cluster, archives: Archives, window: Window) -> list[bytes]:
    code = archives.code
    pieces = {
        index: memoryview(piece) for index, piece in (await archives.pieces(window.offset, window.length)).items()
    }

    def decode() -> list[bytes]:
        found, at = list[bytes](), 0
        for size in window.segments:
            fragment = code.fragment_bytes(size)
            found.append(codec.decode(code, {i: piece[at : at + fragment] for i, piece in pieces.items()}, size))
            at += fragment
        return found

    return await cluster.world.run.in_thread(decode) if window.length * code.data > INLINE_BYTES else decode()


def _pairs(found: Iterator[Window]) -> Iterator[tuple[Window, Window | None]]:
    """Each with the one behind it."""
    before = next(found, None)
    while before is not None:
        following = next(found, None)
        yield before, following
        before = following

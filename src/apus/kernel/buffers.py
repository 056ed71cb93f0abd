"""Buffers for bodies on their way: filled by the network, written to drives, and used again.

They begin at a page, so a disk can take them past the page cache.  One is free when no view of it is left: nobody has
to give it back.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import AsyncIterator, Callable
from typing import Final, Protocol, TypeAlias

import msgspec

Chunk: TypeAlias = bytes | memoryview
"""A piece of a body on its way.  A view may be of a buffer: who keeps it keeps the buffer from being used again."""

BUFFER_BYTES: Final = 1 << 20

LONG_BUFFER_BYTES: Final = 2 << 20
"""For what is long: half as many turns of threads, and of drives."""

KEPT_BYTES: Final = 32 << 20
"""The last ones made keep their memory when they are free."""

_FREE: Final = 2
"""References to a buffer that only `_buffers` has: its own, and that of asking."""

_buffers: list[mmap.mmap] = []


class FilePart(Protocol):
    """Bytes that lie in a file and were not read.  `async with` says where."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def blocks_bytes(self) -> int:
        """Of the blocks that it lies in, which can be checked as a whole only."""
        ...

    @property
    def skip_bytes(self) -> int:
        """Of the first block, before it."""
        ...

    @property
    def checksums(self) -> bytes:
        """CRC-32 of each block of `block_bytes`, little-endian."""
        ...

    @property
    def block_bytes(self) -> int: ...

    def piece(self, offset: int, length: int) -> FilePart | None:
        """So much of it; None where that is better read at once."""
        ...

    async def __aenter__(self) -> tuple[int, int]:
        """The file's handle and the offset of the first block in it, for who uses them before anything else happens.
        Raise OSError, or ValueError when there is no file to use."""
        ...

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None: ...

    def read(self) -> Chunk | None:
        """All of them, if they come without waiting for the drive and are sound."""
        ...


class Stored(msgspec.Struct, frozen=True):
    """A body that lies in a file: who sends it reads it, and nobody before."""

    part: FilePart
    rest: Callable[[int], AsyncIterator[Chunk]]
    """The same from an offset on, from whoever has it."""

    def __len__(self) -> int:
        return self.part.size_bytes


def take_buffer(size_bytes: int = BUFFER_BYTES) -> memoryview:
    """A buffer of this size that nobody else sees, with anything in it."""
    for place in range(len(_buffers) - 1, -1, -1):  # the last ones are in the processor's cache
        if len(_buffers[place]) == size_bytes and sys.getrefcount(_buffers[place]) == _FREE:
            return memoryview(_buffers[place])
    buffer = mmap.mmap(-1, size_bytes)
    _buffers.append(buffer)
    while sum(map(len, _buffers)) > KEPT_BYTES:
        del _buffers[0]  # who holds it may do so for ever (a slow client, a cycle): it must not keep its place
    return memoryview(buffer)

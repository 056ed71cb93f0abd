"""Bodies in strides: from pieces of any size, or put by the network where they are wanted."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, Protocol, runtime_checkable

from apus.kernel.buffers import BUFFER_BYTES, LONG_BUFFER_BYTES, Chunk, take_buffer
from apus.kernel.errors import TooLarge
from apus.services.object.model import STRIDE_BYTES

SMALL_BYTES: Final = 256 << 10
"""A body up to this is joined from its pieces: it needs no buffer of its own."""

LONG_STRIDE_BYTES: Final = LONG_BUFFER_BYTES
"""Of bodies many times as long: half as many turns between the loop, threads and drives."""

assert STRIDE_BYTES == BUFFER_BYTES


@runtime_checkable
class Filling(Protocol):
    """A body that can be put where it is wanted."""

    async def fill(self, view: memoryview) -> int:
        """Put as much there as fits; less only at the end.  Raise ClientGone when it ends early."""
        ...


async def strides(
    data: AsyncIterator[Chunk], announced: int | None, limit: int, stride_bytes: int = STRIDE_BYTES
) -> AsyncGenerator[bytes | memoryview]:
    """The body in pieces of `stride_bytes`, the last one shorter.  Raise TooLarge past the limit or `announced`."""
    assert SMALL_BYTES < stride_bytes <= LONG_STRIDE_BYTES
    room = BUFFER_BYTES if stride_bytes <= BUFFER_BYTES else LONG_BUFFER_BYTES
    limit = limit if announced is None else min(announced, limit)
    if announced is not None and SMALL_BYTES < announced <= limit and isinstance(data, Filling):
        async for stride in _filled(data, announced, stride_bytes, room):
            yield stride
        return
    parts, held, size = list[Chunk](), 0, 0
    buffer: memoryview | None = None
    async for chunk in data:
        size += len(chunk)
        if size > limit:
            raise TooLarge("object.too_large", f"The object is larger than {limit} bytes.")
        if held + len(chunk) <= SMALL_BYTES and buffer is None:
            parts.append(chunk)
            held += len(chunk)
            continue
        rest = memoryview(b"".join([*parts, chunk]) if parts else chunk)
        parts = []
        if buffer is None:
            buffer, held = take_buffer(room), 0
        while rest:
            fits = min(len(rest), stride_bytes - held)
            buffer[held : held + fits] = rest[:fits]
            held, rest = held + fits, rest[fits:]
            if held == stride_bytes:
                yield buffer[:held]
                buffer, held = take_buffer(room), 0
    if held:
        yield b"".join(parts) if buffer is None else buffer[:held]


async def _filled(data: Filling, announced: int, stride_bytes: int, room: int) -> AsyncGenerator[memoryview]:
    left = announced
    while left:
        view = take_buffer(room)[: min(left, stride_bytes)]
        count = await data.fill(view)
        left -= count
        if count:
            yield view[:count]
        if count < len(view):
            return

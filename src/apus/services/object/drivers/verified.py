"""Reads a version in strides, and checks each block before any of it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Final, Protocol

from apus.services.object.drivers.trailer import blocks_of, verify_block
from apus.services.object.model import BLOCK_BYTES, CorruptCopy, Head

STRIDE_BLOCKS: Final = 4
"""What is read at a time: a thread's turn costs as much as some 100 KiB."""


class Source(Protocol):
    """The data of a version: an `OpenFile` where a file has nothing else, or a part of one."""

    def view_cached(self, offset: int, length: int) -> memoryview | None: ...

    async def view(self, offset: int, length: int, check: Callable[[memoryview], None]) -> memoryview: ...


async def verified(head: Head, source: Source, offset: int, length: int) -> AsyncGenerator[memoryview]:
    """Bytes of this version.  What the drive has to be waited for is read while the stride before is sent.

    Raise CorruptCopy.
    """
    end = offset + length
    block, last = offset // BLOCK_BYTES, blocks_of(end) if length else 0
    coming: asyncio.Future[memoryview] | None = None
    try:
        while block < last:
            stride = _Stride(head, source, block, min(block + STRIDE_BLOCKS, last))
            data = stride.cached() if coming is None else None
            if data is None:
                coming = coming or asyncio.ensure_future(stride.read())
                data, coming = await coming, None
                if stride.last < last:
                    following = _Stride(head, source, stride.last, min(stride.last + STRIDE_BLOCKS, last))
                    coming = asyncio.ensure_future(following.read())
            at, block = block * BLOCK_BYTES, stride.last
            low, high = max(0, offset - at), end - at
            yield data[low:high]
    finally:
        if coming is not None:
            coming.cancel()


class _Stride:
    """The blocks from one to before another."""

    def __init__(self, head: Head, source: Source, first: int, last: int) -> None:
        self._head, self._source, self._first, self.last = head, source, first, last
        self._at = first * BLOCK_BYTES
        self._length = min(last * BLOCK_BYTES, head.size_bytes) - self._at

    def cached(self) -> memoryview | None:
        data = self._source.view_cached(self._at, self._length)
        if data is not None:
            self._check(data)
        return data

    async def read(self) -> memoryview:
        return await self._source.view(self._at, self._length, self._check)

    def _check(self, view: memoryview) -> None:
        if len(view) < self._length:
            raise CorruptCopy("the data end early")
        for number in range(self.last - self._first):
            block = view[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES]
            verify_block(self._head, self._first + number, block)

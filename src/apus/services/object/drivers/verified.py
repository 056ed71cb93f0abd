"""Reads a version in strides, and checks each block before any of it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

from apus.services.object.drivers.trailer import blocks_of, verify_block
from apus.services.object.model import BLOCK_BYTES, CorruptCopy, Head

STRIDE_BLOCKS: Final = 4
"""What is read at a time: a thread's turn costs as much as some 50 KiB."""

Check = Callable[[bytes], None]
Read = Callable[[int, int, Check], Awaitable[bytes]]
"""(offset, length, check), of the version's data: shorter where they end."""


async def verified(head: Head, read: Read, offset: int, length: int) -> AsyncGenerator[bytes]:
    """Bytes of this version; the next stride is read while one is sent.  Raise CorruptCopy."""
    end = offset + length
    block, last = offset // BLOCK_BYTES, blocks_of(end) if length else 0
    coming = _stride(head, read, block, last)
    try:
        while coming is not None:
            data = await coming
            at, block = block * BLOCK_BYTES, min(block + STRIDE_BLOCKS, last)
            coming = _stride(head, read, block, last)
            low, high = max(0, offset - at), end - at
            yield data if not low and high >= len(data) else data[low:high]
    finally:
        if coming is not None:
            coming.cancel()


def _stride(head: Head, read: Read, block: int, last: int) -> asyncio.Future[bytes] | None:
    """Up to a stride of the blocks from this one to before the last, on its way."""
    if block >= last:
        return None
    at, wanted = block * BLOCK_BYTES, min(last - block, STRIDE_BLOCKS) * BLOCK_BYTES
    length = min(wanted, head.size_bytes - at)

    def check(data: bytes) -> None:
        if len(data) < length:
            raise CorruptCopy("the data end early")
        view = memoryview(data)
        for number in range(blocks_of(length)):
            verify_block(head, block + number, view[number * BLOCK_BYTES : (number + 1) * BLOCK_BYTES])

    return asyncio.ensure_future(read(at, length, check))

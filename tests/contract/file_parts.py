"""Bodies that lie in files, as tests want them: `kernel.buffers.FilePart` on a file of the test's own."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from apus.kernel.buffers import Chunk

BLOCK_BYTES = 1 << 18


class Part:
    """Lies behind some other bytes.  `bad_block`: the one that is not what was written."""

    block_bytes = BLOCK_BYTES

    def __init__(self, path: Path, data: bytes, *, bad_block: int | None = None) -> None:
        starts = range(0, len(data), BLOCK_BYTES)
        sums = [zlib.crc32(data[at : at + BLOCK_BYTES]) for at in starts]
        kept = bytearray(data)
        if bad_block is not None:
            kept[bad_block * BLOCK_BYTES] ^= 1
        self.before_bytes = 100
        path.write_bytes(bytes(self.before_bytes) + kept)
        self._whole, self._all_sums = data, b"".join(one.to_bytes(4, "little") for one in sums)
        self.is_sound = bad_block is None
        self.handle = os.open(path, os.O_RDONLY)
        self._lies_at(0, len(data))

    def _lies_at(self, offset: int, length: int) -> None:
        first, end = offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)
        self.data = self._whole[offset : offset + length]
        self.size_bytes, self.skip_bytes = length, offset % BLOCK_BYTES
        self.blocks_bytes = min(end * BLOCK_BYTES, len(self._whole)) - first * BLOCK_BYTES
        self.checksums = self._all_sums[4 * first : 4 * end]
        self.offset = self.before_bytes + first * BLOCK_BYTES

    def piece(self, offset: int, length: int) -> Part:
        """Of the same file."""
        piece: Part = object.__new__(Part)
        piece.__dict__.update(self.__dict__)
        piece._lies_at(offset, length)
        return piece

    async def __aenter__(self) -> tuple[int, int]:
        if self.handle < 0:
            raise ValueError("the file is closed")
        return self.handle, self.offset

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None: ...

    def read(self) -> Chunk | None:
        return self.data if self.is_sound else None

    def close(self) -> None:
        os.close(self.handle)
        self.handle = -1

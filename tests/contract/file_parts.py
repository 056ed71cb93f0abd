"""Bodies that lie in files, as tests want them: `kernel.buffers.FilePart` on a file of the test's own."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from apus.kernel.buffers import Chunk


class Part:
    """Lies behind some other bytes.  `bad_block`: the one that is not what was written."""

    block_bytes = 1 << 18

    def __init__(self, path: Path, data: bytes, *, bad_block: int | None = None) -> None:
        self.offset, self.data, self.size_bytes = 100, data, len(data)
        starts = range(0, len(data), self.block_bytes)
        sums = [zlib.crc32(data[at : at + self.block_bytes]) for at in starts]
        self.checksums = b"".join(one.to_bytes(4, "little") for one in sums)
        kept = bytearray(data)
        if bad_block is not None:
            kept[bad_block * self.block_bytes] ^= 1
        path.write_bytes(bytes(self.offset) + kept)
        self.is_sound = bad_block is None
        self.handle = os.open(path, os.O_RDONLY)

    def where(self) -> tuple[int, int]:
        if self.handle < 0:
            raise ValueError("the file is closed")
        return self.handle, self.offset

    def read(self) -> Chunk | None:
        return self.data if self.is_sound else None

    def close(self) -> None:
        os.close(self.handle)
        self.handle = -1

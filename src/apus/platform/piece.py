"""A piece of a file on its way to a connection, behind a head: each block is checked, then sent.

What was found sound is checked again as soon as it may be anything else: as it is read again, or was written to
(`cached_pages.py`)."""

from __future__ import annotations

import enum
import os
from typing import Protocol

from isal import isal_zlib as zlib

from apus.platform.cached_pages import HELD_MAX_BYTES, CachedPages


class After(enum.Enum):
    """What a piece does after its turn."""

    GO_ON = enum.auto()
    WAIT = enum.auto()
    """For the connection to take more."""
    END = enum.auto()
    """All is sent, or nothing more can be: `sent_bytes` says which."""


class Blocks(Protocol):
    """What of a `kernel.buffers.FilePart` says where it lies and how it is checked."""

    @property
    def size_bytes(self) -> int: ...

    @property
    def blocks_bytes(self) -> int: ...

    @property
    def skip_bytes(self) -> int: ...

    @property
    def block_bytes(self) -> int: ...

    @property
    def checksums(self) -> bytes: ...


class Piece:
    """`connection`: the handle of a socket that does not block; `offset`: of the first block in the file.

    What is short (HELD_MAX_BYTES) is checked as a whole before any of it goes out.
    """

    def __init__(self, connection: int, head: bytes, file: int, offset: int, blocks: Blocks) -> None:
        self.connection, self.file = connection, file
        self.sent_bytes = 0
        """Of the head and the piece."""
        self._head, self._offset, self._checksums = head, offset, blocks.checksums
        self._blocks_bytes, self._block_bytes = blocks.blocks_bytes, blocks.block_bytes
        self._stride_bytes = HELD_MAX_BYTES // self._block_bytes * self._block_bytes
        """Blocks that are held at once."""
        self._at, self._end = blocks.skip_bytes, blocks.skip_bytes + blocks.size_bytes
        """What goes out next, and where all of it is out, in the blocks."""

    def turn(self, pages: CachedPages, upto_bytes: int) -> After:
        """Until about so much is sent, a block is not in the page cache or not sound, or the connection takes no more.

        A block of which some is left is checked again in the next turn: nobody held it in between.
        """
        end = self.sent_bytes + upto_bytes
        try:
            while self.sent_bytes < end:
                held_bytes = self._hold(pages)
                if not held_bytes:
                    return After.END
                if self._head:
                    # By itself: a client that gets it with a quarter of a megabyte has to part them again.
                    count = os.write(self.connection, self._head)
                    self._head = self._head[count:]
                    self.sent_bytes += count
                    if self._head:
                        return After.WAIT
                count = pages.give(self.connection)
                self._at += count
                self.sent_bytes += count
                if self._at == self._end:
                    return After.END
                if count < held_bytes:
                    self._stride_bytes = self._block_bytes  # it takes little: less is checked twice
                    return After.WAIT
        except BlockingIOError:
            return After.WAIT
        except OSError:
            return After.END
        return After.GO_ON

    def _hold(self, pages: CachedPages) -> int:
        """How much of what comes next is held, and sound; 0: nothing."""
        held_bytes = self._hold_blocks(pages)
        if not held_bytes and self._stride_bytes < self._blocks_bytes and self._stride_bytes > self._block_bytes:
            self._stride_bytes = self._block_bytes  # the first ones may be sound
            held_bytes = self._hold_blocks(pages)
        return held_bytes

    def _hold_blocks(self, pages: CachedPages) -> int:
        size, sums = self._block_bytes, self._checksums
        first = self._at // size
        start = first * size
        end = min(start + self._stride_bytes, self._blocks_bytes)
        skip = self._at - start
        held = pages.hold(self.file, self._offset + start, end - start, skip, min(end, self._end) - self._at)
        if held is None:
            return 0
        view, held_bytes, noted = held
        sums = sums[4 * first : 4 * -(-end // size)]
        with view:
            if noted == sums:
                return held_bytes
            starts = range(0, skip + held_bytes if self.sent_bytes else len(view), size)
            for at, place in enumerate(starts):
                with view[place : place + size] as block:
                    checksum = zlib.crc32(block).to_bytes(4, "little")
                if checksum != sums[4 * at : 4 * at + 4]:
                    return 0
        if 4 * len(starts) == len(sums):
            pages.note(sums)
        return held_bytes

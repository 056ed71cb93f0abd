"""The file of one copy: the bytes, then what is known of them, then a footer that finds and proves the latter.

The bytes come first so that they can be written while the checksums are still being computed, and sent without
copying; everything is in one file so that one rename makes a version appear whole.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec
from isal import isal_zlib as zlib  # the same CRC-32 in a fifth of the time

from apus.services.object.model import BLOCK_BYTES, CorruptCopy, Head

_FOOTER: Final = struct.Struct("<8sQII")
_MAGIC: Final = b"apusobj1"
FOOTER_BYTES: Final = _FOOTER.size
TAIL_BYTES: Final = 1 << 13
"""A guess that holds the trailer of nearly every copy; a longer one costs a second read."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Head).decode


def seal(head: Head) -> bytes:
    """What follows the bytes in the file."""
    trailer = _encode(head)
    return trailer + _FOOTER.pack(_MAGIC, head.size_bytes, len(trailer), zlib.crc32(trailer))


def trailer_bytes(tail: bytes) -> int:
    """How many bytes at the end of the file are not data.  `tail` is at least the footer."""
    if len(tail) < FOOTER_BYTES:
        raise CorruptCopy("the file is shorter than its footer")
    magic, _size, length, _crc = _FOOTER.unpack(tail[-FOOTER_BYTES:])
    if magic != _MAGIC:
        raise CorruptCopy("the footer is missing")
    return int(length) + FOOTER_BYTES


def unseal(tail: bytes, file_bytes: int) -> Head:
    """The head from the end of a file of this size; raise CorruptCopy unless all of it is sound."""
    length = trailer_bytes(tail)
    if length > len(tail):
        raise CorruptCopy("the trailer is longer than the file")
    _magic, size, _length, crc = _FOOTER.unpack(tail[-FOOTER_BYTES:])
    trailer = tail[-length:-FOOTER_BYTES]
    if zlib.crc32(trailer) != crc or size + length != file_bytes:
        raise CorruptCopy("the trailer does not match its checksum, or the file has another size")
    try:
        head = _decode(trailer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptCopy(f"the trailer cannot be read: {error}") from error
    if head.size_bytes != size or len(head.checksums) != 4 * blocks_of(size):
        raise CorruptCopy("the trailer contradicts itself")
    return head


def blocks_of(size_bytes: int) -> int:
    return -(-size_bytes // BLOCK_BYTES)


def checksums_of(data: bytes | memoryview) -> bytes:
    """CRC-32 of each block of `data`, which begins at a block."""
    view = memoryview(data)
    return b"".join(
        zlib.crc32(view[at : at + BLOCK_BYTES]).to_bytes(4, "little") for at in range(0, len(view), BLOCK_BYTES)
    )


class Checksums:
    """The same of what comes piece by piece."""

    def __init__(self) -> None:
        self._whole = bytearray()
        self._crc = self._held = 0

    def add(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            piece = view[: BLOCK_BYTES - self._held]
            self._crc = zlib.crc32(piece, self._crc)
            self._held += len(piece)
            view = view[len(piece) :]
            if self._held == BLOCK_BYTES:
                self._whole += self._crc.to_bytes(4, "little")
                self._crc = self._held = 0

    def value(self) -> bytes:
        rest = self._crc.to_bytes(4, "little") if self._held else b""
        return bytes(self._whole) + rest


def verify_block(head: Head, index: int, block: bytes | memoryview) -> None:
    expected = head.checksums[4 * index : 4 * index + 4]
    wanted = min(BLOCK_BYTES, head.size_bytes - index * BLOCK_BYTES)
    if len(block) != wanted or zlib.crc32(block).to_bytes(4, "little") != expected:
        raise CorruptCopy(f"block {index} does not match its checksum")

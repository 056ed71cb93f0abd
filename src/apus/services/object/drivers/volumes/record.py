"""The records of a volume, byte by byte.

A volume begins with a header that names its *marker*: eight random bytes that begin each of its records.  After damage
the next record is found by its marker, which no client can know and write into an object.  A record is

    marker 8 | CRC-32 of what follows up to the data, 4 | kind 1 | flags 1 | path length 2 | head length 4 |
    data length 4 | hash 16 | head | path | data

where the head is msgpack and the data have their checksums in the head.  The path is that of the file that has the
data; where they are here, it is filler (NUL) that has them begin at a page.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from typing import Final

import msgspec

from apus.services.object.drivers.trailer import blocks_of, verify_block
from apus.services.object.model import BLOCK_BYTES, CorruptCopy, Head

HEADER: Final = struct.Struct("<8sIBBHII16s")
HEADER_BYTES: Final = HEADER.size
MARKER_BYTES: Final = 8
_CHECKED_FROM: Final = 12
_VOLUME: Final = struct.Struct("<8sI8sI")
_VOLUME_MAGIC: Final = b"apusvol1"
VOLUME_HEADER_BYTES: Final = _VOLUME.size

OBJECT: Final = 1
"""A version with its bytes, or a tombstone."""
FILE: Final = 2
"""A version whose bytes are in a file of their own, at `path` below the drive's root."""
DROP: Final = 3
"""The version in the head, and any older one, is no longer kept here."""

RECORD_BYTES_MAX: Final = 16 << 20
"""Longer than any; damage may say otherwise."""

UNLISTED: Final = 1
"""Flag: nobody has said yet that the container has this version's row."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Head).decode
_decode_version = msgspec.msgpack.Decoder(tuple[str, str]).decode


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """One record, its data left out."""

    kind: int
    flags: int
    hash: bytes
    head_bytes: int
    """From the beginning of the record to its data."""
    length: int
    body: bytes
    """The head as it is encoded."""
    path: str

    @property
    def head(self) -> Head:
        return decode_head(self.body)

    @property
    def dropped(self) -> tuple[str, str]:
        return _decode_version(self.body)


def volume_header(number: int, marker: bytes) -> bytes:
    body = _VOLUME.pack(_VOLUME_MAGIC, number, marker, 0)[:-4]
    return body + zlib.crc32(body).to_bytes(4, "little")


def marker_of(header: bytes, number: int) -> bytes:
    """Raise CorruptCopy unless this is the header of that volume."""
    if len(header) != VOLUME_HEADER_BYTES:
        raise CorruptCopy("the volume is shorter than its header")
    magic, found, marker, crc = _VOLUME.unpack(header)
    if magic != _VOLUME_MAGIC or crc != zlib.crc32(header[:-4]) or found != number:
        raise CorruptCopy("the header of the volume is damaged")
    return bytes(marker)


def encode_head(head: Head) -> bytes:
    return _encode(head)


def decode_head(body: bytes) -> Head:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptCopy(f"the head of a record cannot be read: {error}") from error


def pack(
    marker: bytes, kind: int, flags: int, path_hash: bytes, body: bytes, path: bytes = b"", data_bytes: int = 0
) -> bytes:
    """All of a record but its data."""
    start = HEADER.pack(marker, 0, kind, flags, len(path), len(body), data_bytes, path_hash)
    checked = start[_CHECKED_FROM:] + body + path
    return marker + zlib.crc32(checked).to_bytes(4, "little") + checked


def pack_drop(marker: bytes, path_hash: bytes, version: tuple[str, str]) -> bytes:
    return pack(marker, DROP, 0, path_hash, _encode(version))


def needed_bytes(start: bytes | memoryview, marker: bytes) -> tuple[int, int]:
    """From the first HEADER_BYTES of a record: where its data begin, and its whole length."""
    if len(start) < HEADER_BYTES:
        raise CorruptCopy("the record ends in its header")
    found, _crc, kind, _flags, path_bytes, body_bytes, data_bytes, _hash = HEADER.unpack(start[:HEADER_BYTES])
    if found != marker or not OBJECT <= kind <= DROP:
        raise CorruptCopy("no record begins here")
    head_bytes = HEADER_BYTES + body_bytes + path_bytes
    if head_bytes + data_bytes > RECORD_BYTES_MAX:
        raise CorruptCopy("the header of the record is damaged")
    return head_bytes, head_bytes + data_bytes


def unpack(data: bytes | memoryview, marker: bytes, path_hash: bytes | None = None) -> Record:
    """The record that begins here, from as many bytes as are in front of its data at least.

    Raise CorruptCopy unless they are sound, and of the hash that is expected.
    """
    head_bytes, length = needed_bytes(data, marker)
    _, crc, kind, flags, path_bytes, body_bytes, _, found = HEADER.unpack(data[:HEADER_BYTES])
    if len(data) < head_bytes or zlib.crc32(data[_CHECKED_FROM:head_bytes]) != crc:
        raise CorruptCopy("the record does not match its checksum")
    if path_hash is not None and found != path_hash:
        raise CorruptCopy("the record is another's")
    body = bytes(data[HEADER_BYTES : HEADER_BYTES + body_bytes])
    path = bytes(data[head_bytes - path_bytes : head_bytes]).decode() if kind == FILE else ""
    return Record(kind, flags, found, head_bytes, length, body, path)


def verify_data(head: Head, data: bytes | memoryview) -> None:
    """Raise CorruptCopy unless these are the bytes that the head is of."""
    if len(data) != head.kept_bytes or len(head.checksums) != 4 * blocks_of(head.kept_bytes):
        raise CorruptCopy("the record has another size than its object")
    view = memoryview(data)
    for index in range(blocks_of(len(data))):
        verify_block(head, index, view[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES])

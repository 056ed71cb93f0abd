"""What erasure codes are counted in: segments of an object, the fragments of each, and how these are named.

An object is cut into segments; each becomes k data fragments, which are its bytes as they are, and m of parity.  Any k
of the k+m give it back.  The fragments of one number, of all segments in their order, are an *archive*: what one drive
keeps.  An archive is written once, under a name of its own, so nothing ever takes its place.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from apus.services.object.logic.merge import fingerprint
from apus.services.object.model import STRIDE_BYTES

DATA_MIN: Final = 2
"""One would be copies."""
DATA_MAX: Final = 20
PARITY_MAX: Final = 12
"""Together so many that a fragment's number turns 64 bits by itself."""

_PAGE_BYTES: Final = 4096
_GRAIN_BYTES: Final = 16
"""Fragments are multiples of this."""
_TEXT: Final = re.compile(r"([0-9]{1,3})\+([0-9]{1,3})")
_DIGITS: Final = (1 << 64) - 1


class Code(msgspec.Struct, frozen=True):
    """So many fragments of data, and of parity."""

    data: int
    parity: int

    @property
    def fragments(self) -> int:
        return self.data + self.parity

    @property
    def quorum(self) -> int:
        """How many fragments are on stable storage before the answer: half of the parity, rounded up, may be lost."""
        return self.data + (self.parity + 1) // 2

    @property
    def segment_bytes(self) -> int:
        """At most one stride, and whole pages for each drive."""
        return self.data * (STRIDE_BYTES // self.data // _PAGE_BYTES * _PAGE_BYTES)

    def fragment_bytes(self, segment_bytes: int) -> int:
        """How long each fragment of a segment of this length is."""
        return -(-segment_bytes // (self.data * _GRAIN_BYTES)) * _GRAIN_BYTES

    def archive_bytes(self, size_bytes: int) -> int:
        """Of an object of this size, what each drive keeps."""
        whole, rest = divmod(size_bytes, self.segment_bytes)
        return whole * self.fragment_bytes(self.segment_bytes) + self.fragment_bytes(rest)

    def __str__(self) -> str:
        return f"{self.data}+{self.parity}"


def code_of(text: str) -> Code | None:
    """`4+2`; None for what is none, or has more fragments than there can be."""
    found = _TEXT.fullmatch(text)
    if found is None:
        return None
    data, parity = int(found[1]), int(found[2])
    allowed = DATA_MIN <= data <= DATA_MAX and 1 <= parity <= min(data, PARITY_MAX)
    return Code(data, parity) if allowed else None


ALLOWED: Final = f"'K+M' of K data ({DATA_MIN} to {DATA_MAX}) and M parity fragments (1 to {PARITY_MAX}, at most K)"


def archive_hash(object_hash: str, nonce: int, index: int) -> str:
    """The name of an archive: it begins as its object's, so it is in the partition of the same number."""
    return f"{object_hash[:16]}{nonce:014x}{index:02x}"


def group_of(hash_hex: str) -> str:
    """What the archives of one version have in common in their names."""
    return hash_hex[:-2]


def index_of(hash_hex: str) -> int:
    """The number of the archive with this name."""
    return int(hash_hex[-2:], 16)


def archive_fingerprint(hash_hex: str, version: tuple[str, str]) -> int:
    """One archive's part in the digest of a partition, turned by its number.

    The place of a drive in its ring is the number of the archives that it should have.  So the digests of two drives,
    each turned back by its place, are equal when both have all the archives that they should, and no others.
    """
    return _turn(fingerprint(group_of(hash_hex), version), index_of(hash_hex))


def turned_back(digest: int, index: int) -> int:
    return _turn(digest, 64 - index)


def _turn(digest: int, by: int) -> int:
    return (digest << by | digest >> (64 - by)) & _DIGITS

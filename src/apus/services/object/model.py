"""What is kept on drives: versions of objects, and the rows and heads of the indexes that list them.

Accounts and containers are both an *index*: a head (does it exist, its metadata) and rows by name.  The rows of a
container are objects, the rows of an account are containers.
"""

from __future__ import annotations

import dataclasses
import errno
from typing import Final, Literal

import msgspec

BLOCK_BYTES: Final = 1 << 18
"""What one checksum covers: the least that a verified read has to fetch."""

SYSTEM: Final = "-sysmeta-"
"""Headers `x-object-sysmeta-*`, `x-container-sysmeta-*` are ours: kept with the thing, never shown or set outside."""

ETAG: Final = "x-object-sysmeta-etag"
SIZE: Final = "x-object-sysmeta-size"
"""What clients see in place of the stored object's own."""

POLICY: Final = "x-container-sysmeta-policy"
"""The number of a container's storage policy, where it is not the first."""
SAID: Final = "x-container-sysmeta-said"
"""Its time is that of the last PUT or POST of the container, also of one that changed nothing."""

SHARD_MAP: Final = "x-index-sysmeta-shards"
"""A field of an index that was cut into shards: its map (`logic/shards.py`)."""

STRIDE_BYTES: Final = 1 << 20
"""What an upload holds in memory before it goes to the drives; a smaller object is written in one go."""


class DriveTrouble(OSError):
    """The drive cannot do this now: away, fenced, full, read-only, failing.  Another one is asked."""


class DriveFull(DriveTrouble):
    """It still reads and deletes."""


def trouble_of(error: OSError) -> DriveTrouble:
    """What a failure of the disk means for the drive."""
    if isinstance(error, DriveTrouble):
        return error
    kind = DriveFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else DriveTrouble
    return kind(error.errno or errno.EIO, str(error))


class CorruptCopy(DriveTrouble):
    """What is stored is not what was written; it has been put aside."""


class ReplacedCopy(DriveTrouble):
    """Another version took the place of the one being read."""


NO_VERSION: Final = ("", "")
"""Older than any."""


class Place(msgspec.Struct, frozen=True):
    """Where something is kept: the partition, and its name within."""

    part: int
    hash: str


class Meta(msgspec.Struct, frozen=True):
    """Metadata set after the object was written; counts only for the version that it names."""

    of: str
    stamp: str
    content_type: str
    headers: dict[str, str]


class Coded(msgspec.Struct, frozen=True):
    """Of a version that is kept in fragments (`logic/code.py`): how, and where."""

    data: int
    parity: int
    segment_bytes: int
    size_bytes: int
    """Of the object."""
    nonce: int
    """In the names of its archives: no other version has them."""
    index: int = -1
    """Of an archive, which one it is."""


class Head(msgspec.Struct, frozen=True):
    """All of a version but its bytes.  A deleted object is a version with `gone`."""

    account: str
    container: str
    name: str
    stamp: str
    gone: bool = False
    size_bytes: int = 0
    etag: str = ""
    content_type: str = ""
    headers: dict[str, str] = {}
    checksums: bytes = b""
    """CRC-32 of each block, little-endian."""
    meta: Meta | None = None
    coded: Coded | None = None
    """Its bytes are elsewhere, in archives; or this is one of these, and the size and checksums are the archive's."""

    @property
    def version(self) -> tuple[str, str]:
        return self.stamp, self.meta.stamp if self.meta else ""

    @property
    def is_archive(self) -> bool:
        return self.coded is not None and self.coded.index >= 0

    @property
    def kept_bytes(self) -> int:
        """What is kept beside this head."""
        return self.size_bytes if self.coded is None or self.is_archive else 0

    @property
    def changed(self) -> str:
        """The stamp of the last change, to the data or to the metadata."""
        return self.meta.stamp if self.meta else self.stamp

    @property
    def shown_type(self) -> str:
        return self.meta.content_type if self.meta else self.content_type

    @property
    def shown_headers(self) -> dict[str, str]:
        return self.meta.headers if self.meta else self.headers

    @property
    def delete_at_s(self) -> int | None:
        text = self.shown_headers.get("x-delete-at")
        return int(text) if text else None

    @property
    def shown_etag(self) -> str:
        """What clients see: of an object whose stored bytes are not what they read, the ETag of what they read."""
        return self.headers.get(ETAG, self.etag)

    @property
    def shown_size_bytes(self) -> int:
        return int(self.headers.get(SIZE, self.size_bytes))


class Row(msgspec.Struct, frozen=True):
    """One name in an index: an object in a container, or a container in an account."""

    name: str
    stamp: str
    told: str = ""
    """The newer half of the version: of an object its metadata's stamp, of a container its totals' stamp."""
    gone: bool = False
    size_bytes: int = 0
    count: int = 0
    etag: str = ""
    """With parameters behind it where what is shown differs from what is stored (`logic/listed.py`)."""
    content_type: str = ""
    """Of a container the number of its storage policy, where it is not the first."""

    @property
    def version(self) -> tuple[str, str]:
        return self.stamp, self.told


RowVersion = tuple[str, str, str]
"""Of a row: its name, stamp, and when it was told."""


class IndexHead(msgspec.Struct, frozen=True):
    """What an account or container says about itself."""

    account: str
    container: str
    made: str = ""
    gone: str = ""
    fields: dict[str, tuple[str, str]] = {}
    """Metadata: name to (value, stamp)."""
    rows: int = 0
    size_bytes: int = 0
    objects: int = 0
    """Of an account: the objects in all its containers."""

    @property
    def exists(self) -> bool:
        return self.made > self.gone

    @property
    def policy(self) -> int:
        """The number of its storage policy.  It outlives a deletion: what is still on its way goes where it began."""
        return int(self.fields.get(POLICY, ("0", ""))[0])

    @property
    def metadata(self) -> dict[str, str]:
        """What was set since it was last made, without what was removed."""
        fields = self.fields.items()
        return {name: value for name, (value, stamp) in fields if value and stamp > self.gone and name != SHARD_MAP}


class Totals(msgspec.Struct, frozen=True):
    """Of the names of an index, or of some."""

    entries: int = 0
    """Tombstones too."""
    rows: int = 0
    size_bytes: int = 0
    objects: int = 0


class Change(msgspec.Struct, frozen=True):
    """Something to be merged into an index; merging it twice, or late, is harmless."""

    account: str
    container: str
    rows: tuple[Row, ...] = ()
    made: str = ""
    gone: str = ""
    fields: dict[str, tuple[str, str]] = {}


class ListingAsk(msgspec.Struct, frozen=True):
    """Which names of an index are wanted."""

    limit: int = 10_000
    marker: str = ""
    end_marker: str = ""
    prefix: str = ""
    delimiter: str = ""
    reverse: bool = False
    path: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Subdir:
    """Stands for all names that go on from here."""

    name: str


IndexKind = Literal["containers", "accounts"]

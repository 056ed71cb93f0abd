"""What the engine asks of a drive, here or on another host.  Every verb may raise DriveTrouble; each is idempotent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from apus.kernel.buffers import Chunk, FilePart
from apus.services.object.model import (
    Change,
    Head,
    IndexHead,
    IndexKind,
    ListingAsk,
    Meta,
    Place,
    Row,
    RowVersion,
    Subdir,
    Totals,
)


class CopyWriter(Protocol):
    """An upload on its way to one drive; nothing is visible before `commit`."""

    async def write(self, data: bytes | memoryview) -> None: ...

    async def commit(self, head: Head) -> None:
        """Put it on stable storage and in its place, unless a newer version is there."""
        ...

    async def abort(self) -> None:
        """Leave nothing.  After `commit` it does nothing."""
        ...


class Copies(Protocol):
    """Versions of objects on one drive."""

    def store(self, place: Place, head: Head, data: bytes | memoryview) -> Awaitable[object]:
        """A small object, or a tombstone, in one go; an older version than what is there is dropped.

        Like all that is written it counts as unlisted until `listed` says otherwise.

        It is on its way when this returns, in the order of the calls; awaited, it is on stable storage.
        """
        ...

    async def begin(self, place: Place) -> CopyWriter: ...

    async def describe(self, place: Place, meta: Meta) -> None:
        """Set metadata of the version that it names; another version is left alone."""
        ...

    def glance(self, place: Place) -> tuple[str, str] | None:
        """The version, `NO_VERSION` when there is none; None when that cannot be said without waiting."""
        ...

    async def head(self, place: Place) -> Head | None: ...

    def at_hand(self, place: Place, upto_bytes: int) -> tuple[Head, Chunk | FilePart | None] | None:
        """As `fetch`, of what is there, sound and read without waiting; else None, and `fetch` says what it is."""
        ...

    async def fetch(self, place: Place, upto_bytes: int = ...) -> tuple[Head, bytes | None] | None:
        """The head, and the bytes with it when they are packed and no more than `upto_bytes` with their head."""
        ...

    def read(self, place: Place, head: Head, offset: int, length: int) -> AsyncGenerator[Chunk]:
        """Bytes of that version, each checked before it is given."""
        ...

    async def audit(self, place: Place) -> Head | None:
        """Read all of it against all of its checksums; put it aside and raise CorruptCopy when it is bad."""
        ...

    async def drop(self, place: Place, version: tuple[str, str]) -> None:
        """Forget this version: it is kept elsewhere, or is a tombstone past its time.  A newer one stays."""
        ...

    async def unlisted(self, policy: int = 0) -> Mapping[str, str]:
        """Of one storage policy, by hash: the last change of each version whose row may be in no listing yet.

        Outlives a power cut."""
        ...

    def listed(self, place: Place, changed: str) -> None:
        """The row that follows from this change is on stable storage.  Forgetting it costs a merge."""
        ...

    async def parts(self) -> Sequence[int]: ...

    async def digest(self, part: int) -> int:
        """Equal on two drives when they hold the same versions in this partition."""
        ...

    async def census(self) -> Mapping[int, tuple[int, int]]:
        """Of each partition that is here, how many versions it has, and the digest of them."""
        ...

    async def inventory(self, part: int) -> Mapping[str, tuple[str, str]]:
        """Version by hash."""
        ...


class Indexes(Protocol):
    """Indexes of accounts or containers on one drive."""

    async def apply(self, kind: IndexKind, place: Place, change: Change) -> IndexHead:
        """Merge; made if absent."""
        ...

    def note(self, kind: IndexKind, place: Place, change: Change) -> Awaitable[object] | None:
        """Merge this before anybody reads again, and make it durable with the next `flush`.

        None when it is taken in; else what to await for that.
        """
        ...

    async def flush(self) -> None:
        """Return when all that was noted before is on stable storage."""
        ...

    def at_hand(self, kind: IndexKind, place: Place) -> IndexHead | None:
        """Its head, if there is one that can be told without waiting."""
        ...

    async def head(self, kind: IndexKind, place: Place) -> IndexHead | None: ...

    async def listing(self, kind: IndexKind, place: Place, ask: ListingAsk) -> Sequence[Row | Subdir]: ...

    async def rows(self, kind: IndexKind, place: Place, after: str, limit: int) -> Sequence[Row]:
        """All rows past a name, tombstones too: for repair."""
        ...

    async def versions(self, kind: IndexKind, place: Place, after: str, limit: int) -> Sequence[RowVersion]:
        """Of the same rows, for comparing: a third of the cost, and their checksums are not looked at."""
        ...

    async def totals(self, kind: IndexKind, place: Place, after: str, upto: str) -> Totals:
        """Of the names behind `after` up to `upto`, which is no bound when empty."""
        ...

    async def expel(self, kind: IndexKind, place: Place, versions: Sequence[RowVersion]) -> None:
        """Remove names that are of these versions.  They are kept in another index."""
        ...

    async def digest(self, kind: IndexKind, place: Place) -> int:
        """Equal on two drives when they hold the same; 0 when there is none."""
        ...

    async def audit(self, kind: IndexKind, place: Place) -> bool:
        """Read some of the file, behind what was read; true when all of it was.  Put it aside and raise CorruptCopy
        when it is bad."""
        ...

    async def reclaim(self, kind: IndexKind, place: Place, before: str) -> None:
        """Forget tombstones older than the stamp, and the whole of it when nothing else is left."""
        ...

    async def drop(self, kind: IndexKind, place: Place) -> None: ...

    async def parts(self, kind: IndexKind) -> Sequence[int]: ...

    async def places(self, kind: IndexKind, part: int) -> Sequence[Place]: ...


class Pending(Protocol):
    """Changes to indexes that could not be made yet, on stable storage."""

    async def add(self, name: str, change: Change) -> None: ...

    async def names(self) -> Sequence[str]: ...

    async def get(self, name: str) -> Change | None: ...

    async def remove(self, name: str) -> None: ...


class Leases(Protocol):
    """Names that are one proxy's for LEASE_S (`leases.py`), unless he gives them back before."""

    async def take(self, name: str, owner: str) -> bool:
        """Whether it is his now.  Not if it is anybody's already, or may be."""
        ...

    async def release(self, name: str, owner: str) -> None: ...


class Drive(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def copies(self) -> Copies: ...

    @property
    def indexes(self) -> Indexes: ...

    @property
    def pending(self) -> Pending: ...

    @property
    def leases(self) -> Leases: ...


class KeptDrive(Drive, Protocol):
    """A drive with what its membership, its watch and its operator ask besides."""

    on_return: Callable[[], None]
    """Hears, before the drive answers anything else, that it may hold other things than it did."""

    @property
    def root(self) -> Path | str: ...

    @property
    def comparing(self) -> bool:
        """It came back, and was not compared since: it may not hold all that it acknowledged."""
        ...

    async def start(self) -> None:
        """Read what is there.  Raise DriveTrouble unless it is the drive."""
        ...

    async def free_bytes(self) -> int: ...

    async def look(self, *, write: bool) -> None:
        """Look now whether it is there, and also whether it takes writes."""
        ...

    async def forget(self) -> None:
        """The drive may hold other things than it did."""
        ...

    async def compared(self) -> None:
        """It holds all that it should."""
        ...

    async def tidy(self) -> int:
        """Give back what overwritten and deleted objects still take; returns how many bytes were moved."""
        ...

    async def repartition(self, part_power: int) -> None:
        """Count and keep by these partitions from now on.  Works on one that is away, too."""
        ...

    async def turned(self, turn: int) -> None:
        """The ring was changed so often: answer nobody any more who knows of fewer changes."""
        ...

    async def close(self) -> None:
        """Use it no more.  One of another host stays open there for whoever else uses it."""
        ...

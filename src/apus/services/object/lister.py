"""Rows follow their objects: at once in memory, and a moment later on stable storage.

Every version is written as *unlisted*: its record in the log is the promise that its row comes.  So an answer waits for
one sync of the object and for none of the index.  `flush` makes the rows of many objects durable together and then
takes back their promises; after a crash `relist` keeps those that are left.  Listing twice is a merge, and harmless.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Container, Iterator, Sequence
from typing import Final

from apus.kernel.errors import Unavailable
from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.directory import Directory, object_row
from apus.services.object.drivers.drive import Drive
from apus.services.object.index_copies import Noted
from apus.services.object.logic.merge import TICKS_PER_S, make_stamp
from apus.services.object.model import Change, CorruptCopy, Head, Place, Row

EXPIRING: Final = ".expiring"
"""The hidden account whose containers (one an hour) list what is to be deleted when."""

FLUSH_TIMEOUT_S: Final = 60.0

GATHER_S: Final = 20.0
"""How long rows that are thinly spread over indexes are gathered: one alone costs ten times what one of many does.
Who reads them makes them durable first."""

THIN: Final = 128
"""Rows for each partition that are worth a commit at once."""

PARTS_FEW: Final = 32
"""Partitions that are never too many to commit to at once."""

RELIST_AFTER_S: Final = 2 * GATHER_S
"""A version that is unlisted for so long was forgotten: by a crash, or because its container's copies were away."""

RELIST_EVERY_S: Final = 5.0
"""How often that is looked at: all that is unlisted is gone through for it."""

RELISTED_AT_ONCE: Final = 1_000

KEPT_AT_ONCE: Final = 100
"""Promises that are taken back in one turn of the loop: a millisecond, in which no request is served."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Promise:
    """A change of an object whose rows are in memory."""

    place: Place
    changed: str
    noted: tuple[Noted, ...]
    """One for each of its rows."""


class Lister:
    def __init__(self, cluster: Cluster, directory: Directory) -> None:
        self._cluster, self._directory = cluster, directory
        self._promises: list[_Promise] = []
        self._parts: set[int] = set()
        self._since_s = 0.0
        """Of the rows in memory, the partitions of their indexes, and since when there are any."""

    async def follow(self, head: Head) -> None:
        """From now on listings show what this version says; it must be on stable storage."""
        changes = changes_of(head)
        try:
            policy = await self._directory.policy_of(head.account, head.container)
            noted = tuple([one for change in changes for one in await self._directory.note(change)])
        except Unavailable:
            return  # it stays unlisted, and `relist` comes back to it
        place = self._cluster.place(head.account, head.container, head.name, policy=policy)
        if not self._promises:
            self._since_s = self._cluster.world.clock.monotonic_s()
        self._promises.append(_Promise(place, head.changed, noted))
        self._parts.update(one.part for one in noted)

    @property
    def is_due(self) -> bool:
        """Whether it is time to flush."""
        if len(self._parts) < PARTS_FEW or len(self._promises) >= THIN * len(self._parts):
            return True
        return self._cluster.world.clock.monotonic_s() - self._since_s >= GATHER_S

    async def flush(self) -> None:
        """Make all rows durable that were in memory when this began."""
        promises, self._promises = self._promises, []
        self._parts.clear()
        if not promises:
            return
        drives = list(self._cluster.drives.values())
        answers = await ask_each(drives, lambda drive: drive.indexes.flush(), FLUSH_TIMEOUT_S)
        done = {drive.id for drive, answer in zip(drives, answers, strict=True) if answer is None}
        for drive, answer in zip(drives, answers, strict=True):
            if answer is not None:
                self._cluster.failed(drive, answer)
        for first in range(0, len(promises), KEPT_AT_ONCE):
            if first:
                await asyncio.sleep(0)
            for promise in promises[first : first + KEPT_AT_ONCE]:
                if all([self._is_kept(noted, done) for noted in promise.noted]):
                    self._listed(promise.place, promise.changed)

    def _is_kept(self, noted: Noted, done: Container[str]) -> bool:
        """Whether a quorum has it on stable storage."""
        kept = sum(name in done for name in noted.drives)
        if kept < len(noted.drives):
            self._cluster.repairs.add(noted.kind, noted.part)
        return kept >= self._cluster.quorum(noted.part)

    async def relist(self, drive: Drive, after_s: float = RELIST_AFTER_S) -> None:
        """List what this drive has that was unlisted for so long.  Raise Unavailable, DriveTrouble."""
        before = make_stamp(max(0, int((self._cluster.world.clock.now_s() - after_s) * TICKS_PER_S)), "")
        ring = self._cluster.ring
        left = [
            (Place(ring.part_of(path_hash, policy), path_hash), changed)
            for policy in range(len(ring.by_policy()))
            for path_hash, changed in (await drive.copies.unlisted(policy)).items()
            if not after_s or changed < before
        ]
        for first in range(0, len(left), RELISTED_AT_ONCE):
            await self._relist(drive, left[first : first + RELISTED_AT_ONCE])

    async def _relist(self, drive: Drive, unlisted: Sequence[tuple[Place, str]]) -> None:
        changes: dict[tuple[str, str], list[Change]] = {}
        for place, _ in unlisted:
            try:
                head = await drive.copies.head(place)
            except CorruptCopy:
                self._cluster.repairs.add("objects", place.part)
                continue
            for change in changes_of(head) if head is not None else ():
                changes.setdefault((change.account, change.container), []).append(change)
        for (account, container), some in changes.items():
            rows = tuple(row for change in some for row in change.rows)
            await self._directory.apply(Change(account, container, rows, made=max(change.made for change in some)))
        for place, changed in unlisted:
            drive.copies.listed(place, changed)
            self._listed(place, changed)

    def _listed(self, place: Place, changed: str) -> None:
        for drive in self._cluster.primaries(place.part):
            drive.copies.listed(place, changed)


def changes_of(head: Head) -> Iterator[Change]:
    """What an object's container, and the expirer, are to be told of it."""
    yield Change(head.account, head.container, (object_row(head),))
    if head.delete_at_s is not None:
        yield expiry_change(head)


def expiry_change(head: Head) -> Change:
    """An entry of the expirer's own index: `WHEN/ACCOUNT/CONTAINER/OBJECT` in the container of that hour."""
    at_s = head.delete_at_s
    assert at_s is not None
    name = f"{at_s:010d}/{head.account}/{head.container}/{head.name}"
    return Change(EXPIRING, expiry_container(at_s), (Row(name, head.changed),), made=head.changed)


def expiry_container(at_s: int) -> str:
    return f"{at_s - at_s % 3600:010d}"

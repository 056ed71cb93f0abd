"""One index on whatever drives keep copies of it: written to a quorum, read from the first good copy.

It knows nothing of shards: which index a name is in is `directory.py`'s to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeVar

from apus.kernel.errors import Unavailable
from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.drivers.drive import Drive
from apus.services.object.engine import READ_TIMEOUT_S
from apus.services.object.logic.shards import SHARDS
from apus.services.object.model import Change, IndexHead, IndexKind, ListingAsk, Place, Row, Subdir, Totals
from apus.services.object.repair import heal_index

T = TypeVar("T")

PLACES_MAX: Final = 4096
"""Remembered: few indexes are asked for, each many times, one in shards four times for one request."""


class Noted(NamedTuple):
    """Where a change waits to be made durable."""

    kind: IndexKind
    part: int
    drives: tuple[str, ...]


class IndexCopies:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._placed = lru_cache(PLACES_MAX)(self._place)

    def place(self, account: str, container: str) -> tuple[IndexKind, Place]:
        return self._placed(account, container, self.cluster.ring.part_power)

    def _place(self, account: str, container: str, part_power: int) -> tuple[IndexKind, Place]:
        """`part_power`: what else of the ring it hangs on."""
        if container:
            return "containers", self.cluster.place(account, container)
        return "accounts", self.cluster.place(account)

    async def apply(self, change: Change) -> IndexHead:
        """Make the change on a quorum; raise Unavailable without one."""
        kind, place = self.place(change.account, change.container)
        heads = await self.cluster.spread(kind, place.part, lambda drive: drive.indexes.apply(kind, place, change))
        return heads[0]

    async def note(self, change: Change) -> Noted:
        """Have it merged before anybody reads, and made durable by the next flush of these drives.

        Raise Unavailable without a quorum.
        """
        kind, place = self.place(change.account, change.container)
        drives = self.cluster.candidates(place.part)[: self.cluster.copies(place.part)]
        waits = [wait for drive in drives if (wait := drive.indexes.note(kind, place, change)) is not None]
        if waits:
            outcomes = await asyncio.gather(*waits, return_exceptions=True)
            if any(isinstance(outcome, OSError) for outcome in outcomes):
                await self.apply(change)
            for outcome in outcomes:
                if isinstance(outcome, BaseException) and not isinstance(outcome, OSError):
                    raise outcome
        return Noted(kind, place.part, tuple([drive.id for drive in drives]))

    async def heal(self, account: str, container: str) -> None:
        await heal_index(self.cluster, *self.place(account, container))

    async def head(self, account: str, container: str) -> IndexHead | None:
        """What it says about itself, deleted ones too.  Raise Unavailable when too few copies can say."""
        kind, place = self.place(account, container)
        if not self.cluster.repairs.suspects(kind, place.part):
            for drive in self.cluster.primaries(place.part):
                if self.cluster.resting(drive):
                    self.cluster.repairs.suspect(kind, place.part)
                    continue
                head = drive.indexes.at_hand(kind, place)
                if head is None:
                    try:
                        async with asyncio.timeout(READ_TIMEOUT_S):
                            head = await drive.indexes.head(kind, place)
                    except OSError as error:
                        self._not_from(drive, error, kind, place)
                        continue
                if head is not None and (head.exists or _is_never_made(head)):
                    return head
                break  # one copy is enough to say that it is there, and not that it is not
        return await self.newest(account, container)

    async def newest(self, account: str, container: str) -> IndexHead | None:
        """The same of all copies that answer, made equal first."""
        kind, place = self.place(account, container)
        await heal_index(self.cluster, kind, place)
        drives = self.cluster.candidates(place.part)

        async def head(drive: Drive) -> IndexHead | None:
            return await drive.indexes.head(kind, place)

        answers = await ask_each(drives, head, READ_TIMEOUT_S)
        primaries = {drive.id for drive in self.cluster.primaries(place.part)}
        heads = [answer for answer in answers if isinstance(answer, IndexHead)]
        heard = sum(
            drive.id in primaries and not isinstance(answer, OSError)
            for drive, answer in zip(drives, answers, strict=True)
        )
        if not heads and heard < self.cluster.copies(place.part) - self.cluster.quorum(place.part) + 1:
            raise Unavailable("object.copies_away", "Too many copies are away to say whether this exists.")
        return max(heads, key=lambda head: (max(head.made, head.gone), head.rows), default=None)

    async def listing(self, account: str, container: str, ask: ListingAsk) -> Sequence[Row | Subdir]:
        kind, place = self.place(account, container)
        if self.cluster.repairs.suspects(kind, place.part):
            await heal_index(self.cluster, kind, place)
        return await self._first(account, container, lambda drive: drive.indexes.listing(kind, place, ask), [])

    async def rows(self, account: str, container: str, after: str, limit: int) -> Sequence[Row]:
        """Rows behind a name, tombstones too."""
        kind, place = self.place(account, container)
        return await self._first(account, container, lambda drive: drive.indexes.rows(kind, place, after, limit), [])

    async def totals(self, account: str, container: str, after: str, upto: str) -> Totals:
        kind, place = self.place(account, container)
        return await self._first(
            account, container, lambda drive: drive.indexes.totals(kind, place, after, upto), Totals()
        )

    async def _first(self, account: str, container: str, act: Callable[[Drive], Awaitable[T]], absent: T) -> T:
        """The answer of the first drive whose copy knows when the index was made.  One that does not has only what came
        since the drive lost it, and answers where there is no better one."""
        kind, place = self.place(account, container)
        young: list[Drive] = []
        for drive in self.cluster.candidates(place.part):
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    head = await drive.indexes.head(kind, place)
                    if head is not None and (head.made or _is_never_made(head)):
                        return await act(drive)
                    young += [drive] if head is not None else []
            except OSError as error:
                self._not_from(drive, error, kind, place)
        for drive in young:
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    return await act(drive)
            except OSError as error:
                self._not_from(drive, error, kind, place)
        return absent

    def _not_from(self, drive: Drive, error: OSError, kind: IndexKind, place: Place) -> None:
        self.cluster.failed(drive, error)
        self.cluster.repairs.suspect(kind, place.part)


def _is_never_made(head: IndexHead) -> bool:
    """Shards begin with their first row: it is their owner that is made."""
    return head.account == SHARDS

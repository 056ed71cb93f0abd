"""Accounts and containers: indexes that are placed, written and read like objects, and know no database but their own.

A change goes to a quorum of copies.  Where it cannot, it is kept as a pending file on several drives and the updater
makes it later: an object that was acknowledged is listed, sooner or later.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

from apus.kernel.errors import Unavailable
from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.consistency import Reading
from apus.services.object.drivers.drive import Drive
from apus.services.object.engine import READ_TIMEOUT_S
from apus.services.object.logic.listed import listed_text
from apus.services.object.model import Change, Head, IndexHead, IndexKind, ListingAsk, Place, Row, Subdir
from apus.services.object.repair import heal_index

CACHE_S: Final = 5.0
"""Another proxy may change a container's ACL; ours sees its own changes at once."""

CACHE_MAX: Final = 10_000

REPORTS_MAX: Final = 10_000
"""Containers whose totals changed and are not yet in their account; past it, the scan finds them."""


class Noted(NamedTuple):
    """Where a change waits to be made durable."""

    kind: IndexKind
    part: int
    drives: tuple[str, ...]


class Directory:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._cache: OrderedDict[tuple[str, str], tuple[float, IndexHead | None]] = OrderedDict()
        self._behind_since_s: float | None = cluster.world.clock.monotonic_s()
        """Since when changes may wait for the updater."""
        self._unreported: dict[str, dict[str, IndexHead | None]] = {}
        """By account and container; None where the totals have to be asked for."""
        self._policies: OrderedDict[tuple[str, str], int] = OrderedDict()

    def place(self, account: str, container: str) -> tuple[IndexKind, Place]:
        if container:
            return "containers", self.cluster.place(account, container)
        return "accounts", self.cluster.place(account)

    async def apply(self, change: Change) -> IndexHead:
        """Make the change on a quorum; raise Unavailable without one."""
        kind, place = self.place(change.account, change.container)
        heads = await self.cluster.spread(kind, place.part, lambda drive: drive.indexes.apply(kind, place, change))
        head = heads[0]
        if change.made or change.gone or change.fields:
            self._cache.pop((change.account, change.container), None)
            self._policies.pop((change.account, change.container), None)
        if change.container:
            self._unreported.setdefault(change.account, {})[change.container] = head
        return head

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
        self._unreported.setdefault(change.account, {})[change.container] = None
        return Noted(kind, place.part, tuple([drive.id for drive in drives]))

    async def offer(self, change: Change) -> None:
        """Make the change now, or keep it durably for the updater."""
        try:
            await self.apply(change)
        except Unavailable:
            await self.postpone(change)

    async def postpone(self, change: Change) -> None:
        if self._behind_since_s is None:
            self._behind_since_s = self.cluster.world.clock.monotonic_s()
        place = self.cluster.place(change.account, change.container)
        name = f"{self.cluster.stamp()}-{place.hash}"
        await self.cluster.spread("objects", place.part, lambda drive: drive.pending.add(name, change))

    def saw(self, reading: Reading, account: str, container: str) -> None:
        """A request read this index: its copies may differ, and changes may wait for the updater."""
        kind, place = self.place(account, container)
        reading.saw(self.cluster.doubt_s(kind, place.part))
        if self._behind_since_s is not None:
            reading.saw(self.cluster.world.clock.monotonic_s() - self._behind_since_s)

    def caught_up(self, began_s: float) -> None:
        """A pass that began then found that no drive keeps a change; another proxy may have kept one since."""
        if self._behind_since_s is not None and self._behind_since_s <= began_s:
            self._behind_since_s = began_s if self.cluster.shared else None

    async def head(self, account: str, container: str = "") -> IndexHead | None:
        """What it says about itself, deleted ones too."""
        kind, place = self.place(account, container)
        if not self.cluster.repairs.suspects(kind, place.part):
            for drive in self.cluster.primaries(place.part):
                if self.cluster.resting(drive):
                    self.cluster.repairs.suspect(kind, place.part)
                    continue
                try:
                    async with asyncio.timeout(READ_TIMEOUT_S):
                        head = await drive.indexes.head(kind, place)
                except OSError as error:
                    self.cluster.failed(drive, error)
                    self.cluster.repairs.suspect(kind, place.part)
                    continue
                if head is not None:
                    return head
                break
        return await self._newest(kind, place)

    async def known(self, account: str, container: str) -> IndexHead | None:
        """The same from memory: for the way of an object, where the totals do not matter."""
        key, now = (account, container), self.cluster.world.clock.monotonic_s()
        cached = self._cache.get(key)
        if cached is not None and now - cached[0] < CACHE_S:
            return cached[1]
        head = await self.head(account, container)
        if head is not None and not head.exists:
            head = None
        if head is not None:  # absence is not kept: the next request may be after a PUT elsewhere
            self._cache[key] = now, head
            if len(self._cache) > CACHE_MAX:
                self._cache.popitem(last=False)
        return head

    async def policy_of(self, account: str, container: str) -> int:
        """The number of its storage policy, which never changes while the store remembers the container."""
        if not self.cluster.ring.further:
            return 0
        key = account, container
        policy = self._policies.get(key)
        if policy is None:
            head = await self._newest(*self.place(account, container))  # one copy may have missed that it was made
            if head is None or not head.made:
                return 0
            policy = self._policies[key] = head.policy
            if len(self._policies) > CACHE_MAX:
                self._policies.popitem(last=False)
        return policy

    async def listing(self, account: str, container: str, ask: ListingAsk) -> Sequence[Row | Subdir]:
        kind, place = self.place(account, container)
        if self.cluster.repairs.suspects(kind, place.part):
            await heal_index(self.cluster, kind, place)
        for drive in self.cluster.candidates(place.part):
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    rows = await drive.indexes.listing(kind, place, ask)
                    if rows or await drive.indexes.head(kind, place) is not None:
                        return rows
            except OSError as error:
                self.cluster.failed(drive, error)
                self.cluster.repairs.suspect(kind, place.part)
        return []

    async def rows(self, account: str, container: str, after: str, limit: int) -> Sequence[Row]:
        """Rows behind a name, tombstones too."""
        kind, place = self.place(account, container)
        for drive in self.cluster.candidates(place.part):
            try:
                async with asyncio.timeout(READ_TIMEOUT_S):
                    if await drive.indexes.head(kind, place) is not None:
                        return await drive.indexes.rows(kind, place, after, limit)
            except OSError as error:
                self.cluster.failed(drive, error)
                self.cluster.repairs.suspect(kind, place.part)
        return []

    async def heads_here(self, kind: IndexKind) -> AsyncIterator[IndexHead]:
        """All whose first copy is on a drive of this node, deleted ones too: for loops that look at everything."""
        for drive in self.cluster.drives.values():
            try:
                for part in await drive.indexes.parts(kind):
                    if self.cluster.ring.primaries(part)[0] != drive.id:
                        continue
                    for place in await drive.indexes.places(kind, part):
                        head = await drive.indexes.head(kind, place)
                        if head is not None:
                            yield head
            except OSError as error:
                self.cluster.failed(drive, error)

    async def report(self, account: str | None = None) -> None:
        """Tell accounts the totals of their containers that changed."""
        accounts = [account] if account is not None else list(self._unreported)
        for name in accounts:
            changed = self._unreported.pop(name, {})
            try:
                heads = [head or await self.head(name, container) for container, head in changed.items()]
            except Unavailable:
                self._unreported[name] = {**changed, **self._unreported.get(name, {})}
                continue
            told = self.cluster.stamp()
            rows = tuple(container_row(head, told) for head in heads if head is not None)
            if rows:
                await self.offer(Change(name, "", rows))

    async def close_deleted(self, account: str, container: str, stamp: str) -> IndexHead:
        """Mark a container (or account) as deleted from this stamp on."""
        return await self.apply(Change(account, container, gone=stamp))

    async def _newest(self, kind: IndexKind, place: Place) -> IndexHead | None:
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


def container_row(head: IndexHead, told: str) -> Row:
    """A container as its account lists it."""
    return Row(
        head.container,
        stamp=max(head.made, head.gone),
        told=told,
        gone=not head.exists,
        size_bytes=head.size_bytes if head.exists else 0,
        count=head.rows if head.exists else 0,
        content_type=str(head.policy) if head.policy else "",
    )


def object_row(head: Head) -> Row:
    """An object as its container lists it."""
    return Row(
        head.name,
        stamp=head.stamp,
        told=head.meta.stamp if head.meta else "",
        gone=head.gone,
        size_bytes=head.size_bytes,
        etag=listed_text(head),
        content_type=head.shown_type,
    )

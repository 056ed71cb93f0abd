"""Accounts and containers: indexes that are placed, written and read like objects, and know no database but their own.

A change goes to a quorum of copies of the index, or of those of its shards that it concerns (`shards.py`).  Where it
cannot, it is kept as a pending file on several drives and the updater makes it later: an object that was acknowledged
is listed, sooner or later.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence

from apus.kernel.errors import Unavailable
from apus.services.object.cluster import Cluster
from apus.services.object.consistency import READING, Reading
from apus.services.object.index_copies import IndexCopies, Noted
from apus.services.object.logic.listed import listed_text
from apus.services.object.logic.shards import SHARDS, Walk, owner_text
from apus.services.object.model import Change, Head, IndexHead, IndexKind, ListingAsk, Place, Row, Subdir
from apus.services.object.shards import CACHE_MAX, CACHE_S, SHARD_ROWS, Shards


class Directory:
    def __init__(self, cluster: Cluster, shard_rows: int = SHARD_ROWS) -> None:
        """An index of `shard_rows` names is cut."""
        self.cluster, self.indexes = cluster, IndexCopies(cluster)
        self.shards = Shards(self.indexes, shard_rows)
        self._cache: OrderedDict[tuple[str, str], tuple[float, IndexHead | None]] = OrderedDict()
        self._behind_since_s: float | None = cluster.world.clock.monotonic_s()
        """Since when changes may wait for the updater."""
        self._unreported: dict[str, dict[str, IndexHead | None]] = {}
        """By account and container; None where the totals have to be asked for."""
        self._policies: OrderedDict[tuple[str, str], int] = OrderedDict()

    def place(self, account: str, container: str) -> tuple[IndexKind, Place]:
        return self.indexes.place(account, container)

    async def apply(self, change: Change) -> IndexHead:
        """Make the change on a quorum; raise Unavailable without one.  Returns the head with all that it holds, but
        where only names of an index in shards changed."""
        shards = await self.shards.map_of(change.account, change.container)
        if shards.is_cut:
            heads = [await self.indexes.apply(part) for part in self.shards.split(shards, change)]
            head: IndexHead | None = None
        else:
            heads = [await self.indexes.apply(change)]
            head = await self.shards.whole(heads[0])
        if change.made or change.gone or change.fields:
            self._cache.pop((change.account, change.container), None)
            self._policies.pop((change.account, change.container), None)
        if change.container:
            self._unreported.setdefault(change.account, {})[change.container] = head
        if head is None and (change.made or change.gone or change.fields):
            return await self.shards.whole(heads[0])
        return heads[0]

    async def note(self, change: Change) -> Sequence[Noted]:
        """Have it merged before anybody reads, and made durable by the next flush of these drives.

        Raise Unavailable without a quorum.
        """
        shards = await self.shards.map_of(change.account, change.container)
        parts = self.shards.split(shards, change) if shards.is_cut else (change,)
        noted = [await self.indexes.note(part) for part in parts]
        self._unreported.setdefault(change.account, {})[change.container] = None
        return noted

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
        if self.shards.is_cut(account, container):
            self._saw_shard((SHARDS, owner_text(account, container)))
        if self._behind_since_s is not None:
            reading.saw(self.cluster.world.clock.monotonic_s() - self._behind_since_s)

    def caught_up(self, began_s: float) -> None:
        """A pass that began then found that no drive keeps a change; another proxy may have kept one since."""
        if self._behind_since_s is not None and self._behind_since_s <= began_s:
            self._behind_since_s = began_s if self.cluster.shared else None

    async def head(self, account: str, container: str = "") -> IndexHead | None:
        """What it says about itself, deleted ones too, and what all of its shards hold."""
        head = await self.indexes.head(account, container)
        if head is None:
            self.shards.absent(account, container)
            return None
        return await self.shards.whole(head)

    async def known(self, account: str, container: str) -> IndexHead | None:
        """The same from memory: for the way of an object, where the totals do not matter."""
        key, now = (account, container), self.cluster.world.clock.monotonic_s()
        cached = self._cache.get(key)
        if cached is not None and now - cached[0] < CACHE_S:
            return cached[1]
        head = await self.indexes.head(account, container)
        if head is not None:
            self.shards.saw(head)
            head = head if head.exists else None
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
            head = await self.indexes.newest(account, container)  # one copy may have missed that it was made
            if head is None or not head.made:
                return 0
            policy = self._policies[key] = head.policy
            if len(self._policies) > CACHE_MAX:
                self._policies.popitem(last=False)
        return policy

    async def listing(self, account: str, container: str, ask: ListingAsk) -> Sequence[Row | Subdir]:
        shards = await self.shards.map_of(account, container)
        if not shards.is_cut:
            return await self.indexes.listing(account, container, ask)
        walk = Walk(shards, ask)
        while (turn := walk.ask()) is not None:
            index = self.shards.index_of((account, container), turn[0])
            walk.took(await self.indexes.listing(*index, turn[1]))
            self._saw_shard(index)
        return walk.found

    async def rows(self, account: str, container: str, after: str, limit: int) -> Sequence[Row]:
        """Rows behind a name, tombstones too."""
        shards = await self.shards.map_of(account, container)
        found: list[Row] = []
        for bound in shards.bounds:
            end = shards.upto(bound)
            if len(found) == limit or (end and end <= after):
                continue
            index = self.shards.index_of((account, container), bound)
            rows = await self.indexes.rows(*index, after, limit - len(found))
            found += [row for row in rows if not end or row.name <= end]
        return found

    async def heal(self, account: str, container: str) -> None:
        """Make the copies equal, so that each name that was acknowledged is listed."""
        shards = await self.shards.map_of(account, container)
        for bound in shards.bounds:
            await self.indexes.heal(*self.shards.index_of((account, container), bound))

    async def heads_here(self, kind: IndexKind) -> AsyncIterator[IndexHead]:
        """All but shards whose first copy is on a drive of this node, deleted ones too: for loops that look at
        everything."""
        for drive in self.cluster.drives.values():
            try:
                for part in await drive.indexes.parts(kind):
                    if self.cluster.ring.primaries(part)[0] != drive.id:
                        continue
                    for place in await drive.indexes.places(kind, part):
                        head = await drive.indexes.head(kind, place)
                        if head is not None and head.account != SHARDS:
                            yield await self.shards.whole(head)
            except OSError as error:
                self.cluster.failed(drive, error)

    async def report(self, account: str | None = None) -> None:
        """Tell accounts the totals of their containers that changed."""
        if account is None:
            await self.shards.report()
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

    def _saw_shard(self, index: tuple[str, str]) -> None:
        reading = READING.get()
        if reading is not None:
            kind, place = self.place(*index)
            reading.saw(self.cluster.doubt_s(kind, place.part))


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

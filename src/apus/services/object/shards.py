"""The shards of indexes: which there are, what a change has to tell them, and what they hold together.

The map of an index is a field of the index itself; its totals, one row for each shard, are an index of their own.  Maps
are remembered for as long as heads are, so another node may write and read by the map before for `CACHE_S`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Final

import msgspec

from apus.kernel.errors import NotFound, Unavailable
from apus.services.object.cluster import ask_each
from apus.services.object.index_copies import IndexCopies
from apus.services.object.logic.merge import make_stamp
from apus.services.object.logic.shards import SHARDS, WHOLE, ShardMap, owner_text, shard_of, shard_text
from apus.services.object.model import SHARD_MAP, Change, IndexHead, Row, Totals

Owner = tuple[str, str]
"""The account and container of an index; no container of an account's own."""

CACHE_S: Final = 5.0
"""Another node may change a map or an ACL; ours sees its own changes at once."""

CACHE_MAX: Final = 10_000
ASK_TIMEOUT_S: Final = 5.0
ROWS_AT_ONCE: Final = 10_000

SHARD_ROWS: Final = 1_000_000
"""An index of more names is cut into shards of half as many."""


class Shard(msgspec.Struct, frozen=True):
    """One, as its operator sees it: names behind `bound` up to `upto`, which is no bound when empty."""

    bound: str
    upto: str
    state: str
    """settled; filling, leaving: a change is planned that makes it or gives it up; emptying: what it no longer has."""
    totals: Totals
    drives: tuple[str, ...]


class Shards:
    def __init__(self, indexes: IndexCopies, shard_rows: int = SHARD_ROWS) -> None:
        self.indexes, self.cluster, self.shard_rows = indexes, indexes.cluster, shard_rows
        self.wanted: dict[Owner, None] = {}
        """Indexes to be looked at by the sharder."""
        self.strayed: dict[Owner, set[str]] = {}
        """Bounds of shards into which something may have come back from a copy that was away."""
        self.cuts = self.joins = 0
        self._maps: OrderedDict[Owner, tuple[float, ShardMap]] = OrderedDict()
        self._changed: dict[Owner, set[str]] = {}
        """Bounds of shards whose totals are to be told."""
        self._told_of: dict[Owner, int] = {}
        """The generations of maps of which the totals of just the right shards were told."""
        self.cluster.on_index_healed = self.doubt

    async def map_of(self, account: str, container: str) -> ShardMap:
        """As of the last few seconds."""
        owner = account, container
        known = self._maps.get(owner)
        if known is not None and self.cluster.world.clock.monotonic_s() - known[0] < CACHE_S:
            return known[1]
        if account == SHARDS:
            return WHOLE
        head = await self.indexes.head(account, container)
        return self.absent(account, container) if head is None else self.saw(head)

    def absent(self, account: str, container: str) -> ShardMap:
        """There is no such index."""
        self._maps[account, container] = self.cluster.world.clock.monotonic_s(), WHOLE
        return WHOLE

    def is_cut(self, account: str, container: str) -> bool:
        """As far as is known without asking."""
        known = self._maps.get((account, container))
        return known is not None and known[1].is_cut

    def saw(self, head: IndexHead) -> ShardMap:
        return self._remember((head.account, head.container), _map_in(head))

    def known(self) -> dict[Owner, ShardMap]:
        """Those of indexes that are cut, as far as they were looked at of late."""
        return {owner: one for owner, (_, one) in self._maps.items() if one.is_cut}

    async def describe(self, account: str, container: str) -> list[Shard]:
        """Raise NotFound when there is no such account or container."""
        owner = account, container
        head = await self.indexes.head(account, container)
        if head is None:
            raise NotFound("object.no_container", "The resource could not be found.")
        shards = self.saw(head)
        told = await self.totals(owner) if shards.is_cut else {}
        told[""] = await self.indexes.totals(*owner, "", shards.upto(""))
        return [
            Shard(
                bound,
                shards.upto(bound),
                self._state(shards, bound),
                told.get(bound, Totals()),
                self._drives(owner, bound),
            )
            for bound in sorted({*shards.bounds, *shards.planned})
        ]

    def _drives(self, owner: Owner, bound: str) -> tuple[str, ...]:
        _, place = self.indexes.place(*self.index_of(owner, bound))
        return tuple(self.cluster.ring.primaries(place.part))

    def _state(self, shards: ShardMap, bound: str) -> str:
        if bound not in shards.bounds:
            return "filling"
        if shards.planned and bound not in shards.planned:
            return "leaving"
        return "emptying" if bound in shards.leftovers() else "settled"

    def index_of(self, owner: Owner, bound: str) -> Owner:
        return (SHARDS, shard_text(*owner, bound)) if bound else owner

    def split(self, shards: ShardMap, change: Change) -> list[Change]:
        """What each index has to be told of it, the index itself first."""
        owner = change.account, change.container
        rows: dict[str, list[Row]] = {}
        for row in change.rows:
            for bound in shards.writes(row.name):
                rows.setdefault(bound, []).append(row)
        first = msgspec.structs.replace(change, rows=tuple(rows.pop("", ())))
        further = [Change(*self.index_of(owner, bound), tuple(some)) for bound, some in rows.items()]
        self._changed.setdefault(owner, set()).update(rows)
        is_said = first.rows or change.made or change.gone or change.fields or not further
        return [first, *further] if is_said else further

    async def whole(self, head: IndexHead) -> IndexHead:
        """The head of an index with what all of its shards hold."""
        shards, owner = self.saw(head), (head.account, head.container)
        if head.rows >= self.shard_rows:
            self.wanted[owner] = None
        if not shards.is_cut:
            return head
        own = Totals(0, head.rows, head.size_bytes, head.objects)
        if not shards.is_settled:
            own = await self.indexes.totals(*owner, "", shards.upto(""))
        others = await self._sum(owner, shards)
        return msgspec.structs.replace(
            head,
            rows=own.rows + others.rows,
            size_bytes=own.size_bytes + others.size_bytes,
            objects=own.objects + others.objects,
        )

    async def _sum(self, owner: Owner, shards: ShardMap) -> Totals:
        """Of all shards but the first.

        The index of their totals adds them up itself: its head says what its rows count and weigh.  That is enough for
        a container once it was seen to have a row for each shard and no other, while it has as many.
        """
        if owner in self._changed:
            with suppress(Unavailable):
                await self._report(owner)
        others = shards.bounds[1:]
        if self._told_of.get(owner) == shards.generation:
            head = await self.indexes.head(SHARDS, owner_text(*owner))
            if head is not None and head.rows == len(others):
                return Totals(0, head.objects, head.size_bytes)
        told = await self._told(owner)
        if owner[1] and shards.is_settled and told.keys() == set(others):
            self._told_of[owner] = shards.generation
        found = [told[bound] for bound in others if bound in told]
        return Totals(
            0,
            sum(one.rows for one in found),
            sum(one.size_bytes for one in found),
            sum(one.objects for one in found),
        )

    async def totals(self, owner: Owner) -> dict[str, Totals]:
        """By bound, of all shards but the first: exact for what this node wrote, a report old for what others did."""
        with suppress(Unavailable):
            await self._report(owner)
        return await self._told(owner)

    async def _told(self, owner: Owner) -> dict[str, Totals]:
        found: dict[str, Totals] = {}
        after = ""
        while rows := await self.indexes.rows(SHARDS, owner_text(*owner), after, ROWS_AT_ONCE):
            for row in rows:
                if not row.gone:
                    found[row.name] = Totals(0, row.count, row.size_bytes, int(row.etag or 0))
            after = rows[-1].name
        return found

    async def report(self) -> None:
        """Tell the totals of all shards that changed."""
        for owner in list(self._changed):
            with suppress(Unavailable):
                await self._report(owner)

    def changed(self, owner: Owner, bounds: Sequence[str]) -> None:
        self._changed.setdefault(owner, set()).update(bound for bound in bounds if bound)

    def doubt(self, head: IndexHead) -> None:
        """This index, or shard, may hold what is not its own: rows came to it from a copy that may have been away while
        it was cut, or nobody looked at it for long."""
        bound: str | None = ""
        if head.account == SHARDS:
            account, container, bound = shard_of(head.container)
        elif SHARD_MAP in head.fields:
            account, container = head.account, head.container
        else:
            return
        self.wanted[account, container] = None
        if bound is not None:
            self.strayed.setdefault((account, container), set()).add(bound)
            self.changed((account, container), [bound])

    async def certain(self, owner: Owner) -> ShardMap:
        """The newest that a quorum of the index's own drives knows.  Raise Unavailable."""
        kind, place = self.indexes.place(*owner)
        answers = await ask_each(
            self.cluster.primaries(place.part), lambda drive: drive.indexes.head(kind, place), ASK_TIMEOUT_S
        )
        heads = [answer for answer in answers if not isinstance(answer, OSError)]
        self._need(place.part, len(heads))
        said = [head.fields.get(SHARD_MAP, _NOTHING) if head is not None else _NOTHING for head in heads]
        newest = max(said, key=lambda pair: (pair[1], pair[0]))
        shards = _decode(newest[0]) if newest[0] else WHOLE
        if any(pair != newest for pair in said):
            await self._write(owner, newest)
        self._remember(owner, shards)
        return shards

    async def store(self, owner: Owner, shards: ShardMap) -> None:
        """Turn to this map on a quorum of the index's own drives: of two of a generation one wins everywhere.

        Raise Unavailable: then it may hold, or come to hold, all the same.
        """
        stamp = make_stamp(shards.generation, self.cluster.node)
        await self._write(owner, (msgspec.json.encode(shards).decode(), stamp))

    async def _write(self, owner: Owner, field: tuple[str, str]) -> None:
        kind, place = self.indexes.place(*owner)
        change = Change(*owner, fields={SHARD_MAP: field})
        drives = self.cluster.primaries(place.part)
        answers = await ask_each(drives, lambda drive: drive.indexes.apply(kind, place, change), ASK_TIMEOUT_S)
        made = sum(not isinstance(answer, OSError) for answer in answers)
        if made < len(answers):
            self.cluster.repairs.add(kind, place.part)
        self._maps.pop(owner, None)
        self._need(place.part, made)

    def _need(self, part: int, heard: int) -> None:
        if heard < self.cluster.quorum(part):
            raise Unavailable("object.copies_away", "Too many copies are away to change the shards of an index.")

    def _remember(self, owner: Owner, shards: ShardMap) -> ShardMap:
        known = self._maps.get(owner)
        if known is not None and known[1].generation > shards.generation:
            shards = known[1]  # a copy that was away said less
        self._maps[owner] = self.cluster.world.clock.monotonic_s(), shards
        if len(self._maps) > CACHE_MAX:
            self._maps.popitem(last=False)
        if not shards.is_settled:
            self.wanted[owner] = None
        return shards

    async def _report(self, owner: Owner) -> None:
        bounds = self._changed.pop(owner, None)
        if not bounds:
            return
        try:
            shards = await self.map_of(*owner)
            rows = [row for bound in sorted(bounds) if (row := await self._totals_row(owner, shards, bound))]
            if rows:
                await self.indexes.apply(Change(SHARDS, owner_text(*owner), tuple(rows)))
        except Unavailable:
            self.changed(owner, [*bounds])
            raise

    async def _totals_row(self, owner: Owner, shards: ShardMap, bound: str) -> Row | None:
        stamp = self.cluster.stamp()  # before it is read: what was read later counts
        if bound not in shards.bounds:
            return None if bound in shards.planned else Row(bound, stamp, gone=True)
        index = self.index_of(owner, bound)
        if shards.is_settled:
            head = await self.indexes.head(*index)
            found = Totals() if head is None else Totals(0, head.rows, head.size_bytes, head.objects)
            if found.rows >= self.shard_rows:
                self.wanted[owner] = None
        else:
            found = await self.indexes.totals(*index, bound, shards.upto(bound))
        return Row(bound, stamp, size_bytes=found.size_bytes, count=found.rows, etag=str(found.objects))


def _map_in(head: IndexHead) -> ShardMap:
    text = head.fields.get(SHARD_MAP)
    return _decode(text[0]) if text is not None else WHOLE


_NOTHING: Final = ("", "")
"""The field where there is none."""

_decode: Final = lru_cache(256)(msgspec.json.Decoder(ShardMap).decode)
"""A map has as many names as there are shards, and is read again with each head."""

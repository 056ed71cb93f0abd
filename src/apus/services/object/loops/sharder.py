"""Cuts indexes that have grown, joins shards that have shrunk, and passes on what is not where it belongs.

It may run twice, and end anywhere: the map says what was begun (`logic/shards.py`), everything that it does to rows is
a merge, and of a row only that version is removed which a quorum has elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from apus.kernel.errors import CloudError
from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.directory import Directory
from apus.services.object.drivers.drive import Drive
from apus.services.object.logic.shards import Move, ShardMap, bound_between, joined
from apus.services.object.model import Change, ListingAsk, Row
from apus.services.object.shards import ASK_TIMEOUT_S, CACHE_S, Owner

PASS_EVERY_S: Final = 1.0

SETTLE_S: Final = 2 * CACHE_S
"""So long a map is left before the next step: everybody writes by it then, and what was on its way has come."""

PIECES_MAX: Final = 4
"""Shards that are cut off one at a time, so that a step is over in minutes whatever the size."""

ROWS_AT_ONCE: Final = 1_000
NAMES_AT_ONCE: Final = 10_000


class Sharder:
    name = "object.sharder"
    period_s = PASS_EVERY_S

    def __init__(self, cluster: Cluster, directory: Directory) -> None:
        self._cluster, self._directory = cluster, directory
        self._shards, self._indexes = directory.shards, directory.indexes
        self._since: dict[Owner, tuple[ShardMap, float]] = {}
        """Since when this map is known to a quorum."""

    async def keys(self) -> Iterable[str]:
        """`ACCOUNT/CONTAINER` of what may be too large, too small, or half done."""
        return ["/".join(owner) for owner in self._shards.wanted]

    async def settle(self, key: str) -> None:
        account, _, container = key.partition("/")
        owner = account, container
        self._shards.wanted.pop(owner, None)
        try:
            shards = await self._shards.certain(owner)
            if shards.is_settled:
                self._since.pop(owner, None)
                await self._look(owner, shards)
            else:
                self._shards.wanted[owner] = None
                if self._has_settled(owner, shards):
                    await self._go_on(owner, shards)
        except CloudError:
            self._shards.wanted[owner] = None
            raise

    async def run_once(self) -> None:
        for key in await self.keys():
            await self.settle(key)

    def _has_settled(self, owner: Owner, shards: ShardMap) -> bool:
        now_s = self._cluster.world.clock.monotonic_s()
        known, since_s = self._since.get(owner, (shards, now_s))
        self._since[owner] = shards, since_s if known == shards else now_s
        return now_s - self._since[owner][1] >= SETTLE_S

    async def _look(self, owner: Owner, shards: ShardMap) -> None:
        strayed = self._shards.strayed.setdefault(owner, set())
        for bound in sorted(strayed):
            await self._pass_on(owner, shards, bound)
            strayed.discard(bound)
        if not strayed:
            self._shards.strayed.pop(owner, None)
        bounds = await self._bounds(owner, shards)
        if bounds == shards.bounds:
            return
        self._shards.cuts += len(set(bounds) - set(shards.bounds))
        self._shards.joins += len(set(shards.bounds) - set(bounds))
        await self._shards.store(owner, shards.plan(bounds))
        self._shards.wanted[owner] = None

    async def _go_on(self, owner: Owner, shards: ShardMap) -> None:
        if shards.planned:
            for move in shards.moves():
                await self._copy(owner, move)
            then = shards.turned()
        else:
            for bound in shards.leftovers():
                await self._pass_on(owner, shards, bound)
            then = shards.cleaned()
        if await self._shards.certain(owner) == shards:  # nobody else went on meanwhile
            self._shards.changed(owner, [*shards.bounds, *then.bounds])
            await self._shards.store(owner, then)
            self._shards.changed(owner, [*shards.bounds, *shards.former, *then.bounds])

    async def _bounds(self, owner: Owner, shards: ShardMap) -> tuple[str, ...]:
        """Those that it should have, by the sizes of its shards."""
        sizes = {bound: one.rows for bound, one in (await self._shards.totals(owner)).items()}
        sizes[""] = (await self._indexes.totals(*owner, "", shards.upto(""))).rows
        limit = self._shards.shard_rows
        fewer = joined(shards.bounds, sizes, limit // 4)
        if len(fewer) < len(shards.bounds):  # tombstones have to be copied, too
            for bound in shards.bounds:
                index = self._shards.index_of(owner, bound)
                if sizes.get(bound, 0) < limit // 4:
                    sizes[bound] = (await self._indexes.totals(*index, bound, shards.upto(bound))).entries
            fewer = joined(shards.bounds, sizes, limit // 4)
        more = [
            cut for bound in fewer if sizes.get(bound, 0) >= limit for cut in await self._cuts(owner, shards, bound)
        ]
        return tuple(sorted({*fewer, *more}))

    async def _cuts(self, owner: Owner, shards: ShardMap, bound: str) -> list[str]:
        """Bounds that cut pieces of half the limit from the end of a shard."""
        piece = max(1, self._shards.shard_rows // 2)
        index, end = self._shards.index_of(owner, bound), shards.upto(bound)
        ask = ListingAsk(limit=NAMES_AT_ONCE, marker=end + "\0" if end else "", reverse=True)
        cuts: list[str] = []
        count, behind = 0, ""
        while len(cuts) < PIECES_MAX:
            names = [row.name for row in await self._indexes.listing(*index, ask)]
            for name in names:
                if count and count % piece == 0 and len(cuts) < PIECES_MAX:
                    cuts.append(bound_between(name, behind))
                count, behind = count + 1, name
            if len(names) < NAMES_AT_ONCE:
                break
            ask = ListingAsk(limit=NAMES_AT_ONCE, marker=behind, reverse=True)
        return cuts

    async def _copy(self, owner: Owner, move: Move) -> None:
        """What the source holds of these names, tombstones too."""
        source, target = self._shards.index_of(owner, move.source), self._shards.index_of(owner, move.target)
        await self._indexes.heal(*source)
        after = move.low
        while rows := await self._indexes.rows(*source, after, ROWS_AT_ONCE):
            wanted = [row for row in rows if not move.high or row.name <= move.high]
            if wanted:
                await self._indexes.apply(Change(*target, tuple(wanted)))
            if len(wanted) < len(rows):
                return
            after = rows[-1].name
            await asyncio.sleep(0)

    async def _pass_on(self, owner: Owner, shards: ShardMap, bound: str) -> None:
        """Bring what a shard holds and is not its own to where it belongs, from each copy that answers."""
        behind = shards.strays_behind(bound)
        if behind is None:
            return
        kind, place = self._indexes.place(*self._shards.index_of(owner, bound))
        for drive in self._cluster.everywhere(kind, place.part):
            try:
                await self._empty(owner, bound, drive, behind)
            except OSError as error:  # repair brings what it has to the others, and that is passed on then
                self._cluster.failed(drive, error)
        self._shards.changed(owner, [bound])

    async def _empty(self, owner: Owner, bound: str, drive: Drive, behind: str) -> None:
        kind, place = self._indexes.place(*self._shards.index_of(owner, bound))
        while rows := await drive.indexes.rows(kind, place, behind, ROWS_AT_ONCE):
            now = await self._shards.certain(owner)  # it may have been cut again since
            strays = [row for row in rows if bound not in now.writes(row.name)]
            if strays:
                await self._directory.apply(Change(*owner, tuple(strays)))
                await self._expel(bound, owner, strays)
            behind = rows[-1].name
            await asyncio.sleep(0)

    async def _expel(self, bound: str, owner: Owner, rows: Sequence[Row]) -> None:
        kind, place = self._indexes.place(*self._shards.index_of(owner, bound))
        versions = [(row.name, *row.version) for row in rows]
        drives = self._cluster.everywhere(kind, place.part)
        await ask_each(drives, lambda drive: drive.indexes.expel(kind, place, versions), ASK_TIMEOUT_S)

"""How an index that has grown is cut: which name is in which shard, and what a change of that moves.

A shard is an index of its own, with the names behind its *bound* up to the next one's.  The first, behind "", is the
index that was cut; it keeps the map.  A change of the map, of any number of bounds, has three parts:

    planned    rows are written by the old bounds and by the new ones, and read by the old
    (copied)   what is read elsewhere by the new bounds is copied there
    turned     rows are written and read by the new bounds; what is left where it no longer belongs is passed on

Where a row is decides nothing but where it is looked for: rows merge, so each may be copied, or passed on, twice.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from apus.services.object.logic.listing import successor, window_of
from apus.services.object.model import ListingAsk, Row, Subdir

SHARDS: Final = ".shards"
"""The hidden account whose containers are shards, `ACCOUNT/CONTAINER/BOUND`, and their totals, `ACCOUNT/CONTAINER`."""

_FIRST: Final = ("",)


class Move(NamedTuple):
    """Names behind `low` up to `high` (no end when empty) that are read from another shard by the new bounds."""

    source: str
    target: str
    low: str
    high: str


class ShardMap(msgspec.Struct, frozen=True):
    """The bounds of an index, of which the first is "".  Of two maps the one of the later generation counts."""

    generation: int = 0
    bounds: tuple[str, ...] = _FIRST
    planned: tuple[str, ...] = ()
    former: tuple[str, ...] = ()
    """Bounds before the last change, while their shards may hold what is no longer theirs."""

    @property
    def is_cut(self) -> bool:
        return len(self.bounds) > 1 or bool(self.planned or self.former)

    @property
    def is_settled(self) -> bool:
        return not self.planned and not self.former

    def reads(self, name: str) -> str:
        """The bound of the shard that says what there is of this name."""
        return _floor(self.bounds, name)

    def writes(self, name: str) -> tuple[str, ...]:
        """The bounds of the shards that have to hear of it."""
        bound = _floor(self.bounds, name)
        coming = _floor(self.planned, name) if self.planned else bound
        return (bound,) if coming == bound else (bound, coming)

    def upto(self, bound: str) -> str:
        """The last name that is read there; empty when there is no end."""
        return _upto(self.bounds, bound)

    def strays_behind(self, bound: str) -> str | None:
        """What a shard holds behind this name is not its own; None when all is."""
        ends = [_upto(bounds, bound) for bounds in (self.bounds, self.planned) if bound in bounds]
        if "" in ends:
            return None
        return max(ends, default=bound)

    def moves(self) -> list[Move]:
        """What has to be copied before the plan can be turned to."""
        found: list[Move] = []
        points = sorted({*self.bounds, *self.planned})
        for at, low in enumerate(points):
            source, target = _at(self.bounds, low), _at(self.planned, low)
            if source == target:
                continue
            high = points[at + 1] if at + 1 < len(points) else ""
            if found and found[-1][:2] == (source, target) and found[-1].high == low:
                found[-1] = found[-1]._replace(high=high)
            else:
                found.append(Move(source, target, low, high))
        return found

    def leftovers(self) -> list[str]:
        """Bounds of shards that served names before the last change that they no longer do."""
        return [bound for bound in self.former if bound not in self.bounds or _narrower(self, bound)]

    def plan(self, bounds: Sequence[str]) -> ShardMap:
        assert self.is_settled
        assert bounds[0] == ""
        return ShardMap(self.generation + 1, self.bounds, tuple(bounds))

    def turned(self) -> ShardMap:
        assert self.planned
        return ShardMap(self.generation + 1, self.planned, (), self.bounds)

    def cleaned(self) -> ShardMap:
        assert self.former
        return ShardMap(self.generation + 1, self.bounds)


WHOLE: Final = ShardMap()
"""Of an index that was never cut."""


class Walk:
    """A page of an index, shard by shard: `ask` says what to ask of which, until None; `took` hears the answer."""

    def __init__(self, shards: ShardMap, page: ListingAsk) -> None:
        self._shards, self._page = shards, page
        self._left = list(shards.bounds if not page.reverse else reversed(shards.bounds))
        self.found: list[Row | Subdir] = []

    def ask(self) -> tuple[str, ListingAsk] | None:
        """The bound of a shard, and the part of the page that it may have."""
        page = msgspec.structs.replace(self._page, limit=self._page.limit - len(self.found))
        if self.found:
            page = msgspec.structs.replace(page, marker=self.found[-1].name)
        if page.limit <= 0:
            return None
        window = window_of(page)
        low = window.low
        if self.found and isinstance(self.found[-1], Subdir) and not page.reverse:
            low = max(low, successor(page.marker))  # all that begins so was told of
        while self._left:
            bound = self._left.pop(0)
            end = self._shards.upto(bound)
            if (end and end < low) or (window.high and bound >= window.high):
                continue
            return bound, _clipped(page, end)
        return None

    def took(self, rows: Sequence[Row | Subdir]) -> None:
        self.found += rows


def owner_text(account: str, container: str) -> str:
    """The name, in the account SHARDS, of what keeps the totals of an index's shards."""
    return f"{account}/{container}"


def shard_text(account: str, container: str, bound: str) -> str:
    return f"{account}/{container}/{bound}"


def shard_of(text: str) -> tuple[str, str, str | None]:
    """Account, container and bound; no bound of what keeps the totals."""
    account, container, *bound = text.split("/", 2)
    return account, container, bound[0] if bound else None


def bound_between(left: str, right: str) -> str:
    """The shortest text that is no less than `left` and less than `right`."""
    assert left < right
    for length in range(1, len(right)):
        if right[:length] >= left:
            return right[:length]
    return left


def joined(bounds: Sequence[str], sizes: Mapping[str, int], limit: int) -> list[str]:
    """The bounds without those of shards that are small enough to be one with the one before."""
    kept, size = [bounds[0]], sizes.get(bounds[0], 0)
    for bound in bounds[1:]:
        more = sizes.get(bound, 0)
        if size + more < limit:
            size += more
        else:
            kept.append(bound)
            size = more
    return kept


def _floor(bounds: Sequence[str], name: str) -> str:
    return bounds[max(0, bisect_left(bounds, name) - 1)]


def _at(bounds: Sequence[str], low: str) -> str:
    """Of the names just behind `low`."""
    return bounds[bisect_right(bounds, low) - 1]


def _upto(bounds: Sequence[str], bound: str) -> str:
    at = bisect_right(bounds, bound)
    return bounds[at] if at < len(bounds) else ""


def _narrower(shards: ShardMap, bound: str) -> bool:
    before, now = _upto(shards.former, bound), _upto(shards.bounds, bound)
    return bool(now) and (not before or now < before)


def _clipped(page: ListingAsk, end: str) -> ListingAsk:
    """Without what is behind the last name of a shard: that may be left there from before."""
    if not end:
        return page
    behind = end + "\0"
    if page.reverse:
        return msgspec.structs.replace(page, marker=min(page.marker, behind) if page.marker else behind)
    return msgspec.structs.replace(page, end_marker=min(page.end_marker, behind) if page.end_marker else behind)

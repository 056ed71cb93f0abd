"""Makes rings, over arrays: ten thousand drives and a million partitions in seconds.

A new ring is cut from a line.  The drives lie on it in the order of the tree, each as long as its share; a partition's
copies are at u, u+1, u+2, … for a u of its own.  So no drive gets two copies, and each host, zone and region gets its
share rounded down or up.  Blocks of partitions use lines in different orders: a lost drive is repaired by many others.

An old ring changes as little as it must: copies leave drives that are gone, that hold more than their share, or that
are nearer to another copy than they need be, the latter two at most one of a partition at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from apus.services.object.logic.ring import DRIVES_MAX, PART_POWER_MAX, DriveSpec, Ring
from apus.services.object.logic.ring_shares import Floats, Ints, Tier, shares, tiers_of

Table = NDArray[np.int64]
"""Places of drives, by copy and partition; -1 is a hole."""

BLOCK_PARTS_MIN: Final = 16
BLOCKS_MAX: Final = 64
TRIES: Final = 24
"""Rounds of matching holes with drives at each degree of strictness."""
SETTLES_MAX: Final = 8
SWAPS_SEEN: Final = 256
SWAP_TRIES: Final = 6
"""Partitions and drives that are looked at for one hole."""


def rebalance(
    drives: Sequence[DriveSpec],
    *,
    part_power: int,
    replicas: int,
    previous: Ring | None = None,
    overload: float = 0.0,
) -> Ring:
    """A ring over these drives, as near as may be to the previous one.  The same arguments give the same ring."""
    assert 0 <= part_power <= PART_POWER_MAX
    assert replicas >= 1
    assert len(drives) <= DRIVES_MAX
    assert len({drive.id for drive in drives}) == len(drives), "drive ids repeat"
    assert previous is None or previous.part_power == part_power, "the part power grows by split"
    builder = _Builder(drives, 1 << part_power, replicas, overload)
    table = builder.fresh() if previous is None else builder.changed(previous)
    return Ring(part_power, replicas, tuple(drives), table.astype("<u2").tobytes())


def moved_copies(old: Ring, new: Ring) -> int:
    """How many copies the change makes travel."""
    assert old.part_power == new.part_power
    places = {drive.id: place for place, drive in enumerate(new.drives)}
    known = np.array([places.get(drive.id, -1) for drive in old.drives], np.int64)
    before, after = known[_table_of(old)], _table_of(new)
    stayed = np.zeros(after.shape[1], np.int64)
    for row in after:
        stayed += np.any(before == row, axis=0)
    return int(after.size - stayed.sum())


def loads(ring: Ring) -> Ints:
    """Copies by drive."""
    return np.bincount(_table_of(ring).ravel(), minlength=len(ring.drives))


def balance(ring: Ring, overload: float = 0.0) -> float:
    """By how much the fullest drive exceeds its share: 0.02 is two percent."""
    wanted = _Builder(ring.drives, ring.parts, ring.replicas, overload).wanted
    held, some = loads(ring), wanted > 0
    return float(np.max(held[some] / wanted[some])) - 1 if np.any(some) else 0.0


def crowded_parts(ring: Ring) -> dict[str, int]:
    """Partitions with two copies in one host, zone or region."""
    table, found = _table_of(ring), {}
    for name, tier in zip(("region", "zone", "host"), tiers_of(ring.drives), strict=False):
        nodes = np.sort(tier.node_of[table], axis=0)
        found[name] = int(np.any(nodes[1:] == nodes[:-1], axis=0).sum())
    return found


def _table_of(ring: Ring) -> Table:
    return np.frombuffer(ring.rows, "<u2").reshape(ring.copies, ring.parts).astype(np.int64)


@dataclass(frozen=True, slots=True)
class _Near:
    """Copies that gave up their drive for being too near to another one."""

    copy: Ints
    part: Ints
    drive: Ints


@dataclass(frozen=True, slots=True)
class _Holes:
    """Copies without a drive."""

    copy: Ints
    part: Ints

    def without(self, taken: NDArray[np.bool_]) -> _Holes:
        return _Holes(self.copy[~taken], self.part[~taken])


class _Builder:
    def __init__(self, drives: Sequence[DriveSpec], parts: int, replicas: int, overload: float) -> None:
        self._ids = [drive.id for drive in drives]
        weights = np.array([drive.weight for drive in drives], np.float64)
        self.parts, self.copies = parts, min(replicas, int(np.sum(weights > 0)))
        self._tiers: list[Tier] = tiers_of(drives)
        self._share: Floats = shares(weights, self._tiers, self.copies, overload)
        self.wanted: Floats = self._share * parts
        self._random = self._draws()

    def _draws(self) -> np.random.Generator:
        """The same ones for each ring over so many drives."""
        return np.random.default_rng(len(self._ids))

    # A new ring.

    def fresh(self) -> Table:
        blocks = max(1, min(BLOCKS_MAX, self.parts // BLOCK_PARTS_MIN))
        cuts = np.linspace(0, self.parts, blocks + 1).astype(np.int64)
        table = np.concatenate([self._block(int(last - first)) for first, last in pairwise(cuts)], 1)
        self._drop_doubles(table)
        for _ in range(SETTLES_MAX):  # what the blocks round up and down adds up
            self._settle(table)
            if not np.any(self._nearness(table)) and np.array_equal(self._held(table), self._whole(table)):
                return table
        for _ in range(SETTLES_MAX):  # it cannot be better, or is not easily: the same draws find nothing the next time
            before, self._random = table.copy(), self._draws()
            self._settle(table)
            if np.array_equal(before, table):
                break
        return table

    def _block(self, parts: int) -> Table:
        order = self._order()
        edges = np.cumsum(self._share[order])
        edges *= self.copies / edges[-1]
        points = (self._random.permutation(parts) + self._random.random()) / parts
        picked = np.searchsorted(edges, points + np.arange(self.copies)[:, None], side="right")
        table = order[np.minimum(picked, len(order) - 1)]
        return self._random.permuted(table, axis=0)  # else the first copies were all at the line's beginning

    def _order(self) -> Ints:
        """All drives, those of a node together, in a random order of nodes at each tier."""
        keys = [self._random.permutation(len(tier.above))[tier.node_of] for tier in reversed(self._tiers)]
        return np.lexsort(keys)

    # A changed ring.

    def changed(self, previous: Ring) -> Table:
        places = {name: place for place, name in enumerate(self._ids) if self._share[place] > 0}
        known = np.array([places.get(drive.id, -1) for drive in previous.drives], np.int64)
        table = known[_table_of(previous)]
        if len(table) > self.copies:  # a hole is the first to go
            table = np.take_along_axis(table, np.argsort(table < 0, axis=0, kind="stable"), axis=0)[: self.copies]
        missing = self.copies - len(table)
        if missing > 0:
            table = np.concatenate([table, np.full((missing, self.parts), -1, np.int64)])
        self._settle(table)
        return table

    # What both do.

    def _settle(self, table: Table) -> None:
        """Fill the holes; take what is too many or too near to where it should be, one copy of a partition at most."""
        whole, frozen = self._whole(table), np.any(table < 0, axis=0)
        near = self._give_up(table, whole, frozen)
        self._fill(table, whole, frozen, near)

    def _whole(self, table: Table) -> Ints:
        """The wanted copies as whole numbers: who holds one more than his share rounded down may keep it."""
        held = self._held(table)
        low = np.floor(self.wanted + 1e-6).astype(np.int64)
        rest = self.wanted - low
        spare = self.copies * self.parts - int(low.sum())
        order = np.lexsort((-rest, -(np.minimum(held - low, 1)), rest <= 1e-6))
        low[order[:spare]] += 1
        return low

    def _drop_doubles(self, table: Table) -> None:
        for copy in range(1, self.copies):
            table[copy][np.any(table[:copy] == table[copy], axis=0)] = -1

    def _give_up(self, table: Table, whole: Ints, frozen: NDArray[np.bool_]) -> _Near:
        """Make holes of copies that are too many for their drive, or too near another; tells which were the latter."""
        nearness = self._nearness(table)
        held = self._held(table)
        over = (held > whole)[table] & (table >= 0)
        copy, part = np.nonzero((over | (nearness > 0)) & ~frozen)
        drive, near = table[copy, part], nearness[copy, part]
        order = np.lexsort((self._random.random(len(drive)), -near, drive))
        first = np.searchsorted(drive[order], np.arange(len(self._ids)))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order)) - first[drive[order]]
        many = rank < (held - whole)[drive]
        leaves = self._random.permutation(np.nonzero(many | (near > 0))[0])
        leaves = leaves[np.argsort(-near[leaves], kind="stable")]
        leaves = leaves[np.unique(part[leaves], return_index=True)[1]]
        copy, part, drive, many = copy[leaves], part[leaves], drive[leaves], many[leaves]
        table[copy, part] = -1
        frozen[part] = True
        return _Near(copy[~many], part[~many], drive[~many])

    def _held(self, table: Table) -> Ints:
        return np.bincount(table.ravel() + 1, minlength=len(self._ids) + 1)[1:]

    def _nearness(self, table: Table) -> Ints:
        """By copy and partition: how many tiers hold more copies of the partition than they should, with this one."""
        found = np.zeros(table.shape, np.int64)
        for tier in self._tiers[:-1]:
            nodes = np.where(table >= 0, tier.node_of[table], -1)
            for copy in range(len(table)):
                together = np.sum(nodes == nodes[copy], axis=0)
                found[copy] += (table[copy] >= 0) & (together > tier.most[nodes[copy]])
        return found

    def _fill(self, table: Table, whole: Ints, frozen: NDArray[np.bool_], near: _Near) -> None:
        """Give every hole a drive: strictly apart first; then what was too near stays where it was, and the rest goes
        where it can."""
        holes = _Holes(*np.nonzero(table < 0))
        for strict in (4, 3, 2, 1):
            if len(holes.part):
                holes = self._match(table, holes, whole, strict)
            if len(holes.part) and strict == 4:
                holes = self._swap(table, holes, whole, frozen)
                back = table[near.copy, near.part] < 0
                table[near.copy[back], near.part[back]] = near.drive[back]
                holes = holes.without(table[holes.copy, holes.part] >= 0)
        held = self._held(table)
        for one, where in zip(holes.copy.tolist(), holes.part.tolist(), strict=True):
            table[one, where] = drive = self._any(table[:, where], held, whole)
            held[drive] += 1

    def _match(self, table: Table, holes: _Holes, whole: Ints, strict: int) -> _Holes:
        held = self._held(table)
        for _ in range(TRIES):
            slots = np.repeat(np.arange(len(self._ids)), np.maximum(0, whole - held))
            count = min(len(slots), len(holes.part))
            if not count:
                break
            order = self._random.permutation(len(holes.part))
            holes = _Holes(holes.copy[order], holes.part[order])
            drive = self._random.permutation(slots)[:count]
            copy, part = holes.copy[:count], holes.part[:count]
            fits = self._fits(table[:, part], drive, strict)
            _, once = np.unique(part, return_index=True)
            first = np.zeros(count, bool)
            first[once] = True
            fits &= first
            table[copy[fits], part[fits]] = drive[fits]
            held += np.bincount(drive[fits], minlength=len(held))
            taken = np.zeros(len(holes.part), bool)
            taken[:count] = fits
            holes = holes.without(taken)
            if not len(holes.part):
                break
        return holes

    def _fits(self, rows: Table, drive: Ints, strict: int) -> NDArray[np.bool_]:
        """Whether each drive may join the copies in its column: 4 looks at regions, zones and hosts, 1 at none."""
        fits: NDArray[np.bool_] = ~np.any(rows == drive, axis=0)
        for tier in self._tiers[: strict - 1]:
            nodes = np.where(rows >= 0, tier.node_of[rows], -1)
            fits &= np.sum(nodes == tier.node_of[drive], axis=0) < tier.most[tier.node_of[drive]]
        return fits

    def _swap(self, table: Table, holes: _Holes, whole: Ints, frozen: NDArray[np.bool_]) -> _Holes:
        """A drive with room that does not fit a hole fits elsewhere, and frees one there that does."""
        taken = np.zeros(len(holes.part), bool)
        held = self._held(table)
        short = self._random.permutation(np.repeat(np.arange(len(self._ids)), np.maximum(0, whole - held))).tolist()
        for number, (copy, part) in enumerate(zip(holes.copy.tolist(), holes.part.tolist(), strict=True)):
            seen = self._random.integers(self.parts, size=SWAPS_SEEN)
            seen = seen[~frozen[seen]]
            for at in range(min(SWAP_TRIES, len(short)) if len(seen) else 0):
                drive = short[-1 - at]
                found = self._exchange(table, part, drive, seen)
                if found is not None:
                    other, where = found
                    table[copy, part] = table[other, where]
                    table[other, where] = drive
                    frozen[where] = taken[number] = True
                    del short[-1 - at]
                    break
        return holes.without(taken)

    def _exchange(self, table: Table, part: int, drive: int, seen: Ints) -> tuple[int, int] | None:
        for other in range(self.copies):
            rest = table[:, seen].copy()
            rest[other] = -1
            goes = table[other, seen]
            here = np.repeat(table[:, part][:, None], len(seen), axis=1)
            fits = (goes >= 0) & self._fits(rest, np.full(len(seen), drive), 4) & self._fits(here, goes, 4)
            if np.any(fits):
                return other, int(seen[np.argmax(fits)])
        return None

    def _any(self, row: Ints, held: Ints, whole: Ints) -> int:
        """Any drive that does not have it, the emptiest for its share of the farthest."""
        own = row[row >= 0]
        near = np.zeros(len(self._ids), np.int64)
        for tier in self._tiers[:-1]:
            near += np.isin(tier.node_of, tier.node_of[own])
        full = (held + 1) / np.maximum(self.wanted, 1e-9)
        unfit = (self._share <= 0) | np.isin(np.arange(len(self._ids)), row)
        return int(np.lexsort((full, near, held > whole, unfit))[0])

"""Which drives keep which partition: consistent hashing of names, and copies as far apart as there is room for.

A name hashes (with the cluster's secret, so that nobody can aim at one drive) to a partition, a partition has one
drive per copy.  `rebalance` moves what a change of drives makes it move and little else: at most one copy of a
partition of its own accord, so that the other copies stay where readers look for them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import msgspec

PART_POWER_MAX = 20
"""A million partitions: a hundred for each of ten thousand drives."""


class DriveSpec(msgspec.Struct, frozen=True):
    """A drive as the ring sees it.  Weight 0 drains it."""

    id: str
    weight: float = 1.0
    region: str = "region1"
    zone: str = "zone1"
    host: str = "host1"


class Ring(msgspec.Struct, frozen=True):
    """The drives of each partition, in the order in which copies are looked for."""

    part_power: int
    replicas: int
    drives: tuple[DriveSpec, ...]
    table: tuple[tuple[str, ...], ...]

    @property
    def quorum(self) -> int:
        return self.replicas // 2 + 1

    def primaries(self, part: int) -> tuple[str, ...]:
        return self.table[part]

    def handoffs(self, part: int) -> tuple[str, ...]:
        """All other drives that take data, the farthest first, in an order of this partition's own."""
        by_id = {drive.id: drive for drive in self.drives}
        own = [by_id[name] for name in self.table[part]]
        others = [drive for drive in self.drives if drive.id not in self.table[part] and drive.weight > 0]
        others.sort(key=lambda drive: (_nearness(drive, own), _shuffle(part, drive.id)))
        return tuple(drive.id for drive in others)


def path_hash(secret: bytes, *names: str) -> str:
    """32 hexadecimal digits for an account, container or object path."""
    return hashlib.blake2b("/".join(names).encode(), digest_size=16, key=secret).hexdigest()


def part_of(path_hash_hex: str, part_power: int) -> int:
    return int(path_hash_hex[:8], 16) >> (32 - part_power)


def rebalance(drives: Sequence[DriveSpec], *, part_power: int, replicas: int, previous: Ring | None = None) -> Ring:
    """A ring over these drives, as near as may be to the previous one."""
    assert 0 <= part_power <= PART_POWER_MAX
    assert replicas >= 1
    assert len({drive.id for drive in drives}) == len(drives), "drive ids repeat"
    assert previous is None or previous.part_power == part_power, "the part power grows by its own way"
    usable = {drive.id: drive for drive in drives if drive.weight > 0}
    parts = 1 << part_power
    copies = min(replicas, len(usable))
    quota = _quotas(list(usable.values()), parts, copies)
    table = [
        [name for name in previous.table[part] if name in usable][:copies] if previous else [] for part in range(parts)
    ]
    load = dict.fromkeys(usable, 0)
    for row in table:
        for name in row:
            load[name] += 1
    forced = _fill_holes(table, usable, load, quota, copies)
    moved = _level(table, usable, load, quota, frozen=forced if previous else set())
    while moved and not previous:  # a new ring is levelled to its end, an old one a step at a time
        moved = _level(table, usable, load, quota, frozen=set())
    return Ring(part_power, replicas, tuple(drives), tuple(tuple(row) for row in table))


def moved_copies(old: Ring, new: Ring) -> int:
    """How many copies the change makes travel."""
    return sum(len(set(after) - set(before)) for before, after in zip(old.table, new.table, strict=True))


def _quotas(drives: list[DriveSpec], parts: int, copies: int) -> dict[str, float]:
    """Each drive's share by weight; no drive may hold a partition twice, so what is above `parts` goes to the rest."""
    quota: dict[str, float] = {}
    left, open_drives = float(parts * copies), list(drives)
    while open_drives:
        weight = sum(drive.weight for drive in open_drives)
        capped = [drive for drive in open_drives if left * drive.weight / weight >= parts]
        if not capped:
            return quota | {drive.id: left * drive.weight / weight for drive in open_drives}
        for drive in capped:
            quota[drive.id] = float(parts)
            left -= parts
        open_drives = [drive for drive in open_drives if drive.id not in quota]
    return quota


def _fill_holes(
    table: list[list[str]],
    usable: dict[str, DriveSpec],
    load: dict[str, int],
    quota: dict[str, float],
    copies: int,
) -> set[int]:
    """Give every partition all its copies; returns those that had to move (they have moved enough)."""
    forced: set[int] = set()
    for part, row in enumerate(table):
        while len(row) < copies:
            own = [usable[name] for name in row]
            best = min(
                (drive for drive in usable.values() if drive.id not in row),
                key=lambda drive: (
                    load[drive.id] >= math.ceil(quota[drive.id]),
                    _nearness(drive, own),
                    (load[drive.id] + 1) / quota[drive.id],
                    _shuffle(part, drive.id),
                ),
            )
            row.append(best.id)
            load[best.id] += 1
            forced.add(part)
    return forced


def _level(
    table: list[list[str]],
    usable: dict[str, DriveSpec],
    load: dict[str, int],
    quota: dict[str, float],
    frozen: set[int],
) -> int:
    """Move copies from drives above their share to those below it, one of a partition at most; how many moved."""

    def excess(name: str) -> float:
        return load[name] - quota[name]

    moved = 0
    holders: dict[str, list[int]] = {name: [] for name in usable}
    for part, row in enumerate(table):
        for name in row:
            holders[name].append(part)
    for giver in sorted(usable, key=lambda name: (-excess(name), name)):
        if excess(giver) <= 0:
            break
        ranked = sorted(
            (part for part in holders[giver] if part not in frozen),
            key=lambda part: (_crowding(table[part], giver, usable), _shuffle(part, giver)),
            reverse=True,
        )
        for part in ranked:
            if excess(giver) <= 0:
                break
            takers = [name for name in usable if name not in table[part] and excess(name) + 1 < excess(giver)]
            if not takers:
                continue
            own = [usable[name] for name in table[part] if name != giver]
            taker = min(takers, key=lambda name: (_nearness(usable[name], own), excess(name), name))
            table[part][table[part].index(giver)] = taker
            load[giver] -= 1
            load[taker] += 1
            frozen.add(part)
            moved += 1
    return moved


def _crowding(row: list[str], name: str, usable: dict[str, DriveSpec]) -> tuple[int, int, int]:
    return _nearness(usable[name], [usable[other] for other in row if other != name])


def _nearness(drive: DriveSpec, others: Sequence[DriveSpec]) -> tuple[int, int, int]:
    """How many of the others are in the same region, zone and host; smaller is farther apart."""
    region = [other for other in others if other.region == drive.region]
    zone = [other for other in region if other.zone == drive.zone]
    return len(region), len(zone), sum(other.host == drive.host for other in zone)


def _shuffle(part: int, drive_id: str) -> bytes:
    return hashlib.blake2b(f"{part}/{drive_id}".encode(), digest_size=8).digest()

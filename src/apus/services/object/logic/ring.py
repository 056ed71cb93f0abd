"""Which drives keep which partition: consistent hashing of names, and copies as far apart as there is room for.

A name hashes (with the cluster's secret, so that nobody can aim at one drive) to a partition, a partition has one
drive per copy.  `ring_builder.py` makes rings; what is here answers questions to one, and needs nothing but Python.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Sequence
from functools import cached_property
from random import Random
from typing import Final

import msgspec

from apus.services.object.logic.code import Code

PART_POWER_MAX: Final = 22
"""Four million partitions: a thousand for each of ten thousand drives."""

DRIVES_MAX: Final = (1 << 16) - 1

HANDOFFS_MAX: Final = 16
"""Drives that are asked beyond the primaries.  With fewer drives in all, each of them is."""

SAMPLED: Final = 8 * HANDOFFS_MAX
"""Of more drives than this, a partition's hand-offs are the farthest of so many that its number draws."""

KEPT_MAX: Final = 1 << 16
"""Partitions whose hand-offs are remembered."""


class DriveSpec(msgspec.Struct, frozen=True):
    """A drive as the ring sees it.  Weight 0 drains it."""

    id: str
    weight: float = 1.0
    region: str = "region1"
    zone: str = "zone1"
    host: str = "host1"


class Ring(msgspec.Struct, frozen=True, dict=True):
    """The drives of each partition, in the order in which copies are looked for."""

    part_power: int
    replicas: int
    drives: tuple[DriveSpec, ...]
    rows: bytes
    """Places in `drives`, two bytes each, little-endian: of every partition the first copy, then the second, …"""
    data: int = 0
    """Of a ring of fragments: how many of them give everything back.  0: each place has a whole copy."""

    @property
    def code(self) -> Code:
        assert self.data
        return Code(self.data, self.replicas - self.data)

    @property
    def needed(self) -> int:
        """Without so many places all is lost."""
        return max(1, self.data)

    @property
    def parts(self) -> int:
        return 1 << self.part_power

    @property
    def copies(self) -> int:
        """As many as are wished, or as there are drives."""
        return len(self.rows) // 2 >> self.part_power

    @property
    def quorum(self) -> int:
        return self.code.quorum if self.data else self.replicas // 2 + 1

    @cached_property
    def places(self) -> array[int]:
        """`rows` as numbers."""
        found = array("H", self.rows)
        if sys.byteorder == "big":
            found.byteswap()
        return found

    @cached_property
    def _kept(self) -> dict[int, tuple[str, ...]]:
        return {}

    @cached_property
    def _kept_primaries(self) -> dict[int, tuple[str, ...]]:
        return {}

    def primaries(self, part: int) -> tuple[str, ...]:
        known = self._kept_primaries.get(part)
        if known is None:
            known = tuple(self.drives[place].id for place in self.places[part :: self.parts])
            if len(self._kept_primaries) < KEPT_MAX:
                self._kept_primaries[part] = known
        return known

    def handoffs(self, part: int) -> tuple[str, ...]:
        """Other drives that take data, the farthest first, in an order of this partition's own."""
        known = self._kept.get(part)
        if known is None:
            known = tuple(drive.id for drive in self._farthest(part))
            if len(self._kept) < KEPT_MAX:
                self._kept[part] = known
        return known

    def _farthest(self, part: int) -> list[DriveSpec]:
        own = [self.drives[place] for place in self.places[part :: self.parts]]
        others: Sequence[DriveSpec] = self.drives
        if len(others) > SAMPLED:
            others = [self.drives[place] for place in Random(part).sample(range(len(others)), SAMPLED)]
        found = [drive for drive in others if drive not in own and drive.weight > 0]
        found.sort(key=lambda drive: (nearness(drive, own), _shuffle(part, drive.id)))
        return found[:HANDOFFS_MAX]

    @cached_property
    def table(self) -> tuple[tuple[str, ...], ...]:
        """The primaries of all partitions: for small rings."""
        return tuple(self.primaries(part) for part in range(self.parts))


def path_hash(secret: bytes, *names: str) -> str:
    """32 hexadecimal digits for an account, container or object path."""
    return hashlib.blake2b("/".join(names).encode(), digest_size=16, key=secret).hexdigest()


def part_of(path_hash_hex: str, part_power: int) -> int:
    return int(path_hash_hex[:8], 16) >> (32 - part_power)


def split(ring: Ring) -> Ring:
    """The same with each partition cut in two: both halves are where the whole was, so nothing travels."""
    assert ring.part_power < PART_POWER_MAX
    doubled = array("H", (place for place in ring.places for _ in range(2)))
    if sys.byteorder == "big":
        doubled.byteswap()
    return Ring(ring.part_power + 1, ring.replicas, ring.drives, doubled.tobytes(), ring.data)


def nearness(drive: DriveSpec, others: Sequence[DriveSpec]) -> tuple[int, int, int]:
    """How many of the others are in the same region, zone and host; smaller is farther apart."""
    region = [other for other in others if other.region == drive.region]
    zone = [other for other in region if other.zone == drive.zone]
    return len(region), len(zone), sum(other.host == drive.host for other in zone)


def _shuffle(part: int, drive_id: str) -> bytes:
    return hashlib.blake2b(f"{part}/{drive_id}".encode(), digest_size=8).digest()

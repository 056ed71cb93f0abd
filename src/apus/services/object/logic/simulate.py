"""What a loss would mean, from a ring alone: what is left of each partition, what has to move, how long that takes, and
how likely it is that something is lost in a year.

Nothing here has a clock or a drive.  Rings are made by `ring_builder.py`, as in operation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from apus.kernel.errors import Invalid
from apus.services.object.logic.code import ALLOWED, code_of
from apus.services.object.logic.ring import DRIVES_MAX, PART_POWER_MAX, DriveSpec, Ring
from apus.services.object.logic.ring_builder import rebalance
from apus.services.object.logic.ring_shares import Ints, tiers_of

Tier = Literal["region", "zone", "host", "drive"]
TIERS: Final[tuple[Tier, ...]] = ("region", "zone", "host", "drive")

TB: Final = 10**12
MB: Final = 10**6
COPIES_MAX: Final = 1 << 25
"""Of all partitions: a gigabyte of memory or two."""

YEAR_S: Final = 365.25 * 86_400

_Count = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
_Rate = Annotated[float, msgspec.Meta(ge=0, le=100)]


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Drives of one kind in one region: so many zones, hosts in each zone, drives in each host."""

    region: str
    zones: _Count = 4
    hosts: _Count = 70
    drives: _Count = 12
    weight: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    tb: Annotated[float, msgspec.Meta(gt=0)] = 16.0
    """What a drive holds, 10^12 bytes."""


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A store as it may be built."""

    groups: tuple[Group, ...] = (Group("region1"), Group("region2"), Group("region3"))
    part_power: Annotated[int, msgspec.Meta(ge=1, le=PART_POWER_MAX)] = 20
    copies: Annotated[int, msgspec.Meta(ge=1, le=8)] = 3
    code: str = ""
    """An erasure code such as 4+2, in place of copies: what is said of copies is then of fragments."""
    overload: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.1
    fill: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.7
    """The share of all room that copies take."""
    drive_mb_s: tuple[Annotated[float, msgspec.Meta(gt=0)], ...] = (20.0, 50.0, 100.0)
    """What repair may write to, and as much read from, one drive."""
    host_mb_s: Annotated[float, msgspec.Meta(gt=0)] = 1250.0
    region_mb_s: Annotated[float, msgspec.Meta(gt=0)] = 5000.0
    """What repair may bring into one host from others, and into one region from others."""
    drive_deaths: _Rate = 0.015
    host_deaths: _Rate = 0.002
    zone_deaths: _Rate = 0.0002
    region_deaths: _Rate = 0.00002
    """For good, in a year, of one of them: with everything in it."""
    notice_s: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    """From a loss to the first copy."""

    @property
    def needed(self) -> int:
        """Where fewer are left, it is lost."""
        code = code_of(self.code)
        return 1 if code is None else code.data

    @property
    def places(self) -> int:
        """Drives that keep something of a partition."""
        code = code_of(self.code)
        return self.copies if code is None else code.fragments


def checked(plan: Plan) -> Plan:
    """Raise Invalid for what no ring can be made of."""
    if plan.code and code_of(plan.code) is None:
        raise Invalid("object.simulate_code", f"code: {plan.code[:100]!r}; allowed: {ALLOWED}.", field="code")
    count = sum(one.zones * one.hosts * one.drives for one in plan.groups)
    if not plan.places <= count <= DRIVES_MAX:
        shown = f"groups: {count:,} drives; there can be {plan.places} (the copies) to {DRIVES_MAX:,}."
        raise Invalid("object.simulate_drives", shown, field="groups")
    if plan.places << plan.part_power > COPIES_MAX:
        shown = f"part_power: {plan.places} copies of 2^{plan.part_power} partitions; at most {COPIES_MAX:,} in all."
        raise Invalid("object.simulate_parts", shown, field="part_power")
    if not plan.drive_mb_s:
        raise Invalid("object.simulate_rates", "drive_mb_s: at least one bandwidth is needed.", field="drive_mb_s")
    return plan


def specs_of(plan: Plan) -> list[DriveSpec]:
    return [
        DriveSpec(f"{group.region}.{zone}.{host}.{drive}.{at}", group.weight, group.region, f"z{zone}", f"h{host}")
        for at, group in enumerate(plan.groups)
        for zone in range(group.zones)
        for host in range(group.hosts)
        for drive in range(group.drives)
    ]


def room_bytes(plan: Plan) -> float:
    return sum(one.zones * one.hosts * one.drives * one.tb * TB for one in plan.groups)


@dataclass(frozen=True, slots=True)
class Loss:
    """What is left, and what mending it takes.  Copies are of partitions."""

    tier: Tier
    drives: int
    copies: int
    """That were on these drives."""
    left: tuple[int, ...]
    """Partitions by how many copies are left: none, one, …; of fragments, first those that are lost, then those that
    have just enough, …"""
    moved: int
    """Copies that the ring without these drives puts elsewhere: those that were lost, and what evens out."""
    moved_bytes: float
    repair_s: tuple[float, ...]
    """For each bandwidth of the plan."""
    narrowest: tuple[Tier, ...]
    """What that time is spent on."""


@dataclass(frozen=True, slots=True)
class Chance:
    """Of losing anything in a year, begun by the loss of one of these."""

    tier: Tier
    events: float
    """How many of them are lost in a year."""
    chance: tuple[float, ...]
    """For each bandwidth of the plan."""


class Simulation:
    def __init__(self, plan: Plan) -> None:
        self.plan, self.specs = plan, specs_of(plan)
        self.ring = rebalance(self.specs, part_power=plan.part_power, replicas=plan.places, overload=plan.overload)
        self._table = _table_of(self.ring)
        self._nodes = dict(zip(TIERS, (tier.node_of for tier in tiers_of(self.specs)), strict=True))
        self._sets = _different(self._table)
        """The sets of drives that keep something together."""
        self.part_bytes = room_bytes(plan) * plan.fill / (self.ring.copies * self.ring.parts)

    def nodes(self, tier: Tier) -> int:
        return int(self._nodes[tier].max()) + 1

    def lose(self, tier: Tier, node: int = 0) -> Loss:
        """One whole region, zone, host or drive is gone for good."""
        gone = self._nodes[tier] == node
        lost = gone[self._table]
        left = np.bincount(np.sum(~lost, axis=0), minlength=self.ring.copies + 1)
        left = np.concatenate([[left[: self.plan.needed].sum()], left[self.plan.needed :]])
        rest = [spec for spec, dead in zip(self.specs, gone, strict=True) if not dead]
        if not rest:
            return Loss(tier, int(gone.sum()), int(lost.sum()), tuple(map(int, left)), 0, 0.0, (), ())
        after = rebalance(
            rest, part_power=self.ring.part_power, replicas=self.ring.replicas, previous=self.ring,
            overload=self.plan.overload,
        )  # fmt: skip
        targets = self._targets(after, gone)
        arrived = np.bincount(targets[targets >= 0], minlength=len(self.specs))
        afar = self._from_afar(targets, lost)
        times = [self._repair_s(arrived, afar, len(rest), drive_mb_s) for drive_mb_s in self.plan.drive_mb_s]
        moved = int(arrived.sum())
        return Loss(
            tier, int(gone.sum()), int(lost.sum()), tuple(map(int, left)), moved, moved * self.part_bytes,
            tuple(took_s for took_s, _ in times), tuple(where for _, where in times),
        )  # fmt: skip

    def chances(self, losses: Sequence[Loss]) -> list[Chance]:
        """Chances of loss a year, by what is lost first.  `losses`: one of each tier, for the times of repair."""
        return [self._chance(loss) for loss in losses]

    # How.

    def _targets(self, after: Ring, gone: NDArray[np.bool_]) -> Ints:
        """By copy and partition of the new ring: the drive, where it had none before; else -1."""
        table = np.nonzero(~gone)[0][_table_of(after)]
        new = np.ones(table.shape, np.bool_)
        for row in self._table:
            new &= table != row
        return np.where(new, table, -1)

    def _repair_s(self, arrived: Ints, afar: NDArray[np.float64], alive: int, drive_mb_s: float) -> tuple[float, Tier]:
        """The time until the busiest drive, host or region has taken in its share."""
        needed = self.plan.needed  # so many are read for each that is made: by all alike
        busiest = max(float(arrived.max()), needed * float(arrived.sum()) / alive)
        spent: dict[Tier, float] = {"drive": busiest * self.part_bytes / (drive_mb_s * MB)}
        by_host = needed * np.bincount(self._nodes["host"], arrived)
        spent["host"] = float(by_host.max()) * self.part_bytes / (self.plan.host_mb_s * MB)
        spent["region"] = float(afar.max()) * self.part_bytes / (self.plan.region_mb_s * MB)
        where: Tier = max(spent, key=lambda tier: spent[tier])
        return self.plan.notice_s + spent[where], where

    def _from_afar(self, targets: Ints, lost: NDArray[np.bool_]) -> NDArray[np.float64]:
        """By region: copies that come from another one, because too few of that partition are left there."""
        region, found = self._nodes["region"], np.zeros(self.nodes("region"))
        held = np.where(lost, -1, region[self._table])
        for row in targets:
            new = row >= 0
            wanted = region[row[new]]
            near = np.sum(held[:, new] == wanted, axis=0)
            found += np.bincount(wanted, np.maximum(0, self.plan.needed - near), minlength=len(found))
        return found

    def _chance(self, loss: Loss) -> Chance:
        plan = self.plan
        deaths = {
            "drive": plan.drive_deaths, "host": plan.host_deaths, "zone": plan.zone_deaths, "region": plan.region_deaths
        }[loss.tier]  # fmt: skip
        nodes = self.nodes(loss.tier)
        events = deaths * nodes
        sets = self._sets_left(loss.tier)
        share = 1.0 / max(1.0, self._partners())
        chance = []
        for repair_s in loss.repair_s or (0.0,) * len(plan.drive_mb_s):  # nothing is left to repair
            mean = sum(count * self._all_die(left, repair_s, share) for left, count in sets.items()) / nodes
            sure = self._share_that_loses_at_once(loss.tier)
            each = sure + (1 - sure) * -math.expm1(-mean)
            chance.append(-math.expm1(-events * each))
        return Chance(loss.tier, events, tuple(chance))

    def _sets_left(self, tier: Tier) -> dict[int, int]:
        """Over all nodes of the tier: how many different sets of so many other drives keep what the node kept too."""
        nodes = self._nodes[tier]
        found: dict[int, int] = {}
        inside = nodes[self._sets]
        for copy, row in enumerate(inside):
            first = np.ones(row.shape, np.bool_)
            for other in inside[:copy]:
                first &= other != row
            left = np.sum(inside != row, axis=0)[first]
            for count, sets in enumerate(np.bincount(left, minlength=self.ring.copies)):
                if count >= self.plan.needed and sets:
                    found[count] = found.get(count, 0) + int(sets)
        return found

    def _share_that_loses_at_once(self, tier: Tier) -> float:
        """The share of the nodes that keep so many copies of something that too few are elsewhere."""
        inside = np.sort(self._nodes[tier][self._table], axis=0)
        many = self.ring.copies - self.plan.needed + 1
        alone = [first[first == last] for first, last in zip(inside, inside[many - 1 :], strict=False)]
        return int(np.unique(np.concatenate(alone)).size) / self.nodes(tier)

    def _partners(self) -> float:
        """With how many others a drive shares partitions."""
        if len(self._table) < 2:
            return 0.0
        pairs = np.concatenate([self._sets[[a, b]] for a in range(len(self._sets)) for b in range(a)], axis=1)
        return 2.0 * int(_different(pairs).shape[1]) / len(self.specs)

    def _all_die(self, left: int, repair_s: float, share: float) -> float:
        """How often so many of these drives die that too few are left, before what they hold was copied.

        A copy waits half of the repair in the mean, the last of k that a set shares k / (k + 1) of it.  What is down to
        fewer copies goes first, and is only the share that two drives have in common: its window is shorter by that
        with each loss.
        """
        rate_s = self.plan.drive_deaths / YEAR_S
        shared = self.ring.parts / self._sets.shape[1]
        waits = shared / (shared + 1)
        often = 1.0
        for nth in range(left - self.plan.needed + 1):
            window_s = self.plan.notice_s + max(repair_s - self.plan.notice_s, 0.0) * waits * math.pow(share, nth)
            often *= (left - nth) * rate_s * window_s
        return often


def in_all(chances: Sequence[Chance]) -> list[float]:
    """The chance of a loss in a year from whatever cause, for each bandwidth."""
    return [1 - math.prod(1 - one.chance[at] for one in chances) for at in range(len(chances[0].chance))]


def nines(chance: float) -> float:
    """0.001 are three nines."""
    return math.inf if chance <= 0 else -math.log10(chance)


def _table_of(ring: Ring) -> Ints:
    return np.frombuffer(ring.rows, "<u2").reshape(ring.copies, ring.parts).astype(np.int64)


def _different(table: Ints) -> Ints:
    """Each set of drives once, its drives in order."""
    table = np.sort(table, axis=0)
    order = np.lexsort(table)
    table = table[:, order]
    first = np.ones(table.shape[1], np.bool_)
    first[1:] = np.any(table[:, 1:] != table[:, :-1], axis=0)
    return table[:, first]

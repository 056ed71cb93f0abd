"""How many copies of a partition each drive, host, zone and region should hold, and may hold at most.

Weights say how much; distance says how far apart.  Where they disagree (a zone with half of all weight, three copies,
three zones) the copies follow the weights, but for `overload`: drives elsewhere take that much more than their share
(0.1: a tenth) if it brings copies apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from apus.services.object.logic.ring import DriveSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ROUNDS = 64
_EPS = 1e-9


@dataclass(frozen=True, slots=True)
class Tier:
    """One level of the tree: of each drive its node there, of each node the one above, and its bounds."""

    node_of: Ints
    """By drive."""
    above: Ints
    """By node: its place in the tier above."""
    most: Ints
    """By node: copies of one partition that it may hold; filled by `shares`."""


def tiers_of(drives: Sequence[DriveSpec]) -> list[Tier]:
    """Regions, zones, hosts and the drives themselves."""
    names: list[list[tuple[str, ...]]] = [
        [(drive.region,) for drive in drives],
        [(drive.region, drive.zone) for drive in drives],
        [(drive.region, drive.zone, drive.host) for drive in drives],
        [(drive.region, drive.zone, drive.host, drive.id) for drive in drives],
    ]
    tiers: list[Tier] = []
    above = np.zeros(len(drives), np.int64)
    for level in names:
        known = {name: place for place, name in enumerate(dict.fromkeys(level))}
        node_of = np.array([known[name] for name in level], np.int64)
        parent = np.zeros(len(known), np.int64)
        parent[node_of] = above
        tiers.append(Tier(node_of, parent, np.zeros(len(known), np.int64)))
        above = node_of
    return tiers


def shares(weights: Floats, tiers: Sequence[Tier], copies: int, overload: float) -> Floats:
    """Copies of a partition by drive, in the mean; their sum is `copies`.  Drives of weight 0 get none.

    Also says in each tier how many copies of one partition a node may hold: its share, rounded up.
    """
    usable = (weights > 0).astype(np.float64)
    parent = np.array([float(copies)])
    for tier in tiers:
        nodes = len(tier.above)
        weight: Floats = np.bincount(tier.node_of, weights, nodes).astype(np.float64)
        room: Floats = np.bincount(tier.node_of, usable, nodes).astype(np.float64)  # no drive holds a partition twice
        fair = _poured(parent, tier.above, weight, room)
        apart = _poured(parent, tier.above, (weight > 0).astype(np.float64), room)
        most = np.minimum(room, np.ceil(apart - _EPS))
        wish = _poured(parent, tier.above, weight, most)
        parent = _towards(fair, wish, overload, parent, tier.above)
        tier.most[:] = np.ceil(parent - 1e-6).astype(np.int64)
    return parent[tiers[-1].node_of]


def _poured(amount: Floats, above: Ints, weight: Floats, most: Floats) -> Floats:
    """Each parent's amount over its children by weight; what a child cannot hold goes to the others."""
    held = np.zeros(len(weight))
    for _ in range(_ROUNDS):
        left = amount - np.bincount(above, held, len(amount))
        open_ = np.where(held < most - _EPS, weight, 0.0)
        total = np.bincount(above, open_, len(amount))
        if not np.any((left > _EPS) & (total > 0)):
            break
        part = np.divide(open_, total[above], out=np.zeros_like(open_), where=total[above] > 0)
        held = np.minimum(most, held + np.maximum(left, 0.0)[above] * part)
    return held


def _towards(fair: Floats, wish: Floats, overload: float, amount: Floats, above: Ints) -> Floats:
    """From the fair shares as near to the wished ones as `overload` lets any child grow."""
    grown = np.minimum(wish, fair * (1 + overload))
    gain = np.where(wish > fair, grown - fair, 0.0)
    give = np.where(wish < fair, fair - wish, 0.0)
    gains, gives = np.bincount(above, gain, len(amount)), np.bincount(above, give, len(amount))
    rate = np.divide(gains, gives, out=np.zeros_like(gains), where=gives > _EPS)
    back = np.divide(gives, gains, out=np.ones_like(gains), where=gains > gives + _EPS)
    moved: Floats = fair + gain * np.minimum(1.0, back)[above] - give * np.minimum(1.0, rate)[above]
    return moved

"""Chooses a host for a need, over arrays, on a snapshot.  Pure: what it decides is returned with the reasons.

Filters run in an order in which the cheaper and plainer reason comes first; each host is counted for the first filter
that turns it away.  Among nearly equal hosts chance decides, so that concurrent claims spread out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from apus.services.placement.contract import Need, Refusal
from apus.services.placement.model import Provider

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

NEAR_BEST: Final = 0.05
"""Hosts whose share of free memory is within this of the best are as good as it."""
NAMES_MAX: Final = 20
"""Host names in one refusal."""


class HostTable:
    """Hosts as columns.  `note` keeps it current as claims come and go; a reload replaces it."""

    def __init__(self, hosts: Sequence[Provider], heard_at_s: Mapping[str, float]) -> None:
        self.hosts = list(hosts)
        self.place = {host.id: index for index, host in enumerate(hosts)}
        classes = sorted({name for host in hosts for name in host.inventories})
        shape = (len(classes), len(hosts))
        self.row = {name: index for index, name in enumerate(classes)}
        self.capacity: Numbers = np.zeros(shape, np.int64)
        self.used: Numbers = np.zeros(shape, np.int64)
        self.min_unit: Numbers = np.ones(shape, np.int64)
        self.max_unit: Numbers = np.zeros(shape, np.int64)
        self.step: Numbers = np.ones(shape, np.int64)
        self.enabled: Mask = np.zeros(len(hosts), np.bool_)
        self.heard_at_s: npt.NDArray[np.float64] = np.zeros(len(hosts))
        self.zones: npt.NDArray[Any] = np.array([host.zone for host in hosts], dtype=object)
        self.traits: dict[str, Mask] = {}
        for index, host in enumerate(hosts):
            self._fill(index, host)
            self.heard_at_s[index] = heard_at_s.get(host.id, 0.0)

    def _fill(self, index: int, host: Provider) -> None:
        self.hosts[index] = host
        self.enabled[index] = host.enabled
        for name, inventory in host.inventories.items():
            row = self.row[name]
            self.capacity[row, index] = inventory.capacity
            self.used[row, index] = host.used.get(name, 0)
            self.min_unit[row, index] = inventory.min_unit
            self.max_unit[row, index] = inventory.max_unit
            self.step[row, index] = inventory.step_size
        for trait in host.traits:
            self.traits.setdefault(trait, np.zeros(len(self.hosts), np.bool_))[index] = True

    def note(self, host: Provider) -> bool:
        """Take in a host's newer record; False when it does not fit this table's shape (reload then)."""
        index = self.place.get(host.id)
        if index is None or set(host.inventories) - set(self.row) or host.traits != self.hosts[index].traits:
            return False
        if host.generation > self.hosts[index].generation:
            self._fill(index, host)
        return True

    def free(self, name: str) -> Numbers:
        row = self.row.get(name)
        return np.zeros(len(self.hosts), np.int64) if row is None else self.capacity[row] - self.used[row]


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """The host, or None; and how many hosts each filter turned away."""

    host: Provider | None
    refusals: tuple[Refusal, ...]
    would_fit: str | None = None


def choose(
    table: HostTable,
    need: Need,
    dice: Random,
    *,
    silent_before_s: float,
    avoid: Collection[str] = (),
    same: Collection[str] = (),
    different: Collection[str] = (),
) -> Choice:
    """`avoid`: host names; `same`, `different`: host ids that hold the consumers which the need names."""
    left: Mask = np.ones(len(table.hosts), np.bool_)
    refusals: list[Refusal] = []
    before_resources: Mask = left
    for name, passes, hint in _filters(table, need, silent_before_s, avoid, same, different):
        if name in need.resources and not refusals_of_resources(refusals, need):
            before_resources = left
        refused = left & ~passes
        count = int(refused.sum())
        if count:
            refusals.append(Refusal(filter=name, hosts=count, hint=hint, names=_names(table, refused)))
        left = left & passes
    if not left.any():
        return Choice(None, tuple(refusals), _would_fit(table, before_resources, need))
    return Choice(_pick(table, left, need, dice, same, different), tuple(refusals))


def refusals_of_resources(refusals: Sequence[Refusal], need: Need) -> bool:
    return any(refusal.filter in need.resources for refusal in refusals)


def _filters(
    table: HostTable,
    need: Need,
    silent_before_s: float,
    avoid: Collection[str],
    same: Collection[str],
    different: Collection[str],
) -> Sequence[tuple[str, Mask, str]]:
    def by(test: Any) -> Mask:
        return np.fromiter((test(host) for host in table.hosts), np.bool_, len(table.hosts))

    nothing = np.zeros(len(table.hosts), np.bool_)
    steps: list[tuple[str, Mask, str]] = [
        ("heard", table.heard_at_s >= silent_before_s, "the host's agent is silent; it counts again once it is heard"),
        ("enabled", table.enabled, "the host is disabled for new servers"),
    ]
    if need.host is not None:
        steps.append(("host", by(lambda host: host.name == need.host), f"only the host {need.host} was asked for"))
    if avoid:
        steps.append(("avoided", by(lambda host: host.name not in avoid), "an earlier try on the host failed"))
    if need.availability_zone is not None:
        known = ", ".join(sorted(set(table.zones.tolist()))) or "none"
        hint = f"availability zone {need.availability_zone} was asked for; there are: {known}"
        steps.append(("availability_zone", table.zones == need.availability_zone, hint))
    for trait in need.required_traits:
        steps.append((f"trait {trait}", table.traits.get(trait, nothing), f"{trait} is required"))
    for trait in need.forbidden_traits:
        steps.append((f"trait !{trait}", ~table.traits.get(trait, nothing), f"{trait} is forbidden"))
    for name, amount in need.resources.items():
        steps.append((name, *_fits(table, name, amount)))
    if same and not need.soft:
        passes = by(lambda host: host.id in same)
        steps.append(("same_host", passes, "the same host was asked for as that of the servers named"))
    if different and not need.soft:
        passes = by(lambda host: host.id not in different)
        steps.append(("different_host", passes, "a different host was asked for than that of the servers named"))
    return steps


def _fits(table: HostTable, name: str, amount: int) -> tuple[Mask, str]:
    row = table.row.get(name)
    if row is None:
        return np.zeros(len(table.hosts), np.bool_), f"no host has {name}"
    free = table.free(name)
    step = table.step[row]
    passes = (free >= amount) & (table.min_unit[row] <= amount) & (table.max_unit[row] >= amount) & (amount % step == 0)
    most = int(free.max(initial=0))
    return passes, f"{amount} was asked for; the most that is free on one host is {most}"


def _pick(
    table: HostTable, left: Mask, need: Need, dice: Random, same: Collection[str], different: Collection[str]
) -> Provider:
    memory = table.row.get("MEMORY_MB")
    if memory is None:
        share = np.zeros(len(table.hosts))
    else:
        share = (table.capacity[memory] - table.used[memory]) / np.maximum(table.capacity[memory], 1)
    if need.soft:
        for index, host in enumerate(table.hosts):
            share[index] += (host.id in same) - (host.id in different)
    best = share[left].max()
    near = np.flatnonzero(left & (share >= best - NEAR_BEST))
    return table.hosts[int(near[dice.randrange(len(near))])]


def _names(table: HostTable, mask: Mask) -> tuple[str, ...]:
    return tuple(table.hosts[int(index)].name for index in np.flatnonzero(mask)[:NAMES_MAX])


def _would_fit(table: HostTable, mask: Mask, need: Need) -> str | None:
    """The most that one host, which passed all but the resources, could give."""
    if not mask.any() or not need.resources:
        return None
    indexes = np.flatnonzero(mask)
    fractions = np.ones(len(indexes))
    for name, amount in need.resources.items():
        fractions = np.minimum(fractions, table.free(name)[indexes] / max(amount, 1))
    best = int(indexes[int(fractions.argmax())])
    return ", ".join(f"{name} ≤ {int(table.free(name)[best])}" for name in need.resources)

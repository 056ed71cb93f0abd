"""Chooses a host on a snapshot.  Pure: the dice are passed in, and a "no" comes with its reasons.

Filters run in a fixed order, cheapest first; each counts whom it turned away and says what would have passed.
Among the fitting hosts the emptiest are nearly equal: one of them is drawn, so that choosers who decide at the same
time spread out instead of meeting on one host.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, Final

from apus.services.placement.contract import Need, Refusal
from apus.services.placement.logic.snapshot import Snapshot
from apus.services.placement.model import HostRow

NEAR_BEST: Final = 0.05
"""Hosts whose share of free room differs by less than this are equally good."""
NAMES_MAX: Final = 50
"""Host names kept with one refusal."""


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    host: HostRow | None
    refusals: tuple[Refusal, ...]
    would_fit: str | None
    hosts_seen: int


def choose(
    need: Need,
    hosts: Snapshot,
    dice: Random,
    *,
    avoid: Sequence[str] = (),
    held_by: Mapping[str, str] | None = None,
    silent: frozenset[str] = frozenset(),
) -> Choice:
    """`held_by`: consumer -> host id, for the group rules; `silent`: names of hosts whose agent is not heard."""
    sieve = _Sieve(hosts)
    sieve.keep("host is enabled", hosts.enabled(), "enable a host that an operator has disabled")
    if silent:
        sieve.keep(
            "agent is heard", hosts.where(lambda row: row.name not in silent), "wait until a silent host returns"
        )
    if need.availability_zone is not None:
        zones = sorted({row.availability_zone for row in hosts.rows if row.is_host})
        right = hosts.where(lambda row: row.availability_zone == need.availability_zone)
        sieve.keep("availability zone", right, f"zones that have hosts: {', '.join(zones) or 'none'}")
    if need.host is not None:
        sieve.keep("host asked for", hosts.where(lambda row: row.name == need.host), f"only {need.host} was asked for")
    for trait in need.required_traits:
        sieve.keep(f"trait {trait}", hosts.has_trait(trait), f"a host with the trait {trait}")
    for trait in need.forbidden_traits:
        sieve.keep(f"no trait {trait}", ~hosts.has_trait(trait), f"a host without the trait {trait}")
    if avoid:
        sieve.keep("not tried before", hosts.where(lambda row: row.name not in avoid), "a host that was not tried yet")
    wishes = _groups(need, hosts, held_by or {}, sieve)
    for name, amount in need.resources.items():
        sieve.keep_room(name, amount)
    if not sieve.left.any():
        return Choice(None, tuple(sieve.refusals), sieve.would_fit(need), sieve.seen)
    return Choice(_draw(need, hosts, sieve.left, wishes, dice), tuple(sieve.refusals), None, sieve.seen)


def _groups(need: Need, hosts: Snapshot, held_by: Mapping[str, str], sieve: _Sieve) -> Any:
    """Apply the group rules; soft ones come back as a preference."""
    same = {held_by[consumer] for consumer in need.same_host_as if consumer in held_by}
    different = {held_by[consumer] for consumer in need.different_host_from if consumer in held_by}
    wish = None
    for ids, name, test in (
        (same, "same host", lambda row: row.id in same),
        (different, "different host", lambda row: row.id not in different),
    ):
        if not ids:
            continue
        mask = hosts.where(test)
        if need.soft:
            wish = mask if wish is None else wish & mask
        else:
            sieve.keep(name, mask, f"the rule '{name}' leaves no host: relax it, or add a host")
    return wish


def _draw(need: Need, hosts: Snapshot, fits: Any, wish: Any, dice: Random) -> HostRow:
    import numpy

    if wish is not None and (fits & wish).any():
        fits = fits & wish
    free: Any = numpy.zeros(len(hosts))
    for name, amount in need.resources.items():
        capacity = numpy.maximum(hosts.capacity(name), 1)
        free = free + (hosts.capacity(name) - hosts.used(name) - amount) / capacity
    free = free / max(1, len(need.resources))
    best = free[fits].max()
    near = numpy.flatnonzero(fits & (free >= best - NEAR_BEST))
    return hosts.rows[int(near[dice.randrange(len(near))])]


class _Sieve:
    """The hosts that are left, and whom each filter turned away."""

    def __init__(self, hosts: Snapshot) -> None:
        self.hosts, self.left = hosts, hosts.hosts().copy()
        self.seen = int(self.left.sum())
        self.refusals: list[Refusal] = []

    def keep(self, name: str, mask: Any, hint: str) -> None:
        away = self.left & ~mask
        turned_away = int(away.sum())
        if turned_away:
            self.refusals.append(Refusal(filter=name, hosts=turned_away, hint=hint, names=self._names(away)))
        self.left = self.left & mask

    def keep_room(self, name: str, amount: int) -> None:
        hosts = self.hosts
        free = hosts.capacity(name) - hosts.used(name)
        fits = (
            (free >= amount)
            & (amount >= hosts.unit(name, "min_unit"))
            & (amount <= hosts.unit(name, "max_unit"))
            & (amount % hosts.unit(name, "step_size") == 0)
        )
        most = int(free[self.left].max()) if self.left.any() else 0
        self.keep(name, fits, f"{amount} asked, at most {max(0, most)} free on a host that passed until here")

    def would_fit(self, need: Need) -> str | None:
        """The largest ask of this kind that one enabled host could take."""
        candidates = self.hosts.hosts() & self.hosts.enabled()
        if not candidates.any():
            return None
        import numpy

        room: Any = numpy.zeros(len(self.hosts))
        for name, amount in need.resources.items():
            room = room + numpy.minimum(self.hosts.capacity(name) - self.hosts.used(name), amount) / max(1, amount)
        room[~candidates] = -1
        place = int(room.argmax())
        free = {
            name: max(0, int((self.hosts.capacity(name) - self.hosts.used(name))[place])) for name in need.resources
        }
        return ", ".join(f"{amount} {name}" for name, amount in free.items()) + " on one host"

    def _names(self, mask: Any) -> tuple[str, ...]:
        import numpy

        return tuple(self.hosts.rows[int(place)].name for place in numpy.flatnonzero(mask)[:NAMES_MAX])

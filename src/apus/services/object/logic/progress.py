"""How far repair is: copies that are missing, and those that are not where they belong, from what each drive counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence

from apus.services.object.logic.ring import Ring

Census = Mapping[int, tuple[int, int]]
"""Of each partition of a drive: how many versions, and their digest."""


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """What is left to do.  Copies are of versions of objects; a tombstone is one."""

    at_risk: int = 0
    """Copies that are missing: nobody holds them."""
    alone: int = 0
    """Versions that the next loss would end: one copy is left, or no fragment too many."""
    to_make: int = 0
    """Copies that somebody shall have and has not: those at risk, and those that move to where they belong."""


def work_left(
    drives: Mapping[str, Census],
    ring_of: Callable[[int], Ring],
    wished: Callable[[int], Sequence[str]],
    parts: Iterable[int],
) -> Work:
    """`drives`: those that answer.  `wished`: who shall hold a partition now."""
    at_risk = alone = to_make = 0
    for part in parts:
        found = {name: census[part] for name, census in drives.items() if part in census}
        if not found:
            continue
        ring = ring_of(part)
        most = max(count for count, _ in found.values())
        best = sorted((count for count, _ in found.values()), reverse=True)[: ring.copies]
        at_risk += ring.copies * most - sum(best)
        if ring.copies > ring.needed:
            alone += most - best[ring.needed] if len(best) > ring.needed else most
        names = wished(part)
        lacking = sum(most - found.get(name, (0, 0))[0] for name in names)
        differ = not ring.data and len({found[name][1] for name in names if name in found}) > 1
        to_make += lacking or differ  # as many, but others: one at least
    return Work(at_risk, alone, to_make)


def seconds_left(to_make: int, copies_per_s: float) -> float | None:
    """None when nobody can say."""
    if not to_make:
        return 0.0
    return to_make / copies_per_s if copies_per_s > 0 else None

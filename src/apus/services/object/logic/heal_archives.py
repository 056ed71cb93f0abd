"""Which archives of one version have to be made where, and which may go, so that each is where it belongs."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class ArchivePlan:
    """Archives by number, drives by name.  All of `lacking` get theirs; then `strays` may go."""

    lacking: tuple[tuple[int, str], ...]
    strays: tuple[tuple[int, str], ...]
    """Only when each of the partition's own drives has, or gets, its archive."""

    @property
    def is_done(self) -> bool:
        return not self.lacking and not self.strays


def plan(held: Mapping[int, Collection[str]], *, primaries: Sequence[str], wished: Sequence[str]) -> ArchivePlan:
    """`held`: who has which.  `wished`: who shall have one now: primaries that are there, stand-ins for the others."""
    owners: dict[int, str] = {index: name for index, name in enumerate(primaries) if name in wished}
    vacant = [index for index in range(len(primaries)) if index not in owners]
    spare = [name for name in wished if name not in primaries]
    for index in [*(one for one in vacant if held.get(one)), *(one for one in vacant if not held.get(one))]:
        if not spare:
            break
        owners[index] = next((name for name in spare if name in held.get(index, ())), spare[0])
        spare.remove(owners[index])
    lacking = tuple((index, name) for index, name in owners.items() if name not in held.get(index, ()))
    strays: tuple[tuple[int, str], ...] = ()
    if not vacant:
        strays = tuple((index, name) for index in held for name in held[index] if name != owners.get(index))
    return ArchivePlan(lacking, strays)

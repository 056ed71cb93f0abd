"""What has to be copied, and what may go, so that the newest version of an object is where it belongs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

Version = tuple[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """Drives by name.  All of `lacking` get the newest version from one of `sources`; then `strays` may lose theirs."""

    newest: Version
    sources: tuple[str, ...]
    lacking: tuple[str, ...]
    strays: tuple[str, ...]
    """Only when every primary has, or gets, the newest."""

    @property
    def is_done(self) -> bool:
        return not self.lacking and not self.strays


def plan(
    held: Mapping[str, Version], *, primaries: Sequence[str], wished: Sequence[str], answering: frozenset[str]
) -> Plan:
    """`held`: who has which version.  `wished`: who should now: primaries that are there, stand-ins for the others.

    Of two equal versions that of a primary is read first.
    """
    newest = max(held.values())
    sources = tuple(sorted((name for name in held if held[name] == newest), key=lambda name: name not in primaries))
    lacking = tuple(name for name in wished if name in answering and held.get(name) != newest)
    at_home = all(held.get(name) == newest or name in lacking for name in primaries)
    strays = tuple(name for name in held if name not in primaries) if at_home else ()
    return Plan(newest, sources, lacking, strays)

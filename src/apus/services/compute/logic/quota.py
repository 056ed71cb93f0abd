"""Limits of a project.  What is used is counted from rows; here is only the arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from apus.kernel.errors import OverQuota

DEFAULTS: Final[Mapping[str, int]] = {
    "instances": 2000,
    "cores": 8000,
    "ram": 16_000_000,
    "key_pairs": 100,
    "server_groups": 50,
    "server_group_members": 100,
    "metadata_items": 128,
}
"""Wide: a cloud of one's own should not refuse its owner.  An administrator narrows them per project; -1: no limit."""


def limits_of(overrides: Mapping[str, int], defaults: Mapping[str, int]) -> dict[str, int]:
    return {**defaults, **overrides}


def check(limits: Mapping[str, int], used: Mapping[str, int], asked: Mapping[str, int]) -> None:
    """Raise OverQuota naming each limit that would be passed, what is used and what was asked."""
    over = [name for name, amount in asked.items() if amount and 0 <= limits[name] < used[name] + amount]
    if over:
        requested = ", ".join(f"{name}: {asked[name]}" for name in over)
        have = ", ".join(f"{used[name]} of {limits[name]} {name}" for name in over)
        raise OverQuota(
            "compute.over_quota",
            f"Quota exceeded for {', '.join(over)}: Requested {requested}, but already used {have}.",
            details={"over": over},
        )

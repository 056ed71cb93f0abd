"""Judges histories of reads, writes and deletes of single names.

Two judgements.  `linearizable`: is there one order of all operations, true to real time, that explains every answer
(Wing and Gong 1993, with the memory of Lowe 2017)?  `survivors`: which values may stand at the end, when all is healed,
if no acknowledged write was lost and no delete came back?

A write that was not acknowledged (refused late, cut off) may have happened at any time after it began, or never.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Final

ABSENT: Final = ""
"""The value of a name that is not there: a delete writes it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """One request.  Values are unique among the writes of a history, but for ABSENT."""

    name: str
    is_read: bool
    value: str
    """Written, or seen."""
    began_s: float
    ended_s: float
    """math.inf of a write whose outcome is unknown."""

    @property
    def known(self) -> bool:
        return self.ended_s != math.inf


def linearizable(operations: Sequence[Operation], first: str = ABSENT) -> bool:
    """Of one name.  Exponential in how many overlap, so keep that small.

    A write of unknown outcome that nobody saw need not have happened, so it is left out.
    """
    seen_values = {op.value for op in operations if op.is_read} | {ABSENT}
    ops = sorted((op for op in operations if op.known or op.value in seen_values), key=lambda op: op.began_s)
    needed = sum(1 << at for at, op in enumerate(ops) if op.known)
    seen = set[tuple[int, str]]()
    open_: list[tuple[int, str]] = [(0, first)]
    while open_:
        done, value = open_.pop()
        if done & needed == needed:
            return True
        if (done, value) in seen:
            continue
        seen.add((done, value))
        earliest_end_s = min(op.ended_s for at, op in enumerate(ops) if not done >> at & 1)
        for at, op in enumerate(ops):
            if op.began_s > earliest_end_s:
                break  # what began later comes after the one that ended first
            if done >> at & 1 or (op.is_read and op.value != value):
                continue
            open_.append((done | 1 << at, value if op.is_read else op.value))
    return False


def survivors(operations: Sequence[Operation], first: str = ABSENT) -> set[str]:
    """The values of one name that may be read when all has come to rest."""
    writes = [op for op in operations if not op.is_read]
    acknowledged = [op for op in writes if op.known]
    if not writes:
        return {first}
    last_began_s = max((op.began_s for op in acknowledged), default=-math.inf)
    left = {op.value for op in writes if op.ended_s >= last_began_s}
    return left if acknowledged else left | {first}


def never_written(operations: Sequence[Operation], first: str = ABSENT) -> list[Operation]:
    """Reads of one name that saw what nobody had begun to write."""
    writes = [op for op in operations if not op.is_read]
    return [
        op
        for op in operations
        if op.is_read
        and op.value not in (first, ABSENT)
        and not any(write.value == op.value and write.began_s <= op.ended_s for write in writes)
    ]

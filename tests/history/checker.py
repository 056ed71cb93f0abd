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
from typing import Final, NamedTuple

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


class _State(NamedTuple):
    """Where a search stands: what has had its place among the operations whose outcome is known, in the order in which
    they began, and what is read now."""

    low: int
    """All before this one have."""
    done: int
    """Those at and behind it that have, as bits."""
    used: tuple[str, ...]
    """Values of the writes of unknown outcome that have happened."""
    value: str


def linearizable(operations: Sequence[Operation], first: str = ABSENT) -> bool:
    """Of one name.  Exponential in how many known ones overlap, so keep that small.

    Three things keep the search narrow.  A read that fits is taken at once: it changes nothing.  A write of unknown
    outcome happens only for a read that saw it, right before it.  Of such deletes, of which no end ever comes, it
    does not matter which one happens, only how many have.
    """
    known = sorted((op for op in operations if op.known), key=lambda op: op.began_s)
    unknown: dict[str, list[float]] = {}
    for op in operations:
        if not op.known:
            unknown.setdefault(op.value, []).append(op.began_s)
    seen = set[_State]()
    open_ = [_State(0, 0, (), first)]
    while open_:
        state = open_.pop()
        if state in seen:
            continue
        seen.add(state)
        ready, end_s = _ready(known, state)
        if not ready:
            return True
        fitting = [at for at in ready if known[at].is_read and known[at].value == state.value]
        if fitting:
            open_.append(_with(state, fitting, state.value))
            continue
        open_ += [_with(state, [at], known[at].value) for at in ready if not known[at].is_read]
        for value in {known[at].value for at in ready if known[at].is_read}:
            begun = sum(began_s <= end_s for began_s in unknown.get(value, ()))
            if begun > state.used.count(value):
                open_.append(state._replace(used=tuple(sorted((*state.used, value))), value=value))
    return False


def _ready(known: Sequence[Operation], state: _State) -> tuple[list[int], float]:
    """Those that may be next, and when the first of those that are left ended: what began later comes after it."""
    ready, end_s, done = list[int](), math.inf, state.done
    for at in range(state.low, len(known)):
        if known[at].began_s > end_s:
            break
        if not done & 1:
            ready.append(at)
            end_s = min(end_s, known[at].ended_s)
        done >>= 1
    return ready, end_s


def _with(state: _State, places: Sequence[int], value: str) -> _State:
    """These have had their place too."""
    low, done = state.low, state.done
    for at in places:
        done |= 1 << at - low
    while done & 1:
        low, done = low + 1, done >> 1
    return _State(low, done, state.used, value)


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

"""The judge of histories is right about histories small enough to try every order of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tests.history.checker import ABSENT, Operation, linearizable, never_written, survivors


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    ops = []
    for number in range(draw(st.integers(0, 6))):
        began_s = draw(st.integers(0, 12))
        ended_s: float = began_s + draw(st.integers(0, 6))
        is_read = draw(st.booleans())
        if is_read:
            value = draw(st.sampled_from([ABSENT, *(f"v{other}" for other in range(6))]))
        else:
            value = draw(st.sampled_from([ABSENT, f"v{number}"]))
            ended_s = draw(st.sampled_from([ended_s, math.inf]))
        ops.append(Operation("n", is_read, value, began_s, ended_s))
    return ops


def orders(ops: Sequence[Operation]) -> list[tuple[Operation, ...]]:
    """Every order of every choice of the unknown ones that keeps real time."""
    known = [op for op in ops if op.known]
    unknown = [op for op in ops if not op.known]
    found = []
    for count in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, count):
            for order in itertools.permutations([*known, *chosen]):
                if all(not later.ended_s < op.began_s for op, later in itertools.combinations(order, 2)):
                    found.append(order)
    return found


def explains(order: Sequence[Operation]) -> bool:
    value = ABSENT
    for op in order:
        if op.is_read and op.value != value:
            return False
        value = op.value
    return True


def last(order: Sequence[Operation]) -> str:
    return next((op.value for op in reversed(order) if not op.is_read), ABSENT)


@given(histories())
def test_a_history_is_linearizable_when_some_order_explains_it(ops: list[Operation]) -> None:
    assert linearizable(ops) == any(explains(order) for order in orders(ops))


def test_a_long_history_with_many_unknown_outcomes_is_judged() -> None:
    """As a quarter of an hour of faults leaves it: what is never known to have ended overlaps with all that follows."""
    dice, ops, value = Random(1), list[Operation](), ABSENT
    for number in range(3_000):
        if dice.random() < 0.3:
            ops.append(Operation("n", False, dice.choice([ABSENT, f"u{number}"]), number, math.inf))
            value = dice.choice([value, ops[-1].value])
        elif dice.random() < 0.5:
            value = dice.choice([ABSENT, f"v{number}"])
            ops.append(Operation("n", False, value, number - dice.random(), number + dice.random()))
        else:
            ops.append(Operation("n", True, value, number - dice.random(), number + dice.random()))
    assert linearizable(ops)
    assert not linearizable([*ops, Operation("n", True, "never", 3_000, 3_001)])


@given(histories())
def test_what_may_survive_is_what_some_order_of_the_writes_ends_with(ops: list[Operation]) -> None:
    writes = [op for op in ops if not op.is_read]
    assert survivors(ops) == {last(order) for order in orders(writes)}


@given(histories())
def test_nobody_reads_what_nobody_began_to_write(ops: list[Operation]) -> None:
    for op in never_written(ops):
        assert not linearizable([one for one in ops if not one.is_read] + [op])

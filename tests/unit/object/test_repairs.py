"""Which partition is repaired next, where several repair the same store."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from apus.services.object.pace import HEARD_S, Going, Pace
from apus.services.object.repairs import LOOKS, Key, Repairs
from tests.object_store import FixedClock


@given(st.permutations(range(LOOKS)), st.integers(1, 5), st.data())
def test_each_takes_its_own_first_and_all_of_them_once(parts: list[int], count: int, data: st.DataObject) -> None:
    ours = data.draw(st.integers(0, count - 1))

    async def story() -> list[int]:
        repairs = Repairs([], lambda: 0.0)
        repairs.turn = lambda: (ours, count)
        keys: list[Key] = [("objects", part) for part in parts]
        repairs.doubt(keys)
        return [(await repairs.next())[1] for _ in keys]

    taken = asyncio.run(story())
    assert sorted(taken) == sorted(parts)
    mine = [part for part in parts if part % count == ours]
    assert taken[: len(mine)] == mine


def test_who_was_not_heard_of_for_a_while_has_no_turn_and_no_share() -> None:
    clock = FixedClock(100.0)
    pace = Pace(clock)
    assert pace.turn_of("p2") == (0, 1)
    pace.hear("p1", Going(True, 3.0, 300.0))
    clock.at_s += HEARD_S - 1
    pace.hear("p3", Going(False, 0.0, 0.0))
    assert pace.turn_of("p2") == (1, 3)
    assert pace.rate_of_all() == (3.0, 300.0)
    clock.at_s += 2
    assert pace.turn_of("p2") == (0, 2)
    assert pace.rate_of_all() == (0.0, 0.0)

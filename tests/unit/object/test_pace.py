"""How fast repair may go: on average as it was told, and together where that is possible."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apus.services.object.pace import BURST_S, COPY_COST_BYTES, TICK_S, Pace, Wish
from apus.sim.clock import SimClock
from apus.sim.loop import run


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1 << 20, 1 << 28),
    st.lists(st.integers(0, 1 << 20), min_size=1, max_size=200),
    st.integers(1, 32),
)
def test_the_cap_holds_however_many_copy_at_once(cap: int, sizes: list[int], at_once: int) -> None:
    async def story() -> float:
        clock = SimClock()
        pace = Pace(clock)
        pace.set(Wish(cap_bytes_s=cap))
        left = list(sizes)

        async def copy() -> None:
            while left:
                await pace.spend(left.pop())

        began_s = clock.monotonic_s()
        await asyncio.gather(*(copy() for _ in range(at_once)))
        return clock.monotonic_s() - began_s

    least_s = sum(max(size, COPY_COST_BYTES) for size in sizes) / cap
    assert least_s - BURST_S - 1e-6 <= run(story())


def test_those_whose_turn_it_is_go_on_together() -> None:
    async def story() -> list[float]:
        clock = SimClock()
        pace = Pace(clock)
        pace.set(Wish(cap_bytes_s=COPY_COST_BYTES * 500))
        went_s = list[float]()

        async def copy() -> None:
            for _ in range(100):
                await pace.spend(COPY_COST_BYTES)
                went_s.append(clock.monotonic_s())

        await asyncio.gather(*(copy() for _ in range(20)))
        return went_s

    went_s = run(story())
    ticks = {round(at_s / TICK_S) for at_s in went_s}
    assert all(at_s == pytest.approx(round(at_s / TICK_S) * TICK_S, abs=1e-6) for at_s in went_s[100:])
    assert 2000 / 500 - BURST_S <= went_s[-1] - went_s[0] <= 2000 / 500 + TICK_S
    assert len(ticks) <= 2000 / 500 / TICK_S + 2  # ten at each of them

"""The clock of one simulated machine: it starts off, runs fast or slow, and steps when it is told to."""

from __future__ import annotations

import asyncio
from typing import Final

from apus.sim.life import Life

EPOCH_S: Final = 1_800_000_000.0
"""When every simulation begins (January 2027)."""


class SimClock:
    def __init__(self, *, drift: float = 0.0, offset_s: float = 0.0, life: Life | None = None) -> None:
        assert -0.5 < drift < 0.5
        self.drift = drift
        """Seconds gained per second."""
        self._offset_s = offset_s
        self._life = life or Life("clock")

    def now_s(self) -> float:
        return EPOCH_S + self._offset_s + self.monotonic_s()

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time() * (1 + self.drift)

    async def sleep(self, duration_s: float) -> None:
        await self._life.pause(max(duration_s, 0.0) / (1 + self.drift))

    def step(self, by_s: float) -> None:
        """As an operator, or a time server that comes back, would set it."""
        self._offset_s += by_s

    def of(self, life: Life) -> SimClock:
        """The same clock, read by another process."""
        return _SharedClock(self, life)


class _SharedClock(SimClock):
    def __init__(self, clock: SimClock, life: Life) -> None:
        super().__init__(drift=clock.drift, life=life)
        self._clock = clock

    def now_s(self) -> float:
        return self._clock.now_s()

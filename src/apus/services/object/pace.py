"""How fast copies are made again: a cap, a pause, and what was done of late."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from typing import Final

import msgspec

from apus.kernel.world import Clock

CAP_BYTES_S: Final = 24 << 20
"""Unless told otherwise.  Clients then wait no more than twice as long for the slowest of a hundred answers."""

COPY_COST_BYTES: Final = 64 << 10
"""What a small copy counts for at least: it costs the processor as much as it would cost the disk."""

BURST_S: Final = 0.1
"""So much of the cap may be used at once after a rest."""

TICK_S: Final = 0.02
"""Who waits goes on at a tick, with all whose turn it is by then: what is written together is synced together."""

WINDOW_S: Final = 10.0
"""The rate is that of the last so many seconds."""

SLOT_S: Final = 0.25

HEARD_S: Final = 5.0
"""Who was not heard of for so long has gone, or is cut off."""


class Wish(msgspec.Struct, frozen=True):
    """What the operator said about repair; kept over a restart."""

    paused: bool = False
    cap_bytes_s: int = CAP_BYTES_S
    """0: none."""


class Going(msgspec.Struct, frozen=True):
    """How one process repairs."""

    works: bool
    """There is something to repair that it knows of."""
    copies_per_s: float
    bytes_per_s: float


class Pace:
    """Everybody who copies asks for his turn here."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.wish = Wish()
        self.copied = self.copied_bytes = 0
        self._going = asyncio.Event()
        self._going.set()
        self._free_at_s = 0.0
        self._slots: deque[tuple[float, int, int]] = deque()
        """When, copies and bytes."""
        self._others: dict[str, tuple[float, Going]] = {}
        """Processes that repair the same store, and when they were heard of."""

    def set(self, wish: Wish) -> None:
        self.wish = wish
        self._free_at_s = 0.0
        if wish.paused:
            self._slots.clear()
            self._going.clear()
        else:
            self._going.set()

    async def turn(self) -> None:
        """Return once repair is not paused."""
        await self._going.wait()

    async def spend(self, size_bytes: int) -> None:
        """Wait until the cap allows so many bytes."""
        await self._going.wait()
        if not self.wish.cap_bytes_s:
            return
        now_s = self._clock.monotonic_s()
        sharers = 1 + sum(other.works for other in self.others().values())
        cost_s = max(size_bytes, COPY_COST_BYTES) * sharers / self.wish.cap_bytes_s
        self._free_at_s = max(self._free_at_s, now_s - BURST_S) + cost_s
        if self._free_at_s > now_s:
            await self._clock.sleep(math.ceil(self._free_at_s / TICK_S) * TICK_S - now_s)

    def made(self, size_bytes: int) -> None:
        """One copy more."""
        self.copied += 1
        self.copied_bytes += size_bytes
        now_s = self._clock.monotonic_s()
        if self._slots and now_s - self._slots[-1][0] < SLOT_S:
            began_s, copies, done_bytes = self._slots.pop()
            self._slots.append((began_s, copies + 1, done_bytes + size_bytes))
        else:
            self._slots.append((now_s, 1, size_bytes))
        self._forget(now_s)

    def hear(self, name: str, going: Going) -> None:
        """Of another process, which has its share of the cap."""
        self._others[name] = self._clock.monotonic_s(), going

    def others(self) -> dict[str, Going]:
        """Those that were heard of just now."""
        since_s = self._clock.monotonic_s() - HEARD_S
        self._others = {name: heard for name, heard in self._others.items() if heard[0] >= since_s}
        return {name: going for name, (_, going) in self._others.items()}

    def turn_of(self, name: str) -> tuple[int, int]:
        """Where the process of this name is among all, and how many they are."""
        others = self.others()
        return sum(other < name for other in others), len(others) + 1

    def going(self, *, works: bool) -> Going:
        """For the others to hear."""
        return Going(works, *self.rate())

    def rate_of_all(self) -> tuple[float, float]:
        """As `rate`, with the others."""
        copies_per_s, bytes_per_s = self.rate()
        others = self.others().values()
        return (
            copies_per_s + sum(other.copies_per_s for other in others),
            bytes_per_s + sum(other.bytes_per_s for other in others),
        )

    def rate(self) -> tuple[float, float]:
        """Copies and bytes a second, of late."""
        now_s = self._clock.monotonic_s()
        self._forget(now_s)
        if not self._slots:
            return 0.0, 0.0
        took_s = max(now_s - self._slots[0][0], SLOT_S)
        return sum(slot[1] for slot in self._slots) / took_s, sum(slot[2] for slot in self._slots) / took_s

    def _forget(self, now_s: float) -> None:
        while self._slots and now_s - self._slots[0][0] > WINDOW_S:
            self._slots.popleft()

"""The staleness window: for how long a reader of one copy may not have seen what was acknowledged.

It is zero for a write that every copy had before the answer.  For the others it ends when the partition was looked at
and made whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from apus.services.object.repairs import Repairs

WINDOWS_MAX: Final = 1000
"""So many of the last ones are remembered."""


class Freshness:
    def __init__(self, repairs: Repairs, monotonic_s: Callable[[], float]) -> None:
        self._repairs, self._monotonic_s = repairs, monotonic_s
        self.writes = 0
        """Acknowledged or refused, of objects and index changes."""
        self.short = 0
        """Of these, those that not every copy had at the answer."""
        self._windows: deque[float] = deque(maxlen=WINDOWS_MAX)

    def whole(self, window_s: float) -> None:
        """A partition is whole again, after so long."""
        self._windows.append(window_s)

    def seconds(self) -> dict[str, float]:
        """Of the last windows that closed, quantiles; and how long the oldest that is open has been so."""
        ordered, oldest_s = sorted(self._windows), self._repairs.oldest_s()
        told = {f"p{share}": ordered[(len(ordered) - 1) * share // 100] for share in (50, 99, 100) if ordered}
        return {**told, "open": 0.0 if oldest_s is None else self._monotonic_s() - oldest_s}

"""Names that are one proxy's for a moment, as one drive knows it.

Only in memory: a drive that was opened anew has forgotten who has what, so it gives nothing away for as long as one of
those leases may last.
"""

from __future__ import annotations

from typing import Final

from apus.kernel.world import Clock

LEASE_S: Final = 10.0


class MemoryLeases:
    """Implements Leases."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._opened_s = clock, clock.monotonic_s()
        self._taken: dict[str, tuple[str, float]] = {}
        """By name: whose it is, and until when.  The first ends first."""

    async def take(self, name: str, owner: str) -> bool:
        now_s = self._clock.monotonic_s()
        for ended in [name for name, (_, until_s) in self._taken.items() if until_s <= now_s]:
            del self._taken[ended]
        if now_s < self._opened_s + LEASE_S or name in self._taken:
            return False
        self._taken[name] = owner, now_s + LEASE_S
        return True

    async def release(self, name: str, owner: str) -> None:
        if self._taken.get(name, ("", 0.0))[0] == owner:
            del self._taken[name]

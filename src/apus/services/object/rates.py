"""How fast one account may make containers, and one container may take writes, whichever door they come through."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from apus.kernel.errors import Unavailable
from apus.kernel.world import World

PATIENCE_S: Final = 10.0
"""A write that would have to wait longer is refused."""

NAMES_MAX: Final = 10_000


class Rates:
    """0 a second is no limit."""

    def __init__(self, world: World, account_per_s: float = 0.0, container_per_s: float = 0.0) -> None:
        self._world, self._account_per_s, self._container_per_s = world, account_per_s, container_per_s
        self._next_s: OrderedDict[tuple[str, str], float] = OrderedDict()

    async def of_account(self, account: str) -> None:
        await self._pace((account, ""), self._account_per_s)

    async def of_container(self, account: str, container: str) -> None:
        await self._pace((account, container), self._container_per_s)

    async def _pace(self, name: tuple[str, str], per_s: float) -> None:
        """Wait for this one's turn.  Raise Unavailable when there are too many before it."""
        if not per_s:
            return
        now_s = self._world.clock.monotonic_s()
        turn_s = max(self._next_s.get(name, now_s), now_s)
        if turn_s - now_s > PATIENCE_S:
            raise Unavailable("object.slow_down", "Slow down")
        self._next_s[name] = turn_s + 1 / per_s
        self._next_s.move_to_end(name)
        if len(self._next_s) > NAMES_MAX:
            self._next_s.popitem(last=False)
        if turn_s > now_s:
            await self._world.clock.sleep(turn_s - now_s)

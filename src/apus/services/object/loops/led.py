"""A loop that one proxy of a store is enough for.  It is safe to run twice, so it matters little who that is."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from apus.kernel.loop import Loop


class Led:
    def __init__(self, loop: Loop, leads: Callable[[], bool]) -> None:
        self._loop, self._leads = loop, leads
        self.name, self.period_s = loop.name, loop.period_s

    async def keys(self) -> Iterable[str]:
        """Nothing while another proxy leads."""
        return await self._loop.keys() if self._leads() else ()

    async def settle(self, key: str) -> None:
        await self._loop.settle(key)

"""Tells placement again and again which zone each host is in: what was lost after an aggregate's change is made up."""

from __future__ import annotations

from collections.abc import Iterable

from apus.services.compute.aggregates import Aggregates


class Zones:
    name = "compute-zones"
    period_s = 60.0

    def __init__(self, aggregates: Aggregates) -> None:
        self._aggregates = aggregates

    async def keys(self) -> Iterable[str]:
        return ("all",)

    async def settle(self, key: str) -> None:
        await self._aggregates.settle_zones()

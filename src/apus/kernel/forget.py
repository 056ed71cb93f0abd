"""Old flows and events go after a while: the tables stay as large as what happens in that time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from apus.kernel.flow.log import purge_flows
from apus.kernel.world import Transaction, World

FLOWS_KEPT_S: Final = 30 * 86400.0
"""Ended ones; stuck ones stay until somebody decides."""
EVENTS_KEPT_S: Final = 30 * 86400.0


class Forget:
    """A Loop."""

    name = "forget"
    period_s = 3600.0

    def __init__(self, world: World) -> None:
        self._world = world

    async def keys(self) -> Iterable[str]:
        return ("all",)

    async def settle(self, key: str) -> None:
        def work(tx: Transaction) -> None:
            purge_flows(tx, tx.now_s - FLOWS_KEPT_S)
            tx.execute("DELETE FROM event WHERE at_s < :before", {"before": tx.now_s - EVENTS_KEPT_S})

        await self._world.store.write(work)

"""Forgets deleted servers, and what was done to them, after the time for which usage is asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from apus.kernel.world import Transaction, World

KEPT_S: Final = 35 * 86400.0
"""Usage is asked for four weeks by default, and for a calendar month by those who bill."""
_ACTIONS: Final = (
    "DELETE FROM compute_action WHERE server_id IN"
    " (SELECT id FROM compute_server WHERE deleted = :yes AND updated_at_s < :before_s)"
)
_SERVERS: Final = "DELETE FROM compute_server WHERE deleted = :yes AND updated_at_s < :before_s"


class Purge:
    name = "compute-purge"
    period_s = 3600.0

    def __init__(self, world: World) -> None:
        self._world = world

    async def keys(self) -> Iterable[str]:
        return ("all",)

    async def settle(self, key: str) -> None:
        def work(tx: Transaction) -> None:
            old = {"yes": True, "before_s": tx.now_s - KEPT_S}
            tx.execute(_ACTIONS, old)
            tx.execute(_SERVERS, old)

        await self._world.store.write(work)

"""Removes what time has ended: epochs older than any living token, app credentials and trusts long expired."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from apus.kernel.world import Store, Transaction
from apus.services.identity import store as tables

SWEEP_S: Final = 300.0
SLACK_S: Final = 300.0
"""Clocks of a cloud differ by less than this."""


class SweepExpired:
    name = "identity.sweep_expired"
    period_s = SWEEP_S

    def __init__(self, store: Store, token_lifetime_s: float) -> None:
        self._store, self._lifetime_s = store, token_lifetime_s

    async def keys(self) -> Iterable[str]:
        return ("all",)

    async def settle(self, key: str) -> None:
        await self._store.write(self._sweep)

    def _sweep(self, tx: Transaction) -> int:
        return tables.forget_epochs(tx, tx.now_s - self._lifetime_s - SLACK_S)

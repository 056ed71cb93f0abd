"""Keeps a process's view of revocations fresh: at once on a hint, else by a short scan.

The scan reads a little further back than the last one: transactions that ran side by side may commit in another
order than that of their stamps.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from apus.kernel.loop import Mailbox
from apus.kernel.world import Bus, Clock, Subscription
from apus.services.identity.agent.verifier import RevocationView
from apus.services.identity.contract import REVOKED_HINT, RevocationSource
from apus.services.identity.drivers.keys import TokenKeys

SCAN_S: Final = 2.0
"""How long a revoked token may live on in another process when the hint is lost."""
KEYS_EVERY: Final = 30
"""Scans between two looks at the key files: a rotated key seals only at the rotation after it appeared."""
OVERLAP_S: Final = 30.0
"""Longer than any transaction takes."""


class FollowRevocations:
    """A Loop for every process that verifies tokens."""

    name = "identity.follow_revocations"
    period_s = SCAN_S

    def __init__(
        self, source: RevocationSource, view: RevocationView, keys: TokenKeys, clock: Clock, token_lifetime_s: float
    ) -> None:
        self._source, self._view, self._keys, self._clock = source, view, keys, clock
        self._lifetime_s = token_lifetime_s
        self._since_s = 0.0
        self._scans = 0

    async def keys(self) -> Iterable[str]:
        return ("all",)

    async def settle(self, key: str) -> None:
        news = await self._source.revocations(self._since_s)
        self._view.apply(news.epochs)
        self._since_s = news.horizon_s - OVERLAP_S
        self._scans += 1
        if self._scans % KEYS_EVERY == 0:
            await self._keys.reload()
            self._view.forget(int((self._clock.now_s() - self._lifetime_s - OVERLAP_S) * 1e6))


async def kick_on_hint(bus: Bus, mailbox: Mailbox) -> Subscription:
    """Look at once when some process revoked something."""

    async def heard(subject: str, body: bytes) -> None:
        mailbox.kick("all")

    return await bus.listen(REVOKED_HINT, heard)

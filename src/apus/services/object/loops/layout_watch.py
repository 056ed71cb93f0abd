"""Takes over what another proxy of the store changed: its drives, its ring, the pace of its repair."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from apus.services.object.membership import Membership

LOOK_EVERY_S: Final = 1.0


class LayoutWatch:
    name = "object.layout-watch"
    period_s = LOOK_EVERY_S

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    async def keys(self) -> Iterable[str]:
        return ("all",)

    async def settle(self, key: str) -> None:
        await self._membership.follow()

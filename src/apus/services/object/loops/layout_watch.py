"""Takes over what another proxy of the store changed: its drives, its ring, the pace of its repair."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from apus.kernel.errors import Unavailable
from apus.kernel.log import get_logger
from apus.services.object.membership import Membership

_log: Final = get_logger("apus.object")
LOOK_EVERY_S: Final = 1.0


class LayoutWatch:
    name = "object.layout-watch"
    period_s = LOOK_EVERY_S

    def __init__(self, membership: Membership) -> None:
        self._membership, self._heard = membership, True

    async def keys(self) -> Iterable[str]:
        return ("all",)

    async def settle(self, key: str) -> None:
        try:
            await self._membership.follow()
        except Unavailable as error:
            if self._heard:  # once: it may last, and changes nothing for who reads and writes
                _log.warning("nobody says whether drives were changed", why=error.shown)
            self._heard = False
        else:
            self._heard = True

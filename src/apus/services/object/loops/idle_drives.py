"""Closes drives of this host that no proxy uses any more: one was removed, or all proxies have gone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from apus.services.object.drivers.remote.server import DriveServer

LOOK_EVERY_S: Final = 60.0


class IdleDrives:
    name = "object.idle-drives"
    period_s = LOOK_EVERY_S

    def __init__(self, server: DriveServer) -> None:
        self._server = server

    async def keys(self) -> Iterable[str]:
        return list(self._server.served)

    async def settle(self, key: str) -> None:
        await self._server.leave_unused(key)

"""A loop over the drives of this host, which are not closed while it works on them."""

from __future__ import annotations

from collections.abc import Iterable

from apus.kernel.loop import Loop
from apus.services.object.drivers.remote.server import DriveServer


class OnDrives:
    def __init__(self, loop: Loop, server: DriveServer) -> None:
        """The loop's keys are paths of drives."""
        self._loop, self._server = loop, server
        self.name, self.period_s = loop.name, loop.period_s

    async def keys(self) -> Iterable[str]:
        return await self._loop.keys()

    async def settle(self, key: str) -> None:
        with self._server.held(key):
            await self._loop.settle(key)

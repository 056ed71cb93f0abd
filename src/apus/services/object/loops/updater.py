"""Makes the changes to indexes that had to be put off, and tells accounts the totals of their containers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from apus.kernel.errors import Unavailable
from apus.services.object.cluster import Cluster
from apus.services.object.directory import Directory

PASS_EVERY_S: Final = 1.0


class Updater:
    name = "object.updater"
    period_s = PASS_EVERY_S

    def __init__(self, cluster: Cluster, directory: Directory) -> None:
        self.cluster, self._directory = cluster, directory
        self._clear: set[str] = set()
        """Drives that kept no change, in the pass that began then."""
        self._began_s = 0.0

    async def keys(self) -> Iterable[str]:
        await self._directory.report()
        if self._clear.issuperset(self.cluster.drives):
            self._directory.caught_up(self._began_s)
        self._clear.clear()
        self._began_s = self.cluster.world.clock.monotonic_s()
        return list(self.cluster.drives)

    async def settle(self, key: str) -> None:
        drive = self.cluster.drives.get(key)
        if drive is None:
            return  # it was removed meanwhile
        if self.cluster.resting(drive):
            return
        try:
            names = await drive.pending.names()
            if not names:
                self._clear.add(key)
            for name in names:
                change = await drive.pending.get(name)
                if change is not None:
                    await self._directory.apply(change)
                await drive.pending.remove(name)
        except Unavailable:
            return  # the next pass tries again
        except OSError as error:
            self.cluster.failed(drive, error)

    async def run_once(self) -> None:
        for key in await self.keys():
            await self.settle(key)

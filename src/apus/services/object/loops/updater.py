"""Makes rows durable, lists what a crash left unlisted, makes the changes to indexes that had to be put off, and tells
accounts the totals of their containers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from apus.kernel.errors import Unavailable
from apus.services.object.cluster import Cluster
from apus.services.object.directory import Directory
from apus.services.object.lister import RELIST_AFTER_S, RELIST_EVERY_S, Lister

PASS_EVERY_S: Final = 1.0


class Updater:
    name = "object.updater"
    period_s = PASS_EVERY_S

    def __init__(self, cluster: Cluster, directory: Directory, lister: Lister) -> None:
        self.cluster, self._directory, self._lister = cluster, directory, lister
        self._clear: set[str] = set()
        """Drives that kept no change, in the pass that began then."""
        self._began_s = 0.0
        self._relisted_s = -math.inf
        self._relists = False
        """In this pass."""

    async def keys(self) -> Iterable[str]:
        if self._lister.is_due:  # totals, too, make what they are read from durable first
            await self._lister.flush()
            await self._directory.report()
        if self._clear.issuperset(self.cluster.drives):
            self._directory.caught_up(self._began_s)
        self._clear.clear()
        self._began_s = self.cluster.world.clock.monotonic_s()
        self._relists = self._began_s - self._relisted_s >= RELIST_EVERY_S
        if self._relists:
            self._relisted_s = self._began_s
        return list(self.cluster.drives)

    async def settle(self, key: str) -> None:
        await self._settle(key, RELIST_AFTER_S if self._relists else None)

    async def catch_up(self) -> None:
        """Before the first request: list all that a crash left unlisted, so that listings are whole."""
        for key in list(self.cluster.drives):
            await self._settle(key, 0.0)

    async def _settle(self, key: str, after_s: float | None) -> None:
        drive = self.cluster.drives.get(key)
        if drive is None or self.cluster.resting(drive):
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
            if after_s is not None:
                await self._lister.relist(drive, after_s)
        except Unavailable:
            return  # the next pass tries again
        except OSError as error:
            self.cluster.failed(drive, error)

    async def run_once(self) -> None:
        for key in await self.keys():
            await self.settle(key)

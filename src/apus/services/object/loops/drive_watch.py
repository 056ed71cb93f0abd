"""Looks at each drive several times a second, so that a loss and a return are seen when nobody reads or writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from apus.services.object.cluster import Cluster
from apus.services.object.drivers.drive import KeptDrive
from apus.services.object.model import DriveFull

LOOK_EVERY_S: Final = 0.5
LOOK_TIMEOUT_S: Final = 5.0


class DriveWatch:
    name = "object.drive-watch"
    period_s = LOOK_EVERY_S

    def __init__(self, cluster: Cluster, drives: Mapping[str, KeptDrive]) -> None:
        self._cluster, self._drives = cluster, drives
        self._away: set[str] = set()

    async def keys(self) -> Iterable[str]:
        return list(self._drives)

    async def settle(self, key: str) -> None:
        drive = self._drives.get(key)
        if drive is None:
            return
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                await drive.look(write=self._cluster.is_away(drive))
        except DriveFull:
            pass  # it is there
        except OSError as error:
            self._cluster.failed(drive, error)
            if key not in self._away:
                self._away.add(key)
                self._cluster.lost(drive)
            return
        if self._cluster.is_away(drive):
            self._cluster.worked(drive)
        if key in self._away:
            self._away.discard(key)
            self._cluster.doubt_everything()
        if drive.comparing and self._cluster.remembers_all(key):
            try:
                await drive.compared()
            except OSError as error:
                self._cluster.failed(drive, error)

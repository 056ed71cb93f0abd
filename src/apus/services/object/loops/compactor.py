"""Gives back what overwritten and deleted objects still take on the drives of this process."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from apus.services.object.cluster import Cluster
from apus.services.object.drivers.local import LocalDrive

PASS_EVERY_S: Final = 60.0


class Compactor:
    name = "object.compactor"
    period_s = PASS_EVERY_S

    def __init__(self, cluster: Cluster, drives: Sequence[LocalDrive]) -> None:
        self._cluster, self._drives = cluster, {drive.id: drive for drive in drives}
        self.moved_bytes = 0

    async def keys(self) -> Iterable[str]:
        return list(self._drives)

    async def settle(self, key: str) -> None:
        try:
            self.moved_bytes += await self._drives[key].copies.tidy()
        except OSError as error:
            self._cluster.failed(self._drives[key], error)

    async def run_once(self) -> None:
        for key in self._drives:
            await self.settle(key)

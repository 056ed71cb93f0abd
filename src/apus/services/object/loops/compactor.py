"""Gives back what overwritten and deleted objects still take on the drives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from apus.services.object.drivers.drive import KeptDrive

PASS_EVERY_S: Final = 60.0


class Compactor:
    name = "object.compactor"
    period_s = PASS_EVERY_S

    def __init__(
        self, drives: Callable[[], Mapping[str, KeptDrive]], failed: Callable[[KeptDrive, OSError], None]
    ) -> None:
        self._drives, self._failed = drives, failed
        self.moved_bytes = 0

    async def keys(self) -> Iterable[str]:
        return list(self._drives())

    async def settle(self, key: str) -> None:
        drive = self._drives().get(key)
        if drive is None:
            return
        try:
            self.moved_bytes += await drive.tidy()
        except OSError as error:
            self._failed(drive, error)

    async def run_once(self) -> None:
        for key in list(self._drives()):
            await self.settle(key)

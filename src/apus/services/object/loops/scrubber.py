"""Reads everything on the drives of this host against its checksums, slowly: bytes do not travel for that.

What is bad is put aside, and the proxies hear that with the drive's next answer; they bring it back from other copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from apus.kernel.log import get_logger
from apus.kernel.world import Clock
from apus.services.object.drivers.local import LocalDrive
from apus.services.object.loops.auditor import PASS_EVERY_S, SHARE, Pause
from apus.services.object.model import CorruptCopy, IndexKind, Place
from apus.services.object.spare import INDEXES

_log: Final = get_logger("apus.object.disk")


class Scrubber:
    name = "object.scrubber"
    period_s = PASS_EVERY_S

    def __init__(self, clock: Clock, drives: Callable[[], Mapping[str, LocalDrive]]) -> None:
        self._clock, self._drives = clock, drives
        self.bad = 0

    async def keys(self) -> Iterable[str]:
        return list(self._drives())

    async def settle(self, key: str) -> None:
        drive, drives = self._drives().get(key), len(self._drives())
        if drive is None:
            return  # nobody uses it any more
        pause = Pause(self._clock)
        try:
            for part in await drive.copies.parts():
                if self._drives().get(key) is not drive:
                    return  # it was opened anew, or left
                for path_hash in await drive.copies.inventory(part):
                    await self._object(drive, Place(part, path_hash))
                    await pause.due()
            pause = Pause(self._clock, SHARE / drives)
            for kind in INDEXES:
                await self._indexes(drive, kind, pause)
        except OSError as error:
            _log.warning("not all of a drive could be read", drive=drive.id, why=str(error))

    async def _object(self, drive: LocalDrive, place: Place) -> None:
        try:
            await drive.copies.audit(place)
        except CorruptCopy as error:
            await self._found(drive, error)

    async def _indexes(self, drive: LocalDrive, kind: IndexKind, pause: Pause) -> None:
        for part in await drive.indexes.parts(kind):
            for place in await drive.indexes.places(kind, part):
                await pause.due()
                try:
                    while not await drive.indexes.audit(kind, place):
                        await pause.due()
                except CorruptCopy as error:
                    await self._found(drive, error)

    async def _found(self, drive: LocalDrive, error: CorruptCopy) -> None:
        self.bad += 1
        _log.warning("a bad copy is put aside", drive=drive.id, why=str(error))
        await drive.doubted()

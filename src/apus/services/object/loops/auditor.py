"""Reads everything against its checksums, slowly, and has what is bad repaired from the other copies.

Each object that it reads is also offered to its container again: a crash between an object's quorum and its index
leaves one that no listing shows, and this is how it comes back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from apus.kernel.world import Clock
from apus.services.object.cluster import Cluster
from apus.services.object.directory import Directory, container_row
from apus.services.object.drivers.drive import Drive
from apus.services.object.lister import Lister
from apus.services.object.logic.shards import SHARDS
from apus.services.object.model import Change, CorruptCopy, IndexHead, IndexKind, Place
from apus.services.object.repair import reclaim

PASS_EVERY_S: Final = 3600.0
SHARE: Final = 1 / 20
"""Of the time, on each drive: users notice nothing, and a drive that reads 100 MiB/s is through 430 GB a day.  Of the
time of all drives for indexes: checking rows takes the interpreter, which they share."""
STINT_S: Final = 0.05
"""So long it works before it pauses: a pause after each object would cost more than the object."""


class Pause:
    """Rests whenever a stint is over, so that work takes its share of the time."""

    def __init__(self, clock: Clock, share: float = SHARE) -> None:
        self._clock, self._share, self._began_s = clock, share, clock.monotonic_s()

    async def due(self) -> None:
        worked_s = self._clock.monotonic_s() - self._began_s
        if worked_s >= STINT_S:
            await self._clock.sleep(worked_s * (1 / self._share - 1))
            self._began_s = self._clock.monotonic_s()


class Auditor:
    name = "object.auditor"
    period_s = PASS_EVERY_S

    def __init__(self, cluster: Cluster, directory: Directory, lister: Lister, *, reads: bool = True) -> None:
        """`reads`: else the hosts of the drives read what is on them (`scrubber.py`), and this goes by what is left."""
        self.cluster, self._directory, self._lister, self._reads = cluster, directory, lister, reads
        self.bad = 0

    async def keys(self) -> Iterable[str]:
        return list(self.cluster.drives)

    async def settle(self, key: str) -> None:
        drive, drives = self.cluster.drives.get(key), len(self.cluster.drives)
        if drive is None:
            return  # it was removed meanwhile
        pause = Pause(self.cluster.world.clock)
        try:
            for part in self._any_order(await drive.copies.parts()):
                for path_hash in await drive.copies.inventory(part):
                    await self._object(drive, Place(part, path_hash))
                    await pause.due()
            pause = Pause(self.cluster.world.clock, SHARE / drives)
            await self._indexes(drive, "accounts", pause)
            await self._indexes(drive, "containers", pause)
        except OSError as error:
            self.cluster.failed(drive, error)

    async def run_once(self) -> None:
        for key in await self.keys():
            await self.settle(key)

    def _any_order(self, parts: Sequence[int]) -> list[int]:
        """So that a process that is often started anew gets everywhere."""
        return self.cluster.world.dice.sample(parts, len(parts))

    async def _object(self, drive: Drive, place: Place) -> None:
        try:
            head = await (drive.copies.audit(place) if self._reads else drive.copies.head(place))
        except CorruptCopy as error:
            self.bad += 1
            self.cluster.trouble(drive, place.part, error)
            return
        if head is None:
            self.cluster.repairs.add("objects", place.part)
            return
        if head.gone and not self.cluster.repairs.suspects("objects", place.part):
            await reclaim(self.cluster, place, head.version)
        if drive.id == self.cluster.ring.primaries(place.part)[0] and not head.is_archive:
            await self._lister.follow(head)

    async def _indexes(self, drive: Drive, kind: IndexKind, pause: Pause) -> None:
        for part in self._any_order(await drive.indexes.parts(kind)):
            for place in await drive.indexes.places(kind, part):
                await pause.due()
                try:
                    while self._reads and not await drive.indexes.audit(kind, place):
                        await pause.due()
                    head = await drive.indexes.head(kind, place)
                except CorruptCopy:
                    self.bad += 1
                    self.cluster.repairs.add(kind, part)
                    continue
                if head is not None and drive.id == self.cluster.ring.primaries(part)[0]:
                    await self._tell(head)

    async def _tell(self, head: IndexHead) -> None:
        """Have the totals counted again that this index is part of."""
        self._directory.shards.doubt(head)
        if head.container and head.account != SHARDS:
            row = container_row(await self._directory.shards.whole(head), self.cluster.stamp())
            await self._directory.offer(Change(head.account, "", (row,)))

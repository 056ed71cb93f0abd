"""Reads everything against its checksums, slowly, and has what is bad repaired from the other copies.

Each object that it reads is also offered to its container again: a crash between an object's quorum and its index
leaves one that no listing shows, and this is how it comes back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from apus.services.object.cluster import Cluster
from apus.services.object.directory import Directory, container_row
from apus.services.object.drivers.drive import Drive
from apus.services.object.lister import Lister
from apus.services.object.logic.shards import SHARDS
from apus.services.object.model import Change, CorruptCopy, IndexHead, IndexKind, Place
from apus.services.object.repair import reclaim

PASS_EVERY_S: Final = 3600.0
PAUSE_EVERY_BYTES: Final = 16 << 20
"""After so much the auditor sleeps as long as the reading took or more, so it costs no more than a part of a drive."""


class Auditor:
    name = "object.auditor"
    period_s = PASS_EVERY_S

    def __init__(self, cluster: Cluster, directory: Directory, lister: Lister) -> None:
        self.cluster, self._directory, self._lister = cluster, directory, lister
        self.bad = 0

    async def keys(self) -> Iterable[str]:
        return list(self.cluster.drives)

    async def settle(self, key: str) -> None:
        drive = self.cluster.drives.get(key)
        if drive is None:
            return  # it was removed meanwhile
        try:
            for part in await drive.copies.parts():
                for path_hash in await drive.copies.inventory(part):
                    await self._object(drive, Place(part, path_hash))
            await self._indexes(drive, "accounts")
            await self._indexes(drive, "containers")
        except OSError as error:
            self.cluster.failed(drive, error)

    async def run_once(self) -> None:
        for key in await self.keys():
            await self.settle(key)

    async def _object(self, drive: Drive, place: Place) -> None:
        began_s = self.cluster.world.clock.monotonic_s()
        try:
            head = await drive.copies.audit(place)
        except CorruptCopy as error:
            self.bad += 1
            self.cluster.trouble(drive, place.part, error)
            return
        if head is None:
            self.cluster.repairs.add("objects", place.part)
            return
        if head.gone and not self.cluster.repairs.suspects("objects", place.part):
            await reclaim(self.cluster, place, head.version)
        if drive.id == self.cluster.ring.primaries(place.part)[0]:
            await self._lister.follow(head)
        if head.size_bytes >= PAUSE_EVERY_BYTES:
            await self.cluster.world.clock.sleep(self.cluster.world.clock.monotonic_s() - began_s)

    async def _indexes(self, drive: Drive, kind: IndexKind) -> None:
        for part in await drive.indexes.parts(kind):
            for place in await drive.indexes.places(kind, part):
                try:
                    await drive.indexes.audit(kind, place)
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

"""Removes archives that are nobody's: of versions that were overwritten or deleted, soon after; of writes that a crash
cut off, once they have been left for long.  A scan of all finds what a process that died did not come to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from apus.services.object.archives import everywhere
from apus.services.object.claims import ASK_TIMEOUT_S, Claim, claim_on
from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.drivers.drive import Drive
from apus.services.object.logic.code import group_of
from apus.services.object.logic.rings import is_of_fragments
from apus.services.object.model import Head, Place

PASS_EVERY_S: Final = 1.0
SCAN_EVERY_S: Final = 6 * 3600.0

ORPHAN_AGE_S: Final = 3600.0
"""Of a write whose head may still come; much longer than `HEAD_WITHIN_S`."""


class ArchiveSweeper:
    name = "object.archive_sweeper"
    period_s = PASS_EVERY_S

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._scan_at_s = 0.0
        self._orphans: dict[tuple[int, str], float] = {}
        """Since when they are known as that (monotonic): the clock of the stamps may jump."""
        self.removed = 0

    async def keys(self) -> Iterable[str]:
        """`PARTITION/NAME` of what may be nobody's; in a scan `PARTITION` of all that have archives."""
        now_s = self._now_s
        due = [one for one, at_s in self._cluster.unclaimed.items() if at_s <= now_s]
        for one in due:
            del self._cluster.unclaimed[one]
        found = [f"{part}/{group}" for part, group in due]
        if now_s >= self._scan_at_s:
            self._scan_at_s = now_s + SCAN_EVERY_S
            found += [str(part) for part in self._cluster.ring.every_part() if is_of_fragments(part)]
        return found

    async def settle(self, key: str) -> None:
        part, _, group = key.partition("/")
        for one in [group] if group else await self._groups(int(part)):
            await self._group(int(part), one)

    async def run_once(self) -> None:
        for key in await self.keys():
            await self.settle(key)

    async def _groups(self, part: int) -> list[str]:
        drives = self._cluster.everywhere("objects", part)
        answers = await ask_each(drives, lambda drive: drive.copies.inventory(part), ASK_TIMEOUT_S)
        return sorted({group_of(one) for answer in answers if not isinstance(answer, OSError) for one in answer})

    async def _group(self, part: int, group: str) -> None:
        key, now_s = (part, group), self._now_s
        head = await self._head(part, group)
        claim = Claim.LIVE if head is None else await claim_on(self._cluster, head, part)
        since_s = self._orphans.setdefault(key, now_s) if claim is Claim.ORPHAN else self._orphans.pop(key, now_s)
        if claim is Claim.LIVE or head is None:
            return
        if claim is Claim.ORPHAN and now_s - since_s < ORPHAN_AGE_S:
            self._cluster.unclaimed[key] = since_s + ORPHAN_AGE_S
            return
        self._orphans.pop(key, None)
        await self._drop(part, group, head)
        self.removed += 1

    async def _head(self, part: int, group: str) -> Head | None:
        """What any of the archives says of itself."""
        code = self._cluster.ring.code_of(part)
        for index, drive in everywhere(self._cluster, part, code) if code is not None else ():
            try:
                async with asyncio.timeout(ASK_TIMEOUT_S):
                    head = await drive.copies.head(Place(part, f"{group}{index:02x}"))
            except OSError as error:
                self._cluster.trouble(drive, part, error)
                continue
            if head is not None:
                return head
        return None

    async def _drop(self, part: int, group: str, head: Head) -> None:
        """Everywhere; who is away and returns with one is found by repair."""
        assert head.coded is not None
        places = [Place(part, f"{group}{index:02x}") for index in range(head.coded.data + head.coded.parity)]

        async def drop(drive: Drive) -> None:
            for place in places:
                await drive.copies.drop(place, head.version)

        await ask_each(self._cluster.everywhere("objects", part), drop, ASK_TIMEOUT_S)

    @property
    def _now_s(self) -> float:
        return self._cluster.world.clock.monotonic_s()

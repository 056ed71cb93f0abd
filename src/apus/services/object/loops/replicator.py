"""Looks at every partition: are its copies equal, and are they where they belong?

Its keys are partitions of the three rooms; those on the repair list come first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.model import IndexKind, Place
from apus.services.object.repair import ASK_TIMEOUT_S, Outcome, heal_index, heal_objects, reclaim_before
from apus.services.object.repairs import ROOMS, Room

PASS_EVERY_S: Final = 30.0


class Replicator:
    name = "object.replicator"
    period_s = PASS_EVERY_S

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.copied = 0

    async def keys(self) -> Iterable[str]:
        waiting = [f"{room}/{part}" for room, part in self.cluster.repairs.waiting()]
        rest = [f"{room}/{part}" for room in ROOMS for part in await self._held(room)]
        return list(dict.fromkeys([*waiting, *rest]))

    async def settle(self, key: str) -> None:
        room, _, part_text = key.partition("/")
        part, repairs = int(part_text), self.cluster.repairs
        mark = repairs.mark(room, part)  # type: ignore[arg-type]
        if room == "objects":
            outcome = await heal_objects(self.cluster, part)
        else:
            outcome = await self._heal_indexes(room, part)  # type: ignore[arg-type]
        self.copied += outcome.copied
        if outcome.whole:
            repairs.done(room, part, mark)  # type: ignore[arg-type]

    async def run_once(self) -> None:
        """A whole pass, for tests and for the command."""
        for key in await self.keys():
            await self.settle(key)

    async def _held(self, room: Room) -> set[int]:
        """Partitions of which any drive holds something."""
        drives = list(self.cluster.drives.values())
        if room == "objects":
            answers = await ask_each(drives, lambda drive: drive.copies.parts(), ASK_TIMEOUT_S)
        else:
            kind: IndexKind = room
            answers = await ask_each(drives, lambda drive: drive.indexes.parts(kind), ASK_TIMEOUT_S)
        parts = 1 << self.cluster.ring.part_power
        return {part for answer in answers if not isinstance(answer, OSError) for part in answer if part < parts}

    async def _heal_indexes(self, kind: IndexKind, part: int) -> Outcome:
        drives = self.cluster.candidates(part)
        answers = await ask_each(drives, lambda drive: drive.indexes.places(kind, part), ASK_TIMEOUT_S)
        primaries = {drive.id for drive in self.cluster.primaries(part)}
        total = Outcome(
            whole=not any(
                isinstance(answer, OSError) and drive.id in primaries
                for drive, answer in zip(drives, answers, strict=True)
            )
        )
        places = {place.hash: place for answer in answers if not isinstance(answer, OSError) for place in answer}
        for place in places.values():
            outcome = await heal_index(self.cluster, kind, place)
            total.whole &= outcome.whole
            total.copied += outcome.copied
            if outcome.whole and not outcome.copied:
                await self._reclaim(kind, place)
        return total

    async def _reclaim(self, kind: IndexKind, place: Place) -> None:
        before = reclaim_before(self.cluster)
        await asyncio.gather(
            *(drive.indexes.reclaim(kind, place, before) for drive in self.cluster.primaries(place.part)),
            return_exceptions=True,
        )

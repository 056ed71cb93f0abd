"""Makes the copies of every partition equal, and has them where they belong: what is in doubt first, the moment that
it is; everything else now and then.

Its workers take from the list of `repairs.py`, so that a loss is repaired while a long repair of something less
urgent goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from apus.kernel.loop import attempted
from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.logic.rings import is_of_fragments
from apus.services.object.model import Place
from apus.services.object.rebuild import heal_archives
from apus.services.object.repair import ASK_TIMEOUT_S, Outcome, heal_index, heal_objects, reclaim_before
from apus.services.object.repairs import ROOMS, Key, Room

PASS_EVERY_S: Final = 30.0
RIPEN_EVERY_S: Final = 0.25
WORKERS: Final = 4


class Replicator:
    name = "object.replicator"

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._began_s: float | None = cluster.world.clock.monotonic_s()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._scan(), name="object-scan")
            tasks.create_task(self._ripen(), name="object-ripen")
            for number in range(WORKERS):
                tasks.create_task(self._work(), name=f"object-repair-{number}")

    async def run_once(self) -> None:
        """A whole pass, for tests."""
        for key in dict.fromkeys([*self.cluster.repairs.waiting(), *await self.scan()]):
            await self.settle(key)

    async def settle(self, key: Key) -> None:
        """Repair it as far as may be."""
        room, part = key
        repairs = self.cluster.repairs
        mark, began_s = repairs.mark(room, part), self.cluster.world.clock.monotonic_s()
        if room == "objects":
            heal = heal_archives if is_of_fragments(part) else heal_objects
            outcome = await heal(self.cluster, part)
        else:
            outcome = await self._heal_indexes(room, part)
        if outcome.whole or outcome.settled:
            self.cluster.equal_s[key] = began_s
        stranded = repairs.is_stranded(room, part) and outcome.silent >= self.cluster.quorum(part)
        if outcome.whole and not stranded:
            repairs.done(room, part, mark)
        elif outcome.whole or outcome.settled:
            repairs.settle(room, part, mark)

    async def scan(self) -> Iterable[Key]:
        """Everything that any drive holds.  Who holds what no ring says he does is remembered."""
        keys: dict[Key, None] = {}
        strays: dict[Key, tuple[str, ...]] = {}
        for room in ROOMS:
            for name, parts in (await self._held(room)).items():
                for part in parts:
                    keys[room, part] = None
                    if all(name != drive.id for drive in self.cluster.candidates(part)):
                        strays[room, part] = (*strays.get((room, part), ()), name)
        self.cluster.strays = strays
        return keys

    async def _scan(self) -> None:
        repairs, clock = self.cluster.repairs, self.cluster.world.clock
        while True:
            await clock.sleep(PASS_EVERY_S)
            await self.cluster.pace.turn()
            self._began_s = clock.monotonic_s() if self._began_s is None else self._began_s
            repairs.again([*repairs.waiting(), *await self.scan()])

    async def _ripen(self) -> None:
        while True:
            self.cluster.repairs.ripen()
            self._look()
            await self.cluster.world.clock.sleep(RIPEN_EVERY_S)

    def _look(self) -> None:
        """Is the pass over: was everything looked at that could be?"""
        clock = self.cluster.world.clock
        if self._began_s is not None and not self.cluster.repairs.queued:
            self.cluster.passed = clock.now_s(), clock.monotonic_s() - self._began_s
            self._began_s = None

    async def _work(self) -> None:
        repairs = self.cluster.repairs
        while True:
            await self.cluster.pace.turn()
            key = await repairs.next()
            mark = repairs.mark(*key)
            try:
                await attempted(self.name, f"{key[0]}/{key[1]}", self.settle(key))
            finally:
                waits = (
                    repairs.is_settled(*key)
                    or len(self.cluster.primaries(key[1])) < self.cluster.copies(key[1])
                    or any(self.cluster.is_away(drive) for drive in self.cluster.primaries(key[1]))
                )
                repairs.put_back(key, mark, waits=waits)

    async def _held(self, room: Room) -> dict[str, Iterable[int]]:
        """By drive, the partitions of which it holds something."""
        drives = list(self.cluster.drives.values())
        if room == "objects":
            answers = await ask_each(drives, lambda drive: drive.copies.parts(), ASK_TIMEOUT_S)
        else:
            answers = await ask_each(drives, lambda drive: drive.indexes.parts(room), ASK_TIMEOUT_S)
        ring = self.cluster.ring
        return {
            drive.id: [part for part in answer if ring.has(part)]
            for drive, answer in zip(drives, answers, strict=True)
            if not isinstance(answer, OSError)
        }

    async def _heal_indexes(self, kind: Room, part: int) -> Outcome:
        assert kind != "objects"
        drives = self.cluster.everywhere(kind, part)
        answers = await ask_each(drives, lambda drive: drive.indexes.places(kind, part), ASK_TIMEOUT_S)
        answering = {drive.id for drive, answer in zip(drives, answers, strict=True) if not isinstance(answer, OSError)}
        total = Outcome(whole=all(name in answering for name in self.cluster.ring.primaries(part)))
        wished = self.cluster.wished(part)
        total.settled = len(wished) == self.cluster.copies(part) and all(drive.id in answering for drive in wished)
        places = {place.hash: place for answer in answers if not isinstance(answer, OSError) for place in answer}
        for place in places.values():
            await self.cluster.pace.turn()
            outcome = await heal_index(self.cluster, kind, place)
            total.whole &= outcome.whole
            total.settled &= outcome.settled
            total.copied += outcome.copied
            if outcome.whole and not outcome.copied:
                await self._reclaim(kind, place)
        return total

    async def _reclaim(self, kind: Room, place: Place) -> None:
        assert kind != "objects"
        before = reclaim_before(self.cluster)
        await asyncio.gather(
            *(drive.indexes.reclaim(kind, place, before) for drive in self.cluster.primaries(place.part)),
            return_exceptions=True,
        )

"""Conditional writes of a name take turns: of two that ask for the same at once, only one finds it so.

In one process a lock does that.  Where several proxies write, a turn is also a lease of the name (Gray and Cheriton,
1989) at a quorum of its drives.  Whoever gets one finds whatever was acknowledged in an earlier turn, as he looks by a
strong read.  A turn that lasts longer than its lease may have been another's too: then who had it is told that nobody
knows.  Writes without a condition take no turns: they come before or after, as their time says.
"""

from __future__ import annotations

import math
from asyncio import sleep
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from apus.kernel.errors import Conflict, Unavailable
from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.drivers.drive import Drive
from apus.services.object.drivers.leases import LEASE_S
from apus.services.object.key_locks import KeyLocks
from apus.services.object.logic.rings import Rings
from apus.services.object.model import Place

SURE_S: Final = 0.9 * LEASE_S
"""From asking on: clocks of hosts do not all run alike."""
ASK_TIMEOUT_S: Final = 2.0
PATIENCE_S: Final = 1.5 * LEASE_S
"""Longer than a lease whose owner died, or a drive that was just opened, keeps others waiting."""
AGAIN_S: Final = 0.05
"""At most, by chance: who got a part each must not meet again."""


class Turns:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._locks = cluster, KeyLocks()

    @asynccontextmanager
    async def of(self, place: Place) -> AsyncIterator[None]:
        """Raise Unavailable when too few drives answer; Conflict when others had it for too long or, in the end, when
        it had run out."""
        clock = self._cluster.world.clock
        async with self._locks.held(place.hash):
            drives, owner, until_s = await self._taken(place)
            try:
                yield
            finally:
                await self._release(drives, place, owner)
            if clock.monotonic_s() >= until_s:
                raise Conflict(
                    "object.turn", "It took so long that another write may have come first; look at it again."
                )

    async def _taken(self, place: Place) -> tuple[list[Drive], str, float]:
        """From whom, under which name, and until when by our own clock."""
        if not self._cluster.shared:
            return [], "", math.inf
        world = self._cluster.world
        patience_s = world.clock.monotonic_s() + PATIENCE_S
        while True:
            # Another name each time: a late word of an earlier try must not give this one back.
            asked_s, owner = world.clock.monotonic_s(), f"{self._cluster.node}/{world.dice.getrandbits(64):016x}"
            drives = self._asked(place)
            if await self._take(drives, place, owner):
                return drives, owner, asked_s + SURE_S
            await self._release(drives, place, owner)
            if world.clock.monotonic_s() >= patience_s:
                raise Conflict("object.turn", "Others write it all the time; try again.")
            await sleep(world.dice.uniform(0, AGAIN_S))

    def _rings(self) -> Sequence[Rings]:
        """A quorum of each is needed: other proxies may not have heard yet that drives changed."""
        return self._cluster.ring, *self._cluster.former

    def _asked(self, place: Place) -> list[Drive]:
        names = dict.fromkeys(name for ring in self._rings() for name in ring.primaries(place.part))
        return [self._cluster.drives[name] for name in names if name in self._cluster.drives]

    async def _take(self, drives: Sequence[Drive], place: Place, owner: str) -> bool:
        """Whether a quorum gave it.  Raise Unavailable when fewer answer."""
        answers = await ask_each(drives, lambda drive: drive.leases.take(place.hash, owner), ASK_TIMEOUT_S)
        heard = {drive.id: answer for drive, answer in zip(drives, answers, strict=True) if isinstance(answer, bool)}
        quorum, gave = self._cluster.quorum(place.part), True
        for ring in self._rings():
            said = [heard[name] for name in ring.primaries(place.part) if name in heard]
            if len(said) < quorum:
                raise Unavailable(
                    "object.no_turn", f"{len(said)} of its drives answer, and a condition needs {quorum}."
                )
            gave = gave and sum(said) >= quorum
        return gave

    async def _release(self, drives: Sequence[Drive], place: Place, owner: str) -> None:
        """Where this is not heard, the lease runs out."""
        await ask_each(drives, lambda drive: drive.leases.release(place.hash, owner), ASK_TIMEOUT_S)

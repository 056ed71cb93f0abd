"""Conditional writes of a name take turns: of two that ask for the same at once, only one finds it so.

In one process a lock does that.  Where several proxies write, a turn is also a lease of the name (Gray and Cheriton,
1989) at a quorum of its drives.  Whoever gets one finds whatever was acknowledged in an earlier turn, as he looks by a
strong read.  A turn that lasts longer than its lease may have been another's too: then who had it is told that nobody
knows.  Writes without a condition take no turns: they come before or after, as their time says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

from apus.kernel.errors import Conflict, Unavailable
from apus.services.object.cluster import Cluster
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


class _Lease:
    """One, as it was asked for.  Who answers late is not waited for, and gets it back all the same."""

    def __init__(self, cluster: Cluster, drives: Sequence[Drive], place: Place) -> None:
        world = cluster.world
        self._cluster, self._place = cluster, place
        # Another name each time: a late word of an earlier try must not give this one back.
        self._owner = f"{cluster.node}/{world.dice.getrandbits(64):016x}"
        self.until_s = world.clock.monotonic_s() + SURE_S
        self._asked = {drive: asyncio.ensure_future(self._ask(drive)) for drive in drives}

    async def is_ours(self, rings: Sequence[Rings]) -> bool:
        """Whether a quorum in each gave it.  Raise Unavailable when fewer answer."""
        heard: dict[str, bool] = {}
        for answer in asyncio.as_completed(self._asked.values()):
            heard.update(await answer)
            gave = [self._gave(ring, heard) for ring in rings]
            if False in gave or all(gave):
                return all(gave)
        quorum = self._cluster.quorum(self._place.part)
        few = min(sum(name in heard for name in ring.primaries(self._place.part)) for ring in rings)
        if few < quorum:
            raise Unavailable("object.no_turn", f"{few} of its drives answer, and a condition needs {quorum}.")
        return False

    def give_back(self) -> None:
        """Where this is not heard, it runs out."""
        for drive, asked in self._asked.items():
            self._cluster.late(asyncio.ensure_future(self._give_back(drive, asked)))

    def _gave(self, ring: Rings, heard: Mapping[str, bool]) -> bool | None:
        """Whether a quorum did; None when that is not known yet."""
        primaries = ring.primaries(self._place.part)
        said = [heard[name] for name in primaries if name in heard]
        quorum = self._cluster.quorum(self._place.part)
        if sum(said) >= quorum:
            return True
        return False if said.count(False) > len(primaries) - quorum else None

    async def _ask(self, drive: Drive) -> Mapping[str, bool]:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                return {drive.id: await drive.leases.take(self._place.hash, self._owner)}
        except OSError:
            return {}

    async def _give_back(self, drive: Drive, asked: asyncio.Future[Mapping[str, bool]]) -> None:
        await asked
        with suppress(OSError):
            async with asyncio.timeout(ASK_TIMEOUT_S):
                await drive.leases.release(self._place.hash, self._owner)


class Turns:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster, self._locks = cluster, KeyLocks()

    @asynccontextmanager
    async def of(self, place: Place) -> AsyncIterator[None]:
        """Raise Unavailable when too few drives answer; Conflict when others had it for too long or, in the end, when
        it had run out."""
        async with self._locks.held(place.hash):
            if not self._cluster.shared:
                yield
                return
            lease = await self._taken(place)
            try:
                yield
            finally:
                lease.give_back()
            if self._cluster.world.clock.monotonic_s() >= lease.until_s:
                raise Conflict(
                    "object.turn", "It took so long that another write may have come first; look at it again."
                )

    async def _taken(self, place: Place) -> _Lease:
        world = self._cluster.world
        patience_s = world.clock.monotonic_s() + PATIENCE_S
        while True:
            # A quorum of each is needed: other proxies may not have heard yet that drives changed.
            rings = self._cluster.ring, *self._cluster.former
            lease = _Lease(self._cluster, self._asked(place, rings), place)
            is_ours = False
            try:
                is_ours = await lease.is_ours(rings)
            finally:
                if not is_ours:
                    lease.give_back()
            if is_ours:
                return lease
            if world.clock.monotonic_s() >= patience_s:
                raise Conflict("object.turn", "Others write it all the time; try again.")
            await asyncio.sleep(world.dice.uniform(0, AGAIN_S))

    def _asked(self, place: Place, rings: Sequence[Rings]) -> list[Drive]:
        names = dict.fromkeys(name for ring in rings for name in ring.primaries(place.part))
        return [self._cluster.drives[name] for name in names if name in self._cluster.drives]

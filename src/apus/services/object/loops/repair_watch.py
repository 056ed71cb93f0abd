"""Tells the event stream when repair begins and ends, and which drives went and came; forgets a former ring in time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from apus.kernel.errors import Unavailable
from apus.kernel.log import get_logger
from apus.services.object.cluster import Cluster
from apus.services.object.contract import ObjectEvents
from apus.services.object.membership import Membership
from apus.services.object.repair_status import repair_status

LOOK_EVERY_S: Final = 0.5
QUIET_S: Final = 2.0
"""A repair has ended when nothing was copied, and nothing could be, for so long."""

_log: Final = get_logger("apus.object")


class RepairWatch:
    name = "object.repair-watch"
    period_s = LOOK_EVERY_S

    def __init__(
        self, cluster: Cluster, membership: Membership, events: ObjectEvents | None, leads: Callable[[], bool]
    ) -> None:
        """`leads`: of several proxies that all see a drive go and come, one tells of it."""
        self._cluster, self._membership, self._events, self._leads = cluster, membership, events, leads
        self._away: set[str] = set()
        self._copied = self._copied_before = 0
        self._began_s = self._busy_s = -1.0
        self._running = False

    async def keys(self) -> Iterable[str]:
        return ("all",)

    async def settle(self, key: str) -> None:
        away = {name for name, drive in self._cluster.drives.items() if self._cluster.is_away(drive)}
        if self._leads():
            for name in sorted(away - self._away):
                await self._tell("object.drive.lost", name)
            for name in sorted(self._away - away):
                await self._tell("object.drive.returned", name)
        self._away = away
        await self._repair()
        await self._cluster.look_stranded()
        if self._leads() and self._membership.moving and self._membership.settled:
            await self._membership.moved()
            await self._tell("object.ring.moved", "ring")

    async def _repair(self) -> None:
        now_s, copied = self._cluster.world.clock.monotonic_s(), self._cluster.pace.copied
        if copied != self._copied:
            self._copied, self._busy_s = copied, now_s
            if not self._running:
                self._running, self._began_s = True, now_s
                status = await repair_status(self._cluster)
                await self._tell("object.repair.started", "repair", copies_to_make=status.copies_to_make)
        elif self._running and now_s - self._busy_s >= QUIET_S and not self._cluster.pace.wish.paused:
            self._running = False
            made, took_s = copied - self._copied_before, round(self._busy_s - self._began_s, 2)
            self._copied_before = copied
            await self._tell("object.repair.ended", "repair", copies_made=made, took_s=took_s)

    async def _tell(self, kind: str, resource_id: str, **details: Any) -> None:
        if self._events is None:
            return
        try:
            await self._events.tell(kind, resource_id, details)
        except Unavailable as error:
            _log.warning("event not told", kind=kind, resource=resource_id, why=error.shown)

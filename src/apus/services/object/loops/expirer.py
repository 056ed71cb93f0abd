"""Deletes objects whose time is up.  Readers do not see them from that second on, so being late harms nobody."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from apus.kernel.errors import NotFound
from apus.services.object.lister import EXPIRING
from apus.services.object.logic.notices import EXPIRED
from apus.services.object.model import Change, ListingAsk, Row
from apus.services.object.service import Objects

PASS_EVERY_S: Final = 10.0
ENTRIES_AT_ONCE: Final = 1_000
AHEAD_HOURS: Final = 1
"""The clocks of writers may differ from ours."""


class Expirer:
    name = "object.expirer"
    period_s = PASS_EVERY_S

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def keys(self) -> Iterable[str]:
        """The hours that have begun."""
        now_s = int(self._objects.cluster.world.clock.now_s()) + AHEAD_HOURS * 3600
        ask = ListingAsk(limit=ENTRIES_AT_ONCE, end_marker=f"{now_s:010d}")
        return [row.name for row in await self._objects.listing(EXPIRING, "", ask)]

    async def settle(self, key: str) -> None:
        now_s = int(self._objects.cluster.world.clock.now_s())
        ask = ListingAsk(limit=ENTRIES_AT_ONCE, end_marker=f"{now_s + 1:010d}")
        while rows := await self._objects.listing(EXPIRING, key, ask):
            for row in rows:
                await self._expire(row.name)
            done = tuple(Row(row.name, self._objects.cluster.stamp(), gone=True) for row in rows)
            await self._objects.directory.apply(Change(EXPIRING, key, done))
        head = await self._objects.directory.head(EXPIRING, key)
        if head is not None and head.exists and not head.rows and int(key) + 2 * 3600 < now_s:
            await self._objects.delete_container(EXPIRING, key)

    async def run_once(self) -> None:
        for key in await self.keys():
            await self.settle(key)

    async def _expire(self, entry: str) -> None:
        _at, account, container, name = entry.split("/", 3)
        found = await self._objects.engine.find(account, container, name, newest=True)
        if found is None or not self._objects.expired(found.head):
            return  # deleted, or given another time
        try:
            await self._objects.shelf.discard(account, container, name, if_stamp=found.head.changed)
        except NotFound:
            return  # written anew meanwhile
        known = await self._objects.directory.known(account, container)
        metadata = known.metadata if known is not None else {}
        self._objects.uploads.went(account, container, name, metadata)
        await self._objects.outbox.removed((account, container, name), EXPIRED, "", metadata, marked=False)

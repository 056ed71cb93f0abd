"""Empties deleted accounts, and deleted containers into which an object slipped while they were being deleted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from apus.kernel.errors import Conflict, NotFound
from apus.services.object.logic.hidden import owner_of
from apus.services.object.logic.locks import LOCK, is_locked
from apus.services.object.logic.uploads import parts_container
from apus.services.object.model import Head, IndexHead, IndexKind, ListingAsk
from apus.services.object.service import Objects

PASS_EVERY_S: Final = 60.0
ENTRIES_AT_ONCE: Final = 1_000


class Reaper:
    name = "object.reaper"
    period_s = PASS_EVERY_S

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def keys(self) -> Iterable[str]:
        """`ACCOUNT` or `ACCOUNT/CONTAINER` of what is deleted and not empty, as seen on the drives of this node."""
        accounts = [head.account for head in await self._deleted("accounts")]
        containers = [f"{head.account}/{head.container}" for head in await self._deleted("containers")]
        return dict.fromkeys([*accounts, *containers])

    async def settle(self, key: str) -> None:
        account, _, container = key.partition("/")
        head = await self._objects.directory.head(account, container)
        if head is None or head.exists:
            return
        if container:
            await self._empty(account, container, before=head.gone)
            return
        ask = ListingAsk(limit=ENTRIES_AT_ONCE)
        while rows := await self._objects.listing(account, "", ask, hidden=True):
            for row in rows:
                if not await self._is_kept(account, row.name):
                    await self._empty(account, row.name, before=head.gone)
                try:
                    await self._objects.delete_container(account, row.name)
                except (Conflict, NotFound):
                    continue  # what is locked is left until it is not
            ask = ListingAsk(limit=ENTRIES_AT_ONCE, marker=rows[-1].name)

    async def run_once(self) -> None:
        for key in await self.keys():
            await self.settle(key)

    async def _empty(self, account: str, container: str, *, before: str) -> None:
        ask = ListingAsk(limit=ENTRIES_AT_ONCE)
        while rows := await self._objects.listing(account, container, ask):
            for row in rows:
                found = await self._objects.engine.find(account, container, row.name, newest=True)
                if found is not None and found.head.stamp < before and not self._locked(found.head):
                    await self._discard(account, container, row.name)
            ask = ListingAsk(limit=ENTRIES_AT_ONCE, marker=rows[-1].name)

    async def _is_kept(self, account: str, container: str) -> bool:
        """Whether these are parts of versions that may be locked: only what none of these needs is removed."""
        owner = owner_of(container)
        if container != parts_container(owner):
            return False
        known = await self._objects.directory.known(account, owner)
        if known is None or LOCK not in known.metadata:
            return False
        await self._objects.uploads.sweep_all(account, owner)
        return True

    def _locked(self, head: Head) -> bool:
        return is_locked(head.shown_headers, self._objects.cluster.world.clock.now_s())

    async def _discard(self, account: str, container: str, name: str) -> None:
        try:
            await self._objects.shelf.discard(account, container, name)
        except NotFound:
            return

    async def _deleted(self, kind: IndexKind) -> list[IndexHead]:
        heads = self._objects.directory.heads_here(kind)
        return [head async for head in heads if not head.exists and head.gone and head.rows]

"""Copies what is about to be overwritten or deleted to the container that was named for it, and brings it back."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from apus.kernel.errors import Invalid
from apus.services.object.engine import Found, Intent
from apus.services.object.logic.history import DELETED_TYPE, Archive, archive_name, archive_prefix
from apus.services.object.model import ListingAsk, Row
from apus.services.object.shelf import Shelf
from apus.services.object.versions import Deleted, nothing


class History:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def put(self, archive: Archive, intent: Intent) -> None:
        """Before the object is written: keep what it replaces.  Raise Invalid when there is no place for it."""
        current = await self._shelf.find(intent.account, intent.container, intent.name, newest=True)
        if current is not None:
            await self._keep(archive, current)

    async def delete(self, archive: Archive, account: str, container: str, name: str) -> Deleted:
        """Raise NotFound when there is nothing to delete, and nothing to bring back."""
        current = await self._shelf.find(account, container, name, newest=True)
        if archive.mode == "history":
            await self._require(account, archive)
            if current is not None:
                await self._keep(archive, current)
            entry = archive_name(name, self._shelf.cluster.stamp())
            await self._shelf.put(Intent(account, archive.container, entry, DELETED_TYPE, {}, 0), nothing())
        elif await self._restore(archive, account, container, name, gone=current is None):
            return Deleted(self._shelf.cluster.stamp())
        removed = await self._shelf.discard(account, container, name)
        return Deleted(removed.tombstone.stamp, existed=current is not None)

    async def _keep(self, archive: Archive, current: Found) -> None:
        head = current.head
        await self._require(head.account, archive)
        await self._copy(current, archive.container, archive_name(head.name, head.changed))

    async def _restore(self, archive: Archive, account: str, container: str, name: str, *, gone: bool) -> bool:
        """Bring the newest copy back; false when there is none.  An entry that says that the object was deleted is
        in the way where there is something to delete; where it is gone, one such entry goes with each delete."""
        passed = False
        async for entry in self._entries(account, archive.container, name):
            kept = await self._shelf.find(account, archive.container, entry.name, newest=True)
            if kept is None:
                continue
            if kept.head.shown_type == DELETED_TYPE:
                if not gone or passed:
                    return passed
                passed = True
            else:
                await self._copy(kept, container, name)
            await self._shelf.discard(account, archive.container, entry.name)
            if kept.head.shown_type != DELETED_TYPE:
                return True
        return passed

    async def _copy(self, found: Found, container: str, name: str) -> None:
        head = found.head
        intent = Intent(
            head.account, container, name, head.shown_type, dict(head.shown_headers), head.size_bytes, head.etag
        )
        await self._shelf.put(intent, self._shelf.engine.read(found, 0, head.size_bytes))

    async def _entries(self, account: str, container: str, name: str) -> AsyncIterator[Row]:
        ask = ListingAsk(limit=100, prefix=archive_prefix(name), reverse=True)
        while rows := await self._shelf.directory.listing(account, container, ask):
            for row in rows:
                assert isinstance(row, Row)
                yield row
            ask = msgspec.structs.replace(ask, marker=rows[-1].name)

    async def _require(self, account: str, archive: Archive) -> None:
        if await self._shelf.directory.known(account, archive.container) is None:
            shown = f"The versions container {archive.container!r} does not exist."
            raise Invalid("object.no_archive", shown, field="X-Versions-Location")

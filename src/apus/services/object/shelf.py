"""An object and its row, always together: what versions, links and segments are built from.

An object is first made durable, then listed: its row goes to the container at once or, durably, later.  An answer
means both are safe.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final

from apus.services.object.cluster import Cluster
from apus.services.object.directory import Directory, object_row
from apus.services.object.engine import Engine, Found, Intent
from apus.services.object.model import Change, Head, Row

EXPIRING: Final = ".expiring"
"""The hidden account whose containers (one an hour) list what is to be deleted when."""


class Shelf:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.engine, self.directory = cluster, Engine(cluster), Directory(cluster)

    async def find(self, account: str, container: str, name: str, *, newest: bool = False) -> Found | None:
        found = await self.engine.find(account, container, name, newest=newest)
        return None if found is None or self.expired(found.head) else found

    def expired(self, head: Head) -> bool:
        return head.delete_at_s is not None and head.delete_at_s <= self.cluster.world.clock.now_s()

    async def put(self, intent: Intent, data: AsyncIterator[bytes]) -> Head:
        head = await self.engine.put(intent, data)
        await self._list(head)
        return head

    async def describe(
        self, account: str, container: str, name: str, content_type: str | None, headers: Mapping[str, str]
    ) -> Head:
        head = await self.engine.describe(account, container, name, content_type, headers)
        await self._list(head)
        return head

    async def discard(
        self, account: str, container: str, name: str, *, if_stamp: str | None = None, stamp: str = ""
    ) -> Head:
        """Leave a tombstone.  Raise NotFound when there is nothing, or no longer that version, to delete."""
        tombstone = await self.engine.delete(account, container, name, if_stamp=if_stamp, stamp=stamp)
        await self._list(tombstone)
        return tombstone

    async def _list(self, head: Head) -> None:
        await self.directory.offer(Change(head.account, head.container, (object_row(head),)))
        if head.delete_at_s is not None:
            await self.directory.offer(expiry_change(head, self.cluster.stamp()))


def expiry_change(head: Head, stamp: str, *, gone: bool = False) -> Change:
    """An entry of the expirer's own index: `WHEN/ACCOUNT/CONTAINER/OBJECT` in the container of that hour."""
    at_s = head.delete_at_s
    assert at_s is not None
    name = f"{at_s:010d}/{head.account}/{head.container}/{head.name}"
    return Change(EXPIRING, expiry_container(at_s), (Row(name, stamp, gone=gone),), made=stamp)


def expiry_container(at_s: int) -> str:
    return f"{at_s - at_s % 3600:010d}"

"""An object and its row, always together: what versions, links and segments are built from.

An object is first made durable, then listed (`lister.py`).  An answer means that it stays and that listings show it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from apus.kernel.buffers import Chunk
from apus.services.object.cluster import Cluster
from apus.services.object.directory import Directory
from apus.services.object.engine import AT_HAND_BYTES, Engine, Found, Intent, Removed
from apus.services.object.lister import Lister
from apus.services.object.model import Head
from apus.services.object.shards import SHARD_ROWS


class Shelf:
    def __init__(self, cluster: Cluster, shard_rows: int = SHARD_ROWS) -> None:
        self.cluster, self.directory = cluster, Directory(cluster, shard_rows)
        self.engine = Engine(cluster, self.directory.policy_of)
        self.lister = Lister(cluster, self.directory)

    async def find(
        self, account: str, container: str, name: str, *, newest: bool = False, upto_bytes: int = AT_HAND_BYTES
    ) -> Found | None:
        found = await self.engine.find(account, container, name, newest=newest, upto_bytes=upto_bytes)
        return None if found is None or self.expired(found.head) else found

    def expired(self, head: Head) -> bool:
        return head.delete_at_s is not None and head.delete_at_s <= self.cluster.world.clock.now_s()

    async def put(self, intent: Intent, data: AsyncIterator[Chunk]) -> Head:
        head = await self.engine.put(intent, data)
        await self.lister.follow(head)
        return head

    async def describe(
        self, account: str, container: str, name: str, content_type: str | None, headers: Mapping[str, str]
    ) -> Head:
        head = await self.engine.describe(account, container, name, content_type, headers)
        await self.lister.follow(head)
        return head

    async def discard(
        self, account: str, container: str, name: str, *, if_stamp: str | None = None, stamp: str = ""
    ) -> Removed:
        """Leave a tombstone.  Raise NotFound when there is nothing, or no longer that version, to delete."""
        removed = await self.engine.delete(account, container, name, if_stamp=if_stamp, stamp=stamp)
        await self.lister.follow(removed.tombstone)
        return removed

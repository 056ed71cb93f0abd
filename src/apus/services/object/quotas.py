"""Keeps accounts and containers below their quotas, whichever door an object comes through.

Totals are those of the indexes, which follow a moment behind: writes at the same time may together pass a quota a bit.
What is there already counts until it is replaced, as in Swift.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from apus.kernel.buffers import Chunk
from apus.kernel.errors import OverQuota
from apus.services.object.directory import Directory
from apus.services.object.engine import Intent
from apus.services.object.logic.hidden import owner_of
from apus.services.object.logic.quota import (
    ACCOUNT_BYTES,
    ACCOUNT_COUNT,
    CONTAINER_BYTES,
    CONTAINER_COUNT,
    limits,
    room_bytes,
)
from apus.services.object.logic.uploads import USED, parts_container
from apus.services.object.logic.versions import state_of
from apus.services.object.model import IndexHead
from apus.services.object.versions import versions_container


class Quotas:
    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def admit(self, intent: Intent, data: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
        """The body, which raises OverQuota when it grows past what is left; raise it at once when it cannot fit."""
        room = await self._room(intent.account, owner_of(intent.container))
        if room is None:
            return data
        if intent.size_bytes is not None and intent.size_bytes > room:
            raise _over()
        return _bounded(data, room)

    async def _room(self, account: str, container: str) -> int | None:
        rooms: list[int | None] = []
        known = await self._directory.known(account, "")
        account_bytes, count = limits(known.metadata if known else {}, ACCOUNT_BYTES, ACCOUNT_COUNT)
        if account_bytes is not None or count is not None:
            await self._directory.report(account)
            head = await self._directory.head(account)
            if head is not None and count is not None and head.objects >= count:
                raise _over()
            rooms.append(room_bytes(head, account_bytes))
        known = await self._directory.known(account, container)
        container_bytes, count = limits(known.metadata if known else {}, CONTAINER_BYTES, CONTAINER_COUNT)
        if container_bytes is not None or count is not None:
            head = await self._directory.head(account, container)
            if head is not None and count is not None and head.rows >= count:
                raise _over()
            whole = await with_hidden(self._directory, head) if head is not None else None
            rooms.append(room_bytes(whole, container_bytes))
        return min((room for room in rooms if room is not None), default=None)


async def with_hidden(directory: Directory, head: IndexHead) -> IndexHead:
    """A container with the bytes of its versions and of the parts of uploads."""
    hidden = [versions_container(head.container)] if state_of(head.metadata) else []
    if USED in head.metadata:
        hidden.append(parts_container(head.container))
    for container in hidden:
        kept = await directory.head(head.account, container)
        if kept is not None and kept.exists:
            head = msgspec.structs.replace(head, size_bytes=head.size_bytes + kept.size_bytes)
    return head


async def _bounded(data: AsyncIterator[Chunk], room: int) -> AsyncIterator[Chunk]:
    size = 0
    async for chunk in data:
        size += len(chunk)
        if size > room:
            raise _over()
        yield chunk


def _over() -> OverQuota:
    return OverQuota("object.quota", "Upload exceeds quota.")

"""Keeps accounts, their storage policies and containers below their quotas, whichever door an object comes through.

Totals are those of the indexes, which follow a moment behind: writes at the same time may together pass a quota a bit.
What is there already counts until it is replaced, as in Swift.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

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
    POLICY_BYTES,
    POLICY_COUNT,
    limits,
)
from apus.services.object.logic.uploads import USED, parts_container
from apus.services.object.logic.versions import state_of
from apus.services.object.model import IndexHead
from apus.services.object.policy_totals import policy_totals
from apus.services.object.versions import versions_container


class Use(NamedTuple):
    objects: int
    size_bytes: int


class Quotas:
    def __init__(self, directory: Directory, policies: int) -> None:
        self._directory, self._policies = directory, policies

    async def admit(self, intent: Intent, data: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
        """The body, which raises OverQuota when it grows past what is left; raise it at once when it cannot fit."""
        room = await self._room(intent.account, owner_of(intent.container))
        if room is None:
            return data
        if intent.size_bytes is not None and intent.size_bytes > room:
            raise _over()
        return _bounded(data, room)

    async def _room(self, account: str, container: str) -> int | None:
        owner = await self._directory.known(account, "")
        box = await self._directory.known(account, container)
        of_account, of_container = owner.metadata if owner else {}, box.metadata if box else {}
        number = box.policy if box else 0
        quotas: tuple[tuple[tuple[int | None, int | None], Callable[[], Awaitable[Use]]], ...] = (
            (limits(of_account, ACCOUNT_BYTES, ACCOUNT_COUNT), lambda: self._of_account(account)),
            (
                limits(of_account, f"{POLICY_BYTES}{number}", f"{POLICY_COUNT}{number}"),
                lambda: self._of_policy(account, number),
            ),
            (limits(of_container, CONTAINER_BYTES, CONTAINER_COUNT), lambda: self._of_container(account, container)),
        )
        rooms = list[int]()
        for (size_bytes, count), use in quotas:
            if size_bytes is None and count is None:
                continue
            used = await use()
            if count is not None and used.objects >= count:
                raise _over()
            if size_bytes is not None:
                rooms.append(max(0, size_bytes - used.size_bytes))
        return min(rooms, default=None)

    async def _of_account(self, account: str) -> Use:
        await self._directory.report(account)
        head = await self._directory.head(account)
        return Use(head.objects, head.size_bytes) if head is not None else Use(0, 0)

    async def _of_policy(self, account: str, number: int) -> Use:
        await self._directory.report(account)
        head = await self._directory.head(account)
        total = (await policy_totals(self._directory, account, head, self._policies))[number]
        return Use(total.objects, total.size_bytes)

    async def _of_container(self, account: str, container: str) -> Use:
        head = await self._directory.head(account, container)
        return Use(head.rows, (await with_hidden(self._directory, head)).size_bytes) if head is not None else Use(0, 0)


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

"""Uploads in parts: begun, filled part by part, and finished as one object that is a list of them.

Each step is durable before its answer.  What nobody needs any more (parts of an upload that was given up, of an object
that was deleted or overwritten, parts that were sent twice) is found by `sweep`, which looks at the objects themselves.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from apus.kernel.buffers import Chunk
from apus.kernel.errors import NotFound
from apus.services.object.engine import Found, Intent
from apus.services.object.logic.hidden import NUL
from apus.services.object.logic.manifest import Segment
from apus.services.object.logic.notices import COMPLETED, PUT
from apus.services.object.logic.uploads import (
    BEHIND,
    STAMPS,
    UPLOAD,
    USED,
    Part,
    etag_of_parts,
    is_part,
    is_upload_id,
    key_and_id,
    newest_parts,
    part_name,
    part_prefix,
    parts_container,
    segments_of,
    upload_name,
    uploads_container,
)
from apus.services.object.logic.versions import entry_name
from apus.services.object.model import Head, IndexHead, ListingAsk, Row
from apus.services.object.shelf import Shelf
from apus.services.object.versions import nothing, versions_container

PAGE: Final = 1_000
DOUBTS_MAX: Final = 100_000
"""Names whose parts may be left over; past it, the scan finds them."""


class Store(Protocol):
    async def put(
        self, intent: Intent, data: AsyncIterator[Chunk], *, sealed: bool = False, customer_key: bytes | None = None
    ) -> Head: ...

    async def put_manifest(
        self,
        intent: Intent,
        segments: Sequence[Segment],
        *,
        etag: str | None = None,
        sealed: bool = False,
        cause: str = PUT,
    ) -> Head: ...

    async def segments(self, found: Found) -> tuple[Segment, ...]: ...

    async def container(self, account: str, container: str) -> IndexHead: ...

    async def make_container(self, account: str, container: str, metadata: Mapping[str, str]) -> bool: ...

    async def describe_container(self, account: str, container: str, metadata: Mapping[str, str]) -> None: ...


class Uploads:
    def __init__(self, store: Store, shelf: Shelf) -> None:
        self._store, self._shelf = store, shelf
        self.doubts: dict[tuple[str, str, str], None] = {}
        """(account, container, key) of what went, and may have left parts."""

    async def begin(self, intent: Intent) -> str:
        """Its id.  What the intent says is kept with it, for the object that it becomes."""
        account, container = intent.account, intent.container
        if USED not in (await self._store.container(account, container)).metadata:
            for kept in (uploads_container(container), parts_container(container)):
                await self._store.make_container(account, kept, {})
            await self._store.describe_container(account, container, {USED: "1"})
        cluster = self._shelf.cluster
        upload_id = f"{cluster.stamp()}-{cluster.world.dice.getrandbits(64):016x}"
        name = upload_name(intent.name, upload_id)
        await self._shelf.put(dataclasses.replace(intent, container=uploads_container(container), name=name), nothing())
        return upload_id

    async def find(self, account: str, container: str, key: str, upload_id: str) -> Head:
        """One that was begun and not finished.  Raise NotFound."""
        found = await self._marker(account, container, key, upload_id) if is_upload_id(upload_id) else None
        if found is None:
            raise NotFound("object.upload", "There is no such upload.")
        return found.head

    async def put_part(
        self,
        upload: Head,
        number: int,
        intent: Intent,
        data: AsyncIterator[Chunk],
        *,
        sealed: bool = False,
        customer_key: bytes | None = None,
    ) -> Head:
        """Keep a part; one that was sent before stays until the upload ends.  Raise NotFound if it ended meanwhile."""
        account, container = intent.account, intent.container
        key, upload_id = key_and_id(upload.name)
        name = part_name(key, upload_id, number, self._shelf.cluster.stamp())
        named = dataclasses.replace(intent, container=parts_container(container), name=name)
        head = await self._store.put(named, data, sealed=sealed, customer_key=customer_key)
        if await self._marker(account, container, key, upload_id) is None:
            self.doubt(account, container, key)
            raise NotFound("object.upload", "There is no such upload.")
        return head

    async def parts(self, upload: Head, container: str) -> dict[int, Part]:
        """Those that are there, by number."""
        await self._shelf.directory.heal(upload.account, parts_container(container))  # all that were acknowledged count
        prefix = part_prefix(*key_and_id(upload.name))
        return newest_parts([row async for row in self._rows(upload.account, parts_container(container), prefix)])

    async def finish(self, upload: Head, intent: Intent, parts: Sequence[Part], *, sealed: bool = False) -> Head:
        """The object is these parts from now on, and the upload is over."""
        account, container = intent.account, intent.container
        upload_id = key_and_id(upload.name)[1]
        stamp = self._shelf.cluster.stamp()
        await self._record(account, container, upload.name, stamp)
        whole = dataclasses.replace(intent, headers={**intent.headers, UPLOAD: upload_id}, stamp=stamp)
        segments = segments_of(account, container, parts)
        head = await self._store.put_manifest(
            whole, segments, etag=etag_of_parts([part.etag for part in parts]), sealed=sealed, cause=COMPLETED
        )
        await self.give_up(upload, container)
        return head

    async def give_up(self, upload: Head, container: str) -> None:
        """The upload is over; what is left of it is removed by and by."""
        await self._discard(upload.account, uploads_container(container), upload.name)
        self.doubt(upload.account, container, key_and_id(upload.name)[0])

    async def give_up_all(self, account: str, container: str) -> None:
        """The container goes."""
        async for row in self._rows(account, uploads_container(container), ""):
            upload = Head(account, uploads_container(container), row.name, row.stamp)
            await self.give_up(upload, container)

    async def page(self, account: str, container: str, ask: ListingAsk, after: tuple[str, str]) -> list[Row]:
        """Uploads by key, and those of one key by when they began: behind (key, upload id), or behind the key."""
        key, upload_id = after
        marker = upload_name(key, upload_id) if upload_id else key + BEHIND if key else ""
        asked = msgspec.structs.replace(ask, marker=max(marker, ask.marker), delimiter="")
        rows = await self._shelf.directory.listing(account, uploads_container(container), asked)
        return [row for row in rows if isinstance(row, Row)]

    async def marker(self, account: str, container: str, row: Row) -> Head | None:
        """What is said of an upload that a page lists."""
        found = await self._shelf.find(account, uploads_container(container), row.name)
        return found.head if found is not None else None

    # What is left over.

    def went(self, account: str, container: str, key: str, metadata: Mapping[str, str]) -> None:
        """An object was deleted or overwritten, in a container of this metadata."""
        if USED in metadata:
            self.doubt(account, container, key)

    def doubt(self, account: str, container: str, key: str) -> None:
        if len(self.doubts) < DOUBTS_MAX:
            self.doubts[account, container, key] = None

    async def sweep(self, account: str, container: str, key: str) -> int:
        """Remove the parts of this key that nobody needs; returns how many."""
        kept = parts_container(container)
        uploads: dict[str, list[Row]] = {}
        async for row in self._rows(account, kept, key + NUL):
            uploads.setdefault(key_and_id(row.name)[1], []).append(row)
        removed = 0
        for upload_id, rows in uploads.items():
            if await self._marker(account, container, key, upload_id) is not None:
                continue  # still being filled
            needed = await self._needed(account, container, key, upload_id)
            # the record is the first of its rows, and goes last: it tells whose the others are
            for row in reversed(rows):
                if row.name in needed or (needed and not is_part(row)):
                    continue
                await self._discard(account, kept, row.name)
                removed += is_part(row)
        return removed

    async def sweep_all(self, account: str, container: str) -> int:
        removed, after = 0, ""
        ask = ListingAsk(limit=1)
        while rows := await self._shelf.directory.listing(account, parts_container(container), ask):
            after = key_and_id(rows[0].name)[0]
            removed += await self.sweep(account, container, after)
            ask = ListingAsk(limit=1, marker=after + BEHIND)
        return removed

    async def _needed(self, account: str, container: str, key: str, upload_id: str) -> set[str]:
        """Names of the parts that the object, or a version of it, is made of.

        The object is looked at before its versions: what is current may become one at any time, but never the other
        way round.
        """
        record = await self._shelf.find(account, parts_container(container), upload_name(key, upload_id), newest=True)
        stamps = record.head.shown_headers.get(STAMPS, "").split() if record is not None else []
        places = [(container, key), *((versions_container(container), entry_name(key, stamp)) for stamp in stamps)]
        needed: set[str] = set()
        for where, name in places:
            found = await self._shelf.find(account, where, name, newest=True)
            if found is not None and found.head.headers.get(UPLOAD) == upload_id:
                needed |= {segment.name for segment in await self._store.segments(found)}
        return needed

    async def _record(self, account: str, container: str, name: str, stamp: str) -> None:
        """Durable before the object is: no part of it is ever taken for left over."""
        kept = parts_container(container)
        before = await self._shelf.find(account, kept, name, newest=True)
        stamps = before.head.shown_headers.get(STAMPS, "").split() if before is not None else []
        headers = {STAMPS: " ".join([*stamps, stamp])}
        await self._shelf.put(Intent(account, kept, name, "text/plain", headers, 0), nothing())

    async def _marker(self, account: str, container: str, key: str, upload_id: str) -> Found | None:
        return await self._shelf.find(account, uploads_container(container), upload_name(key, upload_id), newest=True)

    async def _discard(self, account: str, container: str, name: str) -> None:
        try:
            await self._shelf.discard(account, container, name)
        except NotFound:
            return

    async def _rows(self, account: str, container: str, prefix: str) -> AsyncIterator[Row]:
        ask = ListingAsk(limit=PAGE, prefix=prefix)
        while rows := await self._shelf.directory.listing(account, container, ask):
            for row in rows:
                assert isinstance(row, Row)
                yield row
            ask = msgspec.structs.replace(ask, marker=rows[-1].name)

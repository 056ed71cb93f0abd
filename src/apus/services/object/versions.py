"""Keeps every version of the objects of a container, and says which one is current.

A version is durable before the link to it is written, and both have the stamp of the version: whichever of two
writers began last is current, and a link never leads to what is not there yet.
"""

from __future__ import annotations

import dataclasses
from collections import ChainMap
from collections.abc import AsyncIterator, Iterator, Mapping, MutableMapping
from typing import Final, cast

import msgspec

from apus.kernel.buffers import Chunk
from apus.kernel.errors import NotFound
from apus.services.object.engine import Found, Intent
from apus.services.object.logic.hidden import NUL, hidden_container
from apus.services.object.logic.history import DELETED_TYPE
from apus.services.object.logic.listed import LISTED, lasting_parameters, listed, listed_text, parameters_text
from apus.services.object.logic.locks import check_unlocked
from apus.services.object.logic.versions import (
    LINK,
    MARKER,
    NULL,
    NULL_ENTRY,
    VERSION,
    check_id,
    entry_name,
    is_marker,
    name_and_id,
    version_of,
)
from apus.services.object.model import Head, ListingAsk, Row
from apus.services.object.shelf import Shelf

PAGE: Final = 1_000
EXPIRY: Final = "x-delete-at"


@dataclasses.dataclass(frozen=True, slots=True)
class Deleted:
    """What a delete did."""

    stamp: str
    version_id: str = ""
    """The version that is gone or, of a delete that names none, its marker; empty without versioning."""
    is_marker: bool = False
    """The version is a delete marker: one that was made, or one that was removed."""
    existed: bool = True
    """What has expired does not."""


def versions_container(container: str) -> str:
    return hidden_container("versions", container)


class Versions:
    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    async def put(self, intent: Intent, data: AsyncIterator[Chunk]) -> Head:
        """A new version, which becomes current."""
        await self._keep_plain(intent.account, intent.container, intent.name)
        version_id = intent.stamp or self._shelf.cluster.stamp()
        if intent.stamp:  # what has this time already is the same, and no version is ever written over
            there = await self._find_entry(intent.account, intent.container, intent.name, version_id)
            if there is not None:
                return there.head
        head = await self._entry(intent, version_id, intent.headers, data)
        expiry = _expiry(intent.headers)
        await self._point(intent.container, intent.name, head, expiry, stamp=version_id)
        return _shown(head, intent.container, intent.name)

    async def put_plain(self, intent: Intent, data: AsyncIterator[Chunk]) -> Head:
        """Versioning is suspended: the object itself is current, and any version that was `null` is gone."""
        head = await self._shelf.put(intent, data)
        await self._drop_null(intent.account, intent.container, intent.name)
        return head

    async def follow(self, link: Found) -> Found | None:
        """The version that a link in the client's container leads to."""
        head = link.head
        found = await self._find_entry(head.account, head.container, head.name, head.headers[LINK])
        expiry = _expiry(head.shown_headers)
        if found is None or not expiry:
            return found
        return msgspec.structs.replace(found, head=_with(found.head, expiry))

    async def find(self, account: str, container: str, name: str, version_id: str) -> Found | None:
        """This version, a delete marker too."""
        if check_id(version_id) != NULL:
            return await self._find_entry(account, container, name, version_id)
        found = await self._shelf.find(account, container, name, newest=True)
        if found is not None and LINK not in found.head.headers:
            return found
        entry_id = await self.entry_of_null(account, container, name)
        return await self._find_entry(account, container, name, entry_id) if entry_id else None

    async def newest(self, account: str, container: str, name: str) -> Found | None:
        """The newest version, a delete marker too: where nothing is current, why."""
        async for entry in self._entries(account, container, name):
            found = await self._find_entry(account, container, name, name_and_id(entry.name)[1])
            if found is not None:  # else the listing is behind
                return found
        return None

    async def delete(
        self, account: str, container: str, name: str, *, suspended: bool, if_stamp: str | None = None
    ) -> Deleted:
        """Mark it as deleted; its versions stay.  `if_stamp`: raise NotFound unless this is current, the id of a
        version or the time of an object's last change."""
        current = await self._shelf.find(account, container, name, newest=True)
        if if_stamp is not None:
            head = current.head if current is not None else None
            if head is None or if_stamp != head.headers.get(LINK, head.changed):
                raise NotFound("object.absent", "The resource could not be found.")
        if not suspended:
            await self._keep_plain(account, container, name, current)
        else:
            await self._drop_null(account, container, name)
        marker_id = self._shelf.cluster.stamp()
        headers = {MARKER: "delete"} | ({NULL_ENTRY: "1"} if suspended else {})
        intent = Intent(account, container, name, DELETED_TYPE, headers, 0)
        head = await self._entry(intent, marker_id, headers, nothing())
        await self._unlink(account, container, name, stamp=marker_id)
        return Deleted(head.stamp, version_of(head), is_marker=True, existed=current is not None)

    async def delete_version(
        self, account: str, container: str, name: str, version_id: str, *, restore: bool = False, bypass: bool = False
    ) -> Deleted:
        """Remove this version for good; raise NotFound, Forbidden for one that is locked.  What it was current of is
        then absent, unless `restore` makes the newest of the others current."""
        found = await self.find(account, container, name, version_id)
        if found is None:
            raise NotFound("object.version", "The resource could not be found.")
        check_unlocked(found.head.shown_headers, self._shelf.cluster.world.clock.now_s(), bypass=bypass)
        entry_id = found.head.headers.get(VERSION)
        if entry_id is not None:
            await self._shelf.discard(account, versions_container(container), entry_name(name, entry_id))
        current = await self._shelf.engine.find(account, container, name, newest=True)
        stamp = found.head.stamp
        if current is not None and current.head.headers.get(LINK) == entry_id:
            tombstone = await self._unlink(account, container, name, if_stamp=current.head.changed)
            stamp, current = tombstone.stamp if tombstone else stamp, None
        if restore and current is None:
            await self._restore(account, container, name)
        return Deleted(stamp, version_id, is_marker=is_marker(found.head))

    async def _restore(self, account: str, container: str, name: str) -> None:
        """Make the newest version current.  Whoever deletes it meanwhile sees the link, or is seen here."""
        while (newest := await self.newest(account, container, name)) is not None and not is_marker(newest.head):
            entry_id = newest.head.headers[VERSION]
            await self._keep_plain(account, container, name)
            await self._point(container, name, newest.head)
            if await self._find_entry(account, container, name, entry_id, newest=True) is not None:
                return
            link = await self._shelf.find(account, container, name, newest=True)
            if link is None or link.head.headers.get(LINK) != entry_id:
                return  # somebody else made another one current
            await self._unlink(account, container, name, if_stamp=link.head.changed)

    async def promote(self, account: str, container: str, name: str, version_id: str) -> Head:
        """Make this version current.  Raise NotFound."""
        found = await self.find(account, container, name, version_id)
        if found is None or is_marker(found.head):
            raise NotFound("object.version", "The resource could not be found.")
        if VERSION not in found.head.headers:
            return found.head  # the object itself, and no link: it is current
        await self._keep_plain(account, container, name)
        entry = msgspec.structs.replace(found.head, account=account)
        await self._point(container, name, entry)
        return found.head

    async def describe(
        self,
        place: tuple[str, str, str],
        current: Found | None,
        entry_id: str | None,
        content_type: str | None,
        headers: Mapping[str, str],
    ) -> Head:
        """Replace the metadata of a version, by default of the current one; the link's row shows the same type."""
        account, container, name = place
        linked = current.head.headers.get(LINK) if current is not None else None
        entry_id = check_id(entry_id or linked or "")
        described = await self._shelf.describe(
            account, versions_container(container), entry_name(name, entry_id), content_type, _Lasting(headers)
        )
        if linked == entry_id:
            await self._shelf.describe(account, container, name, content_type, _expiry(headers))
        return _shown(described, container, name)

    async def entry_of_null(self, account: str, container: str, name: str) -> str | None:
        """The entry that keeps the version `null`; None when the object itself is it, or there is none."""
        entry = await self._null_entry(account, container, name)
        return name_and_id(entry.name)[1] if entry else None

    async def _entry(
        self, intent: Intent, version_id: str, headers: Mapping[str, str], data: AsyncIterator[Chunk], stamp: str = ""
    ) -> Head:
        """Write a version."""
        rows: dict[str, str] = {}
        if NULL_ENTRY in headers:
            rows["null"] = "1"
        if MARKER in headers:
            rows["marker"] = "delete"
        said = [text for text in (headers.get(LISTED), parameters_text(**rows)) if text]
        ours = {VERSION: version_id, **({LISTED: "; ".join(said)} if said else {})}
        lasting = cast(MutableMapping[str, str], _Lasting(headers))
        whole = ChainMap(ours, lasting)  # a view: they may change until the body ends
        entry = dataclasses.replace(
            intent,
            container=versions_container(intent.container),
            name=entry_name(intent.name, version_id),
            headers=whole,
            stamp=stamp or version_id,
        )
        return await self._shelf.put(entry, data)

    async def _point(
        self, container: str, name: str, entry: Head, expiry: Mapping[str, str] | None = None, *, stamp: str = ""
    ) -> None:
        entry_id = entry.headers[VERSION]
        parameters = {"etag": entry.shown_etag, "bytes": str(entry.shown_size_bytes), "version": entry_id}
        shown = listed(Row("", "", etag=listed_text(entry)))
        if shown.manifest_etag:
            parameters |= {"etag": shown.etag, "slo_etag": shown.manifest_etag}
        parameters |= lasting_parameters(shown)
        headers = {LINK: entry_id, LISTED: parameters_text(**parameters), **(expiry or {})}
        intent = Intent(entry.account, container, name, entry.shown_type, headers, 0, stamp=stamp)
        await self._shelf.put(intent, nothing())

    async def _keep_plain(self, account: str, container: str, name: str, current: Found | None = None) -> None:
        """What was written without versioning becomes the version `null`, with its own time."""
        current = current or await self._shelf.find(account, container, name, newest=True)
        if current is None or LINK in current.head.headers:
            return
        head = current.head
        headers = {**head.shown_headers, NULL_ENTRY: "1"}
        intent = Intent(account, container, name, head.shown_type, headers, head.size_bytes, head.etag)
        data = self._shelf.engine.read(current, 0, head.size_bytes)
        await self._entry(intent, head.stamp, headers, data, stamp=head.stamp)

    async def _drop_null(self, account: str, container: str, name: str) -> None:
        entry = await self._null_entry(account, container, name)
        if entry is not None:
            try:
                await self._shelf.discard(account, versions_container(container), entry.name)
            except NotFound:
                return

    async def _null_entry(self, account: str, container: str, name: str) -> Row | None:
        async for entry in self._entries(account, container, name):
            if listed(entry).null:
                return entry
        return None

    async def _entries(self, account: str, container: str, name: str) -> AsyncIterator[Row]:
        ask = ListingAsk(limit=PAGE, prefix=name + NUL)
        while rows := await self._shelf.directory.listing(account, versions_container(container), ask):
            for row in rows:
                assert isinstance(row, Row)
                yield row
            ask = msgspec.structs.replace(ask, marker=rows[-1].name)

    async def _find_entry(
        self, account: str, container: str, name: str, entry_id: str, *, newest: bool = False
    ) -> Found | None:
        kept = versions_container(container)
        found = await self._shelf.find(account, kept, entry_name(name, entry_id), newest=newest)
        return msgspec.structs.replace(found, head=_shown(found.head, container, name)) if found else None

    async def _unlink(
        self, account: str, container: str, name: str, *, if_stamp: str | None = None, stamp: str = ""
    ) -> Head | None:
        try:
            return (await self._shelf.discard(account, container, name, if_stamp=if_stamp, stamp=stamp)).tombstone
        except NotFound:
            return None


def _shown(head: Head, container: str, name: str) -> Head:
    """A version under the names that clients know."""
    return msgspec.structs.replace(head, container=container, name=name)


def _with(head: Head, headers: Mapping[str, str]) -> Head:
    """The same, shown with these headers too."""
    shown = {**head.shown_headers, **headers}
    if head.meta is None:
        return msgspec.structs.replace(head, headers=shown)
    return msgspec.structs.replace(head, meta=msgspec.structs.replace(head.meta, headers=shown))


class _Lasting(Mapping[str, str]):
    """Headers without `X-Delete-At`: what expires is the link that makes a version current, and the version stays."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = headers

    def __getitem__(self, name: str) -> str:
        if name == EXPIRY:
            raise KeyError(name)
        return self._headers[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._headers if name != EXPIRY)

    def __len__(self) -> int:
        return len(self._headers) - (EXPIRY in self._headers)


def _expiry(headers: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key == EXPIRY}


async def nothing() -> AsyncIterator[Chunk]:
    for chunk in tuple[bytes, ...]():
        yield chunk

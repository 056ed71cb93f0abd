"""Accounts, containers and objects together: what every door (Swift, S3, the image service) goes through.

An object is first made durable, then listed: its row goes to the container at once or, durably, later.  An answer
means both are safe.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import msgspec

from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict, Forbidden, NotFound, Unauthenticated
from apus.services.object.cluster import Cluster
from apus.services.object.contract import ObjectInfo
from apus.services.object.directory import Directory, container_row, object_row
from apus.services.object.engine import Engine, Found, Intent
from apus.services.object.logic.access import acl_allows, is_reseller, owns
from apus.services.object.logic.hidden import only_hidden, only_shown
from apus.services.object.logic.manifest import Segment
from apus.services.object.logic.merge import seconds_of
from apus.services.object.model import Change, Head, IndexHead, ListingAsk, Row, Subdir
from apus.services.object.opening import MayRead, Opened, Opening
from apus.services.object.segmented import Segmented

EXPIRING: Final = ".expiring"
"""The hidden account whose containers (one an hour) list what is to be deleted when."""

LISTING_MAX: Final = 10_000

METADATA_PREFIX: Final = "x-object-meta-"


class Objects:
    """Implements `contract.ObjectService`, and the rest for the doors."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.engine, self.directory = Engine(cluster), Directory(cluster)
        self.opening, self.segmented = Opening(self), Segmented(self)

    # For other services.

    async def put_object(
        self,
        account: str,
        container: str,
        name: str,
        data: AsyncIterator[bytes],
        metadata: Mapping[str, str],
        size_bytes: int | None = None,
    ) -> ObjectInfo:
        if await self.directory.known(account, container) is None:
            await self.make_container(account, container, {})
        headers = {METADATA_PREFIX + key.lower(): value for key, value in metadata.items()}
        intent = Intent(account, container, name, "application/octet-stream", headers, size_bytes)
        return _info(await self.put(intent, data))

    async def head_object(self, account: str, container: str, name: str) -> ObjectInfo | None:
        found = await self.find(account, container, name)
        return _info(found.head) if found else None

    async def get_object(
        self, account: str, container: str, name: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        found = await self.find(account, container, name)
        if found is None:
            raise NotFound("object.absent", f"There is no object {container}/{name}.")
        opened = await self.open_parts(found)
        size = opened.size_bytes
        offset = min(max(0, offset), size)
        wanted = size - offset if length is None else max(0, min(length, size - offset))
        async for chunk in opened.stream(offset, wanted):
            yield chunk

    async def delete_object(self, account: str, container: str, name: str) -> None:
        try:
            await self.delete(account, container, name)
        except NotFound:
            return

    # Objects.

    async def find(self, account: str, container: str, name: str, *, newest: bool = False) -> Found | None:
        found = await self.engine.find(account, container, name, newest=newest)
        return None if found is None or self.expired(found.head) else found

    def expired(self, head: Head) -> bool:
        return head.delete_at_s is not None and head.delete_at_s <= self.cluster.world.clock.now_s()

    async def put(self, intent: Intent, data: AsyncIterator[bytes]) -> Head:
        """Keep an object in a container that exists."""
        head = await self.engine.put(intent, data)
        await self._list(head)
        return head

    async def put_manifest(self, intent: Intent, segments: Sequence[Segment], *, etag: str | None = None) -> Head:
        """Keep an object that is these segments, shown with this ETag or, without, with Swift's."""
        return await self.segmented.put(intent, segments, etag)

    async def open_parts(self, found: Found, may_read: MayRead | None = None) -> Opened:
        """What reading the object gives.  `may_read` is asked before each other container that this leads to."""
        return await self.opening.open(found, may_read)

    async def segments(self, found: Found) -> tuple[Segment, ...]:
        """What a manifest lists."""
        return await self.opening.segments(found)

    def stored(self, found: Found, offset: int, length: int) -> AsyncIterator[bytes]:
        """The bytes of the object itself: of a manifest its list."""
        return self.engine.read(found, offset, length)

    async def describe(
        self, account: str, container: str, name: str, content_type: str | None, headers: Mapping[str, str]
    ) -> Head:
        head = await self.engine.describe(account, container, name, content_type, headers)
        await self._list(head)
        return head

    async def delete(self, account: str, container: str, name: str, *, if_stamp: str | None = None) -> Head:
        tombstone = await self.engine.delete(account, container, name, if_stamp=if_stamp)
        await self._list(tombstone)
        return tombstone

    async def _list(self, head: Head) -> None:
        await self.directory.offer(Change(head.account, head.container, (object_row(head),)))
        if head.delete_at_s is not None:
            await self.directory.offer(expiry_change(head, self.cluster.stamp()))

    # Containers and accounts.

    async def container(self, account: str, container: str, *, fresh: bool = False) -> IndexHead:
        """Raise NotFound unless it exists.  `fresh` for its totals; without, its metadata may be seconds old."""
        if fresh:
            head = await self.directory.head(account, container)
        else:
            head = await self.directory.known(account, container)
        if head is None or not head.exists:
            raise NotFound("object.no_container", "The resource could not be found.")
        return head

    async def account(self, account: str) -> IndexHead | None:
        """What there is of an account that may not have been used yet; hidden containers are not counted."""
        await self.directory.report(account)
        head = await self.directory.head(account)
        if head is None or not head.rows:
            return head
        hidden, marker = 0, ""
        while rows := await self.directory.listing(account, "", only_hidden(marker, LISTING_MAX)):
            hidden, marker = hidden + len(rows), rows[-1].name
        return msgspec.structs.replace(head, rows=head.rows - hidden)

    async def make_container(self, account: str, container: str, metadata: Mapping[str, str]) -> bool:
        """Make it, or change the metadata of what is there; true when it is new.  The account is made with it."""
        stamp = self.cluster.stamp()
        if not account.startswith(".") and await self.directory.known(account, "") is None:
            await self.make_account(account, {})
        before = await self.directory.head(account, container)
        fields = {key: (value, stamp) for key, value in metadata.items()}
        new = before is None or not before.exists
        head = await self.directory.apply(Change(account, container, made=stamp if new else "", fields=fields))
        await self.directory.offer(Change(account, "", (container_row(head, stamp),)))
        return new

    async def describe_container(self, account: str, container: str, metadata: Mapping[str, str]) -> None:
        await self.container(account, container)
        stamp = self.cluster.stamp()
        fields = {key: (value, stamp) for key, value in metadata.items()}
        await self.directory.apply(Change(account, container, fields=fields))

    async def delete_container(self, account: str, container: str) -> None:
        head = await self.container(account, container, fresh=True)
        if head.rows:
            raise Conflict("object.container_not_empty", "There was a conflict when trying to complete your request.")
        stamp = self.cluster.stamp()
        head = await self.directory.apply(Change(account, container, gone=stamp))
        await self.directory.offer(Change(account, "", (container_row(head, stamp),)))

    async def make_account(self, account: str, metadata: Mapping[str, str]) -> bool:
        before = await self.directory.head(account)
        stamp = self.cluster.stamp()
        fields = {key: (value, stamp) for key, value in metadata.items()}
        made = "" if before is not None and before.exists else stamp
        await self.directory.apply(Change(account, "", made=made, fields=fields))
        return bool(made)

    async def delete_account(self, account: str) -> None:
        """Mark it; the reaper removes what is in it."""
        head = await self.directory.head(account)
        if head is None or not head.exists:
            raise NotFound("object.no_account", "The resource could not be found.")
        await self.directory.apply(Change(account, "", gone=self.cluster.stamp()))

    async def listing(
        self, account: str, container: str, ask: ListingAsk, *, hidden: bool = False
    ) -> Sequence[Row | Subdir]:
        """A page of a container, or of an account: with its hidden containers only if they are asked for."""
        if not container:
            await self.directory.report(account)
            ask = ask if hidden else only_shown(ask)
        return await self.directory.listing(account, container, ask)

    # Rights.

    def require(
        self,
        caller: Caller | None,
        account: str,
        container: IndexHead | None,
        *,
        to_write: bool,
        referrer: str = "",
        listing: bool = False,
    ) -> bool:
        """Raise unless the caller may; true when he owns the account."""
        if account.startswith("."):
            raise Forbidden("object.hidden_account", "Access was denied to this resource.")
        if owns(caller, account, to_write=to_write):
            return True
        if container is not None:
            acl = container.metadata.get("x-container-write" if to_write else "x-container-read", "")
            if acl_allows(acl, caller, referrer=referrer, listing=listing):
                return False
        if caller is None:
            raise Unauthenticated("object.no_token", "This server could not verify that you are authorized.")
        raise Forbidden("object.forbidden", "Access was denied to this resource.")

    def require_reseller(self, caller: Caller | None) -> None:
        if not is_reseller(caller):
            raise Forbidden("object.reseller_only", "Only a reseller may make and delete accounts.")

    async def close(self) -> None:
        await self.directory.report()
        await self.cluster.settle()


def expiry_change(head: Head, stamp: str, *, gone: bool = False) -> Change:
    """An entry of the expirer's own index: `WHEN/ACCOUNT/CONTAINER/OBJECT` in the container of that hour."""
    at_s = head.delete_at_s
    assert at_s is not None
    name = f"{at_s:010d}/{head.account}/{head.container}/{head.name}"
    return Change(EXPIRING, expiry_container(at_s), (Row(name, stamp, gone=gone),), made=stamp)


def expiry_container(at_s: int) -> str:
    return f"{at_s - at_s % 3600:010d}"


def _info(head: Head) -> ObjectInfo:
    metadata = {
        key.removeprefix(METADATA_PREFIX): value
        for key, value in head.shown_headers.items()
        if key.startswith(METADATA_PREFIX)
    }
    return ObjectInfo(
        size_bytes=head.shown_size_bytes,
        etag=head.shown_etag,
        stamp_s=seconds_of(head.changed),
        content_type=head.shown_type,
        metadata=metadata,
    )

"""Accounts, containers and objects together: what every door (Swift, S3, the image service) goes through."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import ChainMap
from collections.abc import AsyncIterator, Mapping, MutableMapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, cast
from weakref import WeakValueDictionary

import msgspec

from apus.kernel.buffers import Chunk, FilePart
from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict, Invalid, NotFound
from apus.services.identity.contract import Principals
from apus.services.object.cluster import Cluster
from apus.services.object.consistency import strictly
from apus.services.object.contract import ObjectInfo
from apus.services.object.directory import container_row
from apus.services.object.domains import AccountDomains
from apus.services.object.engine import AT_HAND_BYTES, Found, Intent
from apus.services.object.history import History
from apus.services.object.logic import notices
from apus.services.object.logic.access import told_domain
from apus.services.object.logic.account_access import DOMAIN
from apus.services.object.logic.addresses import Network
from apus.services.object.logic.hidden import is_hidden, only_hidden, only_shown, owner_of
from apus.services.object.logic.history import archive_of
from apus.services.object.logic.lifecycle import LIFECYCLE
from apus.services.object.logic.locks import (
    HOLD,
    LOCK,
    ON,
    Default,
    Retention,
    check_change,
    check_no_expiry,
    lock_text,
    locked_intent,
    retention_headers,
)
from apus.services.object.logic.manifest import Segment
from apus.services.object.logic.merge import seconds_of
from apus.services.object.logic.sealing import ENCRYPT, Keyring
from apus.services.object.logic.storage_policies import REPLICATED, numbered
from apus.services.object.logic.sync import SYNC_TO, Realm
from apus.services.object.logic.uploads import USED, parts_container, uploads_container
from apus.services.object.logic.versions import LINK, NULL, STATE, State, VersionRow, is_marker, state_of
from apus.services.object.model import POLICY, SAID, Change, Head, IndexHead, ListingAsk, Row, Subdir
from apus.services.object.opening import MayRead, Opened, Opening
from apus.services.object.outbox import Outbox
from apus.services.object.permissions import Permissions
from apus.services.object.quotas import Quotas, with_hidden
from apus.services.object.rates import Rates
from apus.services.object.sealing import Sealing, is_sealed
from apus.services.object.segmented import Segmented
from apus.services.object.shards import SHARD_ROWS
from apus.services.object.shelf import Shelf
from apus.services.object.turns import Turns
from apus.services.object.uploads import Uploads
from apus.services.object.version_listing import list_versions
from apus.services.object.versions import Deleted, Versions, versions_container

SYNCED: Final = (".synced", "containers")
"""The hidden index of the containers that are copied to other clusters, as `ACCOUNT/CONTAINER`."""
CYCLED: Final = (".cycled", "containers")
"""That of the containers with lifecycle rules."""
_NOTED: Final = {SYNC_TO: SYNCED, LIFECYCLE: CYCLED}
"""Metadata whose containers a loop has to find again."""

LISTING_MAX: Final = 10_000

METADATA_PREFIX: Final = "x-object-meta-"


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What an operator may say."""

    account_writes_per_s: float = 0.0
    """Containers that an account may make and delete; 0: any number."""
    container_writes_per_s: float = 0.0
    """Objects that may be written, described and deleted in a container; 0: any number."""
    keyring: Keyring | None = None
    """Root secrets of encryption."""
    encrypt: bool = False
    """Everything that is written; needs a keyring."""
    realms: Mapping[str, Realm] = dataclasses.field(default_factory=dict)
    """Clusters that containers may be copied to and from."""
    region: str = ""
    """The cloud's, as notifications name it."""
    shard_rows: int = SHARD_ROWS
    """An index of more names than this is cut into shards of half as many."""
    webhook_networks: tuple[Network, ...] = ()
    """Where webhooks may lead although nothing else is sent there: the machine itself, its links."""


DEFAULTS: Final = Options()


class Objects:
    """Implements `contract.ObjectService`, and the rest for the doors."""

    def __init__(
        self,
        cluster: Cluster,
        options: Options = DEFAULTS,
        policies: Sequence[str] = (REPLICATED,),
        principals: Principals | None = None,
    ) -> None:
        """`policies`: names of storage policies, by their numbers.  `principals`: identity, where there is one."""
        self.cluster, self.shelf, self.options = cluster, Shelf(cluster, options.shard_rows), options
        self.rates = Rates(cluster.world, options.account_writes_per_s, options.container_writes_per_s)
        self.engine, self.directory = self.shelf.engine, self.shelf.directory
        self.opening, self.segmented, self.versions = Opening(self), Segmented(self), Versions(self.shelf)
        self.sealing = Sealing(options.keyring, always=options.encrypt)
        self._turns = Turns(cluster)
        self.history, self.quotas = History(self.shelf), Quotas(self.directory, len(policies))
        self.domains = AccountDomains(self.directory, principals)
        self.permissions = Permissions(self.directory, self.domains)
        self.policies = tuple(policies)
        self._making = WeakValueDictionary[tuple[str, str], asyncio.Lock]()
        self.uploads, self.outbox = Uploads(self, self.shelf), Outbox(self.directory)

    # For other services.

    async def put_object(
        self,
        account: str,
        container: str,
        name: str,
        data: AsyncIterator[Chunk],
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
    ) -> AsyncIterator[Chunk]:
        found = await self.find(account, container, name)
        if found is None:
            raise NotFound("object.absent", f"There is no object {container}/{name}.")
        opened = await self.open_parts(await self.follow(found))
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

    async def find(
        self,
        account: str,
        container: str,
        name: str,
        *,
        newest: bool = False,
        version_id: str | None = None,
        upto_bytes: int = AT_HAND_BYTES,
    ) -> Found | None:
        """The object, or one version of it: that may be a delete marker.  `newest` asks every copy.

        `upto_bytes`: with its bytes, if they are at hand and no more than this with their head.
        """
        if version_id is not None:
            return await self.versions.find(account, container, name, version_id)
        found = await self.shelf.find(account, container, name, newest=newest, upto_bytes=upto_bytes)
        if found is None or LINK not in found.head.headers:
            return found
        version = await self.versions.follow(found)
        if version is None and not newest:  # the link may have been an old copy
            return await self.find(account, container, name, newest=True)
        return version

    @asynccontextmanager
    async def alone(self, account: str, container: str, name: str) -> AsyncIterator[Found | None]:
        """What is there now, for who writes only if it is what he expects: nobody else who asks so comes between.

        Raise Unavailable when that cannot be said; Conflict in the end, if it was not kept.
        """
        async with self._turns.of(await self.engine.place(account, container, name)):
            with strictly():
                found = await self.find(account, container, name, newest=True)
            yield found

    def expired(self, head: Head) -> bool:
        return self.shelf.expired(head)

    async def put(
        self,
        intent: Intent,
        data: AsyncIterator[Chunk],
        *,
        sealed: bool = False,
        customer_key: bytes | None = None,
        cause: str = notices.PUT,
    ) -> Head:
        """Keep an object in a container that exists; where that keeps versions, as a new one (`version_of`).

        `sealed` or a `customer_key` (32 bytes): encrypted, also where that is not the rule of the store or of the
        container.  Raise OverQuota past a quota of the account or the container.
        """
        await self.rates.of_container(intent.account, intent.container)
        data = await self.quotas.admit(intent, data)
        metadata = await self._metadata(intent.account, intent.container)
        if sealed or self.sealing.always or customer_key is not None or ENCRYPT in metadata:
            intent, data = self.sealing.seal(intent, data, customer_key)
        locked = locked_intent(intent.headers, metadata, self.cluster.world.clock.now_s())
        if locked:
            headers = ChainMap(locked, cast(MutableMapping[str, str], intent.headers))  # a view: they may still change
            intent = dataclasses.replace(intent, headers=headers)
        head = await self._put(intent, data, metadata)
        self.uploads.went(intent.account, intent.container, intent.name, metadata)
        await self.outbox.happened(head, cause, metadata)
        return head

    async def _put(self, intent: Intent, data: AsyncIterator[Chunk], metadata: Mapping[str, str]) -> Head:
        state, archive = state_of(metadata), archive_of(metadata)
        if state == "enabled":
            return await self.versions.put(intent, data)
        if state == "suspended":
            return await self.versions.put_plain(intent, data)
        if archive is not None:
            await self.history.put(archive, intent)
        return await self.shelf.put(intent, data)

    async def put_manifest(
        self,
        intent: Intent,
        segments: Sequence[Segment],
        *,
        etag: str | None = None,
        sealed: bool = False,
        cause: str = notices.PUT,
    ) -> Head:
        """Keep an object that is these segments, shown with this ETag or, without, with Swift's."""
        return await self.segmented.put(intent, segments, etag, sealed=sealed, cause=cause)

    async def open_parts(
        self, found: Found, may_read: MayRead | None = None, *, customer_key: bytes | None = None
    ) -> Opened:
        """What reading the object gives.  `may_read` is asked before each other container that this leads to."""
        return await self.opening.open(found, may_read, customer_key=customer_key)

    async def follow(self, found: Found, may_read: MayRead | None = None, *, static_only: bool = False) -> Found:
        """What symbolic links lead to.  Raise NotFound; Conflict for a loop, or a target that is not what it was."""
        return await self.opening.follow(found, may_read, static_only=static_only)

    async def segments(self, found: Found, *, customer_key: bytes | None = None) -> tuple[Segment, ...]:
        """What a manifest lists."""
        return await self.opening.segments(found, customer_key)

    def stored(self, found: Found, offset: int, length: int, customer_key: bytes | None = None) -> AsyncIterator[Chunk]:
        """The bytes of the object itself, decrypted: of a manifest its list."""
        return self.sealing.opened(found, self.engine.read(found, offset, length), offset, customer_key)

    def at_hand(self, found: Found, customer_key: bytes | None = None) -> Chunk | None:
        """All bytes of a small object, decrypted, if they came with it."""
        return self.sealing.at_hand(found, customer_key)

    def lying(self, found: Found) -> FilePart | None:
        """Where the bytes of an object lie that is not encrypted, if they were not read."""
        return None if is_sealed(found.head) else found.part

    async def describe(
        self,
        account: str,
        container: str,
        name: str,
        content_type: str | None,
        headers: Mapping[str, str],
        *,
        version_id: str | None = None,
        cause: str = "",
    ) -> Head:
        """Replace the metadata of the object, or of one version.  Raise NotFound.  `cause`: the event."""
        await self.rates.of_container(account, container)
        metadata = await self._metadata(account, container)
        check_no_expiry(headers, metadata)
        found = await self.shelf.find(account, container, name, newest=True)
        if version_id == NULL:
            version_id = await self.versions.entry_of_null(account, container, name)
            if version_id is None and (found is None or LINK in found.head.headers):
                raise NotFound("object.version", "The resource could not be found.")
        if version_id is not None or (found is not None and LINK in found.head.headers):
            place = account, container, name
            head = await self.versions.describe(place, found, version_id, content_type, headers)
        else:
            head = await self.shelf.describe(account, container, name, content_type, headers)
        if cause:
            await self.outbox.happened(head, cause, metadata)
        return head

    async def delete(
        self,
        account: str,
        container: str,
        name: str,
        *,
        if_stamp: str | None = None,
        version_id: str | None = None,
        restore: bool = False,
        bypass: bool = False,
        cause: str = notices.REMOVED,
    ) -> Deleted:
        """Delete it; where the container keeps versions, mark it as deleted.  Raise NotFound when there was nothing.

        With `version_id` that version goes for good; if it was current, `restore` makes the newest other one current.
        A locked one stays: Forbidden.  `bypass`: the caller may pass over GOVERNANCE.  `if_stamp`: only while this is
        current, the time of an object's last change or the id of a version; else NotFound.
        """
        await self.rates.of_container(account, container)
        metadata = await self._metadata(account, container)
        state, archive = state_of(metadata), archive_of(metadata)
        if version_id is not None:
            deleted = await self.versions.delete_version(
                account, container, name, version_id, restore=restore, bypass=bypass
            )
        elif state:
            deleted = await self.versions.delete(
                account, container, name, suspended=state == "suspended", if_stamp=if_stamp
            )
        elif archive is not None:
            deleted = await self.history.delete(archive, account, container, name)
        else:
            removed = await self.shelf.discard(account, container, name, if_stamp=if_stamp)
            deleted = Deleted(removed.tombstone.stamp, existed=not self.expired(removed.before))
        self.uploads.went(account, container, name, metadata)
        marked = deleted.is_marker and version_id is None
        place = account, container, name
        await self.outbox.removed(place, cause, deleted.version_id, metadata, marked=marked)
        return deleted

    # Versions.

    async def versioning(self, account: str, container: str) -> State:
        return state_of(await self._metadata(account, container))

    async def _metadata(self, account: str, container: str) -> Mapping[str, str]:
        if is_hidden(account, container):
            return {}
        head = await self.directory.known(account, container)
        return head.metadata if head is not None else {}

    async def set_versioning(self, account: str, container: str, state: State) -> None:
        """Keep versions from now on, or stop adding to them.  Raise NotFound."""
        head = await self.container(account, container)
        if state != "enabled" and LOCK in head.metadata:
            raise Conflict("object.locked_container", "A container that locks versions keeps all of them.")
        if state == "enabled":
            await self.make_container(account, versions_container(container), {})
        await self.describe_container(account, container, {STATE: state})

    async def set_locking(self, account: str, container: str, default: Default | None) -> None:
        """Versions can be locked from now on, and never less; `default`: what is written is, for so long.

        Raise Conflict unless the container keeps versions.
        """
        if state_of((await self.container(account, container)).metadata) != "enabled":
            raise Conflict("object.lock_versions", "Only a container that keeps versions can lock them.")
        await self.describe_container(account, container, {LOCK: lock_text(default)})

    async def retain(
        self,
        account: str,
        container: str,
        name: str,
        version_id: str | None,
        retention: Retention | None,
        *,
        bypass: bool = False,
    ) -> None:
        """Keep a version until then.  Raise NotFound, Forbidden when it is locked for longer."""
        head = await self._lockable(account, container, name, version_id)
        check_change(head.shown_headers, retention, self.cluster.world.clock.now_s(), bypass=bypass)
        await self._lock(head, version_id, retention_headers(retention))

    async def hold(self, account: str, container: str, name: str, version_id: str | None, *, held: bool) -> None:
        """Keep a version until it is let go.  Raise NotFound."""
        head = await self._lockable(account, container, name, version_id)
        await self._lock(head, version_id, {HOLD: ON if held else ""})

    async def _lockable(self, account: str, container: str, name: str, version_id: str | None) -> Head:
        if LOCK not in await self._metadata(account, container):
            raise Invalid("object.no_lock", "The container does not lock versions.")
        found = await self.find(account, container, name, newest=True, version_id=version_id)
        if found is None or is_marker(found.head):
            raise NotFound("object.version", "The resource could not be found.")
        return found.head

    async def _lock(self, head: Head, version_id: str | None, changes: Mapping[str, str]) -> None:
        """What is locked does not expire."""
        headers = {name: value for name, value in head.shown_headers.items() if name != "x-delete-at"}
        place = head.account, head.container, head.name
        await self.describe(*place, None, {**headers, **changes}, version_id=version_id)

    async def list_versions(
        self, account: str, container: str, ask: ListingAsk, version_marker: str = ""
    ) -> Sequence[VersionRow | Subdir]:
        """All versions by name, the newest first.  With `version_marker` it goes on behind that version of the name
        `ask.marker`, else behind the name."""
        return await list_versions(self.shelf, self.versions, account, container, ask, version_marker)

    # Containers and accounts.

    async def container(self, account: str, container: str, *, fresh: bool = False) -> IndexHead:
        """Raise NotFound unless it exists.  `fresh` for its totals, with the bytes of its versions and parts; without,
        its metadata may be seconds old."""
        if fresh:
            head = await self.directory.head(account, container)
        else:
            head = await self.directory.known(account, container)
        if head is None or not head.exists:
            raise NotFound("object.no_container", "The resource could not be found.")
        return await with_hidden(self.directory, head) if fresh else head

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

    async def make_container(
        self,
        account: str,
        container: str,
        metadata: Mapping[str, str],
        policy: str | None = None,
        *,
        caller: Caller | None = None,
    ) -> bool:
        """Make it, or change the metadata of what is there; true when it is new.  The account is made with it, and
        keeps what the caller's token tells of it.

        `policy`: the name of a storage policy; without, a hidden one has its container's, any other the first.  Raise
        Invalid for an unknown one, Conflict when the container has, or had when it was deleted, another.
        """
        wished = None if policy is None else numbered(policy, self.policies)
        await self.rates.of_account(account)
        await self._ensure_account(account, caller)
        async with self._making.setdefault((account, container), asyncio.Lock()):  # two may want different policies
            return await self._make_container(account, container, metadata, wished)

    async def _make_container(
        self, account: str, container: str, metadata: Mapping[str, str], policy: int | None
    ) -> bool:
        stamp = self.cluster.stamp()
        before = await self.directory.head(account, container)
        fields = {SAID: ("1", stamp)} | {key: (value, stamp) for key, value in metadata.items()}
        if before is not None and before.made:
            if policy not in (None, before.policy):
                shown = f"The container has, or had when it was deleted, the policy {self.policies[before.policy]}."
                raise Conflict("object.policy_differs", shown)
        else:
            if policy is None and owner_of(container) != container:
                policy = await self.directory.policy_of(account, owner_of(container))
            if policy:
                fields[POLICY] = str(policy), stamp
        new = before is None or not before.exists
        head = await self.directory.apply(Change(account, container, made=stamp if new else "", fields=fields))
        await self._note(account, container, metadata)
        await self.directory.offer(Change(account, "", (container_row(head, stamp),)))
        return new

    async def describe_container(self, account: str, container: str, metadata: Mapping[str, str]) -> None:
        await self.container(account, container)
        stamp = self.cluster.stamp()
        fields = {SAID: ("1", stamp)} | {key: (value, stamp) for key, value in metadata.items()}
        await self.directory.apply(Change(account, container, fields=fields))
        await self._note(account, container, metadata)

    async def _note(self, account: str, container: str, said: Mapping[str, str]) -> None:
        for name in _NOTED.keys() & said.keys():
            stamp = self.cluster.stamp()
            row = Row(f"{account}/{container}", stamp, gone=not said[name])
            await self.directory.offer(Change(*_NOTED[name], (row,), made=stamp))

    async def delete_container(self, account: str, container: str) -> None:
        await self.rates.of_account(account)
        head = await self.container(account, container, fresh=True)
        kept = await self.directory.head(account, versions_container(container)) if state_of(head.metadata) else None
        listed = await self.directory.listing(account, container, ListingAsk(limit=1))  # totals of shards follow
        if head.rows or listed or (kept is not None and kept.exists and kept.rows):
            raise Conflict("object.container_not_empty", "There was a conflict when trying to complete your request.")
        if kept is not None and kept.exists:
            await self.delete_container(account, versions_container(container))
        if USED in head.metadata:
            await self.uploads.give_up_all(account, container)
            await self._drop_container(account, uploads_container(container))
            await self._drop_container(account, parts_container(container))
        await self._drop_container(account, container)

    async def _drop_container(self, account: str, container: str) -> None:
        """Whatever is in it: the reaper empties it."""
        stamp = self.cluster.stamp()
        head = await self.directory.apply(Change(account, container, gone=stamp))
        await self.directory.offer(Change(account, "", (container_row(head, stamp),)))

    async def _ensure_account(self, account: str, caller: Caller | None) -> None:
        if account.startswith("."):
            return
        if await self.directory.known(account, "") is not None:
            await self.domains.learn(account, caller)
            return
        domain = told_domain(caller, account)
        await self.make_account(account, {DOMAIN: domain} if domain else {})

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

    async def close(self) -> None:
        await self.shelf.lister.flush()
        await self.directory.report()
        await self.cluster.settle()


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

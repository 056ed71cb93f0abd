"""Copies containers to other clusters, as their owners ask with `X-Container-Sync-To`.

What travels is what reading an object gives, with its time: the other side keeps whatever is newer, so two containers
can each be the other's copy, and to send something twice is harmless.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from apus.kernel.errors import CloudError
from apus.kernel.log import get_logger
from apus.services.object.drivers.sender import Sender
from apus.services.object.logic.hidden import shown
from apus.services.object.logic.merge import TICKS_PER_S, swift_time, ticks_of
from apus.services.object.logic.sync import MARK, SYNC_KEY, SYNC_TO, Realm, signature, url_of
from apus.services.object.model import Head, ListingAsk, Row
from apus.services.object.service import SYNCED, Objects

PASS_EVERY_S: Final = 10.0
ROWS_AT_ONCE: Final = 1_000
OVERLAP_S: Final = 600
"""Rows may be listed later than their stamp says: so far back is looked again."""
DONE_MAX: Final = 100_000
_log: Final = get_logger("apus.object.sync")


class Syncer:
    name = "object.syncer"
    period_s = PASS_EVERY_S

    def __init__(self, objects: Objects, sender: Sender, realms: Mapping[str, Realm]) -> None:
        self._objects, self._sender, self._realms = objects, sender, realms
        self._done: OrderedDict[tuple[str, str, tuple[str, str]], None] = OrderedDict()

    async def keys(self) -> Iterable[str]:
        """`ACCOUNT/CONTAINER` of each that is to be synced."""
        if not self._realms:
            return []
        rows = await self._objects.listing(*SYNCED, ListingAsk())
        return [row.name for row in rows]

    async def settle(self, key: str) -> None:
        account, container = key.split("/", 1)
        head = await self._objects.directory.head(account, container)
        if head is None or not head.exists:
            return
        sync_to, user_key = head.metadata.get(SYNC_TO, ""), head.metadata.get(SYNC_KEY, "")
        if not sync_to or not user_key:
            return
        mark = head.metadata.get(MARK, "")
        newest, all_well = mark, True
        after_ticks = ticks_of(mark) - OVERLAP_S * TICKS_PER_S
        async for row in self._rows(account, container):
            version = max(row.version)
            done = key, row.name, row.version
            if ticks_of(version) <= after_ticks or done in self._done:
                continue
            if await self._send(account, container, row, sync_to, user_key):
                self._remember(done)
                newest = max(newest, version)
            else:
                all_well = False
        if all_well and newest > mark:
            await self._objects.describe_container(account, container, {MARK: newest})

    async def run_once(self) -> None:
        for key in await self.keys():
            await self.settle(key)

    async def _rows(self, account: str, container: str) -> AsyncIterator[Row]:
        """Tombstones too."""
        after = ""
        while rows := await self._objects.directory.rows(account, container, after, ROWS_AT_ONCE):
            for row in rows:
                yield row
            after = rows[-1].name

    async def _send(self, account: str, container: str, row: Row, sync_to: str, user_key: str) -> bool:
        target = url_of(sync_to, self._realms, row.name)
        if target is None:
            return False
        url, realm = target
        realm_name = sync_to.split("/")[2].upper()
        try:
            found = await self._objects.find(account, container, row.name, newest=True)
            if found is None:
                if not row.gone:
                    return False  # listed before it is seen here, or gone without its row: the next pass knows
                headers = self._headers("DELETE", url, swift_time(row.stamp), realm_name, realm, user_key)
                return await self._sender.send("DELETE", url, headers, None) in (204, 202, 404, 409)
            found = await self._objects.follow(found)
            opened = await self._objects.open_parts(found)
            headers = self._headers("PUT", url, swift_time(max(row.version)), realm_name, realm, user_key)
            headers |= {**_described(found.head), "content-length": str(opened.size_bytes)}
            if not opened.segmented:
                headers["etag"] = opened.etag
            status = await self._sender.send("PUT", url, headers, opened.stream(0, opened.size_bytes))
        except (CloudError, OSError) as error:
            _log.warning("not synced", account=account, container=container, name=row.name, error=str(error))
            return False
        return status in (201, 202, 409)

    def _headers(
        self, method: str, url: str, timestamp: str, realm_name: str, realm: Realm, user_key: str
    ) -> dict[str, str]:
        nonce = f"{self._objects.cluster.world.dice.getrandbits(128):032x}"
        signed = signature(method, urlsplit(url).path, timestamp, nonce, realm.keys[0], user_key)
        return {"x-timestamp": timestamp, "x-container-sync-auth": f"{realm_name} {nonce} {signed}"}

    def _remember(self, done: tuple[str, str, tuple[str, str]]) -> None:
        self._done[done] = None
        if len(self._done) > DONE_MAX:
            self._done.popitem(last=False)


def _described(head: Head) -> dict[str, str]:
    kept = {name: value for name, value in shown(head.shown_headers).items() if name != "x-object-manifest"}
    return {"content-type": head.shown_type, **kept}

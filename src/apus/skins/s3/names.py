"""Bucket names: one space for all accounts, over containers that are each account's own.

A name belongs to an account by a claim, a row in a hidden index.  Two that claim at once both see the other's claim
(each writes to a quorum before it reads one) and at least one of them gives way: no name is ever given twice.
A container that its own account made at the Swift door needs no claim to be seen by that account.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from apus.kernel.caller import Caller
from apus.services.object.logic.access import account_of
from apus.services.object.logic.merge import seconds_of
from apus.services.object.model import Change, ListingAsk, Row
from apus.services.object.service import Objects
from apus.skins.s3.errors import S3Error

ACCOUNT: Final = ".s3"
CONTAINER: Final = "buckets"
"""Rows are `BUCKET/ACCOUNT`."""
HELD: Final = "held"
CLAIM_S: Final = 60.0
"""A claim that nobody made good by then was left by a process that died."""
CLAIMS_MAX: Final = 1000
CACHE_S: Final = 5.0
CACHE_MAX: Final = 10_000


class BucketNames:
    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._cache: OrderedDict[str, tuple[float, str]] = OrderedDict()

    async def account_of(self, bucket: str, caller: Caller | None) -> str | None:
        """Whose bucket this is to the caller: his own one first, then whoever holds the name."""
        directory = self._objects.directory
        if caller is not None and caller.project_id is not None:
            mine = account_of(caller.project_id)
            if await directory.known(mine, bucket) is not None:
                return mine
        now_s = self._objects.cluster.world.clock.monotonic_s()
        cached = self._cache.get(bucket)
        if cached is not None and now_s - cached[0] < CACHE_S:
            return cached[1]
        account = await self.holder(bucket)
        if account is not None:
            self._cache[bucket] = now_s, account
            if len(self._cache) > CACHE_MAX:
                self._cache.popitem(last=False)
        return account

    async def holder(self, bucket: str) -> str | None:
        """The account that holds the name and has the bucket."""
        for row in await self._claims(bucket):
            account = row.name.partition("/")[2]
            if row.content_type == HELD and await self._objects.directory.known(account, bucket) is not None:
                return account
        return None

    async def take(self, bucket: str, account: str) -> None:
        """Claim the name; to be made good by `hold` once the container is there.

        Raise S3Error: BucketAlreadyExists, or OperationAborted when another account is about to take it.
        """
        await self._write(bucket, account, "")
        await self._heal()
        now_s = self._objects.cluster.world.clock.now_s()
        for row in await self._claims(bucket):
            other = row.name.partition("/")[2]
            if other == account:
                continue
            there = await self._objects.directory.known(other, bucket) is not None
            settled = row.content_type == HELD or now_s - seconds_of(row.stamp) > CLAIM_S
            if settled and not there:
                await self.drop(bucket, other)
                continue
            await self.drop(bucket, account)
            raise S3Error("BucketAlreadyExists" if settled else "OperationAborted")

    async def hold(self, bucket: str, account: str) -> None:
        await self._write(bucket, account, HELD)

    async def drop(self, bucket: str, account: str) -> None:
        self._cache.pop(bucket, None)
        await self._write(bucket, account, "", gone=True)

    async def holds(self, bucket: str, account: str) -> bool:
        rows = await self._claims(bucket)
        return any(row.name == f"{bucket}/{account}" and row.content_type == HELD for row in rows)

    async def _claims(self, bucket: str) -> list[Row]:
        ask = ListingAsk(limit=CLAIMS_MAX, prefix=bucket + "/")
        rows = await self._objects.directory.listing(ACCOUNT, CONTAINER, ask)
        return [row for row in rows if isinstance(row, Row)]

    async def _write(self, bucket: str, account: str, state: str, *, gone: bool = False) -> None:
        stamp = self._objects.cluster.stamp()
        row = Row(f"{bucket}/{account}", stamp, gone=gone, content_type=state)
        await self._objects.directory.apply(Change(ACCOUNT, CONTAINER, (row,), made=stamp))

    async def _heal(self) -> None:
        await self._objects.directory.heal(ACCOUNT, CONTAINER)

"""One request of the Swift API: what it names, and whether its caller may.

Rights depend on what is asked for (owner, ACLs, referrer, a signed URL), so every handler asks for them here.  What is
asked has the names of bucket policies, so that one policy holds at both doors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from apus.kernel.errors import NotFound
from apus.services.object.api.bodies import check_headers, is_true, names_of
from apus.services.object.logic import rights
from apus.services.object.logic.policy_context import Circumstances, context_of
from apus.services.object.logic.signed import Grant
from apus.services.object.model import Head, IndexHead
from apus.services.object.service import Objects
from apus.wire.route import ApiRequest

READ, READ_VERSION = "s3:GetObject", "s3:GetObjectVersion"
WRITE, DELETE, DELETE_VERSION = "s3:PutObject", "s3:DeleteObject", "s3:DeleteObjectVersion"
LIST, LIST_VERSIONS = "s3:ListBucket", "s3:ListBucketVersions"
READS: Final = (READ, READ_VERSION)
_PERMISSIONS: Final = {
    READ: "READ", READ_VERSION: "READ", LIST: "READ", LIST_VERSIONS: "READ",
    WRITE: "WRITE", DELETE: "WRITE", DELETE_VERSION: "WRITE",
}  # fmt: skip
"""What S3's and Swift's ACLs can give."""
_QUERY_KEYS: Final = {
    "prefix": "s3:prefix", "delimiter": "s3:delimiter", "limit": "s3:max-keys", "version-id": "s3:versionid",
}  # fmt: skip


@dataclasses.dataclass(slots=True)
class Ask:
    request: ApiRequest
    service: Objects
    method: str
    headers: Mapping[str, str]
    account: str
    container: str
    name: str
    grant: Grant | None = None
    """What a signature in the request allows besides."""

    @classmethod
    def of(cls, request: ApiRequest) -> Ask:
        check_headers(request.headers)
        return cls(request, request.service, request.method, request.headers, *names_of(request))

    @property
    def reading(self) -> bool:
        """GET, not HEAD."""
        return self.method == "GET"

    @property
    def newest(self) -> bool:
        return is_true(self.headers.get("x-newest"))

    @property
    def now_s(self) -> float:
        return self.service.cluster.world.clock.now_s()

    @property
    def place(self) -> tuple[str, str, str]:
        return self.account, self.container, self.name

    def query(self, name: str) -> str | None:
        return self.request.query(name) if self.request.raw_query else None

    async def require_account(self, account: str, *, to_write: bool) -> bool:
        """Raise unless the caller may act on the account; true when it is his to change."""
        if self.grant is not None and self.grant.covers(account, self.container):
            return False
        return await self.service.permissions.require_account(self.request.caller, account, to_write=to_write)

    async def require(self, head: IndexHead, action: str, name: str = "", existing: Head | None = None) -> bool:
        """Raise unless the caller may do this, as policies name it, to the container or to an object in it; true
        when the account is his to change."""
        on_object = action in READS
        asked = rights.Ask(
            self.request.caller,
            head,
            action,
            _PERMISSIONS.get(action, ""),
            key=name,
            object_acl=existing.shown_headers.get(rights.OBJECT_ACL) if existing is not None else None,
            on_object=on_object,
            context=lambda: self._context(head, existing),
            referrer=self.headers.get("referer", ""),
        )
        signed = self.grant is not None and self.grant.covers(head.account, head.container)
        return await self.service.permissions.require(asked, signed=signed)

    def _context(self, head: IndexHead, existing: Head | None) -> dict[str, list[str]]:
        scope = self.request.scope
        found = context_of(
            Circumstances(
                self.now_s,
                head.account,
                self.request.caller,
                scope.get("scheme") == "https",
                str((scope.get("client") or ("",))[0]),
                self.headers.get("referer", ""),
                self.headers.get("user-agent", ""),
                existing,
            )
        )
        for name, key in _QUERY_KEYS.items():
            value = self.query(name)
            if value is not None:
                found[key] = [value]
        return found

    async def to_write(self) -> IndexHead:
        """The container of the object, which the caller may write."""
        return await self.may(WRITE, *self.place)

    async def may_read(self, account: str, container: str, name: str) -> None:
        """For what an object leads to: segments, the target of a link."""
        await self.may(READ if name else LIST, account, container, name)

    async def may(self, action: str, account: str, container: str, name: str = "") -> IndexHead:
        """The container, if the caller may do this in it."""
        head = await self.container_of(account, container, to_write=action not in (*READS, LIST))
        await self.require(head, action, name)
        return head

    async def may_delete(self, container: str) -> None:
        """The container itself."""
        await self.require_account(self.account, to_write=True)
        await self.require(await self.service.container(self.account, container), "s3:DeleteBucket")

    async def container_of(self, account: str, container: str, *, to_write: bool = False) -> IndexHead:
        """Who may not act on an account does not learn which containers it has."""
        if account.startswith("."):
            await self.require_account(account, to_write=to_write)
        try:
            return await self.service.container(account, container)
        except NotFound:
            await self.require_account(account, to_write=to_write)
            raise

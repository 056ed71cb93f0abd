"""One request of the Swift API: what it names, and whether its caller may.

Rights depend on what is asked for (owner, ACLs, referrer, a signed URL), so every handler asks for them here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from apus.kernel.errors import CloudError, Forbidden, NotFound
from apus.services.object.api.bodies import is_true, names_of
from apus.services.object.logic.signed import Grant
from apus.services.object.model import IndexHead
from apus.services.object.service import Objects
from apus.wire.route import ApiRequest


@dataclasses.dataclass(slots=True)
class Ask:
    request: ApiRequest
    service: Objects
    account: str
    container: str
    name: str
    grant: Grant | None = None
    """What a signature in the request allows besides."""

    @classmethod
    def of(cls, request: ApiRequest) -> Ask:
        return cls(request, request.service, *names_of(request))

    @property
    def headers(self) -> Mapping[str, str]:
        return self.request.headers

    @property
    def method(self) -> str:
        return self.request.method

    @property
    def reading(self) -> bool:
        """GET, not HEAD."""
        return self.request.method == "GET"

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
        return self.request.query(name)

    async def require(self, account: str, head: IndexHead | None, *, to_write: bool, listing: bool = False) -> bool:
        """Raise unless the caller may; true when the account is his to change."""
        if self.grant is not None and self.grant.covers(account, head.container if head else self.container):
            return False
        referrer = self.headers.get("referer", "")
        caller = self.request.caller
        try:
            return self.service.require(caller, account, head, to_write=to_write, referrer=referrer, listing=listing)
        except Forbidden:
            level = await self.service.account_level(caller, account)
            if level == "admin":
                return True
            if level == "read-write" or (level == "read-only" and not to_write):
                return False
            raise

    async def to_read(self) -> IndexHead:
        """The container of the object, which the caller may read."""
        return await self.container_of(self.account, self.container, to_write=False)

    async def to_write(self) -> IndexHead:
        return await self.container_of(self.account, self.container, to_write=True)

    async def may_read(self, account: str, container: str) -> None:
        """For what an object leads to: segments, the target of a link."""
        await self.container_of(account, container, to_write=False)

    async def container_of(self, account: str, container: str, *, to_write: bool) -> IndexHead:
        """Who may not act on an account does not learn which containers it has."""
        head: IndexHead | None = None
        missing: CloudError | None = None
        try:
            head = await self.service.container(account, container)
        except NotFound as error:
            missing = error
        await self.require(account, head, to_write=to_write)
        if head is None:
            assert missing is not None
            raise missing
        return head

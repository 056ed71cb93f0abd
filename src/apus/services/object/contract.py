"""Objects, as other services use them: a place for bytes, in an account of the service's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import msgspec


class ObjectInfo(msgspec.Struct, frozen=True, kw_only=True):
    size_bytes: int
    etag: str
    """MD5 of the bytes, hexadecimal."""
    stamp_s: float
    content_type: str = "application/octet-stream"
    metadata: dict[str, str] = {}


class ObjectService(Protocol):
    async def put_object(
        self,
        account: str,
        container: str,
        name: str,
        data: AsyncIterator[bytes],
        metadata: Mapping[str, str],
        size_bytes: int | None = None,
    ) -> ObjectInfo:
        """Keep it; returns after a quorum has it on stable storage.  The container is made if absent.

        When `data` raises, nothing is left.  Raise Unavailable without a quorum.
        """
        ...

    async def head_object(self, account: str, container: str, name: str) -> ObjectInfo | None: ...

    def get_object(
        self, account: str, container: str, name: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Its bytes from any good copy.  Raise NotFound, Unavailable."""
        ...

    async def delete_object(self, account: str, container: str, name: str) -> None:
        """Already gone is fine."""
        ...

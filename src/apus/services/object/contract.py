"""Objects, as other services use them: a place for bytes, in an account of the service's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Protocol

import msgspec

from apus.kernel.buffers import Chunk


class ObjectInfo(msgspec.Struct, frozen=True, kw_only=True):
    size_bytes: int
    etag: str
    """MD5 of the bytes, hexadecimal."""
    stamp_s: float
    content_type: str = "application/octet-stream"
    metadata: dict[str, str] = {}


class ObjectEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What became of an object, as its container's owner asked to be told."""

    name: str
    """As S3 calls it: `ObjectCreated:Put`."""
    account: str
    bucket: str
    key: str
    at_s: float
    sequence: str
    """Of two events of a key the later one has the greater."""
    size_bytes: int = 0
    etag: str = ""
    version_id: str = ""


class ObjectEvents(Protocol):
    """Where events are told to whoever follows the cloud's."""

    async def announce(self, event: ObjectEvent) -> None:
        """Durable when it returns.  The same one may come twice.  Raise Unavailable."""
        ...

    async def tell(self, kind: str, resource_id: str, details: dict[str, Any]) -> None:
        """What happened to the store itself (`object.noun.verb`), for administrators.  Raise Unavailable."""
        ...


class ObjectService(Protocol):
    async def put_object(
        self,
        account: str,
        container: str,
        name: str,
        data: AsyncIterator[Chunk],
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
    ) -> AsyncIterator[Chunk]:
        """Its bytes from any good copy.  Raise NotFound, Unavailable."""
        ...

    async def delete_object(self, account: str, container: str, name: str) -> None:
        """Already gone is fine."""
        ...

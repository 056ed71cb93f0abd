"""The object service from another process: the contract over its own Swift API.

The token is one that this cloud issues to its own services; it is asked for anew when it is refused.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final
from urllib.parse import quote

from apus.kernel.buffers import Chunk
from apus.kernel.errors import CloudError, NotFound, Unavailable
from apus.services.object.contract import ObjectInfo
from apus.wire.client import Connection, Headers, HttpClient

_META: Final = b"x-object-meta-"


class ObjectClient:
    """Implements `ObjectService`."""

    def __init__(self, client: HttpClient, token: Callable[[], Awaitable[str]]) -> None:
        self._client, self._token = client, token

    async def put_object(
        self,
        account: str,
        container: str,
        name: str,
        data: AsyncIterator[Chunk],
        metadata: Mapping[str, str],
        size_bytes: int | None = None,
    ) -> ObjectInfo:
        await self._ensure_container(account, container)
        headers = await self._headers({f"X-Object-Meta-{key}": value for key, value in metadata.items()})
        if size_bytes is not None:
            headers = [*headers, (b"content-length", str(size_bytes).encode())]
        async with self._asking("PUT", _path(account, container, name), headers, data) as reply:
            await self._expect(reply, 201)
        info = await self.head_object(account, container, name)
        if info is None:
            raise Unavailable("object.vanished", f"{container}/{name} was written and cannot be found.")
        return info

    async def head_object(self, account: str, container: str, name: str) -> ObjectInfo | None:
        async with self._asking("HEAD", _path(account, container, name), await self._headers()) as reply:
            if reply.status == 404:
                return None
            await self._expect(reply, 200)
            fields = {key: value.decode("utf-8", "replace") for key, value in reply.headers}
        return ObjectInfo(
            size_bytes=int(fields[b"content-length"]),
            etag=fields[b"etag"].strip('"'),
            stamp_s=float(fields[b"x-timestamp"]),
            content_type=fields.get(b"content-type", "application/octet-stream"),
            metadata={key[len(_META) :].decode(): value for key, value in fields.items() if key.startswith(_META)},
        )

    async def get_object(
        self, account: str, container: str, name: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[Chunk]:
        headers = await self._headers()
        if offset or length is not None:
            end = "" if length is None else str(offset + length - 1)
            headers = [*headers, (b"range", f"bytes={offset}-{end}".encode())]
        async with self._asking("GET", _path(account, container, name), headers) as reply:
            if reply.status == 404:
                raise NotFound("object.not_found", f"There is no object {container}/{name}.")
            await self._expect(reply, 206 if len(headers) > 1 else 200)
            async for chunk in reply.body():
                yield chunk

    async def delete_object(self, account: str, container: str, name: str) -> None:
        async with self._asking("DELETE", _path(account, container, name), await self._headers()) as reply:
            if reply.status != 404:
                await self._expect(reply, 204)

    async def _ensure_container(self, account: str, container: str) -> None:
        async with self._asking("PUT", _path(account, container), await self._headers()) as reply:
            await self._expect(reply, 201, 202)

    async def _headers(self, more: Mapping[str, str] | None = None) -> Headers:
        pairs = [(b"x-auth-token", (await self._token()).encode())]
        return [*pairs, *((key.encode(), quote(value).encode()) for key, value in (more or {}).items())]

    def _asking(self, method: str, path: bytes, headers: Headers, body: AsyncIterator[Chunk] | None = None) -> _Asking:
        return _Asking(self._client, method, path, headers, body)

    @staticmethod
    async def _expect(reply: Connection, *statuses: int) -> None:
        text = (await reply.read()).decode("utf-8", "replace") if reply.status not in statuses else ""
        if reply.status not in statuses:
            shown = f"Object storage answered {reply.status}: {text.strip()[:200]}"
            raise Unavailable("object.full" if reply.status == 507 else "object.refused", shown)


class _Asking:
    """A request whose broken connection is Unavailable, as the contract has it."""

    def __init__(
        self, client: HttpClient, method: str, path: bytes, headers: Headers, body: AsyncIterator[Chunk] | None
    ) -> None:
        self._request = client.request(method, path, headers, body)

    async def __aenter__(self) -> Connection:
        try:
            return await self._request.__aenter__()
        except OSError as error:
            raise _gone(error) from error

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        await self._request.__aexit__(kind, error, trace)  # type: ignore[arg-type]
        if isinstance(error, OSError):
            raise _gone(error) from error


def _gone(error: OSError) -> CloudError:
    return Unavailable("object.gone", "Object storage went away midway.", hidden=str(error))


def _path(*parts: str) -> bytes:
    return ("/v1/" + "/".join(quote(part, safe="") for part in parts)).encode()

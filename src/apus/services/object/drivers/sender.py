"""Sends objects to another cluster over HTTP, for container sync."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Final, Protocol

from apus.kernel.buffers import Chunk

SILENT_S: Final = 60.0


class Sender(Protocol):
    async def send(self, method: str, url: str, headers: Mapping[str, str], body: AsyncIterator[Chunk] | None) -> int:
        """The status of the answer.  Raise OSError when there is none."""
        ...


class HttpSender:
    """Goes only where the operator's realms say, follows no redirects."""

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: AsyncIterator[Chunk] | None) -> int:
        import aiohttp  # not at the top: it takes a tenth of a second, and few clusters are synced
        from yarl import URL

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=SILENT_S)
        try:
            async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
                asked = session.request(
                    method, URL(url, encoded=True), headers=headers, data=body, allow_redirects=False
                )
                async with asked as reply:
                    return reply.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise OSError(f"{method} {url}: {error}") from error

"""Hand requests on to another process of this machine, bytes as they come: `/v1` of the one port goes to the object
process, which has a port of its own for those who read the catalogue."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from apus.kernel.errors import Unavailable
from apus.wire.body import ClientGone
from apus.wire.client import HttpClient
from apus.wire.route import send_chunks

_HOP: Final = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te", b"trailer", b"expect"})
"""Headers of one connection, not of the request: they are not handed on."""


class Forward:
    """An ASGI application that is another HTTP server."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        names = {name for name, _ in scope["headers"]}
        has_body = b"content-length" in names or b"transfer-encoding" in names
        headers = [(name, value) for name, value in scope["headers"] if name not in _HOP]
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        body = _Body(receive, ended=not has_body)
        started = False
        try:
            async with self._client.request(
                scope["method"], target, headers, body.chunks() if has_body else None
            ) as reply:
                kept = [(name, value) for name, value in reply.headers if name not in _HOP]
                await send({"type": "http.response.start", "status": reply.status, "headers": kept})
                started = True
                await send_chunks(reply.body(), send, body.gone if body.ended else None)
        except ClientGone:
            return
        except (Unavailable, OSError):
            if not started:  # else the client sees its reply end early, which is the truth
                await _refuse(send, close=b"expect" in names and not body.asked)


class _Body:
    def __init__(self, receive: Any, *, ended: bool) -> None:
        self._receive, self.ended, self.asked = receive, ended, False

    async def chunks(self) -> AsyncIterator[bytes]:
        while not self.ended:
            self.asked = True
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            self.ended = not message.get("more_body", False)
            yield message.get("body", b"")

    async def gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def _refuse(send: Any, *, close: bool) -> None:
    body = b"503 Service Unavailable\n\nThe object storage process does not answer; it is being started again.\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body)), (b"retry-after", b"1")]
    if close:  # the client holds its body back, and may send it or not
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})

"""Hand requests on to another process of this machine, bytes as they come: `/v1` of the one port goes to the object
process, which has a port of its own for those who read the catalogue.

Connections to the other process are kept and used again.  Nothing is buffered: both bodies stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httptools

_IDLE_MAX = 32
_HOP = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"proxy-connection", b"te", b"trailer"}
)


class _Answer:
    """What httptools tells us about the other side's reply."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunks: list[bytes] = []
        self.head_done = self.started = self.done = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.head_done = True

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)

    def on_message_complete(self) -> None:
        self.done = True


class Forward:
    """An ASGI application that is another HTTP server."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        try:
            reader, writer = await self._connect()
        except OSError:
            await _refuse(send)
            return
        kept, answer = False, _Answer()
        try:
            kept = await self._exchange(scope, receive, send, answer, reader, writer)
        except* (OSError, asyncio.IncompleteReadError, httptools.HttpParserError):
            if not answer.started:  # else the client sees its reply end early, which is the truth
                await _refuse(send)
        finally:
            if kept and len(self._idle) < _IDLE_MAX:
                self._idle.append((reader, writer))
            else:
                writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await asyncio.open_connection(self._host, self._port, limit=1 << 20)

    async def _exchange(
        self,
        scope: Mapping[str, Any],
        receive: Any,
        send: Any,
        answer: _Answer,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        """Whether the connection can be used again."""
        headers = [(name, value) for name, value in scope["headers"] if name not in _HOP and name != b"expect"]
        sized = any(name == b"content-length" for name, _ in headers)
        has_body = sized or any(name == b"transfer-encoding" for name, _ in scope["headers"])
        if has_body and not sized:
            headers.append((b"transfer-encoding", b"chunked"))
        query = b"?" + scope["query_string"] if scope["query_string"] else b""
        writer.write(scope["method"].encode() + b" " + scope["raw_path"] + query + b" HTTP/1.1\r\n")
        writer.write(b"".join(name + b": " + value + b"\r\n" for name, value in headers) + b"\r\n")
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(_send_body(receive, writer, chunked=not sized)) if has_body else None
            reusable = await _relay(scope["method"], answer, reader, send)
            if sending is not None and not sending.done():
                sending.cancel()  # answered before the body was read (a refusal): the connection is spoilt
                reusable = False
        return reusable


async def _send_body(receive: Any, writer: asyncio.StreamWriter, *, chunked: bool) -> None:
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            writer.close()  # the other side sees a body that ends early, as it would from the client
            return
        chunk, more = message.get("body", b""), message.get("more_body", False)
        if chunk:
            writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
            await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _relay(method: str, answer: _Answer, reader: asyncio.StreamReader, send: Any) -> bool:
    parser = httptools.HttpResponseParser(answer)
    while not answer.done:
        data = await reader.read(1 << 18)
        if not data:
            raise asyncio.IncompleteReadError(b"", None)
        parser.feed_data(data)
        if answer.head_done and not answer.started:
            answer.started = True
            kept = [(name, value) for name, value in answer.headers if name not in _HOP]
            await send({"type": "http.response.start", "status": parser.get_status_code(), "headers": kept})
            if method == "HEAD" or parser.get_status_code() in (204, 304):
                answer.done = True
        for chunk in answer.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        answer.chunks.clear()
    await send({"type": "http.response.body", "body": b""})
    return bool(parser.should_keep_alive())


async def _refuse(send: Any) -> None:
    body = b"503 Service Unavailable\n\nThe object storage process does not answer; it is being started again.\n"
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body)), (b"retry-after", b"1")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})

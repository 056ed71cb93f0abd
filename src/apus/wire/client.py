"""HTTP to another process of our own cloud: kept connections, bodies that stream both ways, nothing else.

Small on purpose: it is resident in every process, speaks only to our own servers, and follows no redirects.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import httptools

from apus.kernel.buffers import Chunk
from apus.kernel.errors import Unavailable

Headers = Sequence[tuple[bytes, bytes]]

_IDLE_MAX: Final = 32
_REPEATABLE: Final = ("GET", "HEAD")
_CHUNK_BYTES: Final = 1 << 18
SILENT_S: Final = 120.0
"""No byte of the reply for this long after the request was sent, or none of the request taken: the server hangs."""


class _Parser:
    """What httptools tells us about the reply."""

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.chunks: list[bytes] = []
        self.head_done = self.done = self.keeps = False
        self.http = httptools.HttpResponseParser(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.head_done = not self._is_interim()
        self.keeps = bool(self.http.should_keep_alive())  # the parser knows it now, and no more at the end

    def on_body(self, body: bytes) -> None:
        self.chunks.append(body)

    def on_message_complete(self) -> None:
        if self._is_interim():
            self.headers.clear()
        else:
            self.done = True

    def _is_interim(self) -> bool:
        """100 Continue and its like come before the reply."""
        return bool(self.http.get_status_code() < 200)


class Connection:
    """One request and its reply on one connection."""

    def __init__(self, client: HttpClient, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._client, self._reader, self._writer = client, reader, writer
        self._parser = _Parser()
        self._sending: asyncio.Task[None] | None = None
        self._bodiless = False

    @property
    def status(self) -> int:
        return int(self._parser.http.get_status_code())

    @property
    def began(self) -> bool:
        """Whether anything of a reply has come."""
        return bool(self._parser.headers) or self._parser.head_done

    @property
    def headers(self) -> Headers:
        return self._parser.headers

    async def begin(self, method: str, target: bytes, headers: Headers, body: AsyncIterator[Chunk] | None) -> None:
        """Send the request; returns when the reply's head is there.  Raises OSError when the other side goes."""
        chunked = body is not None and not any(name == b"content-length" for name, _ in headers)
        lines = [*headers, (b"transfer-encoding", b"chunked")] if chunked else headers
        head = b"".join(name + b": " + value + b"\r\n" for name, value in lines)
        self._writer.write(method.encode() + b" " + target + b" HTTP/1.1\r\n" + head + b"\r\n")
        self._bodiless = method == "HEAD"
        if body is not None:
            self._sending = asyncio.get_running_loop().create_task(self._send(body, chunked))
        while not self._parser.head_done:
            await self._feed()
        if self._bodiless or self.status in (204, 304):
            self._parser.done = True

    async def _send(self, body: AsyncIterator[Chunk], chunked: bool) -> None:
        try:
            async for chunk in body:
                if chunk:
                    self._writer.write(b"".join((b"%x\r\n" % len(chunk), chunk, b"\r\n")) if chunked else chunk)
                    async with asyncio.timeout(self._client.silent_s):
                        await self._writer.drain()
            if chunked:
                self._writer.write(b"0\r\n\r\n")
            await self._writer.drain()
        except OSError:
            return  # the other side has answered, or is gone: its reply, or the lack of it, says which
        except BaseException:
            self._writer.close()  # the body ends early: the other side must not take it for whole
            raise

    async def _feed(self) -> None:
        data = await self._heard()
        if not data:
            raise ConnectionResetError("the reply ended early")
        try:
            self._parser.http.feed_data(data)
        except httptools.HttpParserError as error:
            raise ConnectionError(f"not HTTP: {error}") from error

    async def _heard(self) -> bytes:
        """What the server says next.  While the body is being sent, its failure counts, and silence is no wonder."""
        if self._sending is not None:
            reading = asyncio.get_running_loop().create_task(self._reader.read(_CHUNK_BYTES))
            try:
                await asyncio.wait([reading, self._sending], return_when=asyncio.FIRST_COMPLETED)
                if self._sending.done():
                    self._sending.result()
                if reading.done():
                    return reading.result()
            finally:
                if not reading.done():
                    reading.cancel()
                    await asyncio.wait([reading])
            self._sending = None
        async with asyncio.timeout(self._client.silent_s):
            return await self._reader.read(_CHUNK_BYTES)

    async def body(self) -> AsyncIterator[bytes]:
        """The reply's body as it comes."""
        while True:
            chunks, self._parser.chunks = self._parser.chunks, []
            for chunk in chunks:
                yield chunk
            if self._parser.done:
                return
            await self._feed()

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.body()])

    def end(self) -> None:
        """Keep the connection if it is clean, else close it."""
        sent = self._sending is None or (self._sending.done() and _is_well(self._sending))
        if self._sending is not None and not self._sending.done():
            self._sending.cancel()
        if sent and self._parser.done and self._parser.keeps:
            self._client.keep(self._reader, self._writer)
        else:
            self._writer.close()


def _is_well(sending: asyncio.Task[None]) -> bool:
    return not sending.cancelled() and sending.exception() is None


class HttpClient:
    """Connections to one server."""

    def __init__(self, host: str, port: int, *, silent_s: float = SILENT_S) -> None:
        self._host, self._port, self.silent_s = host, port, silent_s
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    @contextlib.asynccontextmanager
    async def request(
        self, method: str, target: bytes, headers: Headers = (), body: AsyncIterator[Chunk] | None = None
    ) -> AsyncIterator[Connection]:
        """Raise Unavailable when the server does not answer; OSError when it goes away midway."""
        if not any(name == b"host" for name, _ in headers):
            headers = [(b"host", f"{self._host}:{self._port}".encode()), *headers]
        connection = self._kept()
        try:
            if connection is not None:
                try:
                    await connection.begin(method, target, headers, body)
                except ConnectionError:
                    # The server closed the kept connection as we wrote.  What may be sent twice is sent again.
                    if method not in _REPEATABLE or body is not None or connection.began:
                        raise
                    connection.end()
                    connection = None
            if connection is None:
                connection = await self._connect()
                await connection.begin(method, target, headers, body)
            yield connection
        finally:
            if connection is not None:
                connection.end()

    def _kept(self) -> Connection | None:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return Connection(self, reader, writer)
            writer.close()
        return None

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(self.silent_s):
                return Connection(self, *await asyncio.open_connection(self._host, self._port, limit=1 << 20))
        except OSError as error:
            shown = f"The server at {self._host}:{self._port} does not answer."
            raise Unavailable("wire.no_answer", shown, hidden=str(error)) from error

    def keep(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._idle) < _IDLE_MAX:
            self._idle.append((reader, writer))
        else:
            writer.close()

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()
        self._idle.clear()

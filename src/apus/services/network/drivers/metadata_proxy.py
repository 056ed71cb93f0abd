"""HTTP at the metadata address of each network, without a process a network.

The network driver opens the listening sockets where guests see them; this serves them on the loop of the process,
and tells the handler which network and which address asked, which is all that the answer depends on and nothing that
a guest can forge (the port's source check sees to that).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import httptools

from apus.kernel.errors import CloudError, NotFound

Reply = tuple[int, Mapping[str, str], bytes]
Handle = Callable[[str, str, str, str, Mapping[str, str], bytes], Awaitable[Reply]]
"""(network id, remote IP, method, path with query, headers in lower case, body) -> (status, headers, body)."""

MAX_HEAD_BYTES = 16 << 10
MAX_BODY_BYTES = 64 << 10
MAX_CONNECTIONS = 128
"""Of one network at a time; more are closed at once."""
IDLE_S = 15.0
READ_OUT_S = 1.0


class _Request:
    """One request as httptools reads it."""

    def __init__(self) -> None:
        self.method, self.path = "GET", ""
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.head_bytes = 0
        self.complete = False

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a second request before the answer to the first")

    def on_url(self, url: bytes) -> None:
        self.head_bytes += len(url)
        self.path += url.decode("ascii", "replace")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.head_bytes += len(name) + len(value)
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


class MetadataServer:
    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._open: dict[str, set[asyncio.Task[None]]] = {}

    async def serve(self, network_id: str, listener: socket.socket) -> asyncio.Server:
        """Serve the socket, which becomes ours, until the server is closed."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._connection(network_id, reader, writer)

        return await asyncio.start_server(connected, sock=listener, limit=MAX_HEAD_BYTES)

    async def _connection(self, network_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks = self._open.setdefault(network_id, set())
        task = asyncio.current_task()
        assert task is not None
        if len(tasks) >= MAX_CONNECTIONS:
            writer.close()
            return
        tasks.add(task)
        try:
            remote_ip = str(writer.get_extra_info("peername")[0]).split("%")[0]
            await self._requests(network_id, remote_ip, reader, writer)
        except (OSError, TimeoutError):
            pass  # the guest went away, or never finished its request
        finally:
            tasks.discard(task)
            if not tasks:
                self._open.pop(network_id, None)
            writer.close()

    async def _requests(
        self, network_id: str, remote_ip: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        keep_alive = True
        while keep_alive:
            request = _Request()
            parser = httptools.HttpRequestParser(request)
            async with asyncio.timeout(IDLE_S):
                refusal = await _read(parser, request, reader)
            if refusal is not None:
                keep_alive, reply = False, _plain(refusal)
            elif not request.complete:
                return
            else:
                keep_alive = parser.get_http_version() == "1.1" and request.headers.get("connection") != "close"
                method = parser.get_method().decode("ascii")
                body = bytes(request.body)
                try:
                    reply = await self._handle(network_id, remote_ip, method, request.path, request.headers, body)
                except CloudError as error:  # a bug of ours ends the connection, and asyncio logs it
                    unknown = isinstance(error, NotFound)
                    reply = _plain(HTTPStatus.NOT_FOUND if unknown else HTTPStatus.SERVICE_UNAVAILABLE)
            writer.write(_rendered(reply, keep_alive, head_only=_asks_head(parser)))
            async with asyncio.timeout(IDLE_S):
                await writer.drain()
            if refusal is not None:
                await _read_out(reader)


def _asks_head(parser: httptools.HttpRequestParser) -> bool:
    return bytes(parser.get_method()) == b"HEAD"


async def _read(
    parser: httptools.HttpRequestParser, request: _Request, reader: asyncio.StreamReader
) -> HTTPStatus | None:
    """Read to the end of one request; a status when it is refused, `complete` unset when the guest hung up."""
    received = 0
    while not request.complete:
        data = await reader.read(4096)
        if not data:
            return None
        received += len(data)
        try:
            parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return HTTPStatus.NOT_IMPLEMENTED
        except httptools.HttpParserError:
            return HTTPStatus.BAD_REQUEST
        if request.head_bytes > MAX_HEAD_BYTES:
            return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        if len(request.body) > MAX_BODY_BYTES or received > MAX_HEAD_BYTES + 2 * MAX_BODY_BYTES:
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    return None


async def _read_out(reader: asyncio.StreamReader) -> None:
    """Closed with data unread, a connection is reset, and the refusal with it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(READ_OUT_S):
            while await reader.read(1 << 16):
                pass


def _plain(status: HTTPStatus) -> Reply:
    return int(status), {"content-type": "text/plain"}, f"{int(status)} {status.phrase}\n".encode()


def _rendered(reply: Reply, keep_alive: bool, *, head_only: bool) -> bytes:
    status, headers, body = reply
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [
        f"content-length: {len(body)}",
        f"connection: {'keep-alive' if keep_alive else 'close'}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode("latin-1") + (b"" if head_only else body)

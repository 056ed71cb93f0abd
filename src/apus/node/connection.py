"""One connection: uvicorn's protocol parses it, and long bodies go straight to where they are wanted.

What uvicorn leaves open is closed here: a request's head has a limit and a deadline, and the head of an answer goes out
with its body.

A body of a stated length needs no parser.  Once its handler asks for it (`wire/body.py`) the kernel writes it into the
handler's own buffers; from then on the parser does not know where the body ends, so the connection counts, and reads
the next request with a new parser.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final, cast

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from apus.kernel.buffers import Chunk, FilePart, Stored
from apus.platform.sending import Sender
from apus.wire.answer import ANSWER, ANSWERER
from apus.wire.body import FILL, FILLER
from apus.wire.route import ended

HEAD_MAX_BYTES: Final = 128 << 10
"""Request line and headers: many times what any client sends; a token of a large catalogue has 8 KiB."""
HEAD_S: Final = 30.0
"""A connection that has not said what it wants by then is closed."""
LONG_BYTES: Final = 64 << 10
"""Bodies up to this are parsed: they have come whole before their handler asks."""

_parsed: Final = memoryview(bytearray(256 << 10))
"""Where all connections receive what is parsed: it is used up before the next one receives."""


class Connection(asyncio.BufferedProtocol):
    def __init__(self, *given: Any, sender: Sender | None = None, **named: Any) -> None:
        """Takes what uvicorn gives to its protocols, and who sends what lies in files."""
        self._http = _Http(*given, **named)
        self._http.sender = sender

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._http.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._http.connection_lost(exc)

    def eof_received(self) -> None:
        self._http.eof_received()

    def pause_writing(self) -> None:
        self._http.pause_writing()

    def resume_writing(self) -> None:
        self._http.resume_writing()

    def get_buffer(self, sizehint: int) -> memoryview:
        body = self._http.body
        return body.room() if body is not None and body.unparsed else _parsed

    def buffer_updated(self, nbytes: int) -> None:
        body = self._http.body
        if body is not None and body.unparsed:
            body.came(nbytes)
        else:
            self._http.data_received(_parsed[:nbytes])


class Gathering:
    """A transport that writes what came in one turn of the loop by one call: a packet for a head alone costs as much as
    100 KiB of body."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._parts: list[bytes | memoryview] = []
        socket = transport.get_extra_info("socket")
        self._handle: int | None = socket.fileno() if socket is not None else None
        self.pause_reading, self.resume_reading = transport.pause_reading, transport.resume_reading
        self.get_extra_info, self.is_closing = transport.get_extra_info, transport.is_closing

    @property
    def handle(self) -> int | None:
        """Of the socket, if all that was written is out."""
        if self._parts or self._transport.is_closing() or self._transport.get_write_buffer_size():
            return None
        return self._handle

    def write(self, data: bytes | memoryview) -> None:
        self._parts.append(data)
        if len(data) >= LONG_BYTES:  # while it is in the processor's cache
            self._flush()
        elif len(self._parts) == 1:
            self._loop.call_soon(self._flush)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.writelines(parts)


class _Http(HttpToolsProtocol):
    body: LongBody | None = None
    """Of the request that is read now, if it is long and of a stated length."""

    sender: Sender | None = None

    _head_bytes = 0
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, Gathering(transport, self.loop)))
        self._deadline = self.loop.call_later(HEAD_S, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._no_deadline()
        super().connection_lost(exc)
        if self.body is not None:
            self.body.lost()

    def data_received(self, data: memoryview) -> None:  # type: ignore[override]
        super().data_received(data)  # type: ignore[arg-type]
        if not self._in_head:
            return
        self._head_bytes += len(data)
        if self._head_bytes > HEAD_MAX_BYTES:
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
            self.transport.close()
        elif self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(HEAD_S, self.transport.close)

    def on_headers_complete(self) -> None:
        self._in_head, self._head_bytes = False, 0
        self._no_deadline()
        self.body = None
        waits = self.cycle is not None and not self.cycle.response_complete
        size = 0 if waits else _stated_bytes(self.headers)
        if size > LONG_BYTES:
            self.body = LongBody(self, size)
        super().on_headers_complete()
        if self.cycle is not None:
            extensions = self.scope["extensions"] = {ANSWER: {ANSWERER: Answering(self, self.cycle)}}
            if self.body is not None:
                self.body.cycle = self.cycle
                extensions[FILL] = {FILLER: self.body}

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        if self.body is not None:
            self.body.left_bytes -= len(body)

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def parse_anew(self) -> None:
        """What comes now is a request."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.body = None

    def still_here(self) -> None:
        """The client sends: the connection is not idle."""
        self._unset_keepalive_if_required()

    def _no_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Answering:
    """Of one request.  Implements `wire.answer.Wholesale`."""

    __slots__ = ("_cycle", "_http")

    def __init__(self, http: _Http, cycle: RequestResponseCycle) -> None:
        self._http = http
        self._cycle: RequestResponseCycle | None = cycle

    async def answer(self, status: int, fields: bytes, body: Chunk) -> None:
        cycle = self._taken()
        if await _writable(cycle):
            _write(cycle, _head(cycle, status, fields), body)
            _complete(cycle)

    async def answer_stored(self, status: int, fields: bytes, body: Stored) -> bool:
        cycle = self._taken()
        if not await _writable(cycle):
            return True
        head = _head(cycle, status, fields)
        sent = await self._sent_uncopied(cycle, head, body.part)
        if not sent:
            data = body.part.read()
            if data is None:
                self._cycle = cycle  # it gets another answer
                return False
            _write(cycle, head, data)
        elif sent < len(head) + len(body):
            if sent < len(head):
                cycle.transport.write(head[sent:])
            async with ended(body.rest(max(0, sent - len(head)))) as chunks:
                async for chunk in chunks:
                    cycle.transport.write(chunk)
                    if not await _writable(cycle):
                        return True
        _complete(cycle)
        return True

    async def _sent_uncopied(self, cycle: RequestResponseCycle, head: bytes, part: FilePart) -> int:
        """How much of the answer went from the file to the connection.  Who does so beside us is of use when others
        wait for this one."""
        sender, transport = self._http.sender, cast(Gathering, cycle.transport)
        if sender is None:
            return 0
        free = sender.free_for(part) if len(self._http.tasks) > 1 else None
        if free is None and not sender.does(part):
            return 0
        sent, sending = 0, None
        with suppress(OSError, ValueError):  # who reads it finds out, and says so
            async with part as (file, offset):
                handle = transport.handle
                if handle is not None and free is not None:
                    sending = free.send(handle, head, part, file, offset)
                elif handle is not None:
                    sent = sender.send(handle, head, part, file, offset)
        if sending is not None:
            cycle.response_started = True  # what goes wrong from here on ends the connection
            sent = await sending
        cycle.response_started = sent > 0
        return sent

    def _taken(self) -> RequestResponseCycle:
        cycle, self._cycle = self._cycle, None  # its scope has us: nothing is left for the cycle collector
        assert cycle is not None, "a request has one answer"
        assert not cycle.response_started
        return cycle


async def _writable(cycle: RequestResponseCycle) -> bool:
    """Wait for the client to take what it has; false when it has gone."""
    if cycle.flow.write_paused and not cycle.disconnected:
        await cycle.flow.drain()
    return not cycle.disconnected


def _head(cycle: RequestResponseCycle, status: int, fields: bytes) -> bytes:
    standing = b"".join([b"%b: %b\r\n" % field for field in cycle.default_headers])
    end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
    return b"".join((STATUS_LINE[status], standing, fields, end))


def _write(cycle: RequestResponseCycle, head: bytes, body: Chunk) -> None:
    cycle.transport.write(head)
    if body:
        cycle.transport.write(body)


def _complete(cycle: RequestResponseCycle) -> None:
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


class LongBody:
    """One body, parsed until it is asked for.  Implements `wire.body.Filler`."""

    def __init__(self, http: _Http, size_bytes: int) -> None:
        self.left_bytes = size_bytes
        """Not received yet."""
        self.cycle: RequestResponseCycle
        """Of its request."""
        self.unparsed = False
        self._http = http
        self._room: memoryview | None = None
        self._filled: asyncio.Future[None] | None = None

    @property
    def ended(self) -> bool:
        return not self.left_bytes and not self.cycle.body

    async def fill(self, view: memoryview) -> int:
        http, cycle = self._http, self.cycle
        if cycle.waiting_for_100_continue and not http.transport.is_closing():
            http.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            cycle.waiting_for_100_continue = False
        count = min(len(cycle.body), len(view))
        view[:count] = cycle.body[:count]
        del cycle.body[:count]
        wanted = view[count : count + min(len(view) - count, self.left_bytes)]
        if not wanted or cycle.disconnected:
            return count
        self.unparsed, self._room, self._filled = True, wanted, http.loop.create_future()
        http.flow.resume_reading()
        try:
            await self._filled
            return count + len(wanted) - len(self._room)
        finally:
            self._room = self._filled = None

    def room(self) -> memoryview:
        """Where the next bytes go."""
        return self._room if self._room else _parsed[: self.left_bytes]

    def came(self, size: int) -> None:
        self.left_bytes -= size
        http, cycle = self._http, self.cycle
        if self._room:
            self._room = self._room[size:]
            if not self._room:
                http.flow.pause_reading()
                self.lost()
        elif not cycle.response_complete:
            cycle.body += _parsed[:size]
            cycle.message_event.set()
            if len(cycle.body) > HIGH_WATER_LIMIT:
                http.flow.pause_reading()
        else:
            http.still_here()  # nobody wants it
        if not self.left_bytes:
            cycle.more_body = False
            cycle.message_event.set()
            http.parse_anew()

    def lost(self) -> None:
        """Who waits gets what there is."""
        if self._filled is not None and not self._filled.done():
            self._filled.set_result(None)


def _stated_bytes(headers: list[tuple[bytes, bytes]]) -> int:
    """Of the body; 0 when it is chunked, or there is none."""
    for name, value in headers:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0

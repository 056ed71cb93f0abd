"""The bus between the processes of one machine: a hub on a unix socket, over the hub's own local bus.

One process is the hub (`UnixHub`), the others join it (`UnixBus`).  Each frame is a length and a msgpack list.  While
the hub is away, publishing is silent and asking raises Unavailable; a joined process comes back by itself and
subscribes anew.  Hints only, so nothing is queued across a break, and a side that does not read loses its hints.
A joined process hands what it hears to a local bus of its own, so that both sides bound and feed listeners alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from pathlib import Path
from typing import Any, Final

import msgspec

from apus.kernel.errors import CloudError, Unavailable
from apus.kernel.log import get_logger
from apus.kernel.world import Handler, Listener, Subscription
from apus.platform.bus_local import LocalBus
from apus.platform.subjects import BODY_BYTES_MAX, check_body, check_subject

_log: Final = get_logger("apus.bus")
_RETRY_S: Final = 0.1
_GRACE_S: Final = 1.0
"""The hub watches the asker's deadline; this much later the asker stops trusting the hub."""
_ANSWER_MAX_S: Final = 600.0
"""Nobody waits longer for an answer."""
_FRAME_MAX: Final = BODY_BYTES_MAX + 4096
"""A body, and what is said about it."""
_BEHIND_MAX: Final = 32 << 20
"""Bytes that the other side has not read yet; beyond it hints are dropped and questions refused."""
_BROKEN: Final = (OSError, asyncio.IncompleteReadError, msgspec.DecodeError, ValueError, TypeError)
"""What a connection ends with: it broke, or the other side does not speak like us."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


async def _read_frame(reader: asyncio.StreamReader) -> Any:
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > _FRAME_MAX:
        raise ConnectionError(f"a frame of {size} bytes")
    return _decode(await reader.readexactly(size))


def _write_frame(writer: asyncio.StreamWriter, *items: Any) -> bool:
    """Whether it was taken."""
    data = _encode(items)
    if len(data) > _FRAME_MAX or writer.transport.get_write_buffer_size() > _BEHIND_MAX:
        return False
    writer.write(len(data).to_bytes(4, "big") + data)
    return True


class UnixHub:
    """Opens a local bus to other processes of this user."""

    def __init__(self, bus: LocalBus, path: Path) -> None:
        self._bus, self._path = bus, path
        self._server: asyncio.Server | None = None
        self._guests: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def start(self) -> None:
        """Raise Unavailable when the socket cannot be made."""
        before = os.umask(0o077)
        try:
            self._path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        except OSError as error:
            raise Unavailable("bus.no_socket", f"The bus cannot be opened at {self._path}: {error}.") from error
        finally:
            os.umask(before)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        for writer in self._guests.values():
            writer.close()
        if self._guests:
            await asyncio.wait(list(self._guests))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        guest = _Guest(self._bus, writer)
        task = asyncio.current_task()
        assert task is not None
        self._guests[task] = writer
        try:
            while True:
                await guest.handle(await _read_frame(reader))
        except _BROKEN as error:
            if not isinstance(error, (OSError, asyncio.IncompleteReadError)):
                _log.warning("a guest that speaks nonsense", why=str(error))
        except Unavailable:
            pass  # the local bus is closed
        finally:
            self._guests.pop(task, None)
            await guest.leave()
            writer.close()


class _Guest:
    """One joined process, as the hub sees it."""

    def __init__(self, bus: LocalBus, writer: asyncio.StreamWriter) -> None:
        self._bus, self._writer = bus, writer
        self._subscriptions: dict[int, Subscription] = {}
        self._questions = itertools.count()
        self._asked: dict[int, asyncio.Future[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def handle(self, frame: Any) -> None:
        kind, *rest = frame
        if kind == "publish":
            await self._bus.publish(*rest)
        elif kind == "listen":
            number, subject = rest
            self._subscriptions[number] = await self._bus.listen(subject, self._hearing(number))
        elif kind == "answer":
            number, subject = rest
            self._subscriptions[number] = await self._bus.answer(subject, self._answering(number))
        elif kind == "stop":
            subscription = self._subscriptions.pop(rest[0], None)
            if subscription is not None:
                await subscription.stop()
        elif kind == "ask":
            task = asyncio.get_running_loop().create_task(self._ask(*rest))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif kind == "reply":
            number, body = rest
            waiting = self._asked.pop(number, None)
            if waiting is not None and not waiting.done():
                if body is None:
                    waiting.set_exception(Unavailable("bus.no_answer", "The answerer failed."))
                else:
                    waiting.set_result(body)

    def _hearing(self, number: int) -> Listener:
        async def hear(subject: str, body: bytes) -> None:
            _write_frame(self._writer, "heard", number, subject, body)

        return hear

    def _answering(self, number: int) -> Handler:
        async def answer(body: bytes) -> bytes:
            question = next(self._questions)
            self._asked[question] = asyncio.get_running_loop().create_future()
            try:
                if not _write_frame(self._writer, "question", number, question, body):
                    raise Unavailable("bus.busy", "The answerer is too far behind.")
                return await self._asked[question]
            finally:
                self._asked.pop(question, None)

        return answer

    async def _ask(self, number: int, subject: str, body: bytes, timeout_s: float) -> None:
        try:
            reply = await self._bus.ask(subject, body, timeout_s=timeout_s)
            if not _write_frame(self._writer, "replied", number, reply, ""):
                _write_frame(self._writer, "replied", number, None, f"The answer of {subject} is too large.")
        except (CloudError, ValueError) as error:
            _write_frame(self._writer, "replied", number, None, str(error))

    async def leave(self) -> None:
        for subscription in self._subscriptions.values():
            await subscription.stop()
        for waiting in self._asked.values():
            waiting.cancel()
        for task in list(self._tasks):
            task.cancel()


class _Joined:
    """A subscription of a joined process: asked for again after each reconnect."""

    def __init__(self, bus: UnixBus, number: int, kind: str, subject: str) -> None:
        self.number, self.kind, self.subject = number, kind, subject
        self.own: Subscription | None = None
        self._bus = bus

    async def stop(self) -> None:
        self._bus.subscriptions.pop(self.number, None)
        self._bus.send("stop", self.number)
        if self.own is not None:
            await self.own.stop()


class UnixBus:
    """The bus of a process that joined a hub.  `run` keeps the connection while it runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count(1)
        self.subscriptions: dict[int, _Joined] = {}
        self._own = LocalBus()
        """Where frames of subscription N go on, as subject `N`: its queues feed our listeners and answerers."""
        self._asked: dict[int, asyncio.Future[tuple[bytes | None, str]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._closed = False

    def send(self, *frame: Any) -> bool:
        return self._writer is not None and _write_frame(self._writer, *frame)

    async def publish(self, subject: str, body: bytes = b"") -> None:
        check_subject(subject)
        check_body(body)
        self.send("publish", subject, body)

    async def listen(self, subject: str, listener: Listener) -> Subscription:
        async def heard(number: str, frame: bytes) -> None:
            await listener(*_decode(frame))

        joined = self._joining("listen", subject)
        joined.own = await self._own.listen(str(joined.number), heard)
        return self._join(joined)

    async def answer(self, subject: str, handler: Handler) -> Subscription:
        joined = self._joining("answer", subject)
        joined.own = await self._own.answer(str(joined.number), handler)
        return self._join(joined)

    def _joining(self, kind: str, subject: str) -> _Joined:
        check_subject(subject, pattern=True)
        return _Joined(self, next(self._numbers), kind, subject)

    def _join(self, joined: _Joined) -> _Joined:
        self.subscriptions[joined.number] = joined
        self.send(joined.kind, joined.number, joined.subject)
        return joined

    async def ask(self, subject: str, body: bytes, *, timeout_s: float) -> bytes:
        check_subject(subject)
        check_body(body)
        number = next(self._numbers)
        if not self.send("ask", number, subject, body, timeout_s):
            raise Unavailable("bus.away", f"The bus of this machine is away or too busy; {subject} was not asked.")
        self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s + _GRACE_S):
                reply, why = await self._asked[number]
        except TimeoutError:
            raise Unavailable("bus.no_answer", f"{subject} was not answered within {timeout_s:g} s.") from None
        finally:
            self._asked.pop(number, None)
        if reply is None:
            raise Unavailable("bus.no_answer", why)
        return reply

    async def run(self) -> None:
        """Stay connected until cancelled or closed."""
        while not self._closed:
            with contextlib.suppress(*_BROKEN):
                reader, self._writer = await asyncio.open_unix_connection(str(self._path))
                for joined in self.subscriptions.values():
                    self.send(joined.kind, joined.number, joined.subject)
                while True:
                    await self._handle(*await _read_frame(reader))
            self._forget()
            await asyncio.sleep(_RETRY_S)

    async def _handle(self, kind: str, number: int, *rest: Any) -> None:
        if kind == "replied":
            waiting = self._asked.get(number)
            if waiting is not None and not waiting.done():
                waiting.set_result((rest[0], rest[1]))
        elif number in self.subscriptions and kind == "heard":
            await self._own.publish(str(number), _encode(rest))
        elif kind == "question":
            self._own.own(self._reply(number, *rest))

    async def _reply(self, number: int, question: int, body: bytes) -> None:
        try:
            reply: bytes | None = await self._own.ask(str(number), body, timeout_s=_ANSWER_MAX_S)
        except Unavailable:
            reply = None
        if not self.send("reply", question, reply):
            self.send("reply", question, None)

    def _forget(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_result((None, "The bus of this machine went away."))

    async def close(self) -> None:
        self._closed = True
        self._forget()
        await self._own.close()

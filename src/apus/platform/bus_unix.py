"""The bus between the processes of one machine: a hub on a unix socket, over the hub's own local bus.

One process is the hub (`UnixHub`), the others join it (`UnixBus`).  Each frame is a length and a msgpack list.  While
the hub is away, publishing is silent and asking raises Unavailable; a joined process comes back by itself and
subscribes anew.  Hints only, so nothing is queued across a break.
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

_log: Final = get_logger("apus.bus")
_RETRY_S: Final = 0.1
_FRAME_MAX: Final = 16 << 20
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


async def _read_frame(reader: asyncio.StreamReader) -> Any:
    size = int.from_bytes(await reader.readexactly(4), "big")
    if size > _FRAME_MAX:
        raise ConnectionError(f"a frame of {size} bytes")
    return _decode(await reader.readexactly(size))


def _write_frame(writer: asyncio.StreamWriter, *items: Any) -> None:
    data = _encode(items)
    writer.write(len(data).to_bytes(4, "big") + data)


class UnixHub:
    """Opens a local bus to other processes of this user."""

    def __init__(self, bus: LocalBus, path: Path) -> None:
        self._bus, self._path = bus, path
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._path.unlink(missing_ok=True)
        before = os.umask(0o077)
        try:
            self._server = await asyncio.start_unix_server(self._serve, str(self._path))
        finally:
            os.umask(before)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        guest = _Guest(self._bus, writer)
        try:
            while True:
                await guest.handle(await _read_frame(reader))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
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
                waiting.set_result(body)

    def _hearing(self, number: int) -> Listener:
        async def hear(subject: str, body: bytes) -> None:
            _write_frame(self._writer, "heard", number, subject, body)

        return hear

    def _answering(self, number: int) -> Handler:
        async def answer(body: bytes) -> bytes:
            question = next(self._questions)
            self._asked[question] = asyncio.get_running_loop().create_future()
            _write_frame(self._writer, "question", number, question, body)
            try:
                return await self._asked[question]
            finally:
                self._asked.pop(question, None)

        return answer

    async def _ask(self, number: int, subject: str, body: bytes, timeout_s: float) -> None:
        try:
            reply = await self._bus.ask(subject, body, timeout_s=timeout_s)
            _write_frame(self._writer, "replied", number, reply, "")
        except CloudError as error:
            _write_frame(self._writer, "replied", number, None, error.shown)

    async def leave(self) -> None:
        for subscription in self._subscriptions.values():
            await subscription.stop()
        for waiting in self._asked.values():
            waiting.cancel()
        for task in list(self._tasks):
            task.cancel()


class _Joined:
    """A subscription of a joined process: asked for again after each reconnect."""

    def __init__(self, bus: UnixBus, number: int, kind: str, subject: str, target: Any) -> None:
        self.number, self.kind, self.subject, self.target = number, kind, subject, target
        self._bus = bus

    async def stop(self) -> None:
        self._bus.subscriptions.pop(self.number, None)
        self._bus.send("stop", self.number)


class UnixBus:
    """The bus of a process that joined a hub.  `run` keeps the connection while it runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count(1)
        self.subscriptions: dict[int, _Joined] = {}
        self._asked: dict[int, asyncio.Future[tuple[bytes | None, str]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, *frame: Any) -> bool:
        if self._writer is None:
            return False
        _write_frame(self._writer, *frame)
        return True

    async def publish(self, subject: str, body: bytes = b"") -> None:
        self.send("publish", subject, body)

    async def listen(self, subject: str, listener: Listener) -> Subscription:
        return self._join("listen", subject, listener)

    async def answer(self, subject: str, handler: Handler) -> Subscription:
        return self._join("answer", subject, handler)

    def _join(self, kind: str, subject: str, target: Any) -> _Joined:
        joined = _Joined(self, next(self._numbers), kind, subject, target)
        self.subscriptions[joined.number] = joined
        self.send(kind, joined.number, subject)
        return joined

    async def ask(self, subject: str, body: bytes, *, timeout_s: float) -> bytes:
        number = next(self._numbers)
        if not self.send("ask", number, subject, body, timeout_s):
            raise Unavailable("bus.away", f"The bus of this machine is away; {subject} was not asked.")
        self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s + 1.0):
                reply, why = await self._asked[number]
        except TimeoutError:
            raise Unavailable("bus.no_answer", f"{subject} was not answered within {timeout_s:g} s.") from None
        finally:
            self._asked.pop(number, None)
        if reply is None:
            raise Unavailable("bus.no_answer", why)
        return reply

    async def run(self) -> None:
        """Stay connected until cancelled."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, self._writer = await asyncio.open_unix_connection(str(self._path))
                for joined in self.subscriptions.values():
                    self.send(joined.kind, joined.number, joined.subject)
                while True:
                    self._handle(await _read_frame(reader))
            self._forget()
            await asyncio.sleep(_RETRY_S)

    def _handle(self, frame: Any) -> None:
        kind, number, *rest = frame
        if kind == "replied":
            waiting = self._asked.get(number)
            if waiting is not None and not waiting.done():
                waiting.set_result((rest[0], rest[1]))
            return
        joined = self.subscriptions.get(number)
        if joined is not None:
            work = self._hear(joined, *rest) if kind == "heard" else self._reply(joined, *rest)
            task = asyncio.get_running_loop().create_task(work)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _hear(self, joined: _Joined, subject: str, body: bytes) -> None:
        try:
            await joined.target(subject, body)
        except Exception:
            _log.exception("a listener failed", subject=subject)

    async def _reply(self, joined: _Joined, question: int, body: bytes) -> None:
        try:
            self.send("reply", question, await joined.target(body))
        except Exception:
            _log.exception("an answerer failed", subject=joined.subject)

    def _forget(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for waiting in self._asked.values():
            if not waiting.done():
                waiting.set_result((None, "The bus of this machine went away."))

    async def close(self) -> None:
        self._forget()
        for task in list(self._tasks):
            task.cancel()

"""The drives of this host, for a proxy on another one."""

from __future__ import annotations

import asyncio
import errno
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, aclosing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from apus.kernel.log import get_logger
from apus.services.object.drivers.drive import CopyWriter
from apus.services.object.drivers.local import LocalDrive, LocalSite
from apus.services.object.drivers.remote.channel import Channel, answer_call
from apus.services.object.drivers.remote.drive import ANSWER, COMMIT, DATA
from apus.services.object.drivers.remote.served import HEARD_S, Known, Served
from apus.services.object.drivers.remote.verbs import (
    VERBS,
    Answer,
    Failure,
    Hello,
    Request,
    Seen,
    decode_head,
    decode_hello,
    decode_request,
    encode,
    failure_of,
)
from apus.services.object.model import CorruptCopy, DriveTrouble

TAKE_S: Final = 300.0
"""How long a proxy may let a body wait: its client may be slow."""
AT_ONCE: Final = 1024
"""Verbs of one connection that are under way at once; the next is read when one has ended."""

_NOTHING: Final = msgspec.Raw(encode(None))
_log: Final = get_logger("apus.object.disk")

_Do = Callable[[str, Any], Awaitable[Any]]
"""A verb and its arguments."""


class DriveServer:
    """`start` listens; each connection is one task, and ends with it all that it began and did not commit.

    A drive is opened when the first proxy names it.  Which one is where, only proxies know.
    """

    def __init__(self, secret: bytes, site: LocalSite, *, heard_s: float = HEARD_S) -> None:
        """`heard_s`: how long proxies have to hear of a change of the ring that another one told of."""
        self._secret, self._site, self._heard_s = secret, site, heard_s
        self.served: dict[str, Served] = {}
        """By path."""
        self._opening = defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, which is chosen where 0 was asked for."""
        self._server = await asyncio.start_server(self._connected, host, port)
        chosen: int = self._server.sockets[0].getsockname()[1]
        return chosen

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for path in list(self.served):
            await self._leave(path)

    def drives(self) -> Mapping[str, LocalDrive]:
        """Those that are open now, by path."""
        return {path: served.drive for path, served in self.served.items()}

    async def leave_unused(self, path: str) -> None:
        """Close the drive in order if no proxy is connected for it."""
        async with self._opening[path]:
            served = self.served.get(path)
            if served is not None and not served.is_used:
                await self._leave(path)

    def held(self, path: str) -> AbstractContextManager[None]:
        """While somebody here works on this drive it is not closed."""
        served = self.served.get(path)
        return served.held() if served is not None else nullcontext()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self.serve(await answer_call(reader, writer, self._secret))
        except (OSError, msgspec.DecodeError) as error:
            _log.info("a connection ended", why=str(error))
        except asyncio.CancelledError:
            pass  # we stop; asyncio would log it
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def serve(self, channel: Channel) -> None:
        """One connection, until it ends."""
        hello = decode_hello(await channel.receive())
        if hello.mode == "site":
            failure, result = await outcome(self._ask_site, decode_request(await channel.receive()))
            channel.send(encode(Answer(0, Seen(), failure, result)))
            return await channel.drain(TAKE_S)
        if not Path(hello.path).is_absolute():
            raise channel.broken("the path of a drive is not absolute")
        knows = Known(hello.turn, hello.part_power)
        task = asyncio.current_task()
        assert task is not None
        served = await self._get(hello, task)
        try:
            served.turned(knows, hello.turn)
            await served.repartition(knows, hello.part_power)
            channel.send(encode(Answer(0, served.seen, None, _NOTHING)))
            if hello.mode == "calls":
                await _Calls(channel, served, knows).run()
            else:
                await _Bodies(channel, served, knows).run()
        finally:
            served.connections.discard(task)

    async def _ask_site(self, verb: str, arguments: Any) -> Any:
        path, *more = arguments
        if not Path(path).is_absolute():
            raise DriveTrouble(errno.EINVAL, f"{path} is not absolute")
        return await getattr(self._site, verb.removeprefix("site."))(Path(path), *more)

    async def _get(self, hello: Hello, connection: asyncio.Task[Any]) -> Served:
        """The drive, with one connection more."""
        async with self._opening[hello.path]:
            served = self.served.get(hello.path)
            if served is not None and (served.identity != hello.identity or served.policies < hello.policies):
                await self._leave(hello.path)
                served = None
            if served is None:
                drive = self._site.open(Path(hello.path), hello.identity, hello.part_power, hello.policies)
                served = self.served[hello.path] = Served(drive, hello, self._heard_s)
                try:
                    await drive.start()
                except OSError as error:  # it is away, and each verb says so
                    _log.warning("a drive does not start", drive=drive.id, path=hello.path, why=str(error))
            served.connections.add(connection)
            return served

    async def _leave(self, path: str) -> None:
        await self.served.pop(path).close()


class _Calls:
    """Small verbs, answered as they end; they begin in the order in which they came."""

    def __init__(self, channel: Channel, served: Served, knows: Known) -> None:
        self._channel, self._served, self._do = channel, served, partial(served.do, knows)
        self._room = asyncio.Semaphore(AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until the connection ends.  What was begun is left to end: a thread of it cannot be stopped."""
        try:
            while True:
                request = decode_request(await self._channel.receive())
                await self._room.acquire()
                task = asyncio.ensure_future(self._answer(request))
                self._running.add(task)
                task.add_done_callback(self._ended)
        finally:
            if self._running:
                await asyncio.wait(self._running)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._room.release()

    async def _answer(self, request: Request) -> None:
        failure, result = await outcome(self._do, request)
        if self._channel.is_open:
            self._channel.send(encode(Answer(request.number, self._served.seen, failure, result)))


class _Bodies:
    """Uploads and reads of one drive, one after the other."""

    def __init__(self, channel: Channel, served: Served, knows: Known) -> None:
        self._channel, self._served, self._knows = channel, served, knows

    async def run(self) -> None:
        while True:
            request = decode_request(await self._channel.receive())
            if request.verb == "copies.begin":
                await self._take(request)
            elif request.verb == "copies.read":
                failure, _ = await outcome(self._give, request)
                self._say(failure)
            else:
                raise self._channel.broken(f"{request.verb} has no body")

    async def _take(self, request: Request) -> None:
        writers: list[CopyWriter] = []

        async def begin(verb: str, arguments: Any) -> None:
            self._served.check(self._knows)
            writers.append(await self._served.drive.copies.begin(*arguments))

        failure, _ = await outcome(begin, request)
        self._say(failure)
        if failure is not None:
            return
        (writer,) = writers
        try:
            while await self._took(writer, await self._channel.receive()):
                pass
        finally:
            await writer.abort()

    async def _took(self, writer: CopyWriter, frame: bytes) -> bool:
        """Whether more may come."""
        kind, failure = frame[:1], None
        try:
            if kind == DATA:
                await writer.write(memoryview(frame)[1:])
            elif kind == COMMIT:
                await writer.commit(decode_head(frame[1:]))
            else:
                await writer.abort()
        except OSError as error:
            failure = failure_of(error)
        self._say(failure)
        return kind == DATA and failure is None

    async def _give(self, verb: str, arguments: Any) -> None:
        self._served.check(self._knows)
        try:
            async with aclosing(self._served.drive.copies.read(*arguments)) as pieces:
                async for piece in pieces:
                    self._channel.send(DATA, piece)
                    await self._channel.drain(TAKE_S)
        except CorruptCopy:
            await self._served.drive.doubted()
            raise

    def _say(self, failure: Failure | None) -> None:
        self._channel.send(ANSWER, encode(Answer(0, self._served.seen, failure, _NOTHING)))


async def outcome(do: _Do, request: Request) -> tuple[Failure | None, msgspec.Raw]:
    """What failed, or what came of it."""
    verb = VERBS.get(request.verb)
    try:
        if verb is None:
            raise DriveTrouble(errno.ENOSYS, f"{request.verb!r} is no verb of a drive")
        return None, msgspec.Raw(encode(await do(request.verb, verb.arguments.decode(request.arguments))))
    except OSError as error:
        return failure_of(error), _NOTHING
    except (msgspec.DecodeError, ValueError, AssertionError) as error:
        _log.error("a verb failed", verb=request.verb, why=f"{type(error).__name__}: {error}")
        return Failure("DriveTrouble", errno.EINVAL, str(error)), _NOTHING

"""The drives of this host, for a proxy on another one."""

from __future__ import annotations

import asyncio
import errno
import secrets
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

import msgspec

from apus.kernel.log import get_logger
from apus.services.object.drivers.drive import CopyWriter
from apus.services.object.drivers.fence import DriveIdentity
from apus.services.object.drivers.local import LocalDrive
from apus.services.object.drivers.remote.channel import Channel, answer_call
from apus.services.object.drivers.remote.drive import ANSWER, COMMIT, DATA
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
from apus.services.object.model import DriveTrouble, Row

TAKE_S: Final = 300.0
"""How long a proxy may let a body wait: its client may be slow."""
AT_ONCE: Final = 1024
"""Verbs of one connection that are under way at once; the next is read when one has ended."""

_NOTHING: Final = msgspec.Raw(encode(None))
_log: Final = get_logger("apus.object.disk")

OpenDrive = Callable[[Path, DriveIdentity, int, int], LocalDrive]
"""By path, identity, part power and number of storage policies."""


class Served:
    """One drive that is open here."""

    def __init__(self, drive: LocalDrive, hello: Hello) -> None:
        self.drive, self.part_power = drive, hello.part_power
        self.opened_as = hello.identity, hello.policies
        self._opened, self._returns = secrets.token_hex(8), 0
        drive.on_return = self._returned

    def _returned(self) -> None:
        self._returns += 1

    @property
    def seen(self) -> Seen:
        return Seen(self._opened, self._returns, self.drive.comparing)

    async def do(self, verb: str, arguments: Any) -> Any:
        """Raise OSError as the drive does."""
        room, _, name = verb.rpartition(".")
        special = _SPECIAL.get(verb)
        if special is not None:
            return await special(self, *arguments)
        target = getattr(self.drive, room) if room else self.drive
        return await getattr(target, name)(*arguments)

    async def repartition(self, part_power: int) -> None:
        if part_power != self.part_power:
            self.part_power = part_power
            await self.drive.repartition(part_power)


async def _look(served: Served, write: bool) -> None:
    await served.drive.look(write=write)


async def _listed(served: Served, told: list[tuple[Any, str]]) -> None:
    for place, changed in told:
        served.drive.copies.listed(place, changed)


async def _note(served: Served, kind: Any, place: Any, change: Any) -> None:
    wait = served.drive.indexes.note(kind, place, change)
    if wait is not None:
        await wait


async def _flush(served: Served, noted: list[str]) -> None:
    await served.drive.indexes.flush()
    if any(opened != served.seen.opened for opened in noted):
        raise DriveTrouble(errno.ESTALE, "what was noted before the host was started anew is lost")


async def _listing(served: Served, kind: Any, place: Any, ask: Any) -> list[Row | str]:
    found = await served.drive.indexes.listing(kind, place, ask)
    return [one if isinstance(one, Row) else one.name for one in found]


async def _store(served: Served, place: Any, head: Any, data: bytes) -> None:
    await served.drive.copies.store(place, head, data)


async def _digest(served: Served, part: int) -> str:
    return f"{await served.drive.copies.digest(part):x}"


async def _census(served: Served) -> dict[int, tuple[int, str]]:
    census = await served.drive.copies.census()
    return {part: (count, f"{digest:x}") for part, (count, digest) in census.items()}


async def _index_digest(served: Served, kind: Any, place: Any) -> str:
    return f"{await served.drive.indexes.digest(kind, place):x}"


_SPECIAL: Final[dict[str, Callable[..., Awaitable[Any]]]] = {
    "look": _look,
    "repartition": Served.repartition,
    "copies.store": _store,
    "copies.listed": _listed,
    "copies.digest": _digest,
    "copies.census": _census,
    "indexes.note": _note,
    "indexes.flush": _flush,
    "indexes.listing": _listing,
    "indexes.digest": _index_digest,
}
"""Where what travels is not what the drive takes or gives; all others are called as they are."""


class DriveServer:
    """`start` listens; each connection is one task, and ends with it all that it began and did not commit."""

    def __init__(self, secret: bytes, open_drive: OpenDrive) -> None:
        self._secret, self._open = secret, open_drive
        self.served: dict[str, Served] = {}
        """By path."""
        self._opening = asyncio.Lock()
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
        for served in self.served.values():
            await served.drive.close()
        self.served.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._serve(await answer_call(reader, writer, self._secret))
        except (OSError, msgspec.DecodeError) as error:
            _log.info("a connection ended", why=str(error))
        except asyncio.CancelledError:
            pass  # we stop; asyncio would log it
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _serve(self, channel: Channel) -> None:
        hello = decode_hello(await channel.receive())
        if not Path(hello.path).is_absolute():
            raise channel.broken("the path of a drive is not absolute")
        served = await self._get(hello)
        channel.send(encode(Answer(0, served.seen, None, _NOTHING)))
        if hello.mode == "calls":
            await _Calls(channel, served, lambda verb, some: self._do(hello.path, served, verb, some)).run()
        else:
            await _Bodies(channel, served).run()

    async def _get(self, hello: Hello) -> Served:
        async with self._opening:
            served = self.served.get(hello.path)
            if served is not None and served.opened_as != (hello.identity, hello.policies):
                await self._forget(hello.path, served)
                served = None
            if served is None:
                drive = self._open(Path(hello.path), hello.identity, hello.part_power, hello.policies)
                served = self.served[hello.path] = Served(drive, hello)
                try:
                    await drive.start()
                except OSError as error:  # it is away, and each verb says so
                    _log.warning("a drive does not start", drive=drive.id, path=hello.path, why=str(error))
            await served.repartition(hello.part_power)
            return served

    async def _do(self, path: str, served: Served, verb: str, arguments: Any) -> Any:
        if verb != "close":
            return await served.do(verb, arguments)
        async with self._opening:
            await self._forget(path, served)

    async def _forget(self, path: str, served: Served) -> None:
        if self.served.get(path) is served:
            del self.served[path]
            await served.drive.close()


class _Calls:
    """Small verbs, answered as they end; they begin in the order in which they came."""

    def __init__(self, channel: Channel, served: Served, do: Callable[[str, Any], Awaitable[Any]]) -> None:
        self._channel, self._served, self._do = channel, served, do
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

    def __init__(self, channel: Channel, served: Served) -> None:
        self._channel, self._served = channel, served

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
        async with aclosing(self._served.drive.copies.read(*arguments)) as pieces:
            async for piece in pieces:
                self._channel.send(DATA, piece)
                await self._channel.drain(TAKE_S)

    def _say(self, failure: Failure | None) -> None:
        self._channel.send(ANSWER, encode(Answer(0, self._served.seen, failure, _NOTHING)))


async def outcome(do: Callable[[str, Any], Awaitable[Any]], request: Request) -> tuple[Failure | None, msgspec.Raw]:
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

"""A proxy's connections to one drive: one for all small verbs, and one for each body that is on its way.

Small verbs go out in the order of the calls and are answered in any.  A verb that is not answered in time fails, and
when nothing was heard since it was sent, all that wait fail with it: the host is cut off, in one direction or both.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from apus.services.object.drivers.remote.channel import Channel
from apus.services.object.drivers.remote.verbs import (
    LONG_S,
    VERBS,
    Hello,
    Mode,
    Request,
    Seen,
    Verb,
    decode_answer,
    encode,
    result_of,
)
from apus.services.object.model import DriveTrouble

RETRY_S: Final = 0.4
"""After a connection could not be made, who asks is refused at once for so long."""
IDLE_MAX: Final = 8
"""Connections for bodies that are kept for the next ones."""

Dial = Callable[[], Awaitable[Channel]]
"""A channel to the host.  Raises DriveTrouble."""


class Link:
    def __init__(self, dial: Dial, hello: Callable[[Mode], Hello], saw: Callable[[Seen], None]) -> None:
        """`saw` hears of each answer how the drive is, before whoever asked hears the answer."""
        self._dial, self._hello, self._saw = dial, hello, saw
        self._channel: Channel | None = None
        self._dialling = asyncio.Lock()
        self._refused_s = -RETRY_S
        self._unreachable = False
        """It was so at the last try."""
        self._renewed_s = 0.0
        self._heard_s = 0.0
        self._number = 0
        self._waiting: dict[int, tuple[asyncio.Future[Any], Verb]] = {}
        self._hearing: asyncio.Task[None] | None = None
        self._idle: list[Channel] = []

    def call(self, name: str, *arguments: Any) -> Awaitable[Any]:
        """It is on its way when this returns, if there is a connection.  Awaited, it raises what the drive raised."""
        channel = self._channel
        if channel is not None and channel.is_open and not channel.is_clogged:
            return self._send(channel, name, arguments)
        return asyncio.ensure_future(self._call(name, arguments))

    async def stream(self) -> Channel:
        """A connection for one body; `release` it afterwards, or close it.  Raise DriveTrouble."""
        while self._idle:
            channel = self._idle.pop()
            if channel.is_open:
                return channel
        return await self._open("streams")

    def release(self, channel: Channel) -> None:
        if len(self._idle) < IDLE_MAX and channel.opened_s >= self._renewed_s:
            self._idle.append(channel)
        else:
            channel.close()

    def renew(self) -> None:
        """What connections for bodies said in the beginning is no longer so: the next bodies take new ones."""
        self._renewed_s = asyncio.get_running_loop().time()
        self._forget_idle()

    def close(self) -> None:
        if self._channel is not None:
            self._lost(self._channel, DriveTrouble(errno.ECONNABORTED, "the connection was closed"))
        self._forget_idle()
        if self._hearing is not None:
            self._hearing.cancel()

    async def _call(self, name: str, arguments: tuple[Any, ...]) -> Any:
        channel = await self._ready()
        if channel.is_clogged:
            await channel.drain(VERBS[name].deadline_s)
        return await self._send(channel, name, arguments)

    def _send(self, channel: Channel, name: str, arguments: tuple[Any, ...]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        verb, answer = VERBS[name], loop.create_future()
        self._number += 1
        self._waiting[self._number] = answer, verb
        channel.send(encode(Request(self._number, name, msgspec.Raw(encode(arguments)))))
        timer = loop.call_later(verb.deadline_s, self._late, channel, self._number, loop.time())
        answer.add_done_callback(lambda ended: _no_longer(timer, ended))
        return answer

    def _late(self, channel: Channel, number: int, sent_s: float) -> None:
        answer, verb = self._waiting.pop(number, (None, None))
        if answer is None or verb is None:
            return
        if not answer.done():
            answer.set_exception(DriveTrouble(errno.ETIMEDOUT, f"no answer within {verb.deadline_s:g} s"))
        if self._heard_s < sent_s and channel is self._channel:
            self._lost(channel, DriveTrouble(errno.ETIMEDOUT, "nothing is heard of the drive's host"))

    async def _ready(self) -> Channel:
        if self._unreachable and self._dialling.locked():  # one waits for a host that is silent, and not all who ask
            raise _away()
        asked_s = asyncio.get_running_loop().time()
        async with self._dialling:
            if self._channel is not None and self._channel.is_open:
                return self._channel
            if self._refused_s + RETRY_S > asked_s:  # also: refused while this waited for its turn
                raise _away()
            try:
                channel = await self._open("calls")
            except OSError:
                self._refused_s, self._unreachable = asyncio.get_running_loop().time(), True
                raise
            self._channel, self._unreachable = channel, False
            self._hearing = asyncio.ensure_future(self._hear(channel))
            return channel

    async def _open(self, mode: Mode) -> Channel:
        channel = await self._dial()
        try:
            async with asyncio.timeout(LONG_S):
                channel.send(encode(self._hello(mode)))
                self.result(await channel.receive(), None)
        except TimeoutError as error:
            raise channel.broken(error) from error
        except BaseException:
            channel.close()
            raise
        return channel

    def result(self, frame: bytes, verb: Verb | None) -> Any:
        """What an answer says; raise what it says was raised."""
        answer = decode_answer(frame)
        self._saw(answer.seen)
        return result_of(answer, verb)

    async def _hear(self, channel: Channel) -> None:
        try:
            while True:
                self._take(await channel.receive())
        except OSError as error:
            self._lost(channel, error)
        except msgspec.DecodeError as error:
            self._lost(channel, channel.broken(error))

    def _take(self, frame: bytes) -> None:
        self._heard_s = asyncio.get_running_loop().time()
        heard = decode_answer(frame)
        self._saw(heard.seen)
        answer, verb = self._waiting.pop(heard.number, (None, None))
        if answer is None or answer.done():
            return  # who asked has given up
        try:
            answer.set_result(result_of(heard, verb))
        except OSError as error:
            answer.set_exception(error)
        except msgspec.DecodeError as error:
            answer.set_exception(DriveTrouble(errno.EPROTO, str(error)))
            raise

    def _lost(self, channel: Channel, why: OSError) -> None:
        channel.close()
        if channel is not self._channel:
            return
        self._channel = None
        waiting, self._waiting = self._waiting, {}
        for answer, _ in waiting.values():
            if not answer.done():
                answer.set_exception(DriveTrouble(why.errno or errno.ECONNRESET, why.strerror or str(why)))
        self._forget_idle()

    def _forget_idle(self) -> None:
        for idle in self._idle:
            idle.close()
        self._idle.clear()


def _away() -> DriveTrouble:
    return DriveTrouble(errno.EHOSTUNREACH, "the drive's host could not be reached a moment ago")


def _no_longer(timer: asyncio.TimerHandle, answer: asyncio.Future[Any]) -> None:
    """Who gave up waiting says nothing about the host: the timer goes on then."""
    if not answer.cancelled():
        timer.cancel()

"""The bus inside one process.

Each subscription owns a bounded queue and one task that feeds its listener: a slow listener delays and loses
only its own messages, and publishing never waits.  Questions run as tasks of the bus itself, bounded as well.
`close` ends them all.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

from apus.kernel.errors import Unavailable
from apus.kernel.log import get_logger
from apus.kernel.world import Handler, Listener
from apus.platform.subjects import check_body, check_subject, hears

PENDING_MAX = 10_000
"""Messages one listener may be behind; beyond it the oldest go, as a scan will find what they hinted at."""
QUESTIONS_MAX = 1_000
"""Questions in work at once; an asker beyond it hears Unavailable and asks again."""

log = get_logger("apus.bus")


class _Ear:
    """One subscription of a listener."""

    def __init__(self, bus: LocalBus, pattern: str, listener: Listener) -> None:
        self.pattern = pattern
        self._bus = bus
        self._listener = listener
        self._messages: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue(PENDING_MAX)
        self._task = bus.own(self._feed())

    def offer(self, subject: str, body: bytes) -> None:
        if self._messages.full():
            self._messages.get_nowait()
        self._messages.put_nowait((subject, body))

    async def _feed(self) -> None:
        while True:
            subject, body = await self._messages.get()
            try:
                await self._listener(subject, body)
            except Exception:
                log.exception("a listener failed", subject=subject, pattern=self.pattern)

    async def stop(self) -> None:
        self._bus.ears.pop(self, None)
        self._task.cancel()


class _Answerer:
    """One subscription of a handler."""

    def __init__(self, bus: LocalBus, subject: str, handler: Handler) -> None:
        self.subject, self.handler = subject, handler
        self._bus = bus

    async def stop(self) -> None:
        self._bus.answerers.pop(self, None)


class LocalBus:
    def __init__(self) -> None:
        # Dictionaries and not sets: messages go out in the order of subscription, the same in every run.
        self.ears: dict[_Ear, None] = {}
        self.answerers: dict[_Answerer, None] = {}
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._questions = 0
        self._turn = itertools.count()
        self._closed = False

    def own(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    async def publish(self, subject: str, body: bytes = b"") -> None:
        check_subject(subject)
        check_body(body)
        self.offer(subject, body)

    def offer(self, subject: str, body: bytes) -> None:
        """Put the message before each listener that wants it.  A closed bus has none."""
        for ear in self.ears:
            if hears(ear.pattern, subject):
                ear.offer(subject, body)

    async def listen(self, subject: str, listener: Listener) -> _Ear:
        check_subject(subject, pattern=True)
        self._check_open()
        ear = _Ear(self, subject, listener)
        self.ears[ear] = None
        return ear

    async def answer(self, subject: str, handler: Handler) -> _Answerer:
        check_subject(subject, pattern=True)
        self._check_open()
        answerer = _Answerer(self, subject, handler)
        self.answerers[answerer] = None
        return answerer

    async def ask(self, subject: str, body: bytes, *, timeout_s: float) -> bytes:
        check_subject(subject)
        check_body(body)
        self._check_open()
        fitting = [answerer for answerer in self.answerers if hears(answerer.subject, subject)]
        if not fitting:
            raise Unavailable("bus.no_answerer", f"nobody answers {subject}")
        if self._questions >= QUESTIONS_MAX:
            raise Unavailable("bus.busy", f"{QUESTIONS_MAX} questions wait already, {subject} was not asked")
        answerer = fitting[next(self._turn) % len(fitting)]
        # A task of its own, as it would be on another machine: an asker who gives up does not stop it.
        task = self.own(self._handle(answerer, subject, body))
        done, _ = await asyncio.wait([task], timeout=timeout_s)
        if not done:
            raise Unavailable("bus.no_answer", f"{subject} was not answered within {timeout_s:g} s")
        reply: bytes | None = None if task.cancelled() else task.result()
        if reply is None:
            raise Unavailable("bus.no_answer", f"{subject} was heard and not answered")
        return reply

    async def _handle(self, answerer: _Answerer, subject: str, body: bytes) -> bytes | None:
        self._questions += 1
        try:
            reply = await answerer.handler(body)
            check_body(reply)
            return reply
        except Exception:
            log.exception("an answerer failed", subject=subject)
            return None
        finally:
            self._questions -= 1

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("bus.closed", "the bus is closed: this process is stopping")

    def kill(self) -> list[asyncio.Task[Any]]:
        """Close without waiting for the end of the tasks, which are returned."""
        self._closed = True
        self.ears.clear()
        self.answerers.clear()
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        return tasks

    async def close(self) -> None:
        await asyncio.gather(*self.kill(), return_exceptions=True)

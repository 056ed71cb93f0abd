"""The bus between machines: NATS.

A server that is away is normal: what is published meanwhile is lost (a hint is found again by a scan), a question is
Unavailable at once, and the connection comes back by itself, with every subscription.  nats-py does most of it; one
task here begins anew when it gives up, and when the server is not there at our own start.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from apus.kernel.errors import Unavailable
from apus.kernel.log import get_logger
from apus.kernel.world import Handler, Listener
from apus.platform.subjects import check_body, check_subject

OPEN_WAIT_S: Final = 2.0
"""A start waits this long for the server, and then goes on without it."""
RETRY_S: Final = 0.25
PING_S: Final = 10
"""Two unanswered pings are a dead connection."""
PENDING_MAX: Final = 10_000
PENDING_BYTES_MAX: Final = 32 << 20
"""What one listener may be behind; beyond it messages are dropped."""
QUESTIONS_MAX: Final = 1_000
FLUSH_S: Final = 2
_GROUP: Final = "apus"
_FAILED: Final = "Apus-Failed"
"""Header of a reply that says only that the handler failed, so that the asker need not wait for the time-out."""

log = get_logger("apus.bus")


class _Subscription:
    def __init__(self, bus: NatsBus, subject: str, *, group: str) -> None:
        self._bus, self._subject, self._group = bus, subject, group
        self._at_server: Any = None

    async def begin(self, client: Client) -> None:
        self._at_server = await client.subscribe(
            self._subject,
            queue=self._group,
            cb=self.heard,
            pending_msgs_limit=PENDING_MAX,
            pending_bytes_limit=PENDING_BYTES_MAX,
        )

    async def heard(self, message: Msg) -> None:
        raise NotImplementedError

    async def stop(self) -> None:
        self._bus.subscriptions.pop(self, None)
        at_server, self._at_server = self._at_server, None
        if at_server is not None:
            with contextlib.suppress(nats.errors.Error):  # the connection is gone, and the subscription with it
                await at_server.unsubscribe()


class _Ear(_Subscription):
    def __init__(self, bus: NatsBus, subject: str, listener: Listener) -> None:
        super().__init__(bus, subject, group="")
        self._listener = listener

    async def heard(self, message: Msg) -> None:
        try:
            await self._listener(message.subject, message.data)
        except Exception:
            log.exception("a listener failed", subject=message.subject)

    async def missed(self) -> None:
        try:
            await self._listener(self._subject, b"")
        except Exception:
            log.exception("a listener failed", subject=self._subject)


class _Answerer(_Subscription):
    def __init__(self, bus: NatsBus, subject: str, handler: Handler) -> None:
        super().__init__(bus, subject, group=_GROUP)
        self._handler = handler
        self._free = asyncio.Semaphore(QUESTIONS_MAX)

    async def heard(self, message: Msg) -> None:
        await self._free.acquire()  # nats-py keeps, and bounds, what comes meanwhile
        self._bus.own(self._handle(message))

    async def _handle(self, message: Msg) -> None:
        try:
            reply = await self._handler(message.data)
            check_body(reply)
            await self._bus.reply(message.reply, reply, None)
        except Exception:
            log.exception("an answerer failed", subject=message.subject)
            await self._bus.reply(message.reply, b"", {_FAILED: "1"})
        finally:
            self._free.release()


class NatsBus:
    """Call `open` once before use, from the loop that uses it.  `url` is `nats://token@host:port`, or several."""

    def __init__(self, url: str | list[str], *, name: str = "apus") -> None:
        self.subscriptions: dict[_Subscription, None] = {}
        self._url, self._name = url, name
        self._client: Client | None = None
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._asking: set[asyncio.Task[Any]] = set()
        self._first_connected = asyncio.Event()
        self._given_up = asyncio.Event()
        self._closed = False

    @classmethod
    async def connect(cls, url: str | list[str], *, name: str = "apus") -> NatsBus:
        bus = cls(url, name=name)
        await bus.open()
        return bus

    async def open(self) -> None:
        """Return when connected, or after a moment anyway."""
        self.own(self._keep_connected())
        try:
            async with asyncio.timeout(OPEN_WAIT_S):
                await self._first_connected.wait()
        except TimeoutError:
            log.warning("the bus does not answer yet", wait_s=OPEN_WAIT_S)

    def own(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    async def _keep_connected(self) -> None:
        while True:
            self._given_up.clear()
            client = Client()
            try:
                await self._connect(client)
                self._client = client
                for subscription in list(self.subscriptions):
                    await subscription.begin(client)
                if self._first_connected.is_set():
                    self._tell_all()
                self._first_connected.set()
                await self._given_up.wait()
            except (OSError, nats.errors.Error) as error:
                log.warning("the bus refused us", error=str(error) or type(error).__name__)
            finally:
                self._client = None
                await client.close()
            await asyncio.sleep(RETRY_S)

    async def _connect(self, client: Client) -> None:
        async def disconnected() -> None:
            if not self._closed:
                log.warning("the bus is disconnected")
            for asking in list(self._asking):
                asking.cancel()  # whoever was asked answers into the void: the asker need not wait for its time-out

        async def reconnected() -> None:
            log.info("the bus is connected again")
            self._tell_all()

        async def closed() -> None:
            self._given_up.set()

        async def error(problem: Exception) -> None:
            log.debug("bus trouble", error=str(problem) or type(problem).__name__)

        await client.connect(
            self._url,
            name=self._name,
            connect_timeout=2,
            reconnect_time_wait=RETRY_S,  # type: ignore[arg-type]
            max_reconnect_attempts=-1,
            ping_interval=PING_S,
            max_outstanding_pings=2,
            disconnected_cb=disconnected,
            reconnected_cb=reconnected,
            closed_cb=closed,
            error_cb=error,
        )

    def _tell_all(self) -> None:
        """What was said while we were away is lost: let every listener look for itself."""
        for subscription in list(self.subscriptions):
            if isinstance(subscription, _Ear):
                self.own(subscription.missed())

    async def publish(self, subject: str, body: bytes = b"") -> None:
        check_subject(subject)
        check_body(body)
        await self._send(subject, body, None)

    async def reply(self, inbox: str, body: bytes, headers: dict[str, str] | None) -> None:
        if inbox:
            await self._send(inbox, body, headers)

    async def _send(self, subject: str, body: bytes, headers: dict[str, str] | None) -> None:
        client = self._client
        if client is None or not client.is_connected:
            return  # nobody hears
        try:
            await client.publish(subject, body, headers=headers)
        except (OSError, nats.errors.Error) as error:
            log.debug("a message was lost", subject=subject, error=str(error) or type(error).__name__)

    async def listen(self, subject: str, listener: Listener) -> _Subscription:
        check_subject(subject, pattern=True)
        return await self._subscribe(_Ear(self, subject, listener))

    async def answer(self, subject: str, handler: Handler) -> _Subscription:
        check_subject(subject, pattern=True)
        return await self._subscribe(_Answerer(self, subject, handler))

    async def _subscribe(self, subscription: _Subscription) -> _Subscription:
        self._check_open()
        self.subscriptions[subscription] = None
        client = self._client
        if client is not None:
            try:
                await subscription.begin(client)
                if client.is_connected:
                    await client.flush(FLUSH_S)  # the server knows of it now: who is told of us may speak at once
            except (OSError, nats.errors.Error) as error:
                log.debug("will subscribe when connected again", error=str(error) or type(error).__name__)
        return subscription

    async def ask(self, subject: str, body: bytes, *, timeout_s: float) -> bytes:
        check_subject(subject)
        check_body(body)
        self._check_open()
        client = self._client
        if client is None or not client.is_connected:
            raise Unavailable("bus.disconnected", f"the bus is disconnected, {subject} was not asked")
        # A task of ours, so that `close` ends it.
        asking = self.own(client.request(subject, body, timeout=timeout_s))
        self._asking.add(asking)
        try:
            await asyncio.wait([asking])
        finally:
            self._asking.discard(asking)
            asking.cancel()
        if asking.cancelled() and not self._closed:
            raise Unavailable("bus.disconnected", f"the bus was lost before {subject} was answered")
        if asking.cancelled():
            raise Unavailable("bus.closed", f"the bus was closed before {subject} was answered")
        try:
            message = asking.result()
        except nats.errors.NoRespondersError as error:
            raise Unavailable("bus.no_answerer", f"nobody answers {subject}") from error
        except (OSError, nats.errors.Error) as error:
            raise Unavailable("bus.no_answer", f"{subject} was not answered within {timeout_s:g} s") from error
        if message.headers and _FAILED in message.headers:
            raise Unavailable("bus.no_answer", f"{subject} was heard and not answered")
        return bytes(message.data)

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("bus.closed", "the bus is closed: this process is stopping")

    async def close(self) -> None:
        self._closed = True
        self.subscriptions.clear()
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

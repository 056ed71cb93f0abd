"""Doubles that several test rooms use: an object store in memory, known tokens, a client without a socket, a server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from typing import Any

import uvicorn

from apus.kernel.caller import Caller
from apus.kernel.errors import NotFound, Unauthenticated, Unavailable
from apus.kernel.table import metadata
from apus.kernel.world import World
from apus.platform.bus_local import LocalBus
from apus.platform.clock import SystemClock
from apus.platform.disk import LocalDisk
from apus.platform.process import LocalRunner
from apus.platform.store_sqlite import SqliteStore
from apus.services.object.contract import ObjectInfo

ROLES = {
    "admin": frozenset({"admin", "manager", "member", "reader"}),
    "member": frozenset({"member", "reader"}),
    "reader": frozenset({"reader"}),
}


def caller(name: str, role: str = "member", project: str | None = None) -> Caller:
    return Caller(user_id=name, user_name=name, project_id=project or f"project-{name}", roles=ROLES[role])


ADMIN, ALICE, BOB = caller("admin", "admin"), caller("alice"), caller("bob")
READER = caller("rita", "reader", "project-alice")


class KnownTokens:
    """The token is the user's name."""

    def __init__(self, *callers: Caller) -> None:
        self._callers = {one.user_id: one for one in callers or (ADMIN, ALICE, BOB, READER)}

    def verify(self, token: str) -> Caller:
        try:
            return self._callers[token]
        except KeyError:
            raise Unauthenticated("test.no_token", "The request you have made requires authentication.") from None


class MemoryObjects:
    """ObjectService in a dictionary.  `broken`: how many chunks a write takes before the store fails; None: none."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], bytes] = {}
        self.broken_after: int | None = None
        self.away = False

    async def put_object(
        self,
        account: str,
        container: str,
        name: str,
        data: AsyncIterator[bytes],
        metadata: Mapping[str, str],
        size_bytes: int | None = None,
    ) -> ObjectInfo:
        parts: list[bytes] = []
        async for chunk in data:
            if self.broken_after is not None and len(parts) >= self.broken_after:
                raise Unavailable("object.no_quorum", "no quorum")
            parts.append(chunk)
        body = b"".join(parts)
        self.objects[account, container, name] = body
        return ObjectInfo(size_bytes=len(body), etag=hashlib.md5(body).hexdigest(), stamp_s=0.0)

    async def head_object(self, account: str, container: str, name: str) -> ObjectInfo | None:
        body = self.objects.get((account, container, name))
        return None if body is None else ObjectInfo(size_bytes=len(body), etag="", stamp_s=0.0)

    async def get_object(
        self, account: str, container: str, name: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        body = self.objects.get((account, container, name))
        if self.away:
            raise Unavailable("object.away", "no copy answers")
        if body is None:
            raise NotFound("object.not_found", "no such object")
        end = len(body) if length is None else offset + length
        for at in range(offset, end, 1 << 16):
            yield body[at : min(end, at + (1 << 16))]

    async def delete_object(self, account: str, container: str, name: str) -> None:
        if self.away:
            raise Unavailable("object.away", "no copy answers")
        self.objects.pop((account, container, name), None)


class HandClock:
    """The system's clock, and a hand to move it on."""

    def __init__(self) -> None:
        self._real, self.ahead_s = SystemClock(), 0.0

    def now_s(self) -> float:
        return self._real.now_s() + self.ahead_s

    def monotonic_s(self) -> float:
        return self._real.monotonic_s() + self.ahead_s

    async def sleep(self, duration_s: float) -> None:
        await self._real.sleep(duration_s)


@contextlib.asynccontextmanager
async def memory_world(
    seed: int = 1, wrap: Callable[[Any], Any] = lambda store: store, postgres_url: str | None = None
) -> AsyncIterator[World]:
    clock, runner, disk = HandClock(), LocalRunner(), LocalDisk()
    store: Any = SqliteStore(None, clock)
    if postgres_url is not None:
        from apus.platform.store_postgres import PostgresStore

        store = PostgresStore(postgres_url, clock, random.Random(seed))
    await store.create_schema(metadata)
    bus = LocalBus()
    try:
        yield World(clock=clock, dice=random.Random(seed), bus=bus, store=wrap(store), disk=disk, run=runner)
    finally:
        await bus.close()
        await store.close()
        runner.close()
        disk.close()


class Answer:
    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Speaks ASGI to an app; no socket, no waiting."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "alice",
        headers: Mapping[str, str] | None = None,
        chunks: list[bytes] | None = None,
        cut: bool = False,
        leaves: bool = False,
    ) -> Answer:
        """`cut`: the connection breaks after the chunks; `leaves`: once all was asked, before the answer ends."""
        raw_path, _, query = path.partition("?")
        sent = {"content-type": "application/json", **{k.lower(): v for k, v in (headers or {}).items()}}
        if token:
            sent["x-auth-token"] = token
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": part, "more_body": True} for part in chunks or [data]
        ]
        messages.append({"type": "http.disconnect"} if cut else {"type": "http.request", "body": b""})
        status, got, parts = 0, {}, []

        async def receive() -> Mapping[str, Any]:
            if not messages and not cut and not leaves:
                await asyncio.Event().wait()  # the client listens on for its answer
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Mapping[str, Any]) -> None:
            nonlocal status, got
            if message["type"] == "http.response.start":
                status = message["status"]
                got = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                parts.append(message.get("body", b""))

        scope = {
            "type": "http", "method": method, "raw_path": raw_path.encode(), "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
            "scheme": "http", "server": ("127.0.0.1", 1),
        }  # fmt: skip
        await self._app(scope, receive, send)
        return Answer(status, got, b"".join(parts))


@contextlib.contextmanager
def served(make_app: Callable[[], contextlib.AbstractAsyncContextManager[Any]]) -> Iterator[str]:
    """A real server on loopback, in a thread with a loop of its own; gives its URL."""
    ready, ended, box = threading.Event(), None, {}

    async def main() -> None:
        nonlocal ended
        ended = asyncio.Event()
        box["loop"] = asyncio.get_running_loop()
        async with make_app() as app:
            config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
            server = uvicorn.Server(config)
            server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(server.serve())
                while not server.started:
                    await asyncio.sleep(0.01)
                box["port"] = server.servers[0].sockets[0].getsockname()[1]
                ready.set()
                await ended.wait()
                server.should_exit = True

    thread = threading.Thread(target=lambda: asyncio.run(main()), name="served")
    thread.start()
    try:
        assert ready.wait(20), "the server did not start"
        yield f"http://127.0.0.1:{box['port']}"
    finally:
        if ended is not None:
            box["loop"].call_soon_threadsafe(ended.set)
        thread.join(20)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)

"""A real server on a loopback port, for any App: clients under test see what users see."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvicorn

from tests.contract.swift_server import SwiftServer


class Served:
    """A server in a loop and thread of its own, so that blocking clients can be used from the test."""

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int, made: Any) -> None:
        self.loop, self.port, self.made = loop, port, made
        self.url = f"http://127.0.0.1:{port}"

    def run(self, work: Awaitable[Any]) -> Any:
        """Run a coroutine in the server's loop and wait for its result."""

        async def body() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(body(), self.loop).result(30)


@contextlib.asynccontextmanager
async def served(app: Any, listening: socket.socket) -> AsyncIterator[None]:
    """Serve an ASGI app on a bound socket for as long as the block lasts, in the running loop."""
    config = uvicorn.Config(app, http="httptools", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    task = asyncio.get_running_loop().create_task(server.serve(sockets=[listening]))
    try:
        while not server.started and not task.done():
            await asyncio.sleep(0.005)
        yield
    finally:
        server.should_exit = True
        await task


@contextlib.contextmanager
def serve_in_thread(make: Callable[[str], contextlib.AbstractAsyncContextManager[tuple[Any, Any]]]) -> Iterator[Served]:
    """`make(url)` is an async context manager that gives (app, whatever the test wants to reach)."""
    # with the protocol named, asyncio turns Nagle's algorithm off on what it accepts: else 40 ms an answer
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen(128)
    port = listening.getsockname()[1]
    ready: threading.Event = threading.Event()
    box: dict[str, Any] = {}

    async def live() -> None:
        box["loop"], box["end"] = asyncio.get_running_loop(), asyncio.Event()
        async with make(f"http://127.0.0.1:{port}") as (app, made), served(app, listening):
            box["made"] = made
            ready.set()
            await box["end"].wait()

    def run() -> None:
        try:
            asyncio.run(live())
        except BaseException as error:
            box["error"] = error
            ready.set()

    thread = threading.Thread(target=run, name="served", daemon=True)
    thread.start()
    ready.wait(30)
    if "error" in box:
        raise box["error"]
    try:
        yield Served(box["loop"], port, box["made"])
    finally:
        box["loop"].call_soon_threadsafe(box["end"].set)
        thread.join(30)
        listening.close()


@pytest.fixture
def serve_app() -> Iterator[Callable[..., Served]]:
    """`serve_app(make)`: see serve_in_thread; ends with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda make: stack.enter_context(serve_in_thread(make))


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServer]:
    """A store with Swift's door, for the tests of one module."""
    server = SwiftServer(tmp_path_factory.mktemp("swift"))
    yield server
    server.stop()


@pytest.fixture
def base(swift: SwiftServer, request: pytest.FixtureRequest) -> str:
    """The path of a container of the test's own."""
    path = "/v1/AUTH_a/" + re.sub("[^a-z0-9_]", "-", request.node.name)
    assert swift.ask("PUT", path)[0] == 201
    return path

"""Bodies that lie in files, on their way out: whoever sends which part of it, the client gets all of it, or is told."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from apus.kernel.buffers import Chunk, Stored
from apus.kernel.errors import Unavailable
from apus.kernel.policy import Rule
from apus.platform.sending import Sender
from apus.wire.route import ApiRequest, Reply, Route
from tests.contract.file_parts import Part
from tests.contract.raw_http import RawClient, app_of, serving

DATA = os.urandom(1 << 20)
Rest = Callable[[int], AsyncIterator[Chunk]]


async def _good(offset: int) -> AsyncIterator[Chunk]:
    for at in range(offset, len(DATA), 300_000):
        yield DATA[at : at + 300_000]


async def _broken(offset: int) -> AsyncIterator[Chunk]:
    """After some of it."""
    if offset < len(DATA) // 2:
        yield DATA[offset : len(DATA) // 2]
    raise Unavailable("test.no_good_copy", "No copy could be read to its end.")


async def _none(offset: int) -> AsyncIterator[Chunk]:
    raise Unavailable("test.no_good_copy", "No copy could be read to its end.")
    yield b""


class _Server:
    """Serves one part at /thing/part, with and without who sends it; other requests wait, so that a process beside is
    of use."""

    def __init__(self, part: Part, rest: Rest) -> None:
        self.over = asyncio.Event()
        self.rests: list[int] = []

        def told(offset: int) -> AsyncIterator[Chunk]:
            self.rests.append(offset)
            return rest(offset)

        self.body = Stored(part, told)
        routes = [Route("GET", "/part", self._part, "do"), Route("GET", "/wait", self._wait, "do")]
        app = self.app = app_of(routes, {"do": Rule.PUBLIC})

        async def plain(scope: dict[str, Any], receive: Any, send: Any) -> None:
            """As a server that has no way of its own."""
            await app({**scope, "extensions": {}}, receive, send)

        self.plain = plain

    async def _part(self, request: ApiRequest) -> Reply:
        return Reply(self.body, 200, {"x-a": "b"}, content_type="a/b")

    async def _wait(self, request: ApiRequest) -> Reply:
        await self.over.wait()
        return Reply(b"", 200)


@contextlib.asynccontextmanager
async def _asked(server: _Server, how: str, send_buffer_bytes: int | None = None) -> AsyncIterator[RawClient]:
    """A client of it, once who sends is there."""
    sender = Sender("test", processes=3 if how == "beside" else 0) if how in ("beside", "here") else None
    app = server.plain if how == "plain" else server.app
    async with serving(app, sender, send_buffer_bytes) as port, RawClient(port) as other:
        other.writer.write(b"GET /thing/wait HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(30):
            while how == "beside" and sender is not None and not sender.is_ready:
                with contextlib.suppress(asyncio.IncompleteReadError):
                    async with RawClient(port) as client:
                        await client.ask("GET", "/thing/part")
                await asyncio.sleep(0.01)
        server.rests.clear()
        try:
            async with RawClient(port) as client:
                yield client
        finally:
            server.over.set()
    if sender is not None:
        sender.close()


@pytest.mark.parametrize("how", ["beside", "here", "read", "plain"])
@pytest.mark.parametrize("bad_block", [None, 0, 2])
def test_all_of_it_comes_whoever_sends_it(tmp_path: Path, how: str, bad_block: int | None) -> None:
    async def story() -> None:
        part = Part(tmp_path / "file", DATA, bad_block=bad_block)
        server = _Server(part, _good)
        async with _asked(server, how) as client:
            for _ in range(3):
                answer = await client.ask("GET", "/thing/part")
                assert (answer.status, answer.headers["x-a"], answer.headers["content-type"]) == (200, "b", "a/b")
                assert answer.headers["content-length"] == str(len(DATA))
                assert answer.body == DATA
                head = await client.ask("HEAD", "/thing/part")
                assert (head.status, head.headers["content-length"]) == (200, str(len(DATA)))
        assert not any(server.rests)  # what is short is sent as a whole, or not at all
        if how != "plain":
            assert bool(server.rests) == (bad_block is not None)
        part.close()

    asyncio.run(story())


class _Clinging(Part):
    """Of a file that cannot be closed."""

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        raise OSError("not closed")


def test_what_was_handed_over_is_sent_once(tmp_path: Path) -> None:
    """Though something goes wrong just after."""

    async def story() -> None:
        part = _Clinging(tmp_path / "file", DATA)
        async with _asked(_Server(part, _good), "beside") as client:
            for _ in range(3):
                assert (await client.ask("GET", "/thing/part")).body == DATA
        part.close()

    asyncio.run(story())


@pytest.mark.parametrize("how", ["beside", "here", "read", "plain"])
def test_what_cannot_be_read_says_so_where_nothing_of_it_is_out(tmp_path: Path, how: str) -> None:
    async def story() -> None:
        part = Part(tmp_path / "file", DATA, bad_block=0)
        async with _asked(_Server(part, _none), how) as client:
            for _ in range(2):
                answer = await client.ask("GET", "/thing/part")
                assert answer.status == 503
                assert b"No copy could be read" in answer.body
        part.close()

    asyncio.run(story())


@pytest.mark.parametrize("how", ["beside", "here", "read", "plain"])
def test_what_breaks_midway_ends_the_connection(tmp_path: Path, how: str) -> None:
    async def story() -> None:
        part = Part(tmp_path / "file", DATA, bad_block=1)
        async with _asked(_Server(part, _broken), how) as client:
            client.writer.write(b"GET /thing/part HTTP/1.1\r\nHost: x\r\n\r\n")
            status, headers = await client.head()
            assert (status, headers["content-length"]) == (200, str(len(DATA)))
            came = await asyncio.wait_for(client.reader.read(), 10)
            assert came == DATA[: len(came)]
            assert len(came) < len(DATA)
        part.close()

    asyncio.run(story())


@pytest.mark.parametrize("how", ["beside", "here"])
def test_a_client_that_reads_late_gets_the_rest_as_a_stream(tmp_path: Path, how: str) -> None:
    async def story() -> None:
        part = Part(tmp_path / "file", DATA)
        server = _Server(part, _good)
        async with _asked(server, how, 1 << 16) as client:
            port = client.writer.get_extra_info("peername")[1]
            with socket.socket() as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.connect(("127.0.0.1", port))
                slow.sendall(b"GET /thing/part HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                async with asyncio.timeout(10):
                    while not server.rests:  # it fills what it can
                        await asyncio.sleep(0.01)
                came = await asyncio.wait_for(asyncio.to_thread(_all_of, slow), 20)
            assert came.partition(b"\r\n\r\n")[2] == DATA
            assert (await client.ask("GET", "/thing/part")).body == DATA
        part.close()

    asyncio.run(story())


def _all_of(client: socket.socket) -> bytes:
    parts = []
    while data := client.recv(1 << 16):
        parts.append(data)
    return b"".join(parts)

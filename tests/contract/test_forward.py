"""One process's HTTP handed on to another: the client, and the forwarder on it, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from apus.kernel.errors import Unavailable
from apus.wire.client import HttpClient
from apus.wire.forward import Forward
from tests.contract.raw_http import RawClient, app_of, serving
from tests.contract.test_wire import MIB, POLICY, READER, ROUTES, Fixture

TOKEN = [(b"x-auth-token", b"reader")]


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(0.01)
        yield part


def with_client(story: Callable[[HttpClient], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), serving(app_of(ROUTES, POLICY, service=Fixture())) as port:
            client = HttpClient("127.0.0.1", port)
            try:
                await story(client)
            finally:
                client.close()

    asyncio.run(run())


async def ask(client: HttpClient, method: str, target: str, body: AsyncIterator[bytes] | None = None) -> Any:
    async with client.request(method, target.encode(), TOKEN, body) as reply:
        return reply.status, await reply.read()


def test_requests_share_a_connection() -> None:
    async def story(client: HttpClient) -> None:
        for _ in range(3):
            assert (await ask(client, "GET", "/thing/things/1"))[0] == 200
            assert (await ask(client, "GET", "/thing/nowhere"))[0] == 404
            assert (await ask(client, "HEAD", "/thing/download?sized=1")) == (200, b"")
            assert len(client._idle) == 1
            assert (await ask(client, "GET", "/thing/echo/1")) == (204, b"")
            assert len(client._idle) == 1

    with_client(story)


def test_bodies_stream_both_ways() -> None:
    async def story(client: HttpClient) -> None:
        status, body = await ask(client, "PUT", "/thing/count", pieces(b"a" * MIB, b"", b"b"))
        assert (status, json.loads(body)) == (200, {"size": MIB + 1})
        assert (await ask(client, "PUT", "/thing/both", pieces(b"a" * MIB, b"b" * MIB)))[1] == b"a" * MIB + b"b" * MIB
        assert len((await ask(client, "GET", "/thing/download?mib=2"))[1]) == 2 * MIB

    with_client(story)


def test_a_refusal_comes_before_the_body_has_ended() -> None:
    async def story(client: HttpClient) -> None:
        async def endless() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.Event().wait()

        status, _ = await ask(client, "PUT", "/thing/refuse", endless())
        assert status == 409
        assert client._idle == []
        assert (await ask(client, "GET", "/thing/things/1"))[0] == 200

    with_client(story)


def test_a_body_that_fails_is_its_own_error() -> None:
    async def story(client: HttpClient) -> None:
        async def failing() -> AsyncIterator[bytes]:
            yield b"x"
            await asyncio.sleep(0.01)
            raise LookupError("the source")

        with pytest.raises(LookupError):
            await ask(client, "PUT", "/thing/count", failing())

    with_client(story)


@contextlib.asynccontextmanager
async def saying(*replies: bytes | None) -> AsyncIterator[int]:
    """A server that answers each request so; None: closes the connection instead."""
    left = list(replies)
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while left:
                await reader.readuntil(b"\r\n\r\n")
                reply = left.pop(0)
                if reply is None:
                    writer.close()
                    return
                writer.write(reply)
        if not left:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def against(*replies: bytes | None, story: Callable[[HttpClient], Awaitable[None]], silent_s: float = 5.0) -> None:
    async def run() -> None:
        async with asyncio.timeout(10), saying(*replies) as port:
            client = HttpClient("127.0.0.1", port, silent_s=silent_s)
            await story(client)
            client.close()

    asyncio.run(run())


def test_interim_replies_are_not_the_reply() -> None:
    async def story(client: HttpClient) -> None:
        async with client.request("GET", b"/") as reply:
            assert reply.status == 200
            assert dict(reply.headers) == {b"content-length": b"2"}
            assert await reply.read() == b"ok"

    against(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK, story=story)


@pytest.mark.parametrize(
    "reply", [None, b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", b"HTTP/1.1 200", b"SSH-2.0\r\n\r\n"]
)
def test_a_server_that_goes_midway_is_a_broken_connection(reply: bytes | None) -> None:
    async def story(client: HttpClient) -> None:
        with pytest.raises(OSError):
            async with client.request("GET", b"/") as answer:
                await answer.read()

    against(reply, story=story)


def test_a_server_that_hangs_is_given_up() -> None:
    async def story(client: HttpClient) -> None:
        with pytest.raises(TimeoutError):
            async with client.request("GET", b"/") as answer:
                await answer.read()

    against(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", b"", story=story, silent_s=0.1)


def test_a_kept_connection_that_closes_as_we_write_is_asked_again_when_that_is_safe() -> None:
    async def story(client: HttpClient) -> None:
        async with client.request("GET", b"/") as reply:
            await reply.read()
        assert len(client._idle) == 1
        async with client.request("GET", b"/") as reply:
            assert await reply.read() == b"ok"
        with pytest.raises(OSError):
            async with client.request("POST", b"/") as reply:
                await reply.read()

    against(OK, None, OK, None, story=story)


def test_nobody_there_is_unavailable() -> None:
    async def run() -> None:
        async with saying() as port:
            pass
        with pytest.raises(Unavailable):
            async with HttpClient("127.0.0.1", port).request("GET", b"/"):
                pass

    asyncio.run(run())


Story = Callable[[RawClient, Fixture], Awaitable[None]]


def forwarded(story: Story) -> None:
    async def run() -> None:
        fixture = Fixture()
        async with asyncio.timeout(20), serving(app_of(ROUTES, POLICY, service=fixture)) as behind:
            client = HttpClient("127.0.0.1", behind)
            async with serving(Forward(client)) as port, RawClient(port) as raw:
                await story(raw, fixture)
            client.close()

    asyncio.run(run())


def test_the_forwarder_hands_everything_on(capfd: pytest.CaptureFixture[str]) -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        shown = await client.ask("GET", "/thing/things/a%2Fb?x=1&x=2", READER)
        assert json.loads(shown.body)["thing"] == {"id": "a/b", "queries": [["x", "1"], ["x", "2"]], "new": True}
        assert (await client.ask("GET", "/thing/things/1")).status == 401
        assert (await client.ask("GET", "/thing/echo/1", READER)).status == 204
        head = await client.ask("HEAD", "/thing/download?sized=1", READER)
        assert int(head.headers["content-length"]) == MIB
        assert len((await client.ask("GET", "/thing/download?sized=1", READER)).body) == MIB
        assert len((await client.ask("GET", "/thing/download?mib=2", READER)).body) == 2 * MIB
        sent = await client.ask("PUT", "/thing/count", READER, b"z" * MIB)
        assert json.loads(sent.body) == {"size": MIB}
        assert (await client.ask("PUT", "/thing/refuse", READER, b"z" * MIB)).status == 409
        client.writer.write(
            b"PUT /thing/count HTTP/1.1\r\nx-auth-token: reader\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
        )
        assert (await client.head())[0] == 100
        client.writer.write(b"12345")
        assert json.loads((await client.answer()).body) == {"size": 5}

    forwarded(story)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("path", ["download?mib=1000", "waits"])
def test_the_forwarder_stops_when_its_client_goes(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        client.writer.write(f"GET /thing/{path} HTTP/1.1\r\nx-auth-token: reader\r\n\r\n".encode())
        await client.reader.readuntil(b"\r\n\r\n")
        client.writer.transport.abort()
        await fixture.gone.wait()
        assert fixture.sent < 500 * MIB

    forwarded(story)
    assert "Traceback" not in capfd.readouterr().err


def test_a_reply_that_breaks_behind_breaks_in_front() -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        client.writer.write(b"GET /thing/breaks HTTP/1.1\r\nx-auth-token: reader\r\n\r\n")
        rest = await client.reader.read()
        assert b"begun" in rest
        assert not rest.endswith(b"0\r\n\r\n")

    forwarded(story)


def test_when_nobody_is_behind_the_client_is_asked_to_come_again() -> None:
    async def run() -> None:
        async with saying() as nobody:
            pass
        async with asyncio.timeout(10), serving(Forward(HttpClient("127.0.0.1", nobody))) as port:
            async with RawClient(port) as client:
                away = await client.ask("PUT", "/v1/a/c/o", READER, b"body")
                assert (away.status, away.headers["retry-after"]) == (503, "1")
                client.writer.write(b"PUT /v1/a HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
                refused = await client.answer()
                assert (refused.status, refused.headers["connection"]) == (503, "close")

    asyncio.run(run())

"""Long bodies that go past the parser: whatever the pieces, and whatever their handler does with them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from apus.kernel.policy import Rule
from apus.node.connection import LONG_BYTES
from apus.wire.body import ClientGone
from apus.wire.route import ApiRequest, Reply, Route
from tests.contract.raw_http import app_of, serving

SIZE = 3 * LONG_BYTES + 17
BODY = bytes(range(256)) * (SIZE // 256) + bytes(SIZE % 256)
VIEW = 50_000
gone: dict[str, asyncio.Event] = {}


def digest(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).hexdigest().encode()


async def filled(request: ApiRequest) -> Reply:
    """All of it, put into buffers."""
    body, parts = request.stream(), list[bytes]()
    try:
        while len(b"".join(parts)) < SIZE:
            view = memoryview(bytearray(min(VIEW, SIZE - len(b"".join(parts)))))
            count = await body.fill(view)
            parts.append(bytes(view[:count]))
            if count < len(view):
                break
    except ClientGone:
        gone["filled"].set()
        raise
    assert request.body_ended
    return Reply(digest(b"".join(parts)), 200)


async def iterated(request: ApiRequest) -> Reply:
    return Reply(digest(b"".join([chunk async for chunk in request.stream()])), 200)


async def mixed(request: ApiRequest) -> Reply:
    """A piece, some put, and the rest in pieces."""
    body, view = request.stream(), memoryview(bytearray(VIEW))
    first = await anext(body)
    count = await body.fill(view)
    rest = [chunk async for chunk in body]
    return Reply(digest(b"".join([first, view[:count], *rest])), 200)


async def refused(request: ApiRequest) -> Reply:
    return Reply(b"no", 403)


async def left(request: ApiRequest) -> Reply:
    """Some of it, and an answer before the rest has come."""
    assert await request.stream().fill(memoryview(bytearray(10))) == 10
    return Reply(b"enough", 200)


HANDLERS = {handler.__name__: handler for handler in (filled, iterated, mixed, refused, left)}
APP = app_of(
    [Route(method, f"/{name}", handler, "do") for name, handler in HANDLERS.items() for method in ("PUT", "GET")],
    {"do": Rule.PUBLIC},
)


def head(name: str, *more: str, size: int = SIZE, method: str = "PUT") -> bytes:
    length = [f"Content-Length: {size}"] if method == "PUT" else []
    return "\r\n".join([f"{method} /thing/{name} HTTP/1.1", "Host: x", *length, *more, "", ""]).encode()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    async with asyncio.timeout(20):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        size = next(int(line.split(":")[1]) for line in lines if line.startswith("content-length"))
        return int(lines[0].split()[1]), await reader.readexactly(size)


Story = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(params=["asyncio", "uvloop"])
def talk(request: pytest.FixtureRequest) -> Callable[[Story], None]:
    async def served(story: Story) -> None:
        async with serving(APP) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                await story(reader, writer)
            finally:
                writer.close()

    def run(story: Story) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if request.param == "uvloop" else None) as runner:
            runner.run(served(story))

    return run


@pytest.mark.parametrize("piece_bytes", [777, 20_000, SIZE])
@pytest.mark.parametrize("name", ["filled", "iterated", "mixed"])
def test_the_body_arrives_and_the_next_request_too(talk: Callable[[Story], None], name: str, piece_bytes: int) -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            writer.write(head(name))
            for at in range(0, SIZE, piece_bytes):
                writer.write(BODY[at : at + piece_bytes])
                await writer.drain()
                if piece_bytes == 20_000:
                    await asyncio.sleep(0)
            assert await answer(reader) == (200, digest(BODY))
        writer.write(head("refused", method="GET"))
        assert await answer(reader) == (403, b"no")

    talk(story)


@pytest.mark.parametrize("name", ["filled", "iterated", "mixed", "left", "refused"])
def test_requests_that_do_not_wait_for_answers(talk: Callable[[Story], None], name: str) -> None:
    """Each begins in the packet in which the one before ends."""

    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        expected = {"left": (200, b"enough"), "refused": (403, b"no")}.get(name, (200, digest(BODY)))
        writer.write((head(name) + BODY + head("refused", method="GET")) * 3)
        for _ in range(3):
            assert await answer(reader) == expected
            assert await answer(reader) == (403, b"no")

    talk(story)


@pytest.mark.parametrize("name", ["filled", "mixed"])
def test_a_client_that_waits_to_be_told_to_go_on(talk: Callable[[Story], None], name: str) -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head(name, "Expect: 100-continue"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(BODY)
        assert await answer(reader) == (200, digest(BODY))

    talk(story)


def test_an_answer_before_the_end_of_the_body(talk: Callable[[Story], None]) -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head("left") + BODY[:30])
        assert await answer(reader) == (200, b"enough")
        for at in range(30, SIZE, 9_999):
            writer.write(BODY[at : at + 9_999])
            await writer.drain()
        writer.write(head("filled") + BODY)
        assert await answer(reader) == (200, digest(BODY))

    talk(story)


def test_a_client_that_goes_midway(talk: Callable[[Story], None]) -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone["filled"] = asyncio.Event()
        writer.write(head("filled") + BODY[: SIZE // 2])
        await writer.drain()
        writer.transport.abort()
        async with asyncio.timeout(5):
            await gone["filled"].wait()

    talk(story)


def test_chunked_bodies_are_put_too(talk: Callable[[Story], None]) -> None:
    async def story(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"PUT /thing/filled HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, SIZE, 30_000):
            piece = BODY[at : at + 30_000]
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        writer.write(b"0\r\n\r\n")
        assert await answer(reader) == (200, digest(BODY))

    talk(story)

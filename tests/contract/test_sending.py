"""The process that sends what lies in files: what it sends, where it stops, and what its end means."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from apus.platform.sender import JOB_MAX_BYTES
from apus.platform.sending import WORTH_BYTES, Sender
from tests.contract.file_parts import Part

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
DATA = os.urandom((1 << 20) - 77)


@contextlib.asynccontextmanager
async def _ready(part: Part) -> AsyncIterator[Sender]:
    """One that has begun: the first time it is asked it is not there yet."""
    sender = Sender("test")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        async with asyncio.timeout(30):
            while (sent := sender.send(ours.fileno(), HEAD, part)) is None:
                await asyncio.sleep(0.01)
            await sent
    try:
        yield sender
    finally:
        sender.close()


@contextlib.contextmanager
def _connection() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        with client, listening.accept()[0] as server:
            server.setblocking(False)
            yield server, client


async def _sent(sender: Sender, part: Part, head: bytes = HEAD) -> tuple[int | None, bytes]:
    """What it says it sent, and what came."""
    with _connection() as (server, client):
        coming = asyncio.create_task(asyncio.to_thread(_all_of, client))
        sending = sender.send(server.fileno(), head, part)
        count = None if sending is None else await sending
        server.shutdown(socket.SHUT_WR)
        return count, await coming


def _all_of(client: socket.socket) -> bytes:
    parts = []
    while data := client.recv(1 << 20):
        parts.append(data)
    return b"".join(parts)


@pytest.mark.parametrize("size", [WORTH_BYTES, WORTH_BYTES + 1, 1 << 19, len(DATA)])
def test_head_and_data_go_out_as_far_as_is_said(tmp_path: Path, size: int) -> None:
    async def story() -> None:
        part = Part(tmp_path / "file", DATA[:size])
        async with _ready(part) as sender:
            for _ in range(3):
                count, came = await _sent(sender, part)
                assert count is not None
                assert count > len(HEAD)
                assert came == (HEAD + part.data)[:count]
        part.close()

    asyncio.run(story())


def test_it_stops_before_a_block_that_is_not_sound_or_not_there(tmp_path: Path) -> None:
    async def story() -> None:
        good = Part(tmp_path / "good", DATA)
        async with _ready(good) as sender:
            for block in range(4):
                part = Part(tmp_path / f"bad-{block}", DATA, bad_block=block)
                count, came = await _sent(sender, part)
                assert count is not None
                assert count <= len(HEAD) + block * part.block_bytes
                assert came == (HEAD + DATA)[:count]
                assert bool(count) == bool(block)
                part.close()
            os.truncate(tmp_path / "good", good.offset + 100)
            assert await _sent(sender, good) == (0, b"")
        good.close()

    asyncio.run(story())


def test_it_waits_for_no_client(tmp_path: Path) -> None:
    """One that does not read gets what fits, and another one is served."""

    async def story() -> None:
        part = Part(tmp_path / "file", DATA)
        async with _ready(part) as sender:
            with _connection() as (server, client):
                server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sending = sender.send(server.fileno(), HEAD, part)
                assert sending is not None
                slow = await sending
                assert 0 < slow < len(HEAD) + len(DATA)
                count, came = await _sent(sender, part)
                assert count
                assert came == (HEAD + DATA)[:count]
                server.shutdown(socket.SHUT_WR)
                assert _all_of(client) == (HEAD + DATA)[:slow]
                client.close()
                gone = sender.send(server.fileno(), HEAD, part)
                assert gone is not None
                assert await gone == 0
        part.close()

    asyncio.run(story())


def test_what_is_not_for_it_is_refused_at_once(tmp_path: Path) -> None:
    async def story() -> None:
        part, small = Part(tmp_path / "file", DATA), Part(tmp_path / "small", DATA[: WORTH_BYTES - 1])
        async with _ready(part) as sender:
            assert await _sent(sender, small) == (None, b"")
            assert await _sent(sender, part, b"x" * JOB_MAX_BYTES) == (None, b"")
            part.close()
            assert await _sent(sender, part) == (None, b"")
        small.close()

    asyncio.run(story())


def test_when_it_ends_nobody_waits_for_it_and_another_one_begins(tmp_path: Path) -> None:
    async def story() -> None:
        part = Part(tmp_path / "file", DATA)
        sender = Sender("test", again_s=0.0)
        first = await _pid(sender, part)
        os.kill(first, signal.SIGSTOP)  # it is stopped, so what it is given now stays undone
        with _connection() as (server, _):
            sending = sender.send(server.fileno(), HEAD, part)
            assert sending is not None
            os.kill(first, signal.SIGKILL)
            with pytest.raises(ConnectionError):
                await sending
        assert await _pid(sender, part) != first
        sender.close()
        part.close()

    asyncio.run(story())


async def _pid(sender: Sender, part: Part) -> int:
    async with asyncio.timeout(30):
        while not (await _sent(sender, part))[0]:
            await asyncio.sleep(0.01)
    assert sender.pid is not None
    return sender.pid

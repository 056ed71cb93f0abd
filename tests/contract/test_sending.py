"""The process that sends what lies in files: what it sends, where it stops, and what its end means."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from apus.platform.sender import JOB_MAX_BYTES, JOBS_MAX
from apus.platform.sending import MUCH_BYTES, SHORT_BYTES, SOON_BYTES, WORTH_BYTES, Sender
from tests.contract.file_parts import BLOCK_BYTES, Part

HEAD = b"HTTP/1.1 200 OK\r\n\r\n"
DATA = os.urandom(SHORT_BYTES + (1 << 19) - 77)
MANY = 3
"""Processes, so that short ones are for them too."""


@contextlib.asynccontextmanager
async def _ready(part: Part, processes: int = 1) -> AsyncIterator[Sender]:
    """One that has begun: the first time it is asked it is not there yet."""
    sender = Sender("test", processes=processes)
    try:
        async with asyncio.timeout(30):
            while sender.free_for(part) is None:
                await asyncio.sleep(0.01)
        yield sender
    finally:
        sender.close()


async def _send(
    sender: Sender, connection: socket.socket, part: Part, head: bytes = HEAD
) -> asyncio.Future[int] | None:
    """As a server does."""
    free = sender.free_for(part)
    if free is None:
        return None
    try:
        async with part as (file, offset):
            return free.send(connection.fileno(), head, part, file, offset)
    except ValueError:
        return None


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
        sending = await _send(sender, server, part, head)
        count = None if sending is None else await sending
        server.shutdown(socket.SHUT_WR)
        return count, await coming


def _all_of(client: socket.socket) -> bytes:
    parts = []
    while data := client.recv(1 << 20):
        parts.append(data)
    return b"".join(parts)


@pytest.mark.parametrize("size", [WORTH_BYTES, WORTH_BYTES + 1, SHORT_BYTES, SHORT_BYTES + 1, len(DATA)])
def test_head_and_data_go_out_as_far_as_is_said(tmp_path: Path, size: int) -> None:
    async def story() -> None:
        part = Part(tmp_path / "file", DATA[:size])
        async with _ready(part, MANY) as sender:
            for _ in range(3):
                count, came = await _sent(sender, part)
                assert count is not None
                assert count > len(HEAD)
                assert came == (HEAD + part.data)[:count]
        part.close()

    asyncio.run(story())


def test_pieces_begin_and_end_anywhere(tmp_path: Path) -> None:
    async def story() -> None:
        dice = random.Random(7)
        part = Part(tmp_path / "file", DATA)
        edges = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, len(DATA) - WORTH_BYTES]
        async with _ready(part, MANY) as sender:
            for start in edges + [dice.randrange(len(DATA) - WORTH_BYTES) for _ in range(10)]:
                for length in (WORTH_BYTES, dice.randint(WORTH_BYTES, len(DATA) - start), len(DATA) - start):
                    count, came = await _sent(sender, part.piece(start, length))
                    assert (count, came) == (len(HEAD) + length, HEAD + DATA[start : start + length])
        part.close()

    asyncio.run(story())


def test_it_stops_before_a_block_that_is_not_sound_or_not_there(tmp_path: Path) -> None:
    async def story() -> None:
        good = Part(tmp_path / "good", DATA)
        async with _ready(good) as sender:
            for block in range(len(DATA) // BLOCK_BYTES):
                part = Part(tmp_path / f"bad-{block}", DATA, bad_block=block)
                count, came = await _sent(sender, part)
                assert count == (len(HEAD) + block * BLOCK_BYTES if block else 0)
                assert came == (HEAD + DATA)[:count]
                part.close()
            os.truncate(tmp_path / "good", good.before_bytes + 100)
            assert await _sent(sender, good) == (0, b"")
        good.close()

    asyncio.run(story())


def test_it_does_not_wait_for_the_drive() -> None:
    async def story(room: Path) -> None:
        part, cold = Part(room / "file", DATA), Part(room / "cold", DATA)
        async with _ready(part) as sender:
            os.fsync(cold.handle)
            os.posix_fadvise(cold.handle, 0, 0, os.POSIX_FADV_DONTNEED)
            assert await _sent(sender, cold) == (0, b"")
            count, came = await _sent(sender, part)
            assert came == (HEAD + DATA)[:count]
        part.close()
        cold.close()

    with tempfile.TemporaryDirectory(dir="/var/tmp") as room:  # on a drive: memory has nothing to wait for
        asyncio.run(story(Path(room)))


@contextlib.contextmanager
def _slow() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection that takes little before its client reads."""
    with _connection() as (server, client):
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 << 10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 10)
        yield server, client


def test_clients_that_read_late_get_all_and_hold_up_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        part = Part(tmp_path / "file", DATA)
        async with _ready(part) as sender:
            with contextlib.ExitStack() as stack:
                slow = [stack.enter_context(_slow()) for _ in range(5)]
                sendings = [await _send(sender, server, part) for server, _ in slow]
                count, came = await _sent(sender, part)
                assert came == (HEAD + DATA)[:count]
                for (server, client), sending in zip(slow, sendings, strict=True):
                    coming = asyncio.create_task(asyncio.to_thread(_all_of, client))
                    assert sending is not None
                    count = await sending
                    server.shutdown(socket.SHUT_WR)
                    assert await coming == (HEAD + DATA)[:count]
                    assert count == len(HEAD) + len(DATA)
            assert await _sent(sender, part) == (len(HEAD) + len(DATA), HEAD + DATA)
        part.close()

    asyncio.run(story())


def test_a_client_that_takes_nothing_is_given_back(tmp_path: Path) -> None:
    async def story() -> None:
        part = Part(tmp_path / "file", DATA)
        async with _ready(part) as sender:
            with _slow() as (server, client):
                sending = await _send(sender, server, part)
                assert sending is not None
                count = await asyncio.wait_for(sending, 30)
                assert 0 < count < len(HEAD) + len(DATA)
                server.shutdown(socket.SHUT_WR)
                assert _all_of(client) == (HEAD + DATA)[:count]
                client.close()
                gone = await _send(sender, server, part)
                assert gone is not None
                assert await gone == 0
            count, came = await _sent(sender, part)
            assert came == (HEAD + DATA)[:count]
        part.close()

    asyncio.run(story())


def test_no_more_wait_than_it_has_room_for(tmp_path: Path) -> None:
    async def story() -> None:
        part = Part(tmp_path / "file", DATA)
        async with _ready(part) as sender:
            with contextlib.ExitStack() as stack:
                slow = [stack.enter_context(_slow()) for _ in range(JOBS_MAX)]
                for server, _ in slow:
                    assert await _send(sender, server, part) is not None
                assert await _sent(sender, part) == (0, b"")
        part.close()

    asyncio.run(story())


def test_long_ones_are_spread_over_processes(tmp_path: Path) -> None:
    async def story() -> None:
        data = os.urandom(MUCH_BYTES + 5)
        part = Part(tmp_path / "file", data)
        async with _ready(part, 2) as sender:
            with contextlib.ExitStack() as stack:
                async with asyncio.timeout(30):
                    while not all(process.is_ready for process in sender.processes):
                        sending = await _send(sender, stack.enter_context(_connection())[0], part)
                        assert sending is not None
                        sender.free_for(part)  # the first has much to do, so the next one begins
                        await sending  # nobody reads, so it is given back
                ends = [stack.enter_context(_connection()) for _ in range(4)]
                coming = [asyncio.create_task(asyncio.to_thread(_all_of, client)) for _, client in ends]
                sendings = [await _send(sender, server, part) for server, _ in ends]
                assert [process.pending_bytes for process in sender.processes] == [2 * len(data)] * 2
                for (server, _), sending, came in zip(ends, sendings, coming, strict=True):
                    assert sending is not None
                    assert await sending == len(HEAD) + len(data)
                    server.shutdown(socket.SHUT_WR)
                    assert await came == HEAD + data
        part.close()

    asyncio.run(story())


def test_short_ones_are_for_who_has_little_to_do(tmp_path: Path) -> None:
    async def story() -> None:
        short, long = Part(tmp_path / "short", DATA[:SHORT_BYTES]), Part(tmp_path / "long", DATA)
        async with _ready(short, MANY) as sender:
            with contextlib.ExitStack() as stack:
                sendings = []
                for _ in range(SOON_BYTES // SHORT_BYTES):
                    server, _ = stack.enter_context(_slow())
                    sendings.append(await _send(sender, server, short))
                assert sender.free_for(short) is None
                assert sender.does(short)
                assert sender.free_for(long) is not None
                assert not sender.does(long)
                assert all([sending is not None and await sending for sending in sendings])
            assert sender.free_for(short) is not None
        async with _ready(long, MANY - 1) as sender:  # few processors: they go out as soon from here
            assert sender.free_for(short) is None
        short.close()
        long.close()

    asyncio.run(story())


def test_what_is_sent_here_goes_out_as_far_as_the_connection_takes_it(tmp_path: Path) -> None:
    async def story() -> None:
        sender = Sender(processes=0)
        data = DATA[:SHORT_BYTES]
        good, bad = Part(tmp_path / "good", data), Part(tmp_path / "bad", data, bad_block=2)
        for part in (good, good.piece(1000, len(data) - 5000), bad):
            with _connection() as (server, client):
                server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
                coming = asyncio.create_task(asyncio.to_thread(_all_of, client))
                async with part as (file, offset):
                    count = sender.send(server.fileno(), HEAD, part, file, offset)
                server.shutdown(socket.SHUT_WR)
                assert await coming == (HEAD + part.data)[:count]
                assert count == (len(HEAD) + part.size_bytes if part.is_sound else 0)
        with _slow() as (server, client):
            async with good as (file, offset):
                count = sender.send(server.fileno(), HEAD, good, file, offset)
                assert 0 < count < len(data)
                assert sender.send(server.fileno(), HEAD, good, file, offset) == 0
            server.shutdown(socket.SHUT_WR)
            assert _all_of(client) == (HEAD + data)[:count]
        sender.close()
        good.close()
        bad.close()

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
        sender = Sender("test", processes=1, again_s=0.0)
        first = await _pid(sender, part)
        os.kill(first, signal.SIGSTOP)  # it is stopped, so what it is given now stays undone
        with _connection() as (server, _):
            sending = await _send(sender, server, part)
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
    (pid,) = sender.pids
    return pid

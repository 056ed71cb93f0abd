"""The bundled servers, and what the store and the bus do while theirs is away."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from random import Random

import pytest

from apus.kernel.errors import Unavailable
from apus.platform.bus_nats import NatsBus
from apus.platform.clock import SystemClock
from apus.platform.process import LocalRunner
from apus.platform.servers import start_nats, start_postgres, stop_server
from apus.platform.store_postgres import PostgresStore
from tests.conftest import free_port
from tests.contract.test_bus import Heard
from tests.contract.test_store import COUNT, METADATA, number_of, put


@pytest.mark.postgres
def test_the_postgres_store_outlives_its_server(tmp_path: Path, runner: LocalRunner) -> None:
    async def story() -> None:
        port = free_port()
        server = await start_postgres(tmp_path, port, runner)
        assert await start_postgres(tmp_path, port, runner) == server  # adopted, not started twice
        store = PostgresStore(server.url, SystemClock(), Random(1))
        try:
            await store.create_schema(METADATA)
            await store.write(put("a", 1))
            # Killed, as by a power cut: what was acknowledged is there afterwards.
            await runner.kill(server.process, signal.SIGKILL)
            while runner.alive(server.process):
                await asyncio.sleep(0.01)
            with pytest.raises(Unavailable, match="does not answer"):
                await store.write(put("b", 2))
            with pytest.raises(Unavailable, match="does not answer"):
                await store.read(number_of("a"))
            server = await start_postgres(tmp_path, port, runner)
            assert await store.read(number_of("a")) == 1
            await store.write(put("b", 2))
            # Restarted between two calls: nobody notices.
            await stop_server(server, tmp_path, runner)
            server = await start_postgres(tmp_path, port, runner)
            await store.write(put("c", 3))
            assert await store.read(lambda tx: tx.execute(COUNT).scalar()) == 3
        finally:
            await store.close()
            await stop_server(server, tmp_path, runner)

    asyncio.run(story())


@pytest.mark.nats
def test_the_nats_bus_outlives_its_server(tmp_path: Path, runner: LocalRunner) -> None:
    async def story() -> None:
        port = free_port()
        server = await start_nats(tmp_path, port, runner)
        await stop_server(server, tmp_path, runner)
        bus = NatsBus(server.url)
        heard = Heard()

        async def echo(body: bytes) -> bytes:
            return body

        async def until_heard() -> None:
            count = len(heard.messages)
            while len(heard.messages) == count:
                await bus.publish("a.b", b"x")
                await asyncio.sleep(0.05)

        await bus.open()  # the server is away: that is no reason not to start
        await bus.listen("a.*", heard)
        await bus.answer("echo", echo)
        await bus.publish("a.b")
        with pytest.raises(Unavailable, match="disconnected"):
            await bus.ask("echo", b"", timeout_s=5)
        try:
            for _ in range(2):
                server = await start_nats(tmp_path, port, runner)
                async with asyncio.timeout(10):
                    await until_heard()
                assert await bus.ask("echo", b"y", timeout_s=5) == b"y"
                await runner.kill(server.process, signal.SIGKILL)
                while runner.alive(server.process):
                    await asyncio.sleep(0.01)
                async with asyncio.timeout(1):
                    for _ in range(1000):
                        await bus.publish("a.b", b"lost")
                with pytest.raises(Unavailable):
                    await bus.ask("echo", b"", timeout_s=0.5)
        finally:
            await bus.close()
            await stop_server(server, tmp_path, runner)

    asyncio.run(story())


@pytest.mark.nats
def test_a_port_that_is_taken_is_named(tmp_path: Path, runner: LocalRunner) -> None:
    async def story() -> None:
        port = free_port()
        server = await start_nats(tmp_path / "a", port, runner)
        try:
            with pytest.raises(Unavailable, match=rf"nats cannot listen on 127.0.0.1:{port}: .*in use"):
                await start_nats(tmp_path / "b", port, runner)
        finally:
            await stop_server(server, tmp_path / "a", runner)

    asyncio.run(story())

"""What a statement and a transaction cost, on each engine: `python -m bench.store` (PYTHONPATH=src)."""

from __future__ import annotations

import asyncio
import resource
import socket
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

from apus.kernel.sql import Column, Schema, Table
from apus.platform.clock import SystemClock
from apus.platform.process import LocalRunner
from apus.platform.servers import start_postgres, stop_server
from apus.platform.store_postgres import PostgresStore
from apus.platform.store_sqlite import SqliteStore

SCHEMA = Schema()
THING = SCHEMA.add(Table("thing", (Column("id", "text"), Column("number", "integer"), Column("body", "bytes"))))
BY_ID = "SELECT body FROM thing WHERE id = :id"
UPDATE = "UPDATE thing SET number = :number, body = :body WHERE id = :id"
BODY = b"x" * 500


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def timed(count: int, work: Callable[[], Awaitable[Any]]) -> str:
    """Median of five: microseconds of time and of our CPU, for each of `count`."""
    runs = []
    for _ in range(5):
        began_s, began_cpu_s = time.perf_counter(), cpu_s()
        await work()
        runs.append((time.perf_counter() - began_s, cpu_s() - began_cpu_s))
    wall, cpu = (statistics.median(column) / count * 1e6 for column in zip(*runs, strict=True))
    return f"{wall:7.0f} us  {cpu:7.0f} us CPU"


async def measure(name: str, store: Any) -> None:
    await store.create_schema(SCHEMA)
    keys = [f"key-{n}" for n in range(1000)]
    rows = [{"id": key, "number": 0, "body": BODY} for key in keys]
    await store.write(lambda tx: tx.execute(THING.insert(), rows))

    def put(key: str) -> Callable[[Any], Any]:
        return lambda tx: tx.execute(UPDATE, {"id": key, "number": 1, "body": BODY})

    def get(key: str) -> Callable[[Any], Any]:
        return lambda tx: tx.execute(BY_ID, {"id": key}).scalar()

    async def one_by_one(what: Callable[[str], Any], count: int, call: Any) -> None:
        for number in range(count):
            await call(what(keys[number]))

    async def at_once(what: Callable[[str], Any], call: Any) -> None:
        await asyncio.gather(*(one_by_one(lambda _, key=key: what(key), 10, call) for key in keys[:100]))

    async def statements(what: Callable[[str], Any], call: Any) -> None:
        await call(lambda tx: [what(key)(tx) for key in keys])

    print(f"{name}: select, inside a transaction   {await timed(1000, lambda: statements(get, store.read))}")
    print(f"{name}: update, inside a transaction   {await timed(1000, lambda: statements(put, store.write))}")
    print(f"{name}: read, 1 client                 {await timed(500, lambda: one_by_one(get, 500, store.read))}")
    print(f"{name}: read, 100 at once              {await timed(1000, lambda: at_once(get, store.read))}")
    print(f"{name}: write, 1 client                {await timed(200, lambda: one_by_one(put, 200, store.write))}")
    print(f"{name}: write, 100 at once             {await timed(1000, lambda: at_once(put, store.write))}")
    await store.close()


async def main() -> None:
    clock, runner = SystemClock(), LocalRunner()
    with tempfile.TemporaryDirectory(dir=".") as directory:
        await measure("sqlite", SqliteStore(Path(directory) / "store.db", clock))
        await measure("memory", SqliteStore(None, clock))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        home = Path(directory).resolve() / "postgres"
        server = await start_postgres(home, port, runner)
        try:
            await measure("postgres", PostgresStore(server.url, clock, Random(1)))
        finally:
            await stop_server(server, home, runner)


if __name__ == "__main__":
    asyncio.run(main())

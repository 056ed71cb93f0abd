"""Who follows events from a cursor misses none, however the transactions that write them overlap."""

from __future__ import annotations

import asyncio
from random import Random

import asyncpg
import pytest

from apus.kernel.events import emit, events_after, keep_numbers_rising, last_seq
from apus.kernel.table import metadata
from apus.kernel.world import Store, Transaction
from apus.platform.clock import SystemClock
from apus.platform.store_postgres import PostgresStore

pytestmark = pytest.mark.postgres

GATE = 7
"""An advisory lock that the test holds to keep a transaction open."""


async def seen(store: Store, after: int = 0) -> list[str]:
    return [event.kind for event in await store.read(lambda tx: events_after(tx, after))]


async def opened(url: str) -> PostgresStore:
    store = PostgresStore(url, SystemClock(), Random(1))
    await store.create_schema(metadata)
    await store.write(keep_numbers_rising)
    return store


def test_what_was_numbered_first_and_committed_last_is_not_passed_over(new_database: str) -> None:
    async def story() -> None:
        store = await opened(new_database)
        gate = await asyncpg.connect(new_database)
        await gate.execute("SELECT pg_advisory_lock($1)", GATE)
        numbered = asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(tx: Transaction) -> None:
            emit(tx, "a.slow.made", "r", None)
            loop.call_soon_threadsafe(numbered.set)
            tx.execute("SELECT pg_advisory_xact_lock(:gate)::text", {"gate": GATE})

        writing = asyncio.ensure_future(store.write(slow))
        await numbered.wait()
        cursor = await store.read(last_seq)
        await store.write(lambda tx: emit(tx, "b.quick.made", "r", None))
        assert await seen(store) == []  # else the cursor would stand behind what is still to come
        await gate.execute("SELECT pg_advisory_unlock($1)", GATE)
        await writing
        assert await seen(store) == ["a.slow.made", "b.quick.made"]
        assert await seen(store, cursor) == ["a.slow.made", "b.quick.made"]
        await gate.close()
        await store.close()

    asyncio.run(story())


def test_a_reader_beside_many_writers_sees_each_event_once(new_database: str) -> None:
    async def story() -> None:
        store, reader = await opened(new_database), await opened(new_database)
        dice = Random(3)

        async def writer(name: int) -> None:
            for number in range(25):
                pauses = [dice.uniform(0, 0.004) for _ in range(2)]

                def work(tx: Transaction, number: int = number, pauses: list[float] = pauses) -> None:
                    for step, pause_s in enumerate(pauses):
                        emit(tx, f"w{name}.n{number}.s{step}", f"r{name}", None)
                        tx.execute("SELECT pg_sleep(:s)::text", {"s": pause_s})

                await store.write(work)

        async def follow(found: list[str]) -> None:
            cursor = 0
            while len(found) < 8 * 25 * 2:
                events = await reader.read(lambda tx, cursor=cursor: events_after(tx, cursor, limit=7))  # type: ignore[misc]
                found += [event.kind for event in events]
                cursor = events[-1].seq if events else cursor

        found: list[str] = []
        async with asyncio.timeout(60):
            await asyncio.gather(follow(found), *(writer(name) for name in range(8)))
        assert len(set(found)) == len(found) == 8 * 25 * 2
        for name in range(8):
            mine = [kind for kind in found if kind.startswith(f"w{name}.")]
            assert mine == [f"w{name}.n{number}.s{step}" for number in range(25) for step in range(2)]
        await store.close()
        await reader.close()

    asyncio.run(story())


def test_numbers_rise_after_a_restore(new_database: str) -> None:
    async def story() -> None:
        store = await opened(new_database)
        await store.write(lambda tx: emit(tx, "old.one.made", "r", None))
        await store.write(lambda tx: tx.execute("UPDATE event SET seq = seq + (1000000::bigint << 20)"))
        cursor = (await store.read(lambda tx: tx.execute("SELECT max(seq) FROM event"))).scalar()
        await store.write(keep_numbers_rising)
        await store.write(lambda tx: emit(tx, "new.one.made", "r", None))
        assert await seen(store, cursor) == ["new.one.made"]
        assert await seen(store) == ["old.one.made", "new.one.made"]
        await store.close()

    asyncio.run(story())

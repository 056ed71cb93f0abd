"""What every store does, on each engine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from apus.kernel.errors import Conflict, Unavailable
from apus.kernel.sql import Column, Schema, Table, Taken, where
from apus.kernel.world import Store, Transaction
from apus.platform.clock import SystemClock
from apus.platform.store_postgres import PostgresStore, numbered
from apus.platform.store_sqlite import SqliteStore

METADATA = Schema()
THING = METADATA.add(
    Table("thing", (Column("id", "text"), Column("number", "integer"), Column("body", "bytes", nullable=True)))
)
INSERT = "INSERT INTO thing (id, number) VALUES (:id, :number)"
BY_ID = "SELECT number, body FROM thing WHERE id = :id"
COUNT = "SELECT count(*) FROM thing"

OpenStore = Callable[[], AbstractAsyncContextManager[Any]]


@pytest.fixture(params=["file", "memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens a store with the schema in it; of a file or a server, each opening sees the same data."""
    url = request.getfixturevalue("new_database") if request.param == "postgres" else ""

    @asynccontextmanager
    async def open_it() -> AsyncIterator[Any]:
        store: Any
        if url:
            store = PostgresStore(url, SystemClock(), Random(1))
        else:
            store = SqliteStore(tmp_path / "store.db" if request.param == "file" else None, SystemClock())
        await store.create_schema(METADATA)
        try:
            yield store
        finally:
            await store.close()

    return open_it


def with_store(open_store: OpenStore, story: Callable[[Any], Awaitable[None]]) -> None:
    async def run() -> None:
        async with open_store() as store:
            await story(store)

    asyncio.run(run())


def put(key: str, number: int) -> Callable[[Transaction], None]:
    def work(tx: Transaction) -> None:
        tx.execute(INSERT, {"id": key, "number": number})

    return work


def number_of(key: str) -> Callable[[Transaction], int | None]:
    def work(tx: Transaction) -> int | None:
        number = tx.execute(BY_ID, {"id": key}).scalar()
        return None if number is None else int(number)

    return work


def test_what_is_written_is_read(open_store: OpenStore) -> None:
    async def story(store: Store) -> None:
        for number in range(20):
            await store.write(put(f"a{number}", number))
            assert await store.read(number_of(f"a{number}")) == number
        rows = await store.read(lambda tx: tx.execute("SELECT id, number FROM thing ORDER BY number"))
        assert list(rows) == [(f"a{number}", number) for number in range(20)]
        assert len(rows) == rows.rowcount == 20

    with_store(open_store, story)


def test_the_value_of_the_function_is_returned_with_the_count_of_rows(open_store: OpenStore) -> None:
    async def story(store: Store) -> None:
        await store.write(lambda tx: tx.execute(INSERT, [{"id": f"a{n}", "number": n} for n in range(5)]))
        raised = await store.write(
            lambda tx: tx.execute("UPDATE thing SET number = :to WHERE number >= :from", {"to": 9, "from": 2})
        )
        assert raised.rowcount == 3
        returned = await store.write(
            lambda tx: tx.execute("DELETE FROM thing WHERE number = :number RETURNING id", {"number": 9})
        )
        assert sorted(returned) == [("a2",), ("a3",), ("a4",)]
        assert await store.read(lambda tx: tx.execute(COUNT).scalar()) == 2
        nothing = await store.read(lambda tx: tx.execute(BY_ID, {"id": "nothing"}))
        assert (nothing.first(), nothing.scalar(), len(nothing)) == (None, None, 0)

    with_store(open_store, story)


def test_a_function_that_raises_leaves_nothing(open_store: OpenStore) -> None:
    async def story(store: Store) -> None:
        hints: list[str] = []

        def refuse(tx: Transaction) -> None:
            put("a", 1)(tx)
            tx.after_commit(lambda: hints.append("a"))
            raise Conflict("test.refused", "no")

        with pytest.raises(Conflict, match="no"):
            await store.write(refuse)
        assert await store.read(number_of("a")) is None
        assert hints == []

    with_store(open_store, story)


def test_of_many_at_once_only_the_failing_ones_fail(open_store: OpenStore) -> None:
    async def story(store: Store) -> None:
        def work(number: int) -> Callable[[Transaction], int]:
            def run(tx: Transaction) -> int:
                put(f"a{number}", number)(tx)
                if number % 3 == 0:
                    raise Conflict("test.refused", str(number))
                return number

            return run

        results = await asyncio.gather(*(store.write(work(n)) for n in range(60)), return_exceptions=True)
        for number, result in enumerate(results):
            if number % 3 == 0:
                assert isinstance(result, Conflict)
                assert str(result) == str(number)
            else:
                assert result == number
        count = await store.read(lambda tx: tx.execute(COUNT).scalar())
        assert count == 40

    with_store(open_store, story)


def test_a_hundred_counting_tasks_lose_nothing(open_store: OpenStore) -> None:
    async def story(store: Store) -> None:
        await store.write(put("n", 0))

        def count(tx: Transaction) -> None:
            seen = tx.execute(BY_ID, {"id": "n"}).scalar()
            tx.execute("UPDATE thing SET number = :number WHERE id = :id", {"id": "n", "number": seen + 1})

        await asyncio.gather(*(store.write(count) for _ in range(100)))
        assert await store.read(number_of("n")) == 100

    with_store(open_store, story)


def test_hints_come_after_the_commit_and_before_the_answer(open_store: OpenStore) -> None:
    async def story(store: Store) -> None:
        order: list[Any] = []

        def work(tx: Transaction) -> None:
            tx.after_commit(lambda: order.append("hint"))
            tx.after_commit(lambda: 1 // 0)  # a hint that fails is logged, and harms nobody
            put("a", 1)(tx)
            order.append("work")

        await store.write(work)
        order.append(await store.read(number_of("a")))
        assert order == ["work", "hint", 1]

    with_store(open_store, story)


def test_a_second_row_of_one_key_is_taken(open_store: OpenStore) -> None:
    async def story(store: Store) -> None:
        await store.write(put("a", 1))
        with pytest.raises(Taken):
            await store.write(put("a", 2))
        with pytest.raises(Taken):
            await store.write(lambda tx: tx.execute(INSERT, [{"id": key, "number": 3} for key in "bca"]))
        assert await store.read(number_of("a")) == 1
        assert await store.read(number_of("b")) is None

    with_store(open_store, story)


def test_a_function_may_not_go_on_after_a_failed_statement(open_store: OpenStore) -> None:
    async def story(store: Store) -> None:
        await store.write(put("a", 1))

        def swallow(tx: Transaction) -> None:
            put("b", 1)(tx)
            with contextlib.suppress(Taken):
                put("a", 2)(tx)

        with pytest.raises(RuntimeError, match="let its error out"):
            await store.write(swallow)
        assert await store.read(number_of("b")) is None

    with_store(open_store, story)


def test_large_values_come_back_whole(open_store: OpenStore) -> None:
    async def story(store: Store) -> None:
        body = os.urandom(8 << 20)
        big = {"id": "big", "number": 2**62, "body": body}
        await store.write(lambda tx: tx.execute(THING.insert(), big))
        assert await store.read(lambda tx: tx.execute(BY_ID, {"id": "big"}).first()) == (2**62, body)
        await store.write(lambda tx: tx.execute(INSERT, [{"id": f"m{n}", "number": n} for n in range(3000)]))
        among, parameters = where({"id": [f"m{n}" for n in range(2000)]})
        assert await store.read(lambda tx: tx.execute(COUNT + among, parameters).scalar()) == 2000

    with_store(open_store, story)


def test_the_common_tongue(open_store: OpenStore) -> None:
    """What RecordTable and the services say is understood alike: quotes, colons, repeats, NULL order, serials."""

    async def story(store: Store) -> None:
        schema = Schema()
        columns = (
            Column("n", "integer", serial=True),
            Column("word", "text", nullable=True),
            Column("is_on", "boolean"),
        )
        schema.add(
            Table("line", (*columns, Column("weight", "real")), key=("n",), unique=(("word",),), indexes=(("is_on",),))
        )
        await store.create_schema(schema)
        await store.create_schema(schema)

        def fill(tx: Transaction) -> list[int]:
            add = "INSERT INTO line (word, is_on, weight) VALUES (:word, :is_on, :weight) RETURNING n"
            rows = ("b:c", True, 1.5), (None, False, 2.0), ("it's", True, 0.0)
            return [tx.execute(add, dict(zip(("word", "is_on", "weight"), row, strict=True))).scalar() for row in rows]

        numbers = await store.write(fill)
        assert numbers == sorted(set(numbers))
        ordered = await store.read(lambda tx: tx.execute("SELECT word FROM line ORDER BY word ASC NULLS FIRST"))
        assert [word for (word,) in ordered] == [None, "b:c", "it's"]
        same = "SELECT word, ':word' FROM line WHERE word = :word AND :word = word AND is_on = :is_on"
        found = await store.read(lambda tx: tx.execute(same, {"word": "b:c", "is_on": True, "unused": 1}))
        assert list(found) == [("b:c", ":word")]

    with_store(open_store, story)


def test_names_become_numbers() -> None:
    assert numbered("SELECT ':a', x::text FROM t WHERE a = :a AND b = :b AND c = :a") == (
        "SELECT ':a', x::text FROM t WHERE a = $1 AND b = $2 AND c = $1",
        ("a", "b"),
    )


def test_a_read_may_not_write(open_store: OpenStore) -> None:
    async def story(store: Store) -> None:
        with pytest.raises(Exception, match=r"read.?only|may not be written"):
            await store.read(put("a", 1))
        assert await store.read(number_of("a")) is None
        await store.write(put("a", 1))

    with_store(open_store, story)


def test_now_is_the_clock_s(open_store: OpenStore) -> None:
    async def story(store: Store) -> None:
        before = SystemClock().now_s()
        assert before <= await store.write(lambda tx: tx.now_s) <= SystemClock().now_s()

    with_store(open_store, story)


def test_a_caller_who_gives_up_harms_nobody(open_store: OpenStore) -> None:
    async def story(store: Store) -> None:
        tasks = [asyncio.create_task(store.write(put(f"a{n}", n))) for n in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for number in range(1, 20, 2):
            assert await store.read(number_of(f"a{number}")) == number

    with_store(open_store, story)


def test_a_closed_store_says_so(open_store: OpenStore) -> None:
    async def story(store: Store) -> None:
        last = asyncio.create_task(store.write(put("a", 1)))
        await asyncio.sleep(0)
        await store.close()
        assert await last is None
        with pytest.raises(Unavailable, match="closed"):
            await store.write(put("b", 1))
        with pytest.raises(Unavailable, match="closed"):
            await store.read(number_of("a"))

    with_store(open_store, story)


WRITER = """
import asyncio, sys
from pathlib import Path
from random import Random
from apus.platform.clock import SystemClock
from apus.platform.store_postgres import PostgresStore, numbered
from apus.platform.store_sqlite import SqliteStore
from tests.contract.test_store import METADATA, put

async def main():
    store = SqliteStore(Path(sys.argv[1]), SystemClock())
    await store.create_schema(METADATA)
    async def one(task):
        for number in range(10_000):
            await store.write(put(f"{task}-{number}", number))
            print(f"{task}-{number}", flush=True)
    await asyncio.gather(*(one(task) for task in range(8)))

asyncio.run(main())
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])},
        cwd=Path(__file__).parents[2],
        text=True,
    )
    assert child.stdout is not None
    heard = [child.stdout.readline().strip() for _ in range(300)]
    child.send_signal(signal.SIGKILL)
    heard += child.stdout.read().split()[:-1]  # the last line may be cut
    child.wait()

    async def look() -> None:
        store = SqliteStore(path, SystemClock())
        for key in heard:
            assert await store.read(number_of(key)) is not None, f"{key} was acknowledged and is gone"
        await store.close()

    asyncio.run(look())


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"this is not a database at all, and long enough to be looked at" * 100)
    with pytest.raises(Unavailable, match=r"store\.db.*backup"):
        SqliteStore(path, SystemClock())


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"nowhere/store\.db.*directory"):
        SqliteStore(tmp_path / "nowhere" / "store.db", SystemClock())


def test_a_full_disk_is_unavailable_and_passes(tmp_path: Path) -> None:
    async def story() -> None:
        store = SqliteStore(tmp_path / "store.db", SystemClock())
        await store.create_schema(METADATA)
        await store.write(lambda tx: tx.execute("PRAGMA max_page_count=20"))
        big = {"id": "big", "number": 1, "body": b"x" * 200_000}
        results = await asyncio.gather(
            store.write(put("small", 1)),
            store.write(lambda tx: tx.execute(THING.insert(), big)),
            return_exceptions=True,
        )
        assert isinstance(results[1], Unavailable)
        assert "full" in str(results[1])
        await store.write(lambda tx: tx.execute("PRAGMA max_page_count=1000000"))
        await store.write(lambda tx: tx.execute(THING.insert(), big))
        if results[0] is None:
            assert await store.read(number_of("small")) == 1
        await store.close()

    asyncio.run(story())


def test_another_process_may_hold_the_lock_for_a_while(tmp_path: Path) -> None:
    async def story() -> None:
        ours, theirs = (SqliteStore(tmp_path / "store.db", SystemClock()) for _ in range(2))
        await ours.create_schema(METADATA)
        keys = [f"{who}{n}" for n in range(20) for who in "ot"]
        await asyncio.gather(*((ours if key[0] == "o" else theirs).write(put(key, 1)) for key in keys))
        for key in keys:
            assert await ours.read(number_of(key)) == 1
        await ours.close()
        await theirs.close()

    asyncio.run(story())

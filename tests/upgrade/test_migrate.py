"""A schema is made, found, brought up to date, or refused."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from apus.kernel.errors import Conflict
from apus.kernel.sql import Column, Schema, Table
from apus.kernel.world import Store
from apus.platform import migrations
from apus.platform.clock import SystemClock
from apus.platform.store_postgres import PostgresStore
from apus.platform.store_sqlite import SqliteStore

VERSION = "SELECT version_num FROM alembic_version"
OLDER = """
revision = "{revision}"
down_revision = {before}

import sqlalchemy as sa
from alembic import op

def upgrade():
    op.add_column("thing", sa.Column("colour", sa.String(20), nullable=True))
    op.create_index("ix_thing_colour", "thing", ["colour"])
"""


def described(*columns: str) -> Schema:
    schema = Schema()
    schema.add(Table("thing", (Column("id", "text"), *(Column(column, "text", nullable=True) for column in columns))))
    return schema


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def new_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    if request.param == "postgres":
        url = request.getfixturevalue("new_database")
        return lambda: PostgresStore(url, SystemClock(), Random(1))
    return lambda: SqliteStore(tmp_path / "store.db", SystemClock())


def test_fresh_then_again_then_with_one_more_table(new_store: Callable[[], Any]) -> None:
    async def story() -> None:
        store = new_store()
        metadata = described()
        await migrations.migrate(store, metadata)
        await migrations.migrate(store, metadata)
        assert await store.read(lambda tx: list(tx.execute(VERSION))) == [(migrations.HEAD,)]
        metadata.add(Table("other", (Column("id", "integer"),)))
        await migrations.migrate(store, metadata)
        assert await store.read(lambda tx: tx.execute("SELECT count(*) FROM other").scalar()) == 0
        await store.close()

    asyncio.run(story())


def test_processes_that_start_at_once_agree(new_store: Callable[[], Any]) -> None:
    async def story() -> None:
        stores = [new_store() for _ in range(5)]
        await asyncio.gather(*(migrations.migrate(store, described("a", "b")) for store in stores))
        assert await stores[0].read(lambda tx: list(tx.execute(VERSION))) == [(migrations.HEAD,)]
        for store in stores:
            await store.close()

    asyncio.run(story())


def test_a_database_of_a_newer_release_is_refused(new_store: Callable[[], Any]) -> None:
    async def story() -> None:
        store = new_store()
        await migrations.migrate(store, described())
        await store.write(lambda tx: tx.execute("UPDATE alembic_version SET version_num = '9999'"))
        with pytest.raises(Conflict, match="9999"):
            await migrations.migrate(store, described())
        await store.close()

    asyncio.run(story())


def test_steps_are_taken_together_or_not_at_all(new_store: Callable[[], Any], tmp_path: Path) -> None:
    versions = tmp_path / "scripts" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "scripts" / "env.py").write_text((Path(migrations.__file__).parent / "env.py").read_text())
    (versions / "a1.py").write_text('revision = "a1"\ndown_revision = None\n\ndef upgrade():\n    pass\n')
    (versions / "a2.py").write_text(OLDER.format(revision="a2", before='"a1"'))
    (versions / "a3.py").write_text(OLDER.format(revision="a3", before='"a2"'))  # the column is there: it fails

    def migrate(store: Store, head: str, *columns: str) -> Awaitable[None]:
        return migrations.migrate(store, described(*columns), head=head, scripts=tmp_path / "scripts")

    async def story() -> None:
        store = new_store()
        await migrate(store, "a1")
        await store.write(lambda tx: tx.execute("INSERT INTO thing VALUES ('old')"))
        with pytest.raises(Exception, match="colour"):
            await migrate(store, "a3", "colour")
        assert await store.read(lambda tx: list(tx.execute(VERSION))) == [("a1",)]
        assert await store.read(lambda tx: list(tx.execute("SELECT * FROM thing"))) == [("old",)]
        await migrate(store, "a2", "colour")
        assert await store.read(lambda tx: list(tx.execute(VERSION))) == [("a2",)]
        assert await store.read(lambda tx: list(tx.execute("SELECT * FROM thing"))) == [("old", None)]
        await store.close()

    asyncio.run(story())


def test_nothing_to_do_does_not_import_alembic() -> None:
    code = """
import asyncio, sys
from apus.kernel.sql import Schema
from apus.platform.clock import SystemClock
from apus.platform.migrations import migrate
from apus.platform.store_sqlite import SqliteStore
asyncio.run(migrate(SqliteStore(None, SystemClock()), Schema()))
print([name for name in ("alembic", "sqlalchemy", "asyncpg", "nats") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": "src"},
        cwd=Path(__file__).parents[2],
    )
    assert done.stdout.strip() == "[]", done.stderr

"""Brings the schema of a store to this release, one additive step after another (Alembic).

A fresh database is made from the metadata and marked as current.  A table that is new in this release needs no
step: whatever is missing is created.  What is added to a table that may exist needs a revision in `versions/`,
which adds and never drops, renames or narrows: the release before must go on working on the same database.
Alembic is imported only when there is a step to take, since every start pays for an import.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import sqlalchemy as sa

from apus.kernel.errors import Conflict
from apus.kernel.world import Store, Transaction
from apus.platform.transaction import CoreTransaction

HEAD: Final = "0001"
"""The newest revision in `versions/`; a test keeps it so."""
SCRIPTS: Final = Path(__file__).parent

_VERSION: Final = sa.Table(
    "alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True, nullable=False)
)
_SCHEMA_LOCK: Final = 0x61707573
"""PostgreSQL's advisory lock: of several processes that start at once, one takes the steps."""


async def migrate(store: Store, metadata: sa.MetaData, *, head: str = HEAD, scripts: Path = SCRIPTS) -> None:
    """Make or renew the schema.  Raise Conflict when the database belongs to a newer release."""
    await store.write(lambda tx: _migrate(tx, metadata, head, scripts))


def _migrate(tx: Transaction, metadata: sa.MetaData, head: str, scripts: Path) -> None:
    assert isinstance(tx, CoreTransaction)
    connection = tx.connection
    if connection.dialect.name == "postgresql":
        tx.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
    found = None
    if sa.inspect(connection).has_table(_VERSION.name):
        found = tx.execute(sa.select(_VERSION.c.version_num)).scalar()
    if found is None:
        metadata.create_all(connection)
        _VERSION.create(connection, checkfirst=True)
        tx.execute(_VERSION.insert(), {"version_num": head})
        return
    if found != head:
        _take_steps(connection, found, head, scripts)
    metadata.create_all(connection)


def _take_steps(connection: sa.Connection, found: str, head: str, scripts: Path) -> None:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    steps = ScriptDirectory(str(scripts))
    if found not in {script.revision for script in steps.walk_revisions()}:
        raise Conflict(
            "store.newer",
            f"The database has schema {found}, and this release knows up to {head}: start the release that made it.",
        )
    environment = EnvironmentContext(Config(), steps, fn=lambda revision, _: steps._upgrade_revs(head, revision))
    with environment:
        # The store commits all steps, and the tables after them, at once: SQLite and PostgreSQL both can.
        environment.configure(connection=connection, transactional_ddl=False)
        steps.run_env()

"""Brings the schema of a store to this release, one additive step after another (Alembic).

A fresh database is made from the metadata and marked as current.  A table that is new in this release needs no
step: whatever is missing is created.  What is added to a table that may exist needs a revision in `versions/`,
which adds and never drops, renames or narrows: the release before must go on working on the same database.
Alembic is imported only when there is a step to take, since every start pays for an import; it writes the steps
as SQL text, and the store runs that text in one transaction with the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from apus.kernel.errors import Conflict
from apus.kernel.sql import Column, Dialect, Schema, Table
from apus.kernel.world import Store, Transaction
from apus.platform.transaction import SqlTransaction

HEAD: Final = "0001"
"""The newest revision in `versions/`; a test keeps it so."""
SCRIPTS: Final = Path(__file__).parent

_VERSION: Final = Table("alembic_version", (Column("version_num", "text"),), key=("version_num",))
SCHEMA_LOCK: Final = 0x61707573
"""PostgreSQL's advisory lock: of several processes that start at once, one takes the steps."""


async def migrate(store: Store, schema: Schema, *, head: str = HEAD, scripts: Path = SCRIPTS) -> None:
    """Make or renew the schema.  Raise Conflict when the database belongs to a newer release."""
    await store.write(lambda tx: _migrate(tx, schema, head, scripts))


def _migrate(tx: Transaction, schema: Schema, head: str, scripts: Path) -> None:
    assert isinstance(tx, SqlTransaction)
    if tx.dialect == "postgresql":
        tx.execute("SELECT pg_advisory_xact_lock(:lock)", {"lock": SCHEMA_LOCK})
    for statement in _VERSION.ddl(tx.dialect):
        tx.execute(statement)
    found = tx.execute("SELECT version_num FROM alembic_version").scalar()
    if found is None:
        tx.execute(_VERSION.insert(), {"version_num": head})
    elif found != head:
        for statement in _steps(tx.dialect, found, head, scripts):
            tx.execute(statement)
    for statement in schema.ddl(tx.dialect):
        tx.execute(statement)


class _Statements:
    """What Alembic prints, one statement at a time."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def write(self, text: str) -> None:
        self.texts.append(text)

    def flush(self) -> None:
        pass


def _steps(dialect: Dialect, found: str, head: str, scripts: Path) -> Sequence[str]:
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    steps = ScriptDirectory(str(scripts))
    if found not in {script.revision for script in steps.walk_revisions()}:
        raise Conflict(
            "store.newer",
            f"The database has schema {found}, and this release knows up to {head}: start the release that made it.",
        )
    printed = _Statements()
    environment = EnvironmentContext(
        Config(), steps, fn=lambda revision, _: steps._upgrade_revs(head, revision), as_sql=True, starting_rev=found
    )
    with environment:
        environment.configure(dialect_name=dialect, output_buffer=printed)  # type: ignore[arg-type]
        steps.run_env()
    return [text for text in printed.texts if text.strip() and not text.lstrip().startswith("--")]

"""The store of a test's cloud: SQLite, or PostgreSQL while a test says so (`on_postgres`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from random import Random

from apus.kernel.world import Clock
from apus.platform.store_postgres import PostgresStore
from apus.platform.store_sqlite import SqliteStore

_postgres_url: list[str] = []


@contextlib.contextmanager
def on_postgres(url: str) -> Iterator[None]:
    """Inside, every cloud that a test makes keeps its rows there."""
    _postgres_url.append(url)
    try:
        yield
    finally:
        _postgres_url.pop()


def open_store(path: Path | None, clock: Clock) -> SqliteStore | PostgresStore:
    return PostgresStore(_postgres_url[-1], clock, Random(9)) if _postgres_url else SqliteStore(path, clock)

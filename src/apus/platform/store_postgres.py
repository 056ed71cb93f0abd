"""The store of a cluster: PostgreSQL, or a database that speaks its protocol.

A transaction stays a plain function: SQLAlchemy runs it on a greenlet, and the loop goes on while the server works.
Writes are SERIALIZABLE and are run again when they collide; whoever has collided waits in line with the others of
this process, so that a hot row costs turns and not a storm.  Reads see one snapshot and take no lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any, Final, Generic, TypeVar

import sqlalchemy
import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from apus.kernel.errors import Unavailable
from apus.kernel.world import Clock, Transaction
from apus.platform.transaction import CoreTransaction, give

T = TypeVar("T")

CONNECTIONS_MAX: Final = 10
"""A server has about a hundred for the whole cluster; more of ours would only wait inside it."""
CONNECTION_WAIT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 5.0
STATEMENT_TIMEOUT_S: Final = 30.0
TRIES_MAX: Final = 30
BACK_OFF_S: Final = 0.002
"""Doubles with each collision, up to 64 times, and is drawn between nothing and that."""
LOST_MAX: Final = 3
"""Connections lost one after the other before a commit was sent: the server is gone, not restarted."""

_COLLIDED: Final = {"40001", "40P01"}
_GOING: Final = ("57P", "08", "53")
"""Shutting down or starting up, connection trouble, out of resources."""
_SCHEMA_LOCK: Final = 0x61707573
"""Advisory lock under which one of several starting processes makes the tables."""

log = structlog.get_logger("apus.store")


class PostgresStore:
    """`url` is `postgresql://user:password@host:port/database`.  Connects when first used, and again when it must."""

    def __init__(self, url: str, clock: Clock, dice: Random) -> None:
        self._clock, self._dice = clock, dice
        self._url = sqlalchemy.engine.make_url(url).set(drivername="postgresql+asyncpg")
        self._engine = create_async_engine(
            self._url,
            isolation_level="SERIALIZABLE",
            pool_size=CONNECTIONS_MAX,
            max_overflow=0,
            pool_timeout=CONNECTION_WAIT_S,
            pool_use_lifo=True,
            connect_args={
                "timeout": CONNECT_TIMEOUT_S,
                "command_timeout": STATEMENT_TIMEOUT_S,
                "server_settings": {"application_name": "apus", "jit": "off"},
            },
        )
        self._reading = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._in_line = asyncio.Lock()
        self._closed = False

    async def create_schema(self, metadata: sqlalchemy.MetaData) -> None:
        """Create the tables that are not there yet."""

        def create(tx: Transaction) -> None:
            assert isinstance(tx, CoreTransaction)
            tx.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
            metadata.create_all(tx.connection)

        await self.write(create)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        return await self._run(self._engine, work, writes=True)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self._run(self._reading, work, writes=False)

    async def _run(self, engine: AsyncEngine, work: Callable[[Transaction], T], *, writes: bool) -> T:
        lost = 0
        for attempt in range(TRIES_MAX):
            if self._closed:
                raise Unavailable("store.closed", "the store is closed: this process is stopping")
            one = _Attempt(engine, work, self._clock.now_s(), writes=writes)
            try:
                if attempt == 0:
                    return await one.run()
                async with self._in_line:
                    await self._clock.sleep(self._dice.uniform(0, BACK_OFF_S * 2 ** min(attempt, 6)))
                    return await one.run()
            except DBAPIError as error:
                if _sqlstate(error) in _COLLIDED:
                    continue
                if not _is_connection_trouble(error):
                    raise
                lost += 1
                if one.committing or lost == LOST_MAX:
                    raise self._unavailable(error, one) from error
            except (OSError, PoolTimeoutError) as error:
                raise self._unavailable(error, one) from error
        raise Unavailable("store.contended", f"a transaction collided with others {TRIES_MAX} times in a row")

    def _unavailable(self, error: Exception, attempt: _Attempt[Any]) -> Unavailable:
        place = f"{self._url.host}:{self._url.port or 5432}"
        log.warning("the database does not answer", database=place, error=str(error), committing=attempt.committing)
        doubt = "; whether the last change was kept is not known" if attempt.committing else ""
        return Unavailable("store.unavailable", f"the database does not answer{doubt}", hidden=f"{place}: {error}")

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._engine.dispose()


class _Attempt(Generic[T]):
    """One run of a function, and how far it came."""

    def __init__(self, engine: AsyncEngine, work: Callable[[Transaction], T], now_s: float, *, writes: bool) -> None:
        self._engine, self._work, self._now_s, self._writes = engine, work, now_s, writes
        self.committing = False

    async def run(self) -> T:
        async with self._engine.connect() as connection:
            try:
                await connection.begin()
                value, hints = await connection.run_sync(self._on)
                if self._writes:
                    self.committing = True
                    await connection.commit()
            except OSError:
                await connection.invalidate()  # nobody knows what the server will still send on it
                raise
        give(hints)
        return value

    def _on(self, connection: sqlalchemy.Connection) -> tuple[T, list[Callable[[], None]]]:
        tx = CoreTransaction(connection, self._now_s)
        value = self._work(tx)
        tx.check_whole()
        return value, tx.hints


def _sqlstate(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlstate", None) or "")


def _is_connection_trouble(error: DBAPIError) -> bool:
    return error.connection_invalidated or isinstance(error, InterfaceError) or _sqlstate(error).startswith(_GOING)

"""The store of a cluster: PostgreSQL, or a database that speaks its protocol.

A transaction stays a plain function: it runs on a greenlet, which gives way while the server works (`plain`).
Writes are SERIALIZABLE and are run again when they collide; whoever has collided waits in line with the others of
this process, so that a hot row costs turns and not a storm.  Reads see one snapshot and take no lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from random import Random
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

import asyncpg

from apus.kernel.errors import Unavailable
from apus.kernel.log import get_logger
from apus.kernel.sql import Rows, Schema, Taken
from apus.kernel.world import Clock, Transaction
from apus.platform.migrations import SCHEMA_LOCK
from apus.platform.plain import plainly, wait_for
from apus.platform.transaction import UNCOUNTED, Parameters, SqlTransaction, give

T = TypeVar("T")

CONNECTIONS_MAX: Final = 10
"""A server has about a hundred for the whole cluster; more of ours would only wait inside it."""
CONNECTION_WAIT_S: Final = 10.0
CONNECT_TIMEOUT_S: Final = 5.0
STATEMENT_TIMEOUT_S: Final = 30.0
STATEMENTS_MAX: Final = 512
"""Prepared statements kept on a connection: about as many as we have texts."""
TRIES_MAX: Final = 30
BACK_OFF_S: Final = 0.002
"""Doubles with each collision, up to 64 times, and is drawn between nothing and that."""
LOST_MAX: Final = 3
"""Connections lost one after the other before a commit was sent: the server is gone, not restarted."""

_WRITING: Final = "BEGIN ISOLATION LEVEL SERIALIZABLE"
_READING: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_COLLIDED: Final = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError, asyncpg.InvalidCachedStatementError)
"""The last: a migration has changed the table of a prepared statement."""
_GOING: Final = ("57P", "08", "53")
"""Shutting down or starting up, connection trouble, out of resources."""
_BROKEN: Final = (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""The last: the server was killed while asyncpg was hearing its last words."""
_TOKENS: Final = re.compile(r"'(?:[^']|'')*'|::|:([A-Za-z_]\w*)")

_log = get_logger("apus.store")


@lru_cache(maxsize=4096)
def numbered(statement: str) -> tuple[str, tuple[str, ...]]:
    """A statement with `$1` for its first name and so on, and the names in that order."""
    names: dict[str, int] = {}

    def number(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0]
        return f"${names.setdefault(found[1], len(names) + 1)}"

    return _TOKENS.sub(number, statement), tuple(names)


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    """Keeps its prepared statements, which spares a round trip each time."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._kept: dict[str, Any] = {}

    async def run(self, statement: str, parameters: Parameters) -> Rows:
        text, names = numbered(statement)
        prepared = self._kept.get(text)
        if prepared is None:
            if len(self._kept) == STATEMENTS_MAX:
                self._kept.clear()
            prepared = self._kept[text] = await self.prepare(text)
        if isinstance(parameters, (list, tuple)) and parameters:
            await prepared.executemany([[row[name] for name in names] for row in parameters])
            return Rows((), UNCOUNTED)
        found = await prepared.fetch(*(parameters[name] for name in names))  # type: ignore[call-overload]
        count = prepared.get_statusmsg().rsplit(" ", 1)[-1]  # "UPDATE 3"
        return Rows([tuple(row) for row in found], int(count) if count.isdigit() else UNCOUNTED)


class PostgresStore:
    """`url` is `postgresql://user:password@host:port/database`.  Connects when first used, and again when it must."""

    def __init__(self, url: str, clock: Clock, dice: Random) -> None:
        self._clock, self._dice = clock, dice
        self._place = urlsplit(url).netloc.rpartition("@")[2]
        self._connections = _Connections(url)
        self._in_line = asyncio.Lock()
        self._closed = False

    async def create_schema(self, schema: Schema) -> None:
        """Create the tables that are not there yet."""

        def create(tx: Transaction) -> None:
            tx.execute("SELECT pg_advisory_xact_lock(:lock)", {"lock": SCHEMA_LOCK})
            for statement in schema.ddl("postgresql"):
                tx.execute(statement)

        await self.write(create)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        return await self._run(work, _WRITING)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self._run(work, _READING)

    async def _run(self, work: Callable[[Transaction], T], begin: str) -> T:
        lost = 0
        for attempt in range(TRIES_MAX):
            if self._closed:
                raise Unavailable("store.closed", "the store is closed: this process is stopping")
            one = _Attempt(work, begin, self._clock.now_s())
            try:
                if attempt == 0:
                    return await self._try(one)
                async with self._in_line:
                    await self._clock.sleep(self._dice.uniform(0, BACK_OFF_S * 2 ** min(attempt, 6)))
                    return await self._try(one)
            except asyncpg.PostgresError as error:
                if isinstance(error, _COLLIDED):
                    continue
                if not (error.sqlstate or "").startswith(_GOING):
                    raise
                trouble: Exception = error
            except _BROKEN as error:
                trouble = error
            lost += 1
            if one.committing or one.connecting or lost == LOST_MAX:
                raise self._unavailable(trouble, one) from trouble
        raise Unavailable("store.contended", f"a transaction collided with others {TRIES_MAX} times in a row")

    async def _try(self, attempt: _Attempt[T]) -> T:
        async with self._connections.one() as connection:
            return await attempt.on(connection)

    def _unavailable(self, error: Exception, attempt: _Attempt[T]) -> Unavailable:
        reason = str(error) or type(error).__name__
        _log.warning("the database does not answer", at=self._place, why=reason, committing=attempt.committing)
        doubt = "; whether the last change was kept is not known" if attempt.committing else ""
        return Unavailable(
            "store.unavailable", f"the database does not answer{doubt}", hidden=f"{self._place}: {reason}"
        )

    async def close(self) -> None:
        """Finish what runs, then close.  A second close is fine."""
        if not self._closed:
            self._closed = True
            await self._connections.close()


class _Connections:
    """A few connections, made when needed; the one last used is the next used.  One that broke is not given again."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._idle: list[_Connection] = []
        self._free = asyncio.Semaphore(CONNECTIONS_MAX)

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[_Connection]:
        async with asyncio.timeout(CONNECTION_WAIT_S):
            await self._free.acquire()
        try:
            connection = await self._idle_or_new()
            try:
                yield connection
            finally:
                if connection.is_closed() or connection.is_in_transaction():
                    connection.terminate()
                else:
                    self._idle.append(connection)
        finally:
            self._free.release()

    async def _idle_or_new(self) -> _Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await asyncpg.connect(  # type: ignore[no-any-return]
            self._url,
            timeout=CONNECT_TIMEOUT_S,
            command_timeout=STATEMENT_TIMEOUT_S,
            connection_class=_Connection,
            server_settings={"application_name": "apus", "jit": "off"},
        )

    async def close(self) -> None:
        """Wait for those in use, then close all."""
        for _ in range(CONNECTIONS_MAX):
            await self._free.acquire()
        while self._idle:
            await self._idle.pop().close()


class _Attempt(Generic[T]):
    """One run of a function, and how far it came."""

    def __init__(self, work: Callable[[Transaction], T], begin: str, now_s: float) -> None:
        self._work, self._begin, self._now_s = work, begin, now_s
        self.connecting, self.committing = True, False

    async def on(self, connection: Any) -> T:
        self.connecting = False
        tx = SqlTransaction("postgresql", _execute_on(connection), self._now_s)
        try:
            await connection.execute(self._begin)
            value = await plainly(lambda: self._work(tx))
            tx.check_whole()
            if self._begin == _WRITING:
                self.committing = True
                await connection.execute("COMMIT")
            else:
                await connection.execute("ROLLBACK")
        except (asyncio.CancelledError, asyncpg.InvalidCachedStatementError, *_BROKEN):
            connection.terminate()  # nobody knows what the server will still send on it
            raise
        except Exception:
            try:
                await connection.execute("ROLLBACK")
            except (asyncpg.PostgresError, *_BROKEN):
                connection.terminate()
            raise
        give(tx.hints)
        return value


def _execute_on(connection: Any) -> Callable[[str, Parameters], Rows]:
    def execute(statement: str, parameters: Parameters = ()) -> Rows:
        try:
            rows: Rows = wait_for(connection.run(statement, parameters))
            return rows
        except asyncpg.UniqueViolationError as error:
            raise Taken(str(error)) from error

    return execute

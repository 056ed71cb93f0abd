"""The store of one machine: SQLite, durable at each commit, many waiting transactions in one.

A transaction function is plain and short and works on cached pages, so it runs on the event-loop thread; only
what waits for the disk (the commit, and a lock that another process holds) goes to a thread.  While one
commit waits, the next functions queue, then share the next commit: each in a savepoint of its own, so that
the failure of one leaves the others alone.  (A thread that also ran the functions would lose the interpreter
lock at every statement, and under a busy loop wait milliseconds to get it back.)

Reads run on a second connection, which sees the last commit and takes no lock.  In memory there is no disk to
wait for: each function is committed by itself, at once, and reads share the connection.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from apus.kernel.errors import Unavailable
from apus.kernel.sql import Rows, Schema, Taken
from apus.kernel.world import Clock, Transaction
from apus.platform.transaction import UNCOUNTED, Execute, Parameters, SqlTransaction, give

T = TypeVar("T")

GROUP_MAX = 256
"""Functions in one commit: bounds what one commit may lose, and how long the first of them waits."""
SLICE_S = 0.005
"""A group gives the loop a turn after this long."""
WAITING_MAX = 10_000
"""Beyond it the disk is not keeping up; who asks for more is told so instead of waiting without end."""
LOCK_WAIT_S = 5.0
"""How long another process (a backup, a curious operator) may hold the write lock."""
_PATIENT = f"PRAGMA busy_timeout={int(LOCK_WAIT_S * 1000)}"
_IMPATIENT = "PRAGMA busy_timeout=0"
"""On the loop's own thread nothing waits for a lock."""

_TAKEN = (sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID)

_BROKEN = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_IOERR: "the disk gave an input/output error: look at the kernel's log",
    sqlite3.SQLITE_BUSY: "another process holds its lock: end that process",
    sqlite3.SQLITE_LOCKED: "another connection holds its lock: end that process",
    sqlite3.SQLITE_READONLY: "it may not be written: check its owner, its mode and the mount",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check that its directory exists and may be written",
    sqlite3.SQLITE_NOTADB: "it is not a database: move it away, and restore it from a backup",
    sqlite3.SQLITE_CORRUPT: "it is damaged: move it away, and restore it from a backup",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
}


class _Lost(Exception):
    """SQLite has rolled back by itself: the work of the whole group is gone."""


def _execute_on(connection: sqlite3.Connection) -> Execute:
    def execute(statement: str, parameters: Parameters = ()) -> Rows:
        try:
            if isinstance(parameters, (list, tuple)) and parameters:
                connection.executemany(statement, parameters)
                return Rows((), UNCOUNTED)
            cursor = connection.execute(statement, parameters)
            # All rows at once: a half-read cursor would hold its snapshot open beyond the transaction.
            rows = cursor.fetchall() if cursor.description else ()
            return Rows(rows, len(rows) if cursor.description else cursor.rowcount)
        except sqlite3.IntegrityError as error:
            if error.sqlite_errorcode in _TAKEN:
                raise Taken(str(error)) from error
            raise

    return execute


@dataclasses.dataclass(slots=True, eq=False)
class _Waiting:
    """One caller of `write`, and what became of its function."""

    work: Callable[[Transaction], Any]
    answer: asyncio.Future[Any]
    value: Any = None
    error: Exception | None = None
    hints: list[Callable[[], None]] = dataclasses.field(default_factory=list)


class SqliteStore:
    """Give it no path and it lives in memory.  Raises Unavailable when the file cannot be used."""

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._waiting: deque[_Waiting] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._closed = False
        self._disk_thread = ThreadPoolExecutor(1, "apus-store")
        try:
            self._write_on = self._open()
            self._read_on = self._write_on if path is None else self._open(read_only=True)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        self._execute, self._execute_read = _execute_on(self._write_on), _execute_on(self._read_on)

    def _open(self, *, read_only: bool = False) -> sqlite3.Connection:
        name = ":memory:" if self._path is None else str(self._path)
        raw = sqlite3.connect(name, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=512)
        raw.execute("PRAGMA foreign_keys=ON")
        raw.execute("PRAGMA synchronous=FULL")
        if self._path is not None:
            raw.execute(_PATIENT)
            raw.execute("PRAGMA journal_mode=WAL")
        if read_only:
            raw.execute("PRAGMA query_only=ON")
        else:
            raw.execute(_IMPATIENT)
        return raw

    async def create_schema(self, schema: Schema) -> None:
        """Create the tables that are not there yet."""

        def create(tx: Transaction) -> None:
            for statement in schema.ddl("sqlite"):
                tx.execute(statement)

        await self.write(create)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        self._check_open()
        tx = SqlTransaction("sqlite", self._execute_read, self._clock.now_s())
        try:
            self._read_on.execute("BEGIN")
            try:
                if self._path is None:
                    self._read_on.execute("PRAGMA query_only=ON")
                return work(tx)
            finally:
                if self._path is None:
                    self._read_on.execute("PRAGMA query_only=OFF")
                self._end(self._read_on, "ROLLBACK")
        except sqlite3.Error as error:
            raise self._translated(error) from error

    async def write(self, work: Callable[[Transaction], T]) -> T:
        self._check_open()
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable("store.busy", f"{WAITING_MAX} transactions wait for the disk already")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(work, loop.create_future())
        self._waiting.append(waiting)
        if self._writer is None:
            self._writer = loop.create_task(self._write_groups(), name="store-writer")
        result: T = await waiting.answer
        return result

    async def _write_groups(self) -> None:
        """Runs while anybody waits; owned by the store, which waits for its end in `close`."""
        size = 1 if self._path is None else GROUP_MAX
        group: list[_Waiting] = []
        try:
            while self._waiting:
                group = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
                try:
                    await self._commit_together(group)
                except (sqlite3.Error, _Lost) as error:
                    self._end(self._write_on, "ROLLBACK")
                    for waiting in group:
                        waiting.error, waiting.hints = self._unavailable(error), []
                for waiting in group:
                    _answer(waiting)
                await asyncio.sleep(0)  # whoever was answered may join the next group
        finally:
            self._writer = None
            self._end(self._write_on, "ROLLBACK")
            for waiting in (*group, *self._waiting):  # nobody, unless we are being cancelled
                waiting.answer.cancel()
            self._waiting.clear()

    async def _commit_together(self, group: list[_Waiting]) -> None:
        await self._begin()
        turn_ends_s = self._clock.monotonic_s() + SLICE_S
        for waiting in group:
            if waiting.answer.done():
                continue  # its caller was cancelled while it waited
            self._run_one(waiting)
            if len(group) > 1 and self._clock.monotonic_s() > turn_ends_s:
                await asyncio.sleep(0)
                turn_ends_s = self._clock.monotonic_s() + SLICE_S
        if self._path is None:
            self._write_on.execute("COMMIT")
        else:
            await self._on_disk("COMMIT")

    async def _begin(self) -> None:
        if self._path is None:
            self._write_on.execute("BEGIN IMMEDIATE")
            return
        try:
            self._write_on.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            self._write_on.execute(_PATIENT)
            try:
                await self._on_disk("BEGIN IMMEDIATE")
            finally:
                self._write_on.execute(_IMPATIENT)

    async def _on_disk(self, statement: str) -> None:
        """Run in the thread; a caller who is cancelled leaves only when the connection is free again."""
        work = asyncio.get_running_loop().run_in_executor(self._disk_thread, self._write_on.execute, statement)
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise

    def _run_one(self, waiting: _Waiting) -> None:
        tx = SqlTransaction("sqlite", self._execute, self._clock.now_s())
        self._write_on.execute("SAVEPOINT one")
        try:
            waiting.value = waiting.work(tx)
            tx.check_whole()
            waiting.hints = tx.hints
        except Exception as error:
            if not self._write_on.in_transaction:
                raise _Lost(f"SQLite has given up the transaction: {error}") from error
            self._write_on.execute("ROLLBACK TO one")
            waiting.error = self._translated(error)
        self._write_on.execute("RELEASE one")

    def _translated(self, error: Exception) -> Exception:
        """What the caller sees: its own mistakes as they are, the disk's as Unavailable."""
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN:
            return self._unavailable(error)
        return error

    def _unavailable(self, error: Exception) -> Unavailable:
        reason = _BROKEN.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, str(error))
        place = "in memory" if self._path is None else f"at {self._path}"
        return Unavailable("store.unavailable", f"the database {place} cannot be used: {reason}", hidden=str(error))

    @staticmethod
    def _end(raw: sqlite3.Connection, how: str) -> None:
        if raw.in_transaction:
            raw.execute(how)

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("store.closed", "the store is closed: this process is stopping")

    async def close(self) -> None:
        """Finish what was asked for, then close.  A second close is fine."""
        if self._closed:
            return
        self._closed = True
        if self._writer is not None:
            await asyncio.wait([self._writer])
        self._disk_thread.shutdown(wait=True)
        self._read_on.close()
        self._write_on.close()


def _answer(waiting: _Waiting) -> None:
    """Hints first, so that a caller who goes on finds them given."""
    give(waiting.hints)
    if waiting.answer.done():
        return
    if waiting.error is not None:
        waiting.answer.set_exception(waiting.error)
    else:
        waiting.answer.set_result(waiting.value)

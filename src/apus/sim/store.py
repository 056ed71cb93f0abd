"""The store of a simulated cluster: one database in memory, reached by each process over a way of its own.

It may be unreachable for one machine, refuse a commit, commit and lose the answer, and run a function twice, as a
real engine does on a conflict; a function that is not pure is found out by that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from random import Random
from typing import Any, Final, TypeVar

from apus.kernel.errors import Unavailable
from apus.kernel.sql import Schema
from apus.kernel.world import Clock, Transaction
from apus.platform.store_sqlite import SqliteStore
from apus.platform.transaction import SqlTransaction
from apus.sim.life import Life
from apus.sim.trace import Trace

T = TypeVar("T")

ANSWER_WAIT_S: Final = 5.0
"""After which a process holds a database for unreachable."""


@dataclasses.dataclass(slots=True)
class StoreFaults:
    delay_max_s: float = 0.003
    refused: float = 0.0
    """Probability, for each write, that it is not done."""
    answer_lost: float = 0.0
    """Probability, for each write, that it is done and nobody is told."""
    run_again: float = 0.1


class _RunAgain(Exception):
    """Rolls the first run of a function back."""


class SimDatabase:
    def __init__(self, dice: Random, trace: Trace, clock: Clock) -> None:
        self.faults = StoreFaults()
        self.unreachable: dict[str, None] = {}
        """Machines that do not get through."""
        self.dice, self.trace = dice, trace
        self.engine = SqliteStore(None, clock)


class SimStore:
    """The database as one process sees it."""

    def __init__(self, database: SimDatabase, node: str, clock: Clock, life: Life | None = None) -> None:
        self._database, self._node, self._clock = database, node, clock
        self._life = life or Life(node)

    async def create_schema(self, schema: Schema) -> None:
        await self._database.engine.create_schema(schema)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        self._life.about_to_write()
        await self._reach()
        database, faults = self._database, self._database.faults
        if faults.refused and database.dice.random() < faults.refused:
            database.trace.note("store refused", self._node)
            raise Unavailable("store.unavailable", "the simulated database refused")
        if faults.run_again and database.dice.random() < faults.run_again:
            await self._run_and_forget(work)
        tx: Any = None

        def run(engine_tx: Transaction) -> T:
            nonlocal tx
            tx = self._transaction(engine_tx)
            value = work(tx)
            tx.check_whole()
            return value

        value = await database.engine.write(run)
        database.trace.note("store committed", self._node)
        if self._lost() or (faults.answer_lost and database.dice.random() < faults.answer_lost):
            await self._life.pause(ANSWER_WAIT_S)
            raise Unavailable("store.unavailable", "the simulated database did not answer; it may have committed")
        await self._delay()
        for hint in tx.hints:
            hint()
        return value

    async def read(self, work: Callable[[Transaction], T]) -> T:
        await self._reach()
        value = await self._database.engine.read(lambda tx: work(self._transaction(tx)))
        await self._delay()
        return value

    async def _run_and_forget(self, work: Callable[[Transaction], T]) -> None:
        def run(tx: Transaction) -> None:
            work(self._transaction(tx))
            raise _RunAgain

        try:
            await self._database.engine.write(run)
        except _RunAgain:
            self._database.trace.note("store ran again", self._node)

    def _transaction(self, tx: Transaction) -> SqlTransaction:
        """With this machine's time, and with hints that only this process hears, when it hears of the commit."""
        return SqlTransaction("sqlite", tx.execute, self._clock.now_s())

    async def _reach(self) -> None:
        await self._delay()
        if self._lost():
            await self._life.pause(ANSWER_WAIT_S)
            raise Unavailable("store.unavailable", f"the simulated database is unreachable from {self._node}")

    def _lost(self) -> bool:
        return self._node in self._database.unreachable

    async def _delay(self) -> None:
        await self._life.pause(self._database.dice.uniform(0, self._database.faults.delay_max_s))

    async def close(self) -> None:
        """The database is everybody's: nothing of it is closed with one process."""

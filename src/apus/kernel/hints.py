"""Hints from places that cannot wait: bus messages, coalesced by subject, published by one task.

A transaction says which (`Transaction.hint`); they go out when it has committed, and may be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from apus.kernel.errors import Unavailable
from apus.kernel.world import Bus, Store, Transaction

T = TypeVar("T")


class Hints:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._subjects: dict[str, None] = {}
        self._filled = asyncio.Event()

    def give(self, subject: str) -> None:
        self._subjects[subject] = None
        self._filled.set()

    async def run(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            subjects, self._subjects = self._subjects, {}
            for subject in subjects:
                with contextlib.suppress(Unavailable):  # whoever listens also looks by itself, now and then
                    await self._bus.publish(subject)


class HintingStore:
    """A store whose transactions' hints are given."""

    def __init__(self, store: Store, hints: Hints) -> None:
        self._store, self._hints = store, hints

    async def write(self, work: Callable[[Transaction], T]) -> T:
        def told(tx: Transaction) -> T:
            result = work(tx)
            for subject in tx.hinted:
                tx.after_commit(partial(self._hints.give, subject))
            return result

        return await self._store.write(told)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self._store.read(work)

    async def close(self) -> None:
        await self._store.close()

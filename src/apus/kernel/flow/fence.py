"""Writes of a flow's steps count only as long as their runner has the flow.

A runner that is stopped for a while (a machine that sleeps, a process that is starved) wakes up in the middle of a
step, long after another has taken the flow over and undone or finished it.  What it then asks of other services would
make again what nobody owns any more.  So each write on behalf of a step looks, in its own transaction, whether the
epoch is still the step's; the services need not know of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

from apus.kernel.flow.log import Flow, require_epoch
from apus.kernel.world import Store, Transaction

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class _Fence:
    flow_id: str
    epoch: int
    task: asyncio.Task[Any] | None


_current: Final[contextvars.ContextVar[_Fence | None]] = contextvars.ContextVar("flow_fence", default=None)


@contextlib.contextmanager
def fenced(flow: Flow) -> Iterator[None]:
    """Writes of the current task, until the end of the block, are this flow's.  Tasks that it starts are not."""
    token = _current.set(_Fence(flow.id, flow.epoch, asyncio.current_task()))
    try:
        yield
    finally:
        _current.reset(token)


class FencedStore:
    """A store whose fenced writes raise Superseded when another runner has the flow.  All else passes through."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def write(self, work: Callable[[Transaction], T]) -> T:
        fence = _current.get()
        if fence is None or fence.task is not asyncio.current_task():
            return await self._store.write(work)

        def guarded(tx: Transaction) -> T:
            require_epoch(tx, fence.flow_id, fence.epoch)
            return work(tx)

        return await self._store.write(guarded)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self._store.read(work)

    async def close(self) -> None:
        await self._store.close()

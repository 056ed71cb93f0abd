"""Work in a thread does not stop when its waiter is cancelled, so who holds a lock over it must wait for its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def unbroken(work: Awaitable[T]) -> T:
    """Wait for the end of this even when cancelled, and be cancelled only then."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()
        raise
    finally:
        del task, work  # their exception leads back here, and would wait for the collector

"""One life of a process, from its start to its kill.

`kill -9` runs no handler.  Cancelling a task does, so every part of the world asks its life first: once that has
ended, whatever a `finally` still tries raises CancelledError and reaches nothing.
"""

from __future__ import annotations

import asyncio


class Life:
    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = False

    def check(self) -> None:
        if self.ended:
            raise asyncio.CancelledError(f"{self.name} has been killed")

    async def pause(self, duration_s: float) -> None:
        """Let simulated time pass, and be dead afterwards if killed meanwhile."""
        self.check()
        await asyncio.sleep(duration_s)
        self.check()

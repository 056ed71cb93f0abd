"""One life of a process, from its start to its kill.  It may be stopped for a while, as by a machine that sleeps.

`kill -9` runs no handler.  Cancelling a task does, so every part of the world asks its life first: once that has
ended, whatever a `finally` still tries raises CancelledError and reaches nothing.
"""

from __future__ import annotations

import asyncio


class Life:
    def __init__(self, name: str) -> None:
        self.name = name
        self.ended = False
        self._frozen_until_s = 0.0
        self._sleepy: tuple[int, float] | None = None

    def freeze(self, duration_s: float, *, at_write: int = 0) -> None:
        """Nothing that the process does goes on before that time is over; the world does not wait.

        `at_write`: it falls asleep when it is about to write to the store so many times from now; the worst moment.
        """
        if at_write:
            self._sleepy = at_write, duration_s
        else:
            self._frozen_until_s = asyncio.get_running_loop().time() + duration_s

    def about_to_write(self) -> None:
        if self._sleepy is not None:
            writes, duration_s = self._sleepy
            self._sleepy = (writes - 1, duration_s) if writes > 1 else None
            if self._sleepy is None:
                self.freeze(duration_s)

    def frozen_s(self) -> float:
        """How long it will still be frozen."""
        return max(0.0, self._frozen_until_s - asyncio.get_running_loop().time())

    def check(self) -> None:
        if self.ended:
            raise asyncio.CancelledError(f"{self.name} has been killed")

    async def pause(self, duration_s: float) -> None:
        """Let simulated time pass, and be dead afterwards if killed meanwhile."""
        self.check()
        await asyncio.sleep(duration_s)
        while frozen_s := self.frozen_s():  # noqa: ASYNC110 - it may be put off meanwhile
            await asyncio.sleep(frozen_s)
        self.check()

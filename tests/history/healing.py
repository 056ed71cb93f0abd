"""How long a store takes to heal after a fault, and what it was doing where that was long: told with the history, since
its log goes with the directory of the test."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

SLOW_S: Final = 15.0
"""In hours of histories all but one healed within eleven."""
LIMIT_S: Final = 90.0
LOOK_EVERY_S: Final = 0.1
SAID_EVERY_S: Final = 3.0
LINES_MAX: Final = 100
"""Of each log."""

Status = dict[str, Any]


class Healing:
    def __init__(self, logs: Callable[[], Sequence[Path]], look: Callable[[], Sequence[Status | None]]) -> None:
        """`look`: how the store is at each of its doors, None where nobody answers."""
        self._logs, self._look = logs, look
        self.slowest_s = 0.0
        self.slow = list[str]()
        """What was seen of each heal that was slow."""

    async def wait(self, fault: str, least_s: float) -> None:
        """All is in its place again: within a bounded time nothing is left to check."""
        sizes = {path: path.stat().st_size for path in self._logs()}
        began_s, seen = time.monotonic(), list[str]()
        while True:
            took_s = time.monotonic() - began_s
            found = await asyncio.to_thread(self._look)
            if took_s > least_s and all(one is not None and one["partitions_to_check"] == 0 for one in found):
                break
            if took_s > SAID_EVERY_S * len(seen):
                seen.append(f"{took_s:.1f} s: {json.dumps([one and one['repair'] for one in found])}")
            assert took_s < LIMIT_S, f"not healed: {self._told(fault, seen, sizes)}"
            await asyncio.sleep(LOOK_EVERY_S)
        self.slowest_s = max(self.slowest_s, took_s)
        if took_s > SLOW_S:
            self.slow.append(f"{took_s:.1f} s to heal after {self._told(fault, seen, sizes)}")

    def _told(self, fault: str, seen: Sequence[str], sizes: dict[Path, int]) -> str:
        lines = [fault, *seen]
        for path in self._logs():
            lines += [f"--- {path}", *_lines(path, sizes.get(path, 0))[-LINES_MAX:]]
        return "\n".join(lines)


def _lines(path: Path, start: int) -> list[str]:
    """Without those of requests."""
    with path.open("rb") as log:
        log.seek(start)
        return [line for line in log.read().decode("utf-8", "replace").splitlines() if '"apus.http"' not in line]

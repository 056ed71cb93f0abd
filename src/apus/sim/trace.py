"""What happened in a simulation, as one hash: two runs of a seed have the same, or something leaked in."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

TAIL_MAX: Final = 2_000
"""Events kept to be read when a seed fails; the hash is of all of them."""

ERRORS_MAX: Final = 100
"""The first errors explain the rest."""


class Trace:
    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)
        self.tail: deque[str] = deque(maxlen=TAIL_MAX)
        self.count = 0
        self.errors: list[str] = []
        """What was logged as an error."""

    def said(self, level: str, logger: str, event: str, fields: Mapping[str, Any]) -> None:
        """A line of the log: to be read, not part of the hash."""
        words = " ".join(f"{name}={value}" for name, value in fields.items())
        line = f"{asyncio.get_running_loop().time():.6f} {level} {logger}: {event} {words}"
        self.tail.append(line)
        if level == "error" and len(self.errors) < ERRORS_MAX:
            self.errors.append(line)

    def note(self, *words: object) -> None:
        line = f"{asyncio.get_running_loop().time():.6f} {' '.join(map(str, words))}"
        self._hash.update(line.encode() + b"\n")
        self.tail.append(line)
        self.count += 1

    def digest(self) -> str:
        return self._hash.hexdigest()

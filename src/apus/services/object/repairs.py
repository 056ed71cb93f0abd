"""Partitions whose copies are known, or not known not, to differ.

Readers ask more than one copy of these; the replicator goes to them first and takes them off the list.  After a start
nothing is known, so everything is on it until the first pass is through.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

Room = Literal["objects", "containers", "accounts"]
ROOMS: Final[tuple[Room, ...]] = ("accounts", "containers", "objects")


class Repairs:
    def __init__(self, parts: int) -> None:
        self._waiting: dict[Room, dict[int, int]] = {room: dict.fromkeys(range(parts), 0) for room in ROOMS}
        self._told = 0

    def add(self, room: Room, part: int) -> None:
        self._told += 1
        self._waiting[room][part] = self._told

    def suspects(self, room: Room, part: int) -> bool:
        return part in self._waiting[room]

    def mark(self, room: Room, part: int) -> int:
        """Taken before a repair, given back to `done` after it: what was told meanwhile is not lost."""
        return self._waiting[room].get(part, 0)

    def done(self, room: Room, part: int, mark: int) -> None:
        if self._waiting[room].get(part) == mark:
            del self._waiting[room][part]

    def doubt_everything(self, parts: int) -> None:
        """A drive came, or came back."""
        for room in ROOMS:
            for part in range(parts):
                self.add(room, part)

    def waiting(self) -> Iterable[tuple[Room, int]]:
        return [(room, part) for room in ROOMS for part in self._waiting[room]]

    def count(self) -> int:
        return sum(len(parts) for parts in self._waiting.values())

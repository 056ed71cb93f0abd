"""What this host knows, across restarts: the newest wish of each incarnation and what was last found.

A wish older than the journal's is refused: the newest generation that this host accepted is kept here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from apus.kernel.record import encode
from apus.kernel.world import Disk
from apus.services.compute.contract import Found, Wish


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    wish: Wish
    found: Found | None = None


class Journal(Protocol):
    async def load(self) -> Mapping[str, Entry]: ...

    async def keep(self, entry: Entry) -> None: ...

    async def forget(self, incarnation_id: str) -> None: ...


class MemoryJournal:
    """Of a simulated host: survives its agent, not its process."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    async def load(self) -> Mapping[str, Entry]:
        return dict(self.entries)

    async def keep(self, entry: Entry) -> None:
        self.entries[entry.wish.id] = entry

    async def forget(self, incarnation_id: str) -> None:
        self.entries.pop(incarnation_id, None)


class DiskJournal:
    """One small file per incarnation, replaced whole."""

    def __init__(self, disk: Disk, directory: Path) -> None:
        self._disk, self._directory = disk, directory

    async def load(self) -> Mapping[str, Entry]:
        found = {}
        for name in await self._disk.names(self._directory):
            if name.endswith(".json"):
                try:
                    entry = msgspec.json.decode(await self._disk.read(self._directory / name), type=Entry)
                except (FileNotFoundError, msgspec.DecodeError):
                    continue  # torn by a crash: the control plane tells us again what is wanted
                found[entry.wish.id] = entry
        return found

    async def keep(self, entry: Entry) -> None:
        await self._disk.write_synced(self._directory / f"{entry.wish.id}.json", encode(entry))

    async def forget(self, incarnation_id: str) -> None:
        await self._disk.remove(self._directory / f"{incarnation_id}.json")

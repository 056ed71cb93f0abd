"""What was found bad on a drive, kept for whoever wants to know what happened to it: a month, or until room is short.

The names say when that was, in milliseconds: `NAME-1796025372168`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from apus.kernel.world import World

DIRECTORY: Final = "quarantine"
KEPT_S: Final = 30 * 86_400.0


class Quarantine:
    def __init__(self, world: World, root: Path) -> None:
        self._disk, self._clock, self._directory = world.disk, world.clock, root / DIRECTORY

    async def take(self, source: Path, name: str) -> None:
        """Put this file aside, if it is there."""
        if await self._disk.stat(source) is None:
            return
        await self._disk.make_directory(self._directory)
        await self._disk.rename_synced(source, self._directory / f"{name}-{self._now_ms()}")

    async def sweep(self, *, all_of_it: bool) -> None:
        """Remove what was kept for long enough."""
        for name in await self._disk.names(self._directory):
            taken = name.rpartition("-")[2]
            aged = not taken.isdigit() or self._now_ms() - int(taken) > KEPT_S * 1000
            if aged or all_of_it:
                await self._disk.remove(self._directory / name)

    def _now_ms(self) -> int:
        return int(self._clock.now_s() * 1000)

"""Where the index files of one drive are: `containers/PARTITION/HASH.db` and `accounts/PARTITION/HASH.db`.

Which partition is whose is told by the hash.  When partitions were cut in two, a file is still in the directory of the
whole until it is moved: when it is next used, or by `strays`.  Until all have been, every directory is looked into.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from apus.kernel.world import Disk
from apus.services.object.logic.ring import part_of
from apus.services.object.model import IndexKind, Place


class IndexPlaces:
    def __init__(self, disk: Disk, root: Path, part_power: int) -> None:
        self._disk, self._root, self.part_power = disk, root, part_power
        self.settled = False
        """Every file is known to be in its directory."""

    def path(self, kind: IndexKind, path_hash: str) -> Path:
        return self._root / kind / str(part_of(path_hash, self.part_power)) / f"{path_hash}.db"

    async def former(self, path: Path) -> Path | None:
        """Where the file is that belongs to this path and is not there; None when it is nowhere."""
        if self.settled:
            return None
        for power in range(self.part_power - 1, -1, -1):
            old = self._root / path.parts[-3] / str(part_of(path.stem, power)) / path.name
            if old != path and await self._disk.stat(old) is not None:
                return old
        return None

    async def parts(self, kind: IndexKind) -> Sequence[int]:
        if self.settled:
            return sorted([int(name) for name in await self._directories(kind)])
        return sorted({part_of(path.stem, self.part_power) async for path in self._all(kind)})

    async def places(self, kind: IndexKind, part: int) -> Sequence[Place]:
        if self.settled:
            names = await self._disk.names(self._root / kind / str(part))
            return [Place(part, name[:-3]) for name in names if name.endswith(".db")]
        hashes = sorted({path.stem async for path in self._all(kind)})
        return [Place(part, one) for one in hashes if part_of(one, self.part_power) == part]

    async def strays(self, kind: IndexKind) -> Sequence[str]:
        """Hashes whose files are not yet in their directory."""
        return [path.stem async for path in self._all(kind) if path != self.path(kind, path.stem)]

    async def _all(self, kind: IndexKind) -> AsyncIterator[Path]:
        for directory in await self._directories(kind):
            at = self._root / kind / directory
            for name in await self._disk.names(at):
                if name.endswith(".db"):
                    yield at / name

    async def _directories(self, kind: IndexKind) -> Sequence[str]:
        return [name for name in await self._disk.names(self._root / kind) if name.isdigit()]

"""The copies of all storage policies on one drive: each room (`logic/rings.py`) has volumes of its own, so that a
partition of one is counted, compared and moved without the others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from apus.kernel.buffers import Chunk, FilePart
from apus.services.object.drivers.volumes.copies import VolumeCopies
from apus.services.object.drivers.volumes.large import LargeCopyWriter
from apus.services.object.drivers.volumes.record import RECORD_BYTES_MAX
from apus.services.object.logic.code import archive_fingerprint
from apus.services.object.logic.merge import Fingerprint, fingerprint
from apus.services.object.logic.rings import fragments_room, own_part, part_in, room_of
from apus.services.object.model import Head, Meta, Place

OpenCopies = Callable[[Path, Fingerprint], VolumeCopies]


class PolicyCopies:
    """Asks the volumes of whichever room a partition is of."""

    def __init__(self, root: Path, policies: int, open_copies: OpenCopies) -> None:
        """The first policy's are in the drive's own directory, those of number n in `policy-n`.  Which of these have
        fragments is the ring's business: an empty room costs nothing."""
        self.rooms = {0: open_copies(root, fingerprint)}
        for number in range(1, policies):
            at = root / f"policy-{number}"
            self.rooms[number] = open_copies(at, fingerprint)
            self.rooms[fragments_room(number)] = open_copies(at / "fragments", archive_fingerprint)

    def store(self, place: Place, head: Head, data: bytes | memoryview) -> Awaitable[object]:
        return self._of(place.part).store(place, head, data)

    async def begin(self, place: Place) -> LargeCopyWriter:
        return await self._of(place.part).begin(place)

    async def describe(self, place: Place, meta: Meta) -> None:
        await self._of(place.part).describe(place, meta)

    def glance(self, place: Place) -> tuple[str, str] | None:
        return self._of(place.part).glance(place)

    def at_hand(self, place: Place, upto_bytes: int) -> tuple[Head, Chunk | FilePart | None] | None:
        return self._of(place.part).at_hand(place, upto_bytes)

    async def head(self, place: Place) -> Head | None:
        return await self._of(place.part).head(place)

    async def fetch(self, place: Place, upto_bytes: int = RECORD_BYTES_MAX) -> tuple[Head, bytes | None] | None:
        return await self._of(place.part).fetch(place, upto_bytes)

    def read(self, place: Place, head: Head, offset: int, length: int) -> AsyncGenerator[Chunk]:
        return self._of(place.part).read(place, head, offset, length)

    async def audit(self, place: Place) -> Head | None:
        return await self._of(place.part).audit(place)

    async def drop(self, place: Place, version: tuple[str, str]) -> None:
        await self._of(place.part).drop(place, version)

    async def unlisted(self, policy: int = 0) -> Mapping[str, str]:
        return await self.rooms[policy].unlisted()

    def listed(self, place: Place, changed: str) -> None:
        self._of(place.part).listed(place, changed)

    async def parts(self) -> Sequence[int]:
        return [part_in(number, own) for number, room in self.rooms.items() for own in await room.parts()]

    async def digest(self, part: int) -> int:
        return await self._of(part).digest(own_part(part))

    async def census(self) -> Mapping[int, tuple[int, int]]:
        found: dict[int, tuple[int, int]] = {}
        for number, room in self.rooms.items():
            found |= {part_in(number, own): counted for own, counted in (await room.census()).items()}
        return found

    async def inventory(self, part: int) -> Mapping[str, tuple[str, str]]:
        return await self._of(part).inventory(own_part(part))

    # What the drive asks.

    async def start(self) -> None:
        for room in self.rooms.values():
            await room.start()

    def forget(self) -> None:
        for room in self.rooms.values():
            room.forget()

    async def repartition(self, part_power: int) -> None:
        for room in self.rooms.values():
            await room.repartition(part_power)

    async def strays(self) -> list[str]:
        return [path for room in self.rooms.values() for path in await room.strays()]

    async def tidy(self) -> int:
        return sum([await room.tidy() for room in self.rooms.values()])

    async def close(self) -> None:
        for room in self.rooms.values():
            await room.close()

    def _of(self, part: int) -> VolumeCopies:
        return self.rooms[room_of(part)]

"""The archives of one version: where k of them are, and what each has of a piece of the object.

One that is missing, away or bad is passed over for another, and left to repair.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from apus.kernel.errors import Unavailable
from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.drivers.drive import Drive
from apus.services.object.logic.code import Code, archive_hash
from apus.services.object.model import Coded, CorruptCopy, Head, Place

READ_TIMEOUT_S: Final = 5.0
ASKED_AT_ONCE: Final = 8
"""When archives are not where they belong."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Archive:
    drive: Drive
    place: Place
    head: Head
    data: bytes | None


class Archives:
    def __init__(
        self, cluster: Cluster, part: int, hash_hex: str, coded: Coded, where: Iterable[tuple[int, Drive]]
    ) -> None:
        """`part`: theirs.  `where`: numbers, and drives that may have them, likeliest first."""
        self._cluster, self._part, self._hash, self._coded = cluster, part, hash_hex, coded
        self.code = Code(coded.data, coded.parity)
        self._where: Iterator[tuple[int, Drive]] = iter(where)
        self._found: dict[int, _Archive] = {}

    async def pieces(self, offset: int, length: int) -> dict[int, bytes]:
        """These bytes of k archives, by their numbers, each checked.  Raise Unavailable where there are fewer."""
        got: dict[int, bytes] = {}
        while len(got) < self.code.data:
            await self._find()
            chosen = [index for index in sorted(self._found) if index not in got][: self.code.data - len(got)]
            answers = await asyncio.gather(*(self._read(self._found[index], offset, length) for index in chosen))
            for index, answer in zip(chosen, answers, strict=True):
                if answer is None:
                    del self._found[index]
                else:
                    got[index] = answer
        return got

    async def head(self) -> Head:
        """Of any of them.  Raise Unavailable."""
        await self._find()
        return next(iter(self._found.values())).head

    async def _find(self) -> None:
        """Until k are known that were good when last looked at."""
        batch = self.code.data
        while (missing := self.code.data - len(self._found)) > 0:
            asks = list(islice((one for one in self._where if one[0] not in self._found), max(batch, missing)))
            if not asks:
                shown = f"{len(self._found)} fragments of this version can be read, and {self.code.data} are needed."
                raise Unavailable("object.no_good_copy", shown)
            await asyncio.gather(*(self._ask(index, drive) for index, drive in asks))
            batch = ASKED_AT_ONCE if len(self._found) < self.code.data // 2 else 1

    async def _ask(self, index: int, drive: Drive) -> None:
        place = Place(self._part, archive_hash(self._hash, self._coded.nonce, index))
        (answer,) = await ask_each([drive], lambda drive: drive.copies.fetch(place), READ_TIMEOUT_S)
        if isinstance(answer, OSError):
            self._cluster.trouble(drive, self._part, answer)
        elif answer is not None and answer[0].coded is not None and answer[0].coded.index == index:
            self._found[index] = _Archive(drive, place, *answer)
        elif drive.id in self._cluster.ring.primaries(self._part):
            self._cluster.repairs.suspect("objects", self._part)

    async def _read(self, archive: _Archive, offset: int, length: int) -> bytes | None:
        if archive.data is not None:
            return archive.data[offset : offset + length]
        try:
            parts = [chunk async for chunk in archive.drive.copies.read(archive.place, archive.head, offset, length)]
        except OSError as error:
            self._cluster.trouble(archive.drive, self._part, error)
            return None
        data = b"".join(parts)
        if len(data) != length:
            self._cluster.trouble(archive.drive, self._part, CorruptCopy("the archive ends early"))
            return None
        return data


def everywhere(cluster: Cluster, part: int, code: Code) -> Iterator[tuple[int, Drive]]:
    """Where archives of this partition may be: each at home, those of data first, and then any of them anywhere."""
    homes = [cluster.drives.get(name) for name in cluster.ring.primaries(part)]
    at_home = [(index, drive) for index, drive in enumerate(homes) if drive is not None]
    yield from sorted(at_home, key=lambda one: cluster.resting(one[1]))
    for drive in cluster.everywhere("objects", part):
        for index in range(code.fragments):
            if (index, drive) not in at_home:
                yield index, drive

"""What is kept about a store outside its drives: its secret, its ring, and where its drives are.

Paths are recorded with the drives, so that the order in which somebody names them says nothing.  A path of another
host is written `HOST:PORT:PATH` (`logic/drive_places.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Protocol

import msgspec

from apus.kernel.errors import Invalid
from apus.kernel.world import World
from apus.services.object.logic.ring import DriveSpec
from apus.services.object.logic.rings import Rings
from apus.services.object.logic.storage_policies import StoragePolicy
from apus.services.object.pace import Wish

_NUMBERED: Final = re.compile(r"drive(\d{1,9})")


class Layout(msgspec.Struct, frozen=True):
    cluster: str
    secret: str
    """Places objects; without it the drives' contents cannot be found."""
    ring: Rings
    paths: dict[str, str] = {}
    """Where the drives are, by id.  A store that began before these were kept has them from its settings."""
    former: tuple[Rings, ...] = ()
    """Rings that were in use, newest first, whose drives may hold what has not moved yet."""
    retired: tuple[str, ...] = ()
    """Paths of drives that were removed; settings may still name them."""
    policies: tuple[StoragePolicy, ...] = ()
    """Those behind the first, by their numbers."""
    last_number: int = 0
    """The highest number that a drive has had: a disk that was removed must not be taken for another."""
    number: int = 0
    """How often this was changed: where several proxies share a store, each change follows the one before it."""
    turn: int = 0
    """How often the ring was."""
    wish: Wish | None = None
    """What the operator said about repair."""

    def next_id(self, taken: Iterable[str] = ()) -> str:
        names = (*taken, *(drive.id for drive in self.ring.drives))
        numbers = [int(match[1]) for match in map(_NUMBERED.fullmatch, names) if match]
        return f"drive{max([self.last_number, *numbers]) + 1}"


class _NamedRing(msgspec.Struct, frozen=True):
    """A ring as it was written before rings were arrays."""

    part_power: int
    replicas: int
    drives: tuple[DriveSpec, ...]
    table: tuple[tuple[str, ...], ...]


class _NamedLayout(msgspec.Struct, frozen=True):
    cluster: str
    secret: str
    ring: _NamedRing


class LayoutHome(Protocol):
    """Where the layout of a store is kept."""

    async def load(self) -> Layout | None:
        """None when there is none yet.  Raise Invalid when it cannot be read."""
        ...

    async def newer(self, than: int) -> Layout | None:
        """What somebody else made of it since the one with this number.  Raise Unavailable when nobody can say."""
        ...

    async def save(self, layout: Layout) -> None:
        """Durable when it returns.  Raise Conflict unless it follows the newest one, Unavailable."""
        ...


class LayoutFile:
    """Of a store of one process.  Implements LayoutHome."""

    def __init__(self, world: World, path: Path) -> None:
        self._world, self._path = world, path

    async def load(self) -> Layout | None:
        try:
            return layout_of(await self._world.disk.read(self._path), str(self._path))
        except FileNotFoundError:
            return None

    async def newer(self, than: int) -> Layout | None:
        """Nobody else writes it."""
        return None

    async def save(self, layout: Layout) -> None:
        await self._world.disk.write_synced(self._path, msgspec.json.encode(layout))


def layout_of(written: bytes, source: str) -> Layout:
    """Raise Invalid, naming the source, when it cannot be read."""
    try:
        if b'"table":' in written:
            old = msgspec.json.decode(written, type=_NamedLayout)
            return Layout(old.cluster, old.secret, _numbered(old.ring))
        return msgspec.json.decode(written, type=Layout)
    except msgspec.DecodeError as error:
        raise Invalid("object.layout", f"{source} cannot be read: {error}.") from error


def _numbered(old: _NamedRing) -> Rings:
    places = {drive.id: place for place, drive in enumerate(old.drives)}
    copies = len(old.table[0])
    rows = b"".join(places[row[copy]].to_bytes(2, "little") for copy in range(copies) for row in old.table)
    return Rings(old.part_power, old.replicas, old.drives, rows)

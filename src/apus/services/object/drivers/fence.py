"""Keeps writes off a path that is not the drive it was: another disk, an empty mount point, a full file system.

A drive carries a file that says which one it is.  It is looked at once a second at most, so a mount that goes away
is written to for no longer than that, and what was written there is only an extra copy.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.world import World
from apus.services.object.model import DriveFull, DriveTrouble

ID_FILE: Final = "drive.json"
LOOK_EVERY_S: Final = 1.0
RESERVE_BYTES: Final = 64 << 20
"""Room left for indexes, tombstones and repair on a drive that takes no more objects."""


class DriveIdentity(msgspec.Struct, frozen=True):
    drive: str
    cluster: str


async def format_drive(world: World, root: Path, identity: DriveIdentity) -> None:
    """Mark a directory as this drive; refuse one that is marked as another."""
    path = root / ID_FILE
    try:
        found = msgspec.json.decode(await world.disk.read(path), type=DriveIdentity)
    except FileNotFoundError:
        await world.disk.make_directory(root)
        await world.disk.write_synced(path, msgspec.json.encode(identity))
        return
    if found != identity:
        raise DriveTrouble(errno.EINVAL, f"{root} is drive {found.drive} of cluster {found.cluster}")


async def marked_as(world: World, root: Path) -> DriveIdentity | None:
    """What a directory is marked as; None when it is not, or cannot be read."""
    try:
        return msgspec.json.decode(await world.disk.read(root / ID_FILE), type=DriveIdentity)
    except (OSError, msgspec.DecodeError):
        return None


class Fence:
    def __init__(self, world: World, root: Path, identity: DriveIdentity, reserve_bytes: int = RESERVE_BYTES) -> None:
        self._world, self._root, self._identity, self._reserve = world, root, identity, reserve_bytes
        self._looked_s = -1e9
        self._free_bytes = 0
        self._lost = False
        self._returning = asyncio.Lock()
        self.on_return: Callable[[], Awaitable[None]] = _nothing
        """Awaited before a drive that was away is used again: it may hold other things than it did."""

    async def check(self, room_for: int = 0) -> None:
        """Raise DriveTrouble unless this is the drive, DriveFull unless it has room."""
        now = self._world.clock.monotonic_s()
        if now - self._looked_s >= LOOK_EVERY_S:
            await self.look()
        if room_for and self._free_bytes - room_for < self._reserve:
            raise DriveFull(errno.ENOSPC, f"{self._identity.drive} has {self._free_bytes} bytes left")

    async def free_bytes(self) -> int:
        """Raise DriveTrouble unless this is the drive."""
        await self.check()
        return self._free_bytes

    def lets_in(self, room_for: int = 0) -> bool:
        """Whether `check` would pass without a look."""
        if self._world.clock.monotonic_s() - self._looked_s >= LOOK_EVERY_S:
            return False
        return not room_for or self._free_bytes - room_for >= self._reserve

    def doubt(self) -> None:
        """Something failed: look again before the next use."""
        self._looked_s = -1e9

    async def look(self) -> None:
        """Look now.  Raise DriveTrouble unless this is the drive."""
        now = self._world.clock.monotonic_s()
        try:
            await self._look()
        except OSError:
            self._lost = True
            self.doubt()
            raise
        if self._lost:
            async with self._returning:
                if self._lost:
                    await self.on_return()
                    self._lost = False
        self._looked_s = now

    async def _look(self) -> None:
        try:
            data = await self._world.disk.read(self._root / ID_FILE)
            found = msgspec.json.decode(data, type=DriveIdentity)
            self._free_bytes = await self._world.disk.free_bytes(self._root)
        except (OSError, msgspec.DecodeError) as error:
            raise DriveTrouble(errno.ENODEV, f"{self._identity.drive} is not at {self._root}: {error}") from error
        if found != self._identity:
            raise DriveTrouble(errno.ENODEV, f"{self._root} is drive {found.drive}, not {self._identity.drive}")


async def _nothing() -> None:
    """Nobody asked to be told."""

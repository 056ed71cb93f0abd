"""A directory of this machine as a drive."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.world import World
from apus.services.object.drivers.fence import RESERVE_BYTES, DriveIdentity, Fence, format_drive, marked_as
from apus.services.object.drivers.indexes import OpenFiles, SqliteIndexes
from apus.services.object.drivers.leases import MemoryLeases
from apus.services.object.drivers.policy_copies import PolicyCopies
from apus.services.object.drivers.sqlite_index import Connect, connect_file
from apus.services.object.drivers.volumes.copies import VolumeCopies
from apus.services.object.drivers.volumes.files import VOLUME_BYTES
from apus.services.object.logic.merge import Fingerprint
from apus.services.object.model import Change, DriveTrouble, trouble_of

PROBE: Final = "probe"
"""A file that is written to find out whether the drive takes writes."""


COMPARING: Final = "comparing"
"""A file that is there from a return of the drive until it was compared: it may not hold all that it acknowledged."""


class LocalDrive:
    """Composed of what it keeps; all parts stand behind one fence."""

    def __init__(
        self,
        world: World,
        root: Path,
        identity: DriveIdentity,
        *,
        part_power: int,
        policies: int = 1,
        volume_bytes: int = VOLUME_BYTES,
        connect: Connect = connect_file,
        files: OpenFiles | None = None,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self.id, self.root = identity.drive, root
        self._fence = fence = Fence(world, root, identity, reserve_bytes)

        def open_copies(at: Path, mark: Fingerprint) -> VolumeCopies:
            return VolumeCopies(world, at, fence, part_power=part_power, volume_bytes=volume_bytes, mark=mark)

        self.copies = PolicyCopies(root, policies, open_copies)
        self.indexes = SqliteIndexes(world, root, fence, part_power=part_power, connect=connect, files=files)
        self.pending = FilePending(world, root, fence)
        self.leases = MemoryLeases(world.clock)
        self.on_return: Callable[[], None] = lambda: None
        """Hears that the drive is in its place again, and may hold other things than it did."""
        self.comparing = False
        self._disk = world.disk
        fence.on_return = self._returned

    async def start(self) -> None:
        """Read what is there.  Raise DriveTrouble unless it is the drive."""
        await self.copies.start()
        self.comparing = await self._disk.stat(self.root / COMPARING) is not None

    async def free_bytes(self) -> int:
        """Raise DriveTrouble unless the drive is there."""
        return await self._fence.free_bytes()

    async def look(self, *, write: bool) -> None:
        """Look now whether it is there, and also whether it takes writes.  Raise DriveTrouble."""
        await self._fence.look()
        if write:
            try:
                await self._disk.write_synced(self.root / PROBE, b"")
            except OSError as error:
                raise trouble_of(error) from error

    async def forget(self) -> None:
        """The drive may hold other things than it did.  Raise DriveTrouble."""
        self._fence.doubt()
        await self._returned()

    async def compared(self) -> None:
        """It holds all that it should."""
        await self._disk.remove(self.root / COMPARING)
        self.comparing = False

    async def tidy(self) -> int:
        """Give back what overwritten and deleted objects still take; returns how many bytes were moved."""
        await self.indexes.settle()
        await self.indexes.rest()
        return await self.copies.tidy()

    async def repartition(self, part_power: int) -> None:
        """Count and keep by these partitions from now on; who asks meanwhile waits.  Works on one that is away, too."""
        await self.copies.repartition(part_power)
        await self.indexes.repartition(part_power)

    async def turned(self, turn: int) -> None:
        """Whoever uses it is in this process, and knows each ring."""

    async def doubted(self) -> None:
        """Something that it acknowledged was bad, and is put aside: until it was compared it may lack that."""
        if not self.comparing:
            await self._compare()
        self.on_return()

    async def _compare(self) -> None:
        try:
            await self._disk.write_synced(self.root / COMPARING, b"")
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise trouble_of(error) from error
        self.comparing = True

    async def _returned(self) -> None:
        await self._compare()
        self.copies.forget()
        await self.indexes.forget()
        self.on_return()

    async def close(self) -> None:
        await self.copies.close()
        await self.indexes.close()


class LocalSite:
    """This machine.  Implements Site."""

    def __init__(
        self,
        world: World,
        *,
        volume_bytes: int = VOLUME_BYTES,
        connect: Connect = connect_file,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self._world, self._volume_bytes = world, volume_bytes
        self._connect, self._reserve_bytes = connect, reserve_bytes
        self._files = OpenFiles()

    async def marked_as(self, path: Path) -> DriveIdentity | None:
        return await marked_as(self._world, path)

    async def mark(self, path: Path, identity: DriveIdentity) -> None:
        await format_drive(self._world, path, identity)

    async def names(self, path: Path) -> Sequence[str]:
        return await self._world.disk.names(path)

    def open(self, path: Path, identity: DriveIdentity, part_power: int, policies: int, turn: int = 0) -> LocalDrive:
        return LocalDrive(
            self._world, path, identity, part_power=part_power, policies=policies,
            volume_bytes=self._volume_bytes, connect=self._connect, files=self._files,
            reserve_bytes=self._reserve_bytes,
        )  # fmt: skip


class FilePending:
    def __init__(self, world: World, root: Path, fence: Fence) -> None:
        self._disk, self._root, self._fence = world.disk, root / "pending", fence

    async def add(self, name: str, change: Change) -> None:
        await self._fence.check()
        try:
            await self._disk.write_synced(self._root / name, msgspec.msgpack.encode(change))
        except OSError as error:
            self._fence.doubt()
            raise DriveTrouble(error.errno or errno.EIO, str(error)) from error

    async def names(self) -> Sequence[str]:
        await self._fence.check()
        return await self._disk.names(self._root)

    async def get(self, name: str) -> Change | None:
        await self._fence.check()
        try:
            return msgspec.msgpack.decode(await self._disk.read(self._root / name), type=Change)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    async def remove(self, name: str) -> None:
        await self._fence.check()
        await self._disk.remove(self._root / name)

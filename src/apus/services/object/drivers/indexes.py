"""The indexes of one drive.  Where their files are is in `index_places.py`.

Changes to one index that arrive while another is being committed wait and are committed together: one sync for all.
"""

from __future__ import annotations

import asyncio
import errno
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from apus.kernel.world import World
from apus.services.object.drivers.fence import Fence
from apus.services.object.drivers.index_places import IndexPlaces
from apus.services.object.drivers.sqlite_index import Connect, IndexFile, connect_file
from apus.services.object.drivers.unbroken import unbroken
from apus.services.object.model import (
    Change,
    CorruptCopy,
    DriveFull,
    DriveTrouble,
    IndexHead,
    IndexKind,
    ListingAsk,
    Place,
    Row,
    Subdir,
    trouble_of,
)

T = TypeVar("T")

KINDS: Final[tuple[IndexKind, ...]] = ("accounts", "containers")

OPEN_MAX: Final = 32
"""Index files of a drive that are open at once: three handles and up to half a MiB of cache each."""

_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT)
"""Our statements are right: where one is refused, the names or the bounds in the file are not."""

_Ticket = tuple[Change, "asyncio.Future[IndexHead]"]


class SqliteIndexes:
    def __init__(
        self, world: World, root: Path, fence: Fence, *, part_power: int, connect: Connect = connect_file
    ) -> None:
        self._world, self._root, self._fence, self._connect = world, root, fence, connect
        self._places = IndexPlaces(world.disk, root, part_power)
        self._open: OrderedDict[Path, IndexFile] = OrderedDict()
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        """By hash: with it, how many wait for it or have it."""
        self._waiting: dict[str, list[_Ticket]] = {}
        self._gate = asyncio.Event()
        self._gate.set()

    async def apply(self, kind: IndexKind, place: Place, change: Change) -> IndexHead:
        await self._fence.check()
        ticket = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(place.hash, []).append((change, ticket))
        async with self._alone(kind, place.hash) as path:
            if not ticket.done():
                tickets = self._waiting.pop(place.hash)
                await self._commit(path, tickets)
        head: IndexHead = ticket.result()
        return head

    async def head(self, kind: IndexKind, place: Place) -> IndexHead | None:
        return await self._ask(kind, place, lambda index: index.head(), None)

    async def listing(self, kind: IndexKind, place: Place, ask: ListingAsk) -> Sequence[Row | Subdir]:
        return await self._ask(kind, place, lambda index: index.listing(ask), [])

    async def rows(self, kind: IndexKind, place: Place, after: str, limit: int) -> Sequence[Row]:
        return await self._ask(kind, place, lambda index: index.rows(after, limit), [])

    async def digest(self, kind: IndexKind, place: Place) -> int:
        return await self._ask(kind, place, lambda index: index.digest(), 0)

    async def audit(self, kind: IndexKind, place: Place) -> None:
        await self._ask(kind, place, lambda index: index.audit(), None)

    async def reclaim(self, kind: IndexKind, place: Place, before: str) -> None:
        if await self._ask(kind, place, lambda index: index.reclaim(before), False):
            await self.drop(kind, place)

    async def drop(self, kind: IndexKind, place: Place) -> None:
        await self._fence.check()
        async with self._alone(kind, place.hash) as path:
            await self._forget(path)
            await self._settle(path)
            for suffix in ("", "-wal", "-shm"):
                await self._world.disk.remove(path.with_name(path.name + suffix))

    async def parts(self, kind: IndexKind) -> Sequence[int]:
        await self._fence.check()
        return await self._places.parts(kind)

    async def places(self, kind: IndexKind, part: int) -> Sequence[Place]:
        await self._fence.check()
        return await self._places.places(kind, part)

    async def repartition(self, part_power: int) -> None:
        """Keep files by these partitions from now on.  Who asks meanwhile waits."""
        self._gate.clear()
        try:
            for lock, _ in list(self._locks.values()):
                async with lock:
                    pass
            for path in list(self._open):
                await self._forget(path)
            self._places.part_power, self._places.settled = part_power, False
        finally:
            self._gate.set()

    async def settle(self) -> None:
        """Move what is still in the directory of a partition that was cut in two."""
        if self._places.settled:
            return
        await self._fence.check()
        power = self._places.part_power
        for kind in KINDS:
            for path_hash in await self._places.strays(kind):
                async with self._alone(kind, path_hash) as path:
                    await self._settle(path)
        self._places.settled = power == self._places.part_power

    async def close(self) -> None:
        for path in list(self._open):
            async with self._alone(_kind_of(path), path.stem):
                await self._forget(path)

    async def _commit(self, path: Path, tickets: list[_Ticket]) -> None:
        """All who wait get the head, or the failure."""
        try:
            head = await self._on(path, lambda index: index.apply([change for change, _ in tickets]), make=True)
            assert head is not None
        except BaseException as error:
            told = error if isinstance(error, DriveTrouble) else DriveTrouble(errno.EIO, "the commit was cut off")
            for _, ticket in tickets:
                if not ticket.done():
                    ticket.set_exception(told)
                    ticket.exception()  # a waiter that was cancelled does not ask
            if not isinstance(error, DriveTrouble):
                raise
        else:
            for _, ticket in tickets:
                if not ticket.done():
                    ticket.set_result(head)

    async def _ask(self, kind: IndexKind, place: Place, ask: Callable[[IndexFile], T], absent: T) -> T:
        await self._fence.check()
        async with self._alone(kind, place.hash) as path:
            answer = await self._on(path, ask, make=False)
        return absent if answer is None else answer

    async def _on(self, path: Path, work: Callable[[IndexFile], T], *, make: bool) -> T | None:
        """Run this on the open file; None when there is none and it shall not be made."""
        index = self._open.get(path)
        try:
            if index is None:
                there = await self._world.disk.stat(path) is not None or await self._settle(path)
                if make:
                    await self._world.disk.make_directory(path.parent)
                elif not there:
                    return None
                index = self._open[path] = await unbroken(
                    self._world.run.in_thread(lambda: IndexFile(path, self._connect))
                )
            self._open.move_to_end(path)
            await self._close_some(path)
            ready = index
            return await unbroken(self._world.run.in_thread(lambda: work(ready)))
        except (
            sqlite3.DatabaseError,
            CorruptCopy,
            ValueError,
            TypeError,
        ) as error:  # the last two: values of a damaged row
            raise await self._trouble(path, error) from error
        except OSError as error:
            self._fence.doubt()
            raise trouble_of(error) from error

    async def _trouble(self, path: Path, error: Exception) -> DriveTrouble:
        self._fence.doubt()
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return DriveFull(errno.ENOSPC, str(error))
        await self._forget(path)
        if code in _CORRUPT or not isinstance(error, sqlite3.Error):
            aside = self._root / "quarantine" / f"{path.name}-{int(self._world.clock.now_s() * 1000)}"
            await self._world.disk.make_directory(aside.parent)
            for suffix in ("-wal", "-shm"):
                await self._world.disk.remove(path.with_name(path.name + suffix))
            if await self._world.disk.stat(path) is not None:
                await self._world.disk.rename_synced(path, aside)
            return CorruptCopy(errno.EIO, str(error))
        return DriveTrouble(errno.EIO, str(error))

    async def _close_some(self, keep: Path) -> None:
        for path in list(self._open):
            if len(self._open) <= OPEN_MAX:
                return
            if path != keep and path.stem not in self._locks:
                index = self._open.pop(path)
                async with self._alone(_kind_of(path), path.stem):
                    await self._world.run.in_thread(index.close)

    async def _forget(self, path: Path) -> None:
        index = self._open.pop(path, None)
        if index is not None:
            try:
                await self._world.run.in_thread(index.close)
            except sqlite3.Error:
                self._fence.doubt()

    async def _settle(self, path: Path) -> bool:
        """Move the file here if it is still where it was; whether it is here now."""
        old = await self._places.former(path)
        if old is None:
            return False
        if await self._world.disk.stat(old.with_name(old.name + "-wal")) is not None:  # a crash left it: take it in
            left = await unbroken(self._world.run.in_thread(lambda: IndexFile(old, self._connect)))
            await self._world.run.in_thread(left.close)
        await self._world.disk.make_directory(path.parent)
        await self._world.disk.rename_synced(old, path)
        return True

    @asynccontextmanager
    async def _alone(self, kind: IndexKind, path_hash: str) -> AsyncIterator[Path]:
        """Nobody else uses this index, whose path is given, in the block."""
        await self._gate.wait()
        lock, users = self._locks.get(path_hash) or (asyncio.Lock(), 0)
        self._locks[path_hash] = lock, users + 1
        try:
            async with lock:
                yield self._places.path(kind, path_hash)
        finally:
            lock, users = self._locks[path_hash]
            if users == 1:
                del self._locks[path_hash]
            else:
                self._locks[path_hash] = lock, users - 1


def _kind_of(path: Path) -> IndexKind:
    return "accounts" if path.parts[-3] == "accounts" else "containers"

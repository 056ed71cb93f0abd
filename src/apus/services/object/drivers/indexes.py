"""The indexes of one drive.  Where their files are is in `index_places.py`.

Changes to one index that arrive while another is being committed wait and are committed together: one sync for all.
What is only noted waits in memory for a `flush`, or for the next who reads that index: hundreds of rows are merged in
the time of one.  Whoever notes a change keeps it elsewhere until then.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import sqlite3
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, TypeVar

from apus.kernel.log import get_logger
from apus.kernel.world import World
from apus.services.object.drivers.fence import Fence
from apus.services.object.drivers.index_places import IndexPlaces
from apus.services.object.drivers.quarantine import Quarantine
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
    RowVersion,
    Subdir,
    Totals,
    trouble_of,
)

T = TypeVar("T")

KINDS: Final[tuple[IndexKind, ...]] = ("accounts", "containers")

NOTED_MAX: Final = 1 << 14
"""Changes that are noted for one index; past it, who brings one waits until it is committed."""

SLICE: Final = 64
"""Changes that a flush merges at once, in a millisecond or two."""
PAUSE_S: Final = 0.005
"""Between two of them: the interpreter's own switches let whoever waits for it go on every five milliseconds only."""

WARM_MAX: Final = 32
"""Index files of a drive that stay open whatever other drives do, and keep what they have read: 640 KiB each."""

OPEN_MAX: Final = 1024
"""Those of all drives of a machine that are open at once: three handles each, and 160 KiB where they keep nothing."""
HANDLES_PART: Final = 4
"""One in so many of the handles of the process may be theirs."""

_CORRUPT: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT)
"""Our statements are right: where one is refused, the names or the bounds in the file are not."""

_DAMAGE: Final = (sqlite3.DatabaseError, CorruptCopy, ValueError, TypeError)
"""The last two: values of a damaged row."""

_log: Final = get_logger("apus.object.indexes")

_Ticket = tuple[Change, "asyncio.Future[IndexHead]"]


class OpenFiles:
    """How many index files the drives of a machine have open: beyond `most`, a drive closes one for each it opens."""

    def __init__(self, most: int | None = None) -> None:
        handles, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most = min(OPEN_MAX, handles // (3 * HANDLES_PART)) if most is None else most
        self.count = 0


class SqliteIndexes:
    def __init__(
        self,
        world: World,
        root: Path,
        fence: Fence,
        *,
        part_power: int,
        connect: Connect = connect_file,
        files: OpenFiles | None = None,
    ) -> None:
        self._world, self._root, self._fence, self._connect = world, root, fence, connect
        self._quarantine = Quarantine(world, root)
        self._places = IndexPlaces(world.disk, root, part_power)
        self._files = files or OpenFiles()
        self._open: OrderedDict[str, IndexFile] = OrderedDict()
        """The one that was used last at the end."""
        self._used: set[str] = set()
        """Of these, since files were last put to rest."""
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._waiting: dict[str, list[_Ticket]] = {}
        self._noted: dict[str, list[Change]] = {}
        self._gate = asyncio.Event()
        self._gate.set()

    async def apply(self, kind: IndexKind, place: Place, change: Change) -> IndexHead:
        await self._fence.check()
        name = _name(kind, place)
        ticket = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, []).append((change, ticket))
        async with self._alone(name):
            if not ticket.done():
                tickets = self._waiting.pop(name)
                await self._commit(name, tickets)
        head: IndexHead = ticket.result()
        return head

    def note(self, kind: IndexKind, place: Place, change: Change) -> Awaitable[object] | None:
        name = _name(kind, place)
        noted = self._noted.get(name)
        if not self._fence.lets_in() or (noted is not None and len(noted) >= NOTED_MAX):
            return self.apply(kind, place, change)
        if noted is None:
            self._noted[name] = [change]
        else:
            noted.append(change)
        return None

    async def flush(self) -> None:
        await self._fence.check()
        failure: DriveTrouble | None = None
        for name in list(self._noted):
            try:
                await self._flush(name)
            except DriveTrouble as error:  # of one index, or of all that follow too
                failure = error
        if failure is not None:
            raise failure

    async def _flush(self, name: str) -> None:
        """What is noted now, slice by slice: who merges keeps the interpreter, and requests wait for it."""
        for first in range(0, len(self._noted.get(name, ())), SLICE):
            if first:
                await self._world.clock.sleep(PAUSE_S)
            async with self._alone(name):
                if name not in self._noted:  # somebody read it, and merged all
                    return
                await self._merge(name, [], SLICE)

    def at_hand(self, kind: IndexKind, place: Place) -> IndexHead | None:
        name = _name(kind, place)
        index = self._open.get(name)
        if index is None or index.known is None or name in self._noted or not self._fence.lets_in():
            return None
        self._used.add(name)
        return index.known[0]

    async def head(self, kind: IndexKind, place: Place) -> IndexHead | None:
        return self.at_hand(kind, place) or await self._ask(kind, place, lambda index: index.head(), None)

    async def listing(self, kind: IndexKind, place: Place, ask: ListingAsk) -> Sequence[Row | Subdir]:
        return await self._ask(kind, place, lambda index: index.listing(ask), [])

    async def rows(self, kind: IndexKind, place: Place, after: str, limit: int) -> Sequence[Row]:
        return await self._ask(kind, place, lambda index: index.rows(after, limit), [])

    async def versions(self, kind: IndexKind, place: Place, after: str, limit: int) -> Sequence[RowVersion]:
        return await self._ask(kind, place, lambda index: index.versions(after, limit), [])

    async def totals(self, kind: IndexKind, place: Place, after: str, upto: str) -> Totals:
        return await self._ask(kind, place, lambda index: index.totals(after, upto), Totals())

    async def expel(self, kind: IndexKind, place: Place, versions: Sequence[RowVersion]) -> None:
        await self._ask(kind, place, lambda index: index.expel(versions), None)

    async def digest(self, kind: IndexKind, place: Place) -> int:
        return await self._ask(kind, place, lambda index: index.digest(), 0)

    async def audit(self, kind: IndexKind, place: Place) -> bool:
        return await self._ask(kind, place, lambda index: index.audit(), True)

    async def reclaim(self, kind: IndexKind, place: Place, before: str) -> None:
        await self._fence.check()
        name = _name(kind, place)
        async with self._alone(name):
            await self._fold(name)
            if await self._on(name, lambda index: index.reclaim(before), make=False):
                await self._drop(name)

    async def drop(self, kind: IndexKind, place: Place) -> None:
        await self._fence.check()
        name = _name(kind, place)
        async with self._alone(name):
            await self._drop(name)

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
            for name in list(self._open):
                await self._forget(name)
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
                async with self._alone(f"{kind}/{path_hash}"):
                    await self._settle(self._places.path(kind, path_hash))
        self._places.settled = power == self._places.part_power

    async def rest(self) -> None:
        """Close the files that nobody has used since this was last asked."""
        unused = [name for name in self._open if name not in self._used]
        self._used.clear()
        for name in unused:
            async with self._alone(name):
                await self._forget(name)

    async def forget(self) -> None:
        """The drive may hold other files than it did.  What is noted is merged into whatever is there."""
        self._places.settled = False
        for name in list(self._open):
            async with self._alone(name):
                await self._forget(name)

    async def close(self) -> None:
        try:
            await self.flush()
        except DriveTrouble as error:
            _log.warning("not flushed", drive=str(self._root), error=str(error))
        await self.forget()

    async def _commit(self, name: str, tickets: list[_Ticket]) -> None:
        """All who wait get the head, or the failure."""
        try:
            head = await self._merge(name, [change for change, _ in tickets])
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
        name = _name(kind, place)
        async with self._alone(name):
            await self._fold(name)
            answer = await self._on(name, ask, make=False)
        return absent if answer is None else answer

    async def _fold(self, name: str) -> None:
        """Commit what is noted."""
        if name in self._noted:
            await self._merge(name, [])

    async def _merge(self, name: str, changes: Sequence[Change], at_most: int = NOTED_MAX) -> IndexHead:
        """Commit these and what is noted, which stays noted when that fails."""
        noted = self._noted.get(name, [])
        merged = [*noted[:at_most], *changes]
        head = await self._on(name, lambda index: index.apply(merged), make=True)
        assert head is not None
        del noted[: len(merged) - len(changes)]
        if not noted:
            self._noted.pop(name, None)
        return head

    async def _on(self, name: str, work: Callable[[IndexFile], T], *, make: bool) -> T | None:
        """Run this on the open file; None when there is none and it shall not be made."""
        index, path = self._open.get(name), self._path(name)
        try:
            if index is None:
                there = await self._world.disk.stat(path) is not None or await self._settle(path)
                if not there:
                    if not make:
                        return None
                    await self._world.disk.make_directory(path.parent)
                index = self._open[name] = await unbroken(
                    self._world.run.in_thread(lambda: IndexFile(path, self._connect))
                )
                self._files.count += 1
            self._open.move_to_end(name)
            self._used.add(name)
            await self._close_some(name)
            ready, keeps = index, len(self._open) <= WARM_MAX
            return await unbroken(self._world.run.in_thread(lambda: _done(work, ready, keeps)))
        except _DAMAGE as error:
            raise await self._trouble(name, error) from error
        except OSError as error:
            self._fence.doubt()
            raise trouble_of(error) from error

    async def _trouble(self, name: str, error: Exception) -> DriveTrouble:
        self._fence.doubt()
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return DriveFull(errno.ENOSPC, str(error))
        await self._forget(name)
        unreadable = not code and isinstance(error, sqlite3.OperationalError)  # Python's own: text that is no UTF-8
        if code in _CORRUPT or unreadable or not isinstance(error, sqlite3.Error):
            path = self._path(name)
            for suffix in ("-wal", "-shm"):
                await self._world.disk.remove(path.with_name(path.name + suffix))
            await self._quarantine.take(path, path.name)
            return CorruptCopy(errno.EIO, str(error))
        return DriveTrouble(errno.EIO, str(error))

    def _is_crowded(self) -> bool:
        return len(self._open) > WARM_MAX and self._files.count > self._files.most

    async def _close_some(self, keep: str) -> None:
        for name in list(self._open) if self._is_crowded() else ():
            if not self._is_crowded():
                return
            if name != keep and name not in self._locks and self._open[name].audited is None:
                async with self._held(name):
                    await self._forget(name)

    async def _drop(self, name: str) -> None:
        if name in self._noted:
            return  # it is being used
        await self._forget(name)
        path = self._path(name)
        await self._settle(path)
        for suffix in ("", "-wal", "-shm"):
            await self._world.disk.remove(path.with_name(path.name + suffix))

    async def _forget(self, name: str) -> None:
        index = self._open.pop(name, None)
        if index is not None:
            self._files.count -= 1
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

    def _path(self, name: str) -> Path:
        kind, _, path_hash = name.partition("/")
        return self._places.path("accounts" if kind == "accounts" else "containers", path_hash)

    @asynccontextmanager
    async def _alone(self, name: str) -> AsyncIterator[None]:
        await self._gate.wait()
        async with self._held(name):
            yield

    @asynccontextmanager
    async def _held(self, name: str) -> AsyncIterator[None]:
        """Also while partitions are cut in two, which waits for whoever is inside."""
        lock, users = self._locks.get(name) or (asyncio.Lock(), 0)
        self._locks[name] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks[name]
            if users == 1:
                del self._locks[name]
            else:
                self._locks[name] = lock, users - 1


def _done(work: Callable[[IndexFile], T], index: IndexFile, keeps: bool) -> T:
    """Of many files that are open, each for a few rows now and then, none keeps what it has read."""
    answer = work(index)
    if not keeps:
        index.shrink()
    return answer


def _name(kind: IndexKind, place: Place) -> str:
    """Whatever its partition is: that changes when partitions are cut in two."""
    return f"{kind}/{place.hash}"

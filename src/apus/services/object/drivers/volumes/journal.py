"""Group commit: everything that wants to be written to a drive while it writes is written together next.

One write and one sync carry all who wait.  What a wish would change is decided here, in the order of the log, so
nobody needs a lock: a wish that has been overtaken is not written.  The index changes after the sync, so a reader
sees nothing that a power cut could take back.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
from collections.abc import Callable
from typing import Final

from apus.services.object.drivers.fence import Fence
from apus.services.object.drivers.volumes.files import Volumes
from apus.services.object.drivers.volumes.key_index import KeyIndex
from apus.services.object.drivers.volumes.record import (
    FILE,
    OBJECT,
    UNLISTED,
    encode_head,
    pack,
    pack_drop,
)
from apus.services.object.drivers.volumes.run import IN_FILE, Cold, Entry, IndexDamaged
from apus.services.object.model import DriveTrouble, Head, trouble_of

BATCH_BYTES: Final = 8 << 20
"""What one commit carries at most, so that those behind a large one do not wait for long."""


@dataclasses.dataclass(slots=True)
class Put:
    """Keep this version, unless one that is as new is there."""

    hash: bytes
    head: Head
    data: bytes | memoryview = b""
    path: str = ""
    """Of the file that has the bytes, below the drive's root."""
    unlisted: bool = True
    """Nobody has said yet that the listings have its row."""
    replaces: Entry | None = None
    """Only in place of this entry: the same version moves, or gets metadata."""

    def __post_init__(self) -> None:
        self.unlisted &= not self.head.is_archive  # no listing has these

    def agrees(self, before: Entry | None) -> bool:
        if self.replaces is not None:
            return before == self.replaces
        return before is None or before.version < self.head.version


@dataclasses.dataclass(slots=True)
class Drop:
    """Forget this version."""

    hash: bytes
    version: tuple[str, str]
    carried: bool = False
    """From a volume that goes away: write it again as long as older volumes may hold what it drops."""

    def agrees(self, before: Entry | None) -> bool:
        if self.carried:
            return before is None
        return before is not None and before.version == self.version


@dataclasses.dataclass(slots=True)
class Lose:
    """What this entry points to is bad.  Nothing is written: whoever reads it again finds the same."""

    hash: bytes
    entry: Entry

    def agrees(self, before: Entry | None) -> bool:
        return before == self.entry


ALIGNED_BYTES: Final = 256 << 10
"""Data from this size on begin at a page."""
PAGE_BYTES: Final = 4096

GATHER_TURNS: Final = 20
"""Turns of the loop before a commit, in which those gather whose requests have come: in a busy process a commit's own
price, a thread's and a call's, is more than a record's."""

Wish = Put | Drop | Lose
_Ticket = tuple[Wish, "asyncio.Future[bool]"]
_Change = tuple[bytes, Entry | None, Entry | None]


class Journal:
    def __init__(self, volumes: Volumes, index: KeyIndex, fence: Fence) -> None:
        self.volumes, self.index = volumes, index
        self.unlisted: dict[bytes, str] = {}
        """Hashes whose newest version may be in no listing yet, with the stamp of its last change."""
        self.end = (0, 0)
        """Volume and offset up to which the index knows everything."""
        self.ended_files: list[Entry] = []
        """Entries whose files nobody needs any more."""
        self.after_commit: Callable[[], None] = lambda: None
        self.on_damage: Callable[[], None] = lambda: None
        self._fence = fence
        self._abandoned = False
        self._waiting: list[_Ticket] = []
        self._running: asyncio.Task[None] | None = None

    def submit(self, wish: Wish) -> asyncio.Future[bool]:
        """Done when it is on stable storage: true if it changed something.  Raises DriveTrouble."""
        if self._abandoned:
            raise DriveTrouble(errno.ESTALE, "the drive is being read again")
        ticket: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((wish, ticket))
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="object-journal")
        return ticket

    def abandon(self) -> None:
        """Take no more wishes: another journal is about to be made of what is on the drive."""
        self._abandoned = True

    async def settle(self) -> None:
        """Wait until nothing waits."""
        while self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        try:
            while self._waiting:
                for _ in range(GATHER_TURNS):
                    await asyncio.sleep(0)
                await self._commit(self._take())
                self.after_commit()
        finally:
            self._running = None
            _fail(self._waiting, DriveTrouble(errno.EIO, "the journal was cut off"))

    def _take(self) -> list[_Ticket]:
        size = 0
        for count, (wish, _) in enumerate(self._waiting, 1):
            size += len(wish.data) if isinstance(wish, Put) else 0
            if size >= BATCH_BYTES:
                taken, self._waiting = self._waiting[:count], self._waiting[count:]
                return taken
        taken, self._waiting = self._waiting, []
        return taken

    async def _commit(self, batch: list[_Ticket]) -> None:
        try:
            changes, agreed = await self._write([wish for wish, _ in batch])
        except BaseException as error:
            told = trouble_of(error) if isinstance(error, OSError) else error
            self._fence.doubt()
            if isinstance(error, IndexDamaged):
                self.on_damage()
            _fail(batch, told)
            if isinstance(error, asyncio.CancelledError):
                raise
            return
        for path_hash, before, after in changes:
            self._apply(path_hash, before, after)
        for (wish, ticket), done in zip(batch, agreed, strict=True):
            if done:
                self._mark(wish)
            if not ticket.done():
                ticket.set_result(done)

    def _mark(self, wish: Wish) -> None:
        if isinstance(wish, Put) and wish.unlisted:
            self.unlisted[wish.hash] = wish.head.changed
        elif not (isinstance(wish, Drop) and wish.carried):
            self.unlisted.pop(wish.hash, None)

    async def _write(self, wishes: list[Wish]) -> tuple[list[_Change], list[bool]]:
        volume, offset, marker = await self.volumes.position()
        parts: list[bytes | memoryview] = []
        changes: list[_Change] = []
        agreed: list[bool] = []
        pending: dict[bytes, Entry | None] = {}
        dead = 0
        for wish in wishes:
            before = pending[wish.hash] if wish.hash in pending else await self._before(wish.hash)
            agreed.append(wish.agrees(before))
            if not agreed[-1]:
                continue
            after, start, data = self._record(wish, volume, offset, marker)
            parts.append(start)
            offset += len(start)
            dead += len(start) if isinstance(wish, Drop) else 0
            if len(data):
                parts.append(data)
                offset += len(data)
            if not (isinstance(wish, Drop) and wish.carried):
                pending[wish.hash] = after
                changes.append((wish.hash, before, after))
        if offset != self.volumes.usage[volume].total_bytes:
            await self.volumes.append(parts)
            self.volumes.died(volume, dead)
        self.end = volume, offset
        return changes, agreed

    def _record(
        self, wish: Wish, volume: int, offset: int, marker: bytes
    ) -> tuple[Entry | None, bytes, bytes | memoryview]:
        """The entry it gets, and its record: what comes before the data, and the data."""
        if isinstance(wish, Lose):
            return None, b"", b""
        if isinstance(wish, Drop):
            return None, pack_drop(marker, wish.hash, wish.version), b""
        kind, flags = (FILE if wish.path else OBJECT), (UNLISTED if wish.unlisted else 0)
        path = wish.path.encode()
        body = encode_head(wish.head)
        start = pack(marker, kind, flags, wish.hash, body, path, len(wish.data))
        if len(wish.data) >= ALIGNED_BYTES:  # from a page on, the disk writes them past the page cache
            filler = bytes(-(offset + len(start)) % PAGE_BYTES)
            start = pack(marker, kind, flags, wish.hash, body, filler, len(wish.data))
        entry = Entry(
            volume, offset, len(start) + len(wish.data), len(start), *wish.head.version, IN_FILE if wish.path else 0
        )
        return entry, start, wish.data

    async def _before(self, path_hash: bytes) -> Entry | None:
        entry = self.index.glance(path_hash)
        return await self.index.find(path_hash) if isinstance(entry, Cold) else entry

    def _apply(self, path_hash: bytes, before: Entry | None, after: Entry | None) -> None:
        self.index.set(path_hash, before, after)
        if before is None:
            return
        self.volumes.died(before.volume, before.length)
        if before.in_file and (after is None or before.version[0] != after.version[0]):
            self.ended_files.append(before)


def _fail(tickets: list[_Ticket], error: BaseException) -> None:
    for _, ticket in tickets:
        if not ticket.done():
            ticket.set_exception(error)
            ticket.exception()  # a waiter that was cancelled does not ask
    tickets.clear()

"""A drive of another host, as the engine asks it."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from apus.kernel.buffers import Chunk, FilePart
from apus.services.object.drivers.fence import DriveIdentity
from apus.services.object.drivers.remote.channel import Channel
from apus.services.object.drivers.remote.link import Dial, Link
from apus.services.object.drivers.remote.verbs import STREAM_S, SYNC_S, VERBS, Hello, Mode, Request, Seen, encode
from apus.services.object.drivers.volumes.record import RECORD_BYTES_MAX
from apus.services.object.model import (
    Change,
    DriveTrouble,
    Head,
    IndexHead,
    IndexKind,
    ListingAsk,
    Meta,
    Place,
    Row,
    RowVersion,
    Subdir,
    Totals,
)

DATA: Final = b"d"
COMMIT: Final = b"c"
ABORT: Final = b"a"
ANSWER: Final = b"="
"""Begins each frame behind a verb that has a body: what it is."""


class RemoteDrive:
    def __init__(
        self, dial: Dial, path: str, identity: DriveIdentity, *, part_power: int, policies: int = 1, turn: int = 0
    ) -> None:
        self.id, self.root = identity.drive, path
        self._identity, self._part_power, self._policies, self._turn = identity, part_power, policies, turn
        self._link = Link(dial, self._hello, self._saw)
        self._seen = Seen()
        self.on_return: Callable[[], None] = lambda: None
        """Hears that the drive may hold other things than it did: it came back, or its host was started anew."""
        self.copies = RemoteCopies(self._link)
        self.indexes = RemoteIndexes(self._link, lambda: self._seen.opened)
        self.pending = RemotePending(self._link)
        self.leases = RemoteLeases(self._link)

    @property
    def comparing(self) -> bool:
        return self._seen.comparing

    async def start(self) -> None:
        await self._link.call("start")

    async def free_bytes(self) -> int:
        free: int = await self._link.call("free_bytes")
        return free

    async def look(self, *, write: bool) -> None:
        await self._link.call("look", write)

    async def forget(self) -> None:
        await self._link.call("forget")

    async def compared(self) -> None:
        await self._link.call("compared")

    async def tidy(self) -> int:
        moved: int = await self._link.call("tidy")
        return moved

    async def repartition(self, part_power: int) -> None:
        """Its host learns of it with the next connection at the latest, before it answers anything."""
        self._part_power = part_power
        self._link.renew()
        try:
            await self._link.call("repartition", part_power)
        except OSError:
            self._link.close()

    async def turned(self, turn: int) -> None:
        """Its host learns of it with the next connection at the latest."""
        self._turn = turn
        self._link.renew()
        await self._link.call("turned", turn)

    async def close(self) -> None:
        """Its host keeps it open for other proxies, and leaves it in order when there are none."""
        self._link.close()

    def _hello(self, mode: Mode) -> Hello:
        return Hello(mode, self.root, self._identity, self._part_power, self._policies, self._turn)

    def _saw(self, seen: Seen) -> None:
        before, self._seen = self._seen, seen
        is_new = bool(before.opened) and (before.opened, before.returns) != (seen.opened, seen.returns)
        if is_new or (seen.comparing and not before.opened):
            self.on_return()


class RemoteCopies:
    def __init__(self, link: Link) -> None:
        self._link = link
        self._listed: list[tuple[Place, str]] = []

    def store(self, place: Place, head: Head, data: bytes | memoryview) -> Awaitable[object]:
        return self._link.call("copies.store", place, head, data)

    async def begin(self, place: Place) -> RemoteWriter:
        channel = await self._link.stream()
        try:
            channel.send(_request("copies.begin", place))
            await _answered(self._link, channel, SYNC_S)
        except BaseException:
            channel.close()
            raise
        return RemoteWriter(self._link, channel)

    async def describe(self, place: Place, meta: Meta) -> None:
        await self._link.call("copies.describe", place, meta)

    def glance(self, place: Place) -> tuple[str, str] | None:
        """Another host cannot be asked without waiting."""
        return None

    def at_hand(self, place: Place, upto_bytes: int) -> tuple[Head, Chunk | FilePart | None] | None:
        """Another host cannot be asked without waiting."""
        return None

    async def head(self, place: Place) -> Head | None:
        head: Head | None = await self._link.call("copies.head", place)
        return head

    async def fetch(self, place: Place, upto_bytes: int = RECORD_BYTES_MAX) -> tuple[Head, bytes | None] | None:
        found: tuple[Head, bytes | None] | None = await self._link.call("copies.fetch", place, upto_bytes)
        return found

    async def read(self, place: Place, head: Head, offset: int, length: int) -> AsyncGenerator[Chunk]:
        channel = await self._link.stream()
        whole = False
        try:
            channel.send(_request("copies.read", place, head, offset, length))
            while (frame := await _piece(channel, STREAM_S))[:1] == DATA:
                yield frame[1:]
            whole = True
            self._link.result(frame[1:], None)
        finally:
            if whole:
                self._link.release(channel)
            else:
                channel.close()

    async def audit(self, place: Place) -> Head | None:
        head: Head | None = await self._link.call("copies.audit", place)
        return head

    async def drop(self, place: Place, version: tuple[str, str]) -> None:
        await self._link.call("copies.drop", place, version)

    async def unlisted(self, policy: int = 0) -> Mapping[str, str]:
        found: dict[str, str] = await self._link.call("copies.unlisted", policy)
        return found

    def listed(self, place: Place, changed: str) -> None:
        """What is said in one turn of the loop goes in one frame.  Where it is lost, it costs a merge."""
        if not self._listed:
            asyncio.get_running_loop().call_soon(self._tell_listed)
        self._listed.append((place, changed))

    async def parts(self) -> Sequence[int]:
        parts: list[int] = await self._link.call("copies.parts")
        return parts

    async def digest(self, part: int) -> int:
        return int(await self._link.call("copies.digest", part), 16)

    async def census(self) -> Mapping[int, tuple[int, int]]:
        found: dict[int, tuple[int, str]] = await self._link.call("copies.census")
        return {part: (count, int(digest, 16)) for part, (count, digest) in found.items()}

    async def inventory(self, part: int) -> Mapping[str, tuple[str, str]]:
        found: dict[str, tuple[str, str]] = await self._link.call("copies.inventory", part)
        return found

    def _tell_listed(self) -> None:
        told, self._listed = self._listed, []
        answer = asyncio.ensure_future(self._link.call("copies.listed", told))
        answer.add_done_callback(lambda ended: ended.cancelled() or ended.exception())


class RemoteWriter:
    """Each piece is answered when the drive has taken it: no more than one is on its way."""

    def __init__(self, link: Link, channel: Channel) -> None:
        self._link, self._channel, self._open = link, channel, True

    async def write(self, data: bytes | memoryview) -> None:
        await self._say(STREAM_S, DATA, data)

    async def commit(self, head: Head) -> None:
        await self._say(VERBS["copies.audit"].deadline_s, COMMIT, encode(head))
        self._end()

    async def abort(self) -> None:
        if self._open:
            await self._say(SYNC_S, ABORT)
            self._end()

    async def _say(self, deadline_s: float, *frame: bytes | memoryview) -> None:
        if not self._open:
            raise DriveTrouble(errno.EPIPE, "the upload has ended")
        try:
            self._channel.send(*frame)
            await _answered(self._link, self._channel, deadline_s)
        except BaseException:  # the host aborts what was not committed when the connection ends
            self._open = False
            self._channel.close()
            raise

    def _end(self) -> None:
        self._open = False
        self._link.release(self._channel)


class RemoteIndexes:
    def __init__(self, link: Link, opened: Callable[[], str]) -> None:
        self._link, self._opened = link, opened
        self._noted: set[str] = set()
        """Openings of the drive in whose memory something may be that is not on stable storage."""

    async def apply(self, kind: IndexKind, place: Place, change: Change) -> IndexHead:
        head: IndexHead = await self._link.call("indexes.apply", kind, place, change)
        return head

    def note(self, kind: IndexKind, place: Place, change: Change) -> Awaitable[object] | None:
        return self._note(self._link.call("indexes.note", kind, place, change))

    async def _note(self, taken: Awaitable[object]) -> None:
        await taken
        self._noted.add(self._opened())

    async def flush(self) -> None:
        """Raise DriveTrouble also when the host was started anew since something was noted: that is lost."""
        noted, self._noted = self._noted, set()
        try:
            await self._link.call("indexes.flush", sorted(noted))
        except OSError:
            self._noted |= noted & {self._opened()}
            raise

    def at_hand(self, kind: IndexKind, place: Place) -> IndexHead | None:
        """Another host cannot be asked without waiting."""
        return None

    async def head(self, kind: IndexKind, place: Place) -> IndexHead | None:
        head: IndexHead | None = await self._link.call("indexes.head", kind, place)
        return head

    async def listing(self, kind: IndexKind, place: Place, ask: ListingAsk) -> Sequence[Row | Subdir]:
        found: list[Row | str] = await self._link.call("indexes.listing", kind, place, ask)
        return [Subdir(one) if isinstance(one, str) else one for one in found]

    async def rows(self, kind: IndexKind, place: Place, after: str, limit: int) -> Sequence[Row]:
        rows: list[Row] = await self._link.call("indexes.rows", kind, place, after, limit)
        return rows

    async def versions(self, kind: IndexKind, place: Place, after: str, limit: int) -> Sequence[RowVersion]:
        versions: list[RowVersion] = await self._link.call("indexes.versions", kind, place, after, limit)
        return versions

    async def totals(self, kind: IndexKind, place: Place, after: str, upto: str) -> Totals:
        totals: Totals = await self._link.call("indexes.totals", kind, place, after, upto)
        return totals

    async def expel(self, kind: IndexKind, place: Place, versions: Sequence[RowVersion]) -> None:
        await self._link.call("indexes.expel", kind, place, versions)

    async def digest(self, kind: IndexKind, place: Place) -> int:
        return int(await self._link.call("indexes.digest", kind, place), 16)

    async def audit(self, kind: IndexKind, place: Place) -> bool:
        through: bool = await self._link.call("indexes.audit", kind, place)
        return through

    async def reclaim(self, kind: IndexKind, place: Place, before: str) -> None:
        await self._link.call("indexes.reclaim", kind, place, before)

    async def drop(self, kind: IndexKind, place: Place) -> None:
        await self._link.call("indexes.drop", kind, place)

    async def parts(self, kind: IndexKind) -> Sequence[int]:
        parts: list[int] = await self._link.call("indexes.parts", kind)
        return parts

    async def places(self, kind: IndexKind, part: int) -> Sequence[Place]:
        places: list[Place] = await self._link.call("indexes.places", kind, part)
        return places


class RemotePending:
    def __init__(self, link: Link) -> None:
        self._link = link

    async def add(self, name: str, change: Change) -> None:
        await self._link.call("pending.add", name, change)

    async def names(self) -> Sequence[str]:
        names: list[str] = await self._link.call("pending.names")
        return names

    async def get(self, name: str) -> Change | None:
        change: Change | None = await self._link.call("pending.get", name)
        return change

    async def remove(self, name: str) -> None:
        await self._link.call("pending.remove", name)


class RemoteLeases:
    def __init__(self, link: Link) -> None:
        self._link = link

    async def take(self, name: str, owner: str) -> bool:
        taken: bool = await self._link.call("leases.take", name, owner)
        return taken

    async def release(self, name: str, owner: str) -> None:
        await self._link.call("leases.release", name, owner)


def _request(verb: str, *arguments: Any) -> bytes:
    return encode(Request(0, verb, msgspec.Raw(encode(arguments))))


async def _answered(link: Link, channel: Channel, deadline_s: float) -> None:
    frame = await _piece(channel, deadline_s)
    link.result(frame[1:], None)


async def _piece(channel: Channel, deadline_s: float) -> bytes:
    try:
        async with asyncio.timeout(deadline_s):
            await channel.drain(deadline_s)
            return await channel.receive()
    except TimeoutError as error:
        raise channel.broken(error) from error

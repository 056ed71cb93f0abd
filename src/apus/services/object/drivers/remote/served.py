"""One drive that a host serves, and how verbs that travel become its verbs."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from apus.services.object.drivers.local import LocalDrive
from apus.services.object.drivers.remote.verbs import Hello, Seen
from apus.services.object.model import CorruptCopy, DriveTrouble, Row

HEARD_S: Final = 5.0
"""How long other proxies have to hear of a change of the ring."""


@dataclasses.dataclass(slots=True)
class Known:
    """What the proxy at the other end of a connection knows of the ring."""

    turn: int
    part_power: int


class Served:
    """A drive that is open here, for all proxies that use it."""

    def __init__(self, drive: LocalDrive, hello: Hello, heard_s: float) -> None:
        self.drive, self.part_power = drive, hello.part_power
        self.identity, self.policies = hello.identity, hello.policies
        self.is_open = True
        self.connections = set[asyncio.Task[Any]]()
        """Those that were made for it."""
        self._held = 0
        self._rests = asyncio.Event()
        self._rests.set()
        self._told = self._turn = 0
        self._heard_s = heard_s
        self._growing = asyncio.Lock()
        self._opened, self._returns = secrets.token_hex(8), 0
        drive.on_return = self._returned

    def _returned(self) -> None:
        self._returns += 1

    @property
    def seen(self) -> Seen:
        return Seen(self._opened, self._returns, self.drive.comparing)

    @property
    def is_used(self) -> bool:
        return bool(self.connections or self._held)

    @contextmanager
    def held(self) -> Iterator[None]:
        """It is not closed in this block: who works on it here is not cut off in the middle."""
        self._held += 1
        self._rests.clear()
        try:
            yield
        finally:
            self._held -= 1
            if not self._held:
                self._rests.set()

    async def close(self) -> None:
        """End its connections, wait for who holds it, and leave the drive in order."""
        self.is_open = False
        for connection in self.connections:
            connection.cancel()
        await asyncio.gather(*self.connections, return_exceptions=True)
        await self._rests.wait()
        await self.drive.close()

    def check(self, knows: Known) -> None:
        """Raise DriveTrouble to a proxy whose ring is an old one: what it writes might be looked for elsewhere."""
        if not self.is_open:
            raise DriveTrouble(errno.ESTALE, "the drive was opened anew")
        if knows.turn < self._turn or knows.part_power < self.part_power:
            raise DriveTrouble(errno.ESTALE, "the ring was changed, and this proxy has not heard of it")

    async def do(self, knows: Known, verb: str, arguments: Any) -> Any:
        """Raise OSError as the drive does."""
        if verb == "turned":
            return self.turned(knows, *arguments)
        if verb == "repartition":
            return await self.repartition(knows, *arguments)
        self.check(knows)
        room, _, name = verb.rpartition(".")
        special = _SPECIAL.get(verb)
        try:
            if special is not None:
                return await special(self, *arguments)
            target = getattr(self.drive, room) if room else self.drive
            return await getattr(target, name)(*arguments)
        except CorruptCopy:
            await self.drive.doubted()
            raise

    def turned(self, knows: Known, turn: int) -> None:
        """The ring was changed so often: who asks knows that, and others have to in a while, or are refused."""
        knows.turn = max(knows.turn, turn)
        if turn > self._told:
            self._told = turn
            asyncio.get_running_loop().call_later(self._heard_s, self._refuse_before, turn)

    def _refuse_before(self, turn: int) -> None:
        self._turn = max(self._turn, turn)

    async def repartition(self, knows: Known, part_power: int) -> None:
        """Partitions are only ever cut in two: a proxy that knows of fewer is behind."""
        async with self._growing:
            if part_power > self.part_power:
                self.part_power = part_power
                await self.drive.repartition(part_power)
        knows.part_power = max(knows.part_power, part_power)


async def _look(served: Served, write: bool) -> None:
    await served.drive.look(write=write)


async def _listed(served: Served, told: list[tuple[Any, str]]) -> None:
    for place, changed in told:
        served.drive.copies.listed(place, changed)


async def _note(served: Served, kind: Any, place: Any, change: Any) -> None:
    wait = served.drive.indexes.note(kind, place, change)
    if wait is not None:
        await wait


async def _flush(served: Served, noted: list[str]) -> None:
    await served.drive.indexes.flush()
    if any(opened != served.seen.opened for opened in noted):
        raise DriveTrouble(errno.ESTALE, "what was noted before the host was started anew is lost")


async def _listing(served: Served, kind: Any, place: Any, ask: Any) -> list[Row | str]:
    found = await served.drive.indexes.listing(kind, place, ask)
    return [one if isinstance(one, Row) else one.name for one in found]


async def _store(served: Served, place: Any, head: Any, data: bytes) -> None:
    await served.drive.copies.store(place, head, data)


async def _digest(served: Served, part: int) -> str:
    return f"{await served.drive.copies.digest(part):x}"


async def _census(served: Served) -> dict[int, tuple[int, str]]:
    census = await served.drive.copies.census()
    return {part: (count, f"{digest:x}") for part, (count, digest) in census.items()}


async def _index_digest(served: Served, kind: Any, place: Any) -> str:
    return f"{await served.drive.indexes.digest(kind, place):x}"


_SPECIAL: Final[dict[str, Callable[..., Awaitable[Any]]]] = {
    "look": _look,
    "copies.store": _store,
    "copies.listed": _listed,
    "copies.digest": _digest,
    "copies.census": _census,
    "indexes.note": _note,
    "indexes.flush": _flush,
    "indexes.listing": _listing,
    "indexes.digest": _index_digest,
}
"""Where what travels is not what the drive takes or gives; all others are called as they are."""

"""Clients of the Swift door that write, overwrite, delete and read a few names as fast as they can, and keep what they saw."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Final, Protocol

import aiohttp

from tests.history.checker import ABSENT, Operation, linearizable, never_written, survivors
from tests.history.healing import Healing

SIZES: Final = (64, 4096, 70_000, 1_500_000)
"""Each on another way through the engine: packed, packed, a file, several strides."""
GARBAGE: Final = "garbage"
"""What a read is said to have seen when its bytes are nothing that anybody wrote."""
TIMEOUT: Final = aiohttp.ClientTimeout(total=30)


def body_of(value: str) -> bytes:
    """The bytes of a value: they say which they are, and which length they have to have."""
    size = int(value.split("-")[-1])
    seed = hashlib.sha256(value.encode()).digest()
    return (value.encode() + b"\n" + seed * (size // len(seed) + 1))[:size]


def value_of(body: bytes) -> str:
    value = body.partition(b"\n")[0].decode("ascii", "replace")
    try:
        return value if body_of(value) == body else GARBAGE
    except ValueError:
        return GARBAGE


class Clients:
    """`urls` are a container's, at each of the doors to a store.  Operations are added to `history` when they have ended."""

    def __init__(self, urls: Sequence[str], token: str, names: Sequence[str], dice: Random) -> None:
        self.history: list[Operation] = []
        self.strong: list[Operation] = []
        """Strong reads: with the writes of `history` they have to be linearizable."""
        self.own_reads = 0
        self.forgotten: list[str] = []
        """What a session wrote and did not read afterwards."""
        self.refused = 0
        self.listings = 0
        self._urls, self._names, self._dice = urls, names, dice
        self.headers = {"X-Auth-Token": token}
        self._numbers: Iterator[int] = iter(range(10**9))
        self._over = False

    async def run(self, count: int, pace_s: float) -> None:
        """Until `stop`."""
        async with aiohttp.ClientSession(headers=self.headers, timeout=TIMEOUT) as session:
            await asyncio.gather(*(self._one(session, pace_s) for _ in range(count)))

    @property
    def _url(self) -> str:
        """At any of the doors."""
        return self._dice.choice(self._urls)

    def stop(self) -> None:
        self._over = True

    async def _one(self, session: aiohttp.ClientSession, pace_s: float) -> None:
        acts = (
            self._put, self._put, self._put, self._get, self._get, self._get_strong, self._get_strong, self._delete,
            self._list, self._own,
        )  # fmt: skip
        while not self._over:
            await self._dice.choice(acts)(session, self._dice.choice(self._names))
            await asyncio.sleep(self._dice.uniform(0, 2 * pace_s))

    async def _put(self, session: aiohttp.ClientSession, name: str) -> None:
        value = f"{next(self._numbers):08d}-{self._dice.choice(SIZES)}"
        await self._write(session, name, value, body_of(value), (201,))

    async def _delete(self, session: aiohttp.ClientSession, name: str) -> None:
        await self._write(session, name, ABSENT, None, (204,))

    async def _write(
        self, session: aiohttp.ClientSession, name: str, value: str, body: bytes | None, good: Sequence[int]
    ) -> None:
        began_s, ended_s = time.monotonic(), math.inf
        try:
            method = "DELETE" if body is None else "PUT"
            async with session.request(method, f"{self._url}/{name}", data=body) as reply:
                if reply.status in good:
                    ended_s = time.monotonic()
                elif reply.status == 404 and body is None:
                    return  # there was nothing to delete
                else:
                    assert reply.status in (409, 503), (reply.status, await reply.text())
                    self.refused += 1
        except (aiohttp.ClientError, TimeoutError):
            self.refused += 1
        self.history.append(Operation(name, False, value, began_s, ended_s))

    async def _get(self, session: aiohttp.ClientSession, name: str) -> None:
        began_s = time.monotonic()
        try:
            value = await self.read(session, name)
        except (aiohttp.ClientError, TimeoutError):
            self.refused += 1
            return
        self.history.append(Operation(name, True, value, began_s, time.monotonic()))

    async def _get_strong(self, session: aiohttp.ClientSession, name: str) -> None:
        began_s = time.monotonic()
        try:
            value = await self.read(session, name, X_Consistency="strong")
        except (aiohttp.ClientError, TimeoutError):
            self.refused += 1
            return
        self.strong.append(Operation(name, True, value, began_s, time.monotonic()))

    async def _own(self, session: aiohttp.ClientSession, name: str) -> None:
        """A session: a name that nobody else writes, and the token that came with the write."""
        number = next(self._numbers)
        path, value = f"-own/{number % 97}-{id(asyncio.current_task())}", f"{number:08d}-64"
        try:
            async with session.put(self._url + path, data=body_of(value)) as reply:
                reply.raise_for_status()
                token = reply.headers["X-Consistency-Token"]
            asked = {"X-Consistency": "read-your-writes", "X-Consistency-Token": token}
            async with session.get(self._url + path, headers=asked) as reply:
                if reply.status != 404:
                    reply.raise_for_status()
                if reply.status == 404 or value_of(await reply.read()) != value:
                    self.forgotten.append(value)
                self.own_reads += 1
        except (aiohttp.ClientError, TimeoutError):
            self.refused += 1

    async def read(self, session: aiohttp.ClientSession, name: str, at: str = "", **headers: str) -> str:
        """Through any door, unless one is named.  Raise ClientError when it cannot be read now."""
        sent = {key.replace("_", "-"): value for key, value in headers.items()}
        async with session.get(f"{at or self._url}/{name}", headers=sent) as reply:
            if reply.status == 404:
                return ABSENT
            reply.raise_for_status()
            return value_of(await reply.read())

    async def _list(self, session: aiohttp.ClientSession, name: str) -> None:
        try:
            await self.names(session)
            self.listings += 1
        except (aiohttp.ClientError, TimeoutError):
            self.refused += 1

    async def names(self, session: aiohttp.ClientSession, at: str = "") -> dict[str, int]:
        """Listed names with their sizes.  Raise ClientError when they cannot be listed now."""
        async with session.get(f"{at or self._url}?format=json") as reply:
            reply.raise_for_status()
            return {row["name"]: row["bytes"] for row in await reply.json()}


class Trouble(Protocol):
    """What befalls a store; between two faults it may heal."""

    async def one(self) -> None: ...

    async def heal(self) -> None: ...


CHAPTER_S: Final = 900.0
"""A long history is told in chapters, each in a container of its own and judged at its end.  A token lasts an hour."""


def chapters(duration_s: float) -> list[float]:
    """How long each is."""
    count = max(1, round(duration_s / CHAPTER_S))
    return [duration_s / count] * count


async def live(clients: Clients, trouble: Trouble, duration_s: float, *, count: int, pace_s: float) -> None:
    """So many clients at once, beside one fault after the other; in the end all is healed."""
    running = asyncio.create_task(clients.run(count, pace_s))
    began_s = time.monotonic()
    while time.monotonic() - began_s < duration_s:
        await trouble.one()
        assert not running.done(), running
    clients.stop()
    await running
    await trouble.heal()


async def judge(clients: Clients, session: aiohttp.ClientSession, names: Sequence[str], at: str = "") -> dict[str, str]:
    """Nothing acknowledged is lost, and strong reads and sessions were right.  Returns what there is now, by name."""
    after = {name: await clients.read(session, name, at, x_newest="true") for name in names}
    for name in names:
        operations = [op for op in clients.history if op.name == name]
        assert after[name] in survivors(operations), (name, after[name], operations[-20:])
        assert not never_written(operations)
        writes = [op for op in operations if not op.is_read]
        strong = [op for op in clients.strong if op.name == name]
        assert linearizable([*writes, *strong]), (name, writes, strong)
    assert not clients.forgotten
    return after


def sizes_of(after: Mapping[str, str]) -> dict[str, int]:
    """What a listing says of it."""
    return {name: int(value.split("-")[-1]) for name, value in after.items() if value != ABSENT}


def told(clients: Clients, counts: Mapping[str, int], healing: Healing) -> str:
    """What was done, and what was done to the store meanwhile."""
    writes = sum(not op.is_read for op in clients.history)
    acknowledged = sum(op.known for op in clients.history if not op.is_read)
    faults = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    said = (
        f"{writes} writes ({acknowledged} acknowledged), {len(clients.history) - writes} reads,"
        f" {len(clients.strong)} strong ones, {clients.own_reads} of a session's own writes, {clients.listings} listings,"
        f" {clients.refused} refused or cut off; faults: {faults}; slowest to heal: {healing.slowest_s:.1f} s"
    )
    return "\n".join([said, *healing.slow])

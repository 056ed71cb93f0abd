"""Histories in virtual time: strong reads are linearizable while drives go, come back, lose everything or rot, and
drives join and leave; a session reads its own writes."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Final

import pytest

from apus.kernel.errors import CloudError, Conflict, NotFound, Unavailable
from apus.services.object.consistency import READING, Level, Reading
from apus.services.object.fragments import FRAGMENTS_FROM_BYTES
from apus.services.object.logic.drive_places import parse_place
from apus.services.object.logic.ring import DriveSpec
from apus.sim.loop import run
from tests.history.checker import ABSENT, Operation, linearizable
from tests.object_store import all_of, chunks, drive_paths, intent
from tests.sim.kept_seeds import kept
from tests.sim.running_store import ROOT, RunningStore, live, running
from tests.sim.slow_disk import SlowDisk

SEEDS: Final = 12
NAMES: Final = ("one", "two")
CLIENTS: Final = 3
STORY_S: Final = 40.0
PAUSE_S: Final = 0.4


class Client:
    """Each request is a task of its own, as at the doors."""

    def __init__(self, one: RunningStore, number: int, dice: Random, history: list[Operation], size: int = 0) -> None:
        """`size`: of what it writes, at least."""
        self._one, self._number, self._dice, self._history, self._size = one, number, dice, history, size
        self._count = self.refused = self.answered = 0
        self._token = ""
        self._own: dict[str, str] = {}
        """The newest value that it wrote and was told of, by name, while nobody else writes there."""

    async def live(self) -> None:
        while True:
            await asyncio.sleep(self._dice.uniform(0, PAUSE_S))
            acts = (*[self._read] * 5, *[self._write] * 3, self._delete, *[self._own_write, self._own_read] * 2)
            await self._dice.choice(acts)()

    def _asking(self, level: Level, work: Callable[[], Awaitable[str]]) -> asyncio.Task[tuple[str, Reading]]:
        async def request() -> tuple[str, Reading]:
            reading = Reading(level, self._token)
            READING.set(reading)
            return await work(), reading

        return asyncio.create_task(request())

    async def _get(self, name: str) -> str:
        engine = self._one.store.service.engine
        found = await engine.find("AUTH_a", "c", name)
        if found is None:
            return ABSENT
        return (await all_of(engine.read(found, 0, found.head.size_bytes))).decode().rstrip(" ")

    async def _put(self, name: str, value: str) -> str:
        await self._one.store.service.engine.put(intent(name), chunks(value.ljust(self._size).encode()))
        return value

    async def _read(self) -> None:
        name, began_s = self._dice.choice(NAMES), self._one.now_s
        try:
            value, _ = await self._asking(Level.STRONG, lambda: self._get(name))
        except CloudError:
            self.refused += 1
            return
        self.answered += 1
        self._history.append(Operation(name, True, value, began_s, self._one.now_s))

    async def _write(self) -> None:
        """Strong or not: reads have to see either."""
        self._count += 1
        name, value, began_s = self._dice.choice(NAMES), f"{self._number}.{self._count}", self._one.now_s
        level, ended_s = self._dice.choice((Level.STRONG, Level.EVENTUAL)), math.inf
        try:
            with contextlib.suppress(CloudError):
                await self._asking(level, lambda: self._put(name, value))
                ended_s = self._one.now_s
        finally:  # also of one that is on its way when the story ends: it may have been read
            self._history.append(Operation(name, False, value, began_s, ended_s))

    async def _delete(self) -> None:
        name, began_s = self._dice.choice(NAMES), self._one.now_s
        is_read, ended_s = False, math.inf
        try:
            await self._asking(Level.STRONG, lambda: self._remove(name))
            ended_s = self._one.now_s
        except NotFound:
            is_read, ended_s = True, self._one.now_s
        except CloudError:
            pass  # nobody knows whether it happened
        finally:
            self._history.append(Operation(name, is_read, ABSENT, began_s, ended_s))

    async def _remove(self, name: str) -> str:
        await self._one.store.service.engine.delete("AUTH_a", "c", name)
        return ABSENT

    async def _own_write(self) -> None:
        self._count += 1
        name, value = f"own{self._number}.{self._dice.randint(0, 1)}", f"{self._count}"
        self._own.pop(name, None)  # if it is refused, either may be read
        try:
            _, reading = await self._asking(Level.OWN_WRITES, lambda: self._put(name, value))
        except CloudError:
            return
        self._token = reading.token
        self._own[name] = value

    async def _own_read(self) -> None:
        if not self._own:
            return
        name = self._dice.choice(sorted(self._own))
        try:
            value, _ = await self._asking(Level.OWN_WRITES, lambda: self._get(name))
        except CloudError:
            return
        assert value == self._own[name], (name, value, self._own)


class Trouble:
    def __init__(self, one: RunningStore, dice: Random) -> None:
        self._one, self._dice, self._disk = one, dice, one.disk

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._dice.uniform(0.2, 3))
            faults = (
                self._away,
                *[self._by_turns] * 3,
                self._returns_otherwise,
                self._read_only,
                self._rots,
                self._drives_change,
                self._sweeps,
            )
            await self._dice.choice(faults)()

    async def _away(self) -> None:
        """Any number of drives, for a while."""
        chosen = self._dice.sample(drive_paths(ROOT), self._dice.choice((1, 1, 2, 3)))
        self._disk.away.update(chosen)
        await asyncio.sleep(self._dice.uniform(0, 6))
        self._disk.away.difference_update(chosen)

    async def _by_turns(self) -> None:
        """Now these, now those: what was written on some is asked of others."""
        for _ in range(self._dice.randint(2, 8)):
            chosen = self._dice.sample(drive_paths(ROOT), self._dice.choice((1, 2, 2)))
            self._disk.away.update(chosen)
            self._disk.away.intersection_update(chosen)
            await asyncio.sleep(self._dice.uniform(0.05, 2.5))
        self._disk.away.clear()

    async def _returns_otherwise(self) -> None:
        """A drive loses what it acknowledged: only while everything else is known to be well, as is promised."""
        path = self._dice.choice(drive_paths(ROOT))
        before = self._disk.snapshot(path)
        await asyncio.sleep(self._dice.uniform(0, 3))
        if self._one.cluster.repairs.count() or self._one.cluster.former:
            return
        self._disk.away.add(path)
        await asyncio.sleep(2)
        mark = self._disk.files[path / "drive.json"]
        if self._dice.random() < 0.5:
            self._disk.restore(path, before)
        else:
            self._disk.wipe(path)
            self._disk.files[path / "drive.json"] = self._disk.synced[path / "drive.json"] = mark
        self._disk.away.discard(path)
        await asyncio.sleep(self._dice.uniform(0, 4))

    async def _read_only(self) -> None:
        path = self._dice.choice(drive_paths(ROOT))
        self._disk.read_only.add(path)
        await asyncio.sleep(self._dice.uniform(0, 3))
        self._disk.read_only.discard(path)

    async def _rots(self) -> None:
        if self._one.cluster.repairs.count():
            return
        files = self._disk.snapshot(ROOT / "d1")
        volumes = sorted(path for path, data in files.items() if path.suffix == ".volume" and data)
        if volumes:
            self._disk.flip_bit(self._dice.choice(volumes))

    async def _drives_change(self) -> None:
        membership = self._one.store.membership
        try:
            if len(membership.drives) < 6:
                await membership.add(parse_place(str(ROOT / f"new{self._one.now_s:.6f}")), DriveSpec(""))
            else:
                weight = self._dice.choice((0.0, 1.0))
                await membership.change(self._dice.choice(sorted(membership.drives)), weight=weight)
        except (Conflict, OSError):
            return

    async def _sweeps(self) -> None:
        """What was overwritten goes at once, although somebody may read it."""
        self._one.cluster.unclaimed.update(dict.fromkeys(self._one.cluster.unclaimed, 0.0))


def judge(history: Sequence[Operation]) -> None:
    for name in NAMES:
        operations = [op for op in history if op.name == name]
        assert linearizable(operations), sorted(operations, key=lambda op: op.began_s)


async def story(seed: int, code: str = "", size: int = 0) -> tuple[int, int]:
    """(strong reads that were answered, and refused)"""
    dice = Random(f"consistency/{seed}")
    history: list[Operation] = []
    async with running(4, SlowDisk(dice), code=code) as one:
        clients = [Client(one, number, Random(f"{seed}/{number}"), history, size) for number in range(CLIENTS)]
        await one.until(one.is_whole, 60)
        await live([Trouble(one, dice).run(), *(client.live() for client in clients)], STORY_S)
    judge(history)
    return sum(client.answered for client in clients), sum(client.refused for client in clients)


def on_drives(seed: int) -> None:
    answered, _refused = run(story(seed))
    assert answered > 10


def in_fragments(seed: int) -> None:
    answered, _refused = run(story(seed, "2+2", FRAGMENTS_FROM_BYTES))
    assert answered > 10


@pytest.mark.parametrize("seed", dict.fromkeys([*range(SEEDS), *kept("drives")]))
def test_strong_reads_are_linearizable_and_sessions_read_their_own_writes(seed: int) -> None:
    on_drives(seed)


@pytest.mark.parametrize("seed", dict.fromkeys([*range(SEEDS // 3), *kept("fragments")]))
def test_the_same_holds_for_objects_in_fragments(seed: int) -> None:
    in_fragments(seed)


def test_what_stand_ins_alone_have_is_not_forgotten_while_they_are_silent() -> None:
    """All primaries are away and a write goes to others; then these are away, and the primaries agree on what was."""

    async def story() -> None:
        async with running(6) as one:
            await one.until(one.is_whole, 60)
            await one.fill(1)
            engine, place = one.store.service.engine, one.cluster.place("AUTH_a", "c", "o0")
            homes = {ROOT / f"d{name.removeprefix('drive')}" for name in one.cluster.ring.primaries(place.part)}
            others = set(drive_paths(ROOT, 6)) - homes
            one.disk.away |= homes
            await asyncio.sleep(5)
            await engine.put(intent("o0"), chunks(b"new"))
            one.disk.away.clear()
            one.disk.away |= others
            await asyncio.sleep(60)
            READING.set(Reading(Level.STRONG))
            with pytest.raises(Unavailable):
                await one.read("o0")
            one.disk.away.clear()
            await asyncio.sleep(5)
            assert await one.read("o0") == b"new"
            await one.until(one.is_whole, 120)

    run(story())


@pytest.mark.parametrize("how", ["it stops", "the power is cut"])
def test_what_stand_ins_alone_have_is_not_forgotten_when_the_process_begins_anew(how: str) -> None:
    mark = ROOT / "stranded"

    async def story() -> None:
        async with running(6, keeps_indexes=True) as one:
            disk = one.disk
            await one.until(one.is_whole, 60)
            await one.fill(1)
            engine, place = one.store.service.engine, one.cluster.place("AUTH_a", "c", "o0")
            homes = {ROOT / f"d{name.removeprefix('drive')}" for name in one.cluster.ring.primaries(place.part)}
            others = set(drive_paths(ROOT, 6)) - homes
            assert mark not in disk.files
            disk.away |= homes
            await asyncio.sleep(5)
            await engine.put(intent("o0"), chunks(b"new"))
            assert mark in disk.synced, "it is durable before the answer"
            if how == "it stops":
                await one.store.close()
        if how == "the power is cut":
            disk.power_cut()
        disk.away = set(others)
        async with running(6, disk, keeps_indexes=True) as one:
            await asyncio.sleep(60)
            READING.set(Reading(Level.STRONG))
            with pytest.raises(Unavailable, match="may be on 3 drives that do not answer"):
                await one.read("o0")
            disk.away.clear()
            await asyncio.sleep(5)
            assert await one.read("o0") == b"new"
            await one.until(one.is_whole, 120)
            await asyncio.sleep(1)
            assert mark not in disk.files
            await one.store.close()
        disk.away = set(others)
        async with running(6, disk, keeps_indexes=True) as one:
            await asyncio.sleep(60)
            assert await one.read("o0") == b"new", "drives that are away refuse nothing where nothing was stranded"

    run(story())

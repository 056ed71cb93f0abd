"""Drives join, are drained, leave and are replaced while clients write and read: nothing is lost, little moves."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from apus.kernel.errors import Conflict, Invalid, NotFound
from apus.services.object.logic.drive_places import parse_place
from apus.services.object.logic.ring import HANDOFFS_MAX, DriveSpec
from apus.services.object.logic.ring_builder import moved_copies
from apus.services.object.pace import Wish
from apus.sim.loop import run
from tests.object_store import chunks, intent
from tests.sim.running_store import LOST, ROOT, RunningStore, running

SPEC = DriveSpec("")
QUIET_S = 120.0


class Client:
    """Writes, overwrites, deletes and reads all the time; every read must give what was last acknowledged."""

    def __init__(self, one: RunningStore) -> None:
        self._one = one
        self.known: dict[str, bytes | None] = {}
        self.stopped = False

    async def live(self) -> None:
        for turn in itertools.count():
            if self.stopped:
                return
            name = f"c{turn % 37}"
            data = f"{turn}".encode() * 50
            if turn % 11 == 10 and self.known.get(name) is not None:
                await self._one.store.service.engine.delete("AUTH_a", "c", name)
                self.known[name] = None
            else:
                await self._one.store.service.engine.put(intent(name), chunks(data))
                self.known[name] = data
            other = f"c{(turn * 7) % 37}"
            if other in self.known:
                assert await self._one.read(other) == self.known[other], other
            await asyncio.sleep(0.05)

    async def check(self) -> None:
        for name, data in self.known.items():
            assert await self._one.read(name) == data, name


@contextlib.asynccontextmanager
async def served(count: int = 4) -> AsyncIterator[RunningStore]:
    """A store that is written and read until the end; then all is where it belongs."""
    async with running(count) as one:
        await one.fill(60)
        await one.until(one.is_whole, QUIET_S)
        client = Client(one)
        living = asyncio.create_task(client.live())
        await asyncio.sleep(2)
        yield one
        assert not living.done(), living
        client.stopped = True
        await living
        await settled(one)
        await client.check()
        for number in range(60):
            assert await one.read(f"o{number}") == b"x" * 1000
        await copies_are_home(one)


async def settled(one: RunningStore) -> None:
    async def is_so() -> bool:
        return one.cluster.repairs.count() == 0 and not one.store.membership.moving

    await one.until(is_so, QUIET_S)


async def copies_are_home(one: RunningStore) -> None:
    ring = one.cluster.ring
    for drive in one.store.drives:
        for part in await drive.copies.parts():
            assert drive.id in ring.primaries(part), (drive.id, part)
    for part in range(ring.parts):
        assert len({await drive.copies.digest(part) for drive in one.cluster.primaries(part)}) == 1


def test_a_drive_joins_and_only_its_share_moves() -> None:
    async def story() -> None:
        async with served() as one:
            before = one.cluster.ring
            spec = await one.store.membership.add(parse_place(str(ROOT / "d5")), SPEC)
            assert spec.id == "drive5"
            assert one.store.membership.moving
            moved = moved_copies(before, one.cluster.ring)
            assert abs(moved - before.parts * 3 / 5) <= 2
            await settled(one)
            assert await one.store.membership.drives["drive5"].copies.parts()

    run(story())


def test_a_drive_is_drained_and_then_removed() -> None:
    async def story() -> None:
        async with served(5) as one:
            with pytest.raises(Conflict, match="drain drive1"):
                await one.store.membership.remove("drive1")
            await one.store.membership.change("drive1", weight=0.0)
            await settled(one)
            await one.store.membership.remove("drive1")
            assert "drive1" not in one.cluster.drives
            with pytest.raises(NotFound, match="drive2"):
                await one.store.membership.remove("drive1")
            await asyncio.sleep(3)
            assert (await one.store.membership.add(parse_place(str(ROOT / "d9")), SPEC)).id == "drive6"

    run(story())


def test_too_few_drives_are_not_made_fewer() -> None:
    async def story() -> None:
        async with served(3) as one:
            with pytest.raises(Conflict, match="3 copies need 3 drives"):
                await one.store.membership.remove("drive1")
            for path, error in ((Path("d9"), Invalid), (ROOT / "d1", Conflict)):
                with pytest.raises(error):
                    await one.store.membership.add(parse_place(str(path)), SPEC)
            one.disk.files[ROOT / "d9" / "letter"] = b"dear"
            with pytest.raises(Conflict, match="letter"):
                await one.store.membership.add(parse_place(str(ROOT / "d9")), SPEC)

    run(story())


def test_a_dead_drive_is_removed_once_its_copies_are_elsewhere() -> None:
    async def story() -> None:
        async with served(5) as one:
            one.store.cluster.pace.set(Wish(paused=True))
            one.disk.away.add(LOST)
            await asyncio.sleep(2)
            with pytest.raises(Conflict, match="are nowhere else"):
                await one.store.membership.remove("drive1")
            one.store.cluster.pace.set(Wish())

            async def gone() -> bool:
                try:
                    await one.store.membership.remove("drive1")
                except Conflict:
                    return False
                return True

            await one.until(gone, QUIET_S)

    run(story())


def test_an_emptied_drive_is_adopted_by_the_command_alone() -> None:
    async def story() -> None:
        async with served() as one:
            one.disk.wipe(LOST)
            await asyncio.sleep(60)
            assert not one.disk.snapshot(LOST), "an empty mount point may be what is there"
            await one.store.membership.adopt("drive1")
            await settled(one)
            assert await one.store.membership.drives["drive1"].copies.parts()
            with pytest.raises(Conflict, match="is drive2"):
                await one.store.membership.adopt("drive1", parse_place(str(ROOT / "d2")))
            one.disk.away.add(LOST)
            await one.store.membership.adopt("drive1", parse_place(str(ROOT / "d7")))
            await settled(one)
            assert one.store.membership.layout.paths["drive1"] == str(ROOT / "d7")

    run(story())


def test_what_is_on_a_drive_beyond_all_hand_offs_is_found() -> None:
    """Reads ask sixteen others; what a ring change left on a seventeenth has to be found all the same."""

    async def story() -> None:
        async with running(HANDOFFS_MAX + 8) as one:
            await one.fill(10)
            await one.until(one.is_whole, QUIET_S)
            place = one.cluster.place("AUTH_a", "c", "stray")
            known = {drive.id for drive in one.cluster.candidates(place.part)}
            far = [drive for drive in one.store.drives if drive.id not in known]
            assert far
            await one.store.service.engine.put(intent("stray"), chunks(b"here"))
            head, data = await one.cluster.primaries(place.part)[0].copies.fetch(place) or (None, None)
            assert head is not None
            assert data is not None
            await far[0].copies.store(place, head, data)
            for drive in one.cluster.primaries(place.part):
                await drive.copies.drop(place, head.version)
            await asyncio.sleep(40)
            assert await one.read("stray") == b"here"
            assert await far[0].copies.head(place) is None

    run(story())


def test_changes_survive_a_restart_in_the_middle() -> None:
    async def story() -> None:
        async with running(5) as one:
            disk = one.disk
            await one.fill(60)
            await one.until(one.is_whole, QUIET_S)
            one.cluster.pace.set(Wish(paused=True))
            await one.store.membership.change("drive1", weight=0.0)
            await one.store.membership.add(parse_place(str(ROOT / "d6")), SPEC)
            ring = one.cluster.ring
            await one.store.close()
        async with running(5, disk) as one:
            assert one.cluster.ring == ring
            assert len(one.store.membership.layout.former) == 2
            assert sorted(one.cluster.drives) == [f"drive{number}" for number in range(1, 7)]
            for number in range(60):
                assert await one.read(f"o{number}") == b"x" * 1000
            await settled(one)
            await copies_are_home(one)
            await one.store.membership.remove("drive1")
            await one.store.close()
        async with running(5, disk) as one:
            assert "drive1" not in one.cluster.drives, "it was removed, though the settings still name its path"
            await settled(one)

    run(story())


async def versions_held(one: RunningStore) -> dict[str, int]:
    return {drive.id: sum(count for count, _ in (await drive.copies.census()).values()) for drive in one.store.drives}


def test_partitions_are_cut_in_two_while_it_serves() -> None:
    async def story() -> None:
        async with served(5) as one:
            held = await versions_held(one)
            for power in (5, 6):
                ring = await one.store.membership.grow()
                assert one.cluster.ring.part_power == ring.part_power == power
                with pytest.raises(Conflict, match="possible when"):
                    await one.store.membership.grow()
                made = one.cluster.pace.copied
                await settled(one)
                assert one.cluster.pace.copied - made < 20, "nothing travels but what was just written"
            after = await versions_held(one)
            assert all(abs(after[name] - held[name]) < 40 for name in held)
            await one.store.membership.add(parse_place(str(ROOT / "d6")), SPEC)

    run(story())


def test_growing_survives_a_restart_and_a_drive_that_was_away() -> None:
    async def story() -> None:
        async with running(4) as one:
            disk = one.disk
            await one.fill(60)
            await one.until(one.is_whole, QUIET_S)
            disk.away.add(LOST)
            await asyncio.sleep(2)
            await one.store.membership.grow()
            for number in range(60):
                assert await one.read(f"o{number}") == b"x" * 1000
            await one.store.close()
        disk.away.clear()
        async with running(4, disk) as one:
            assert one.cluster.ring.part_power == 5
            await settled(one)
            await copies_are_home(one)
            for number in range(60):
                assert await one.read(f"o{number}") == b"x" * 1000
            await one.store.close()

    run(story())

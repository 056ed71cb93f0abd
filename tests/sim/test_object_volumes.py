"""Volumes of one drive against a dictionary, with power cuts at any write, rot, compaction and full disks."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import Coroutine
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from apus.services.object.drivers.fence import DriveIdentity, Fence, format_drive
from apus.services.object.drivers.quarantine import DIRECTORY, KEPT_S
from apus.services.object.drivers.trailer import checksums_of, seal
from apus.services.object.drivers.volumes.copies import VolumeCopies
from apus.services.object.drivers.volumes.files import OPEN_MAX
from apus.services.object.drivers.volumes.journal import ALIGNED_BYTES, PAGE_BYTES
from apus.services.object.drivers.volumes.run import IndexDamaged
from apus.services.object.logic.merge import digest_of, make_stamp
from apus.services.object.logic.ring import part_of
from apus.services.object.model import CorruptCopy, DriveFull, DriveTrouble, Head, Meta, Place
from tests.object_store import all_of, awaited, make_world
from tests.sim.object_disk import FaultyDisk, PowerCut
from tests.sim.test_object_faults import ManualClock

T = TypeVar("T")
ROOT = Path("/drive")
PART_POWER = 2
NAMES = tuple(f"o{number}" for number in range(6))
LARGE = 300_000


def place_of(name: str) -> Place:
    text = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    return Place(part_of(text, PART_POWER), text)


def head_of(name: str, ticks: int, data: bytes, *, gone: bool = False) -> Head:
    return Head("a", "c", name, make_stamp(ticks, "n1"), gone, len(data), "etag", "text/plain", {}, checksums_of(data))


async def opened(disk: FaultyDisk, clock: ManualClock, volume_bytes: int = 3000) -> VolumeCopies:
    world = dataclasses.replace(make_world(disk, clock), dice=disk.dice)
    identity = DriveIdentity("d1", "c1")
    if not disk.snapshot(ROOT):
        await format_drive(world, ROOT, identity)
    copies = VolumeCopies(world, ROOT, Fence(world, ROOT, identity), part_power=PART_POWER, volume_bytes=volume_bytes)
    await copies.start()
    return copies


async def store_large(copies: VolumeCopies, name: str, head: Head, data: bytes) -> None:
    writer = await copies.begin(place_of(name))
    try:
        await writer.write(data[:1000])
        await writer.write(data[1000:])
        await writer.commit(head)
    finally:
        await writer.abort()


async def read_all(copies: VolumeCopies, name: str) -> tuple[Head, bytes] | None:
    got = await copies.fetch(place_of(name))
    if got is None:
        return None
    head, data = got
    return head, data if data is not None else await all_of(copies.read(place_of(name), head, 0, head.size_bytes))


async def check_books(copies: VolumeCopies) -> None:
    """Digests and inventories say what there is."""
    seen: dict[int, dict[str, tuple[str, str]]] = {}
    for name in NAMES:
        head = await copies.head(place_of(name))
        if head is not None:
            seen.setdefault(place_of(name).part, {})[place_of(name).hash] = head.version
    assert set(await copies.parts()) == set(seen), (await copies.parts(), seen)
    for part, versions in seen.items():
        assert await copies.inventory(part) == versions
        assert await copies.digest(part) == digest_of(versions.items())


class Volumes(RuleBasedStateMachine):
    """What was acknowledged is there after any power cut; what was being done is done or not done, whole."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.disk, self.clock = FaultyDisk(Random(5)), ManualClock()
        self.model: dict[str, list[tuple[tuple[str, str], bytes | None]]] = {}
        """What may be there: one thing, or two after a power cut in between."""
        self.ticks = 0
        self.copies = self.do(opened(self.disk, self.clock))

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def attempt(self, work: Coroutine[Any, Any, object]) -> bool:
        """Whether it was acknowledged; the machine stops when it was not."""
        try:
            self.do(work)
        except (PowerCut, DriveTrouble):
            assert self.disk.cut_at is not None
            return False
        return True

    def write(self, name: str, version: tuple[str, str], data: bytes | None, work: Coroutine[Any, Any, object]) -> None:
        before = self.model.get(name, [(("", ""), None)])
        if self.attempt(work):
            self.model[name] = [(version, data)]
        else:
            self.model[name] = [*before, (version, data)]
            self.restart()

    def restart(self) -> None:
        """The power goes, and comes back."""
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.do(asyncio.wait(tasks))  # type: ignore[arg-type]
        self.disk.power_cut()
        self.copies = self.do(opened(self.disk, self.clock))

    def stamp(self) -> int:
        self.ticks += 1
        return self.ticks

    @rule(
        name=st.sampled_from(NAMES),
        size=st.sampled_from([0, 1, 700, 2500, ALIGNED_BYTES + 1]),
        fill=st.integers(0, 255),
    )
    def store(self, name: str, size: int, fill: int) -> None:
        data = bytes([fill]) * size
        head = head_of(name, self.stamp(), data)

        async def work() -> None:
            await self.copies.store(place_of(name), head, data)

        self.write(name, head.version, data, work())

    @rule(name=st.sampled_from(NAMES), fill=st.integers(0, 255))
    def upload(self, name: str, fill: int) -> None:
        data = bytes([fill]) * LARGE
        head = head_of(name, self.stamp(), data)
        self.write(name, head.version, data, store_large(self.copies, name, head, data))

    @rule(names=st.permutations(NAMES))
    def store_many_at_once(self, names: list[str]) -> None:
        """One commit for all; each is there or not, for itself."""
        heads = {name: head_of(name, self.stamp(), name.encode()) for name in names}

        async def work() -> None:
            await asyncio.gather(*(self.copies.store(place_of(name), heads[name], name.encode()) for name in names))

        done = self.attempt(work())
        for name in names:
            before = [] if done else self.model.get(name, [(("", ""), None)])
            self.model[name] = [*before, (heads[name].version, name.encode())]
        if not done:
            self.restart()

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        head = head_of(name, self.stamp(), b"", gone=True)

        async def work() -> None:
            await self.copies.store(place_of(name), head, b"")

        self.write(name, head.version, b"", work())

    @rule(name=st.sampled_from(NAMES))
    def store_what_is_old(self, name: str) -> None:
        if all(version[0] for version, _ in self.model.get(name, [(("", ""), None)])):
            head = head_of(name, 0, b"old")

            async def work() -> None:
                await self.copies.store(place_of(name), head, b"old")

            if not self.attempt(work()):
                self.restart()

    @rule(name=st.sampled_from(NAMES))
    def describe(self, name: str) -> None:
        known = self.model.get(name, [])
        if len(known) == 1 and known[0][0][0]:
            (stamp, _), data = known[0]
            meta = Meta(stamp, make_stamp(self.stamp(), "n2"), "text/new", {"k": "v"})
            self.write(name, (stamp, meta.stamp), data, self.copies.describe(place_of(name), meta))

    @rule(name=st.sampled_from(NAMES))
    def drop(self, name: str) -> None:
        known = self.model.get(name, [])
        if len(known) == 1 and known[0][0][0]:
            self.write(name, ("", ""), None, self.copies.drop(place_of(name), known[0][0]))

    @rule()
    def tidy(self) -> None:
        if not self.attempt(self.copies.tidy()):
            self.restart()

    @rule()
    def close_and_open(self) -> None:
        self.attempt(self.copies.close())
        if self.disk.cut_at is not None:
            self.restart()
        else:
            self.copies = self.do(opened(self.disk, self.clock))

    @rule()
    def crash(self) -> None:
        self.restart()

    @precondition(lambda self: self.disk.cut_at is None)
    @rule(after=st.integers(1, 12))
    def cut_soon(self, after: int) -> None:
        self.disk.cut_at = self.disk.writes + after

    @rule(which=st.sampled_from(["manifest", ".run"]))
    def lose_index(self, which: str) -> None:
        """It is made again from the volumes."""
        files = sorted(path for path in self.disk.files if path.name.endswith(which))
        if files:
            self.disk.flip_bit(files[-1])
            self.copies.forget()

    @invariant()
    def all_is_there(self) -> None:
        self.look()
        for name, may in self.model.items():
            found = self.do(read_all(self.copies, name))
            seen = (found[0].version, found[1]) if found else (("", ""), None)
            assert seen in may, (name, seen[0], [version for version, _ in may])
            self.model[name] = [seen]

    def look(self) -> None:
        """Damage of the index is told once; the next look finds it made again."""
        for _ in range(6):
            try:
                self.do(check_books(self.copies))
                return
            except IndexDamaged:
                continue
            except (PowerCut, DriveTrouble):
                assert self.disk.cut_at is not None
                self.restart()
        raise AssertionError("it does not come to rest")

    def teardown(self) -> None:
        self.disk.cut_at = None
        self.do(self.copies.tidy())
        expected = [may for may in self.model.values() if may[0][1] and len(may[0][1]) == LARGE]
        self.copies.forget()
        self.do(self.copies.tidy())
        large = [path for path in self.disk.files if "large" in path.parts]
        assert len(large) == len(expected)
        self.do(self.loop.shutdown_asyncgens())
        self.loop.close()


TestVolumes = Volumes.TestCase
TestVolumes.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


@pytest.mark.parametrize("size", [700, LARGE])
@awaited
async def test_no_flipped_bit_gives_wrong_bytes(size: int) -> None:
    """Wherever on the drive it is: the bytes are right, or the copy is known to be bad and gone."""
    for seed in range(60):
        disk, clock = FaultyDisk(Random(seed)), ManualClock()
        copies = await opened(disk, clock, volume_bytes=1 << 20)
        data = {name: Random(name).randbytes(size) for name in NAMES}
        for number, name in enumerate(NAMES):
            head = head_of(name, number + 1, data[name])
            await (
                store_large(copies, name, head, data[name])
                if size == LARGE
                else copies.store(place_of(name), head, data[name])
            )
        await copies.close()
        files = sorted(path for path in disk.files if disk.files[path] and path.name != "drive.json")
        disk.flip_bit(files[seed % len(files)])
        copies = await opened(disk, clock)
        bad = set()
        for name in (*NAMES, *NAMES):
            try:
                head = await copies.audit(place_of(name))
                found = await read_all(copies, name) if head else None
            except IndexDamaged:
                continue
            except CorruptCopy:
                found = None
            if found is None:
                bad.add(name)
            else:
                assert found[1] == data[name]
        assert len(bad) <= 1 or files[seed % len(files)].suffix == ".volume"
        assert {name for name in NAMES if await copies.head(place_of(name)) is None} == bad
        await check_books(copies)
        for number, name in enumerate(NAMES):  # and are repaired as if they had never been
            await copies.store(place_of(name), head_of(name, number + 1, data[name]), data[name])
            found = await read_all(copies, name)
            assert found is not None
            assert found[1] == data[name]


@awaited
async def test_files_of_the_layout_before_are_adopted() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    await format_drive(make_world(disk, clock), ROOT, DriveIdentity("d1", "c1"))
    data = {"o1": b"small" * 10, "o2": Random(1).randbytes(LARGE), "o3": b""}
    for number, name in enumerate(data):
        place = place_of(name)
        head = head_of(name, number + 1, data[name], gone=name == "o3")
        path = ROOT / "objects" / str(place.part) / place.hash
        await disk.write_synced(path, data[name] + seal(head))
    meta = Meta(make_stamp(2, "n1"), make_stamp(9, "n1"), "text/new", {"k": "v"})
    path = ROOT / "objects" / str(place_of("o2").part) / place_of("o2").hash
    await disk.write_synced(path.with_name(f"{path.name}.meta"), msgspec.json.encode(meta))
    for cut_after in (2, 4, None):
        disk.cut_at = disk.writes + cut_after if cut_after else None
        try:
            copies = await opened(disk, clock)
        except (PowerCut, DriveTrouble):
            disk.power_cut()
    for name in ("o1", "o2"):
        found = await read_all(copies, name)
        assert found is not None
        assert found[1] == data[name]
    described = await copies.head(place_of("o2"))
    assert described is not None
    assert described.shown_headers == {"k": "v"}
    gone = await copies.head(place_of("o3"))
    assert gone is not None
    assert gone.gone
    await copies.store(place_of("o2"), head_of("o2", 20, b"new"), b"new")
    await copies.close()
    copies = await opened(disk, clock)
    assert (await read_all(copies, "o2")) == (head_of("o2", 20, b"new"), b"new")
    assert path not in disk.files


@awaited
async def test_a_full_drive_says_so_and_takes_deletions() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    copies = await opened(disk, clock)
    await copies.store(place_of("o1"), head_of("o1", 1, b"x"), b"x")
    disk.full.add(ROOT)
    clock.time_s += 10
    for _ in range(2):
        with pytest.raises(DriveFull):
            await copies.store(place_of("o2"), head_of("o2", 2, b"x"), b"x")
    assert await read_all(copies, "o1") is not None
    disk.full.clear()
    clock.time_s += 10
    await copies.store(place_of("o2"), head_of("o2", 3, b"y"), b"y")
    assert (await read_all(copies, "o2")) == (head_of("o2", 3, b"y"), b"y")


@awaited
async def test_a_volume_that_a_full_drive_could_not_begin_is_not_left_behind() -> None:
    """Its first write fails before anybody has looked how full it is."""
    disk, clock = FaultyDisk(), ManualClock()
    copies = await opened(disk, clock, volume_bytes=1)
    await copies.store(place_of("o1"), head_of("o1", 1, b"x"), b"x")
    before = set(disk.files)
    disk.full.add(ROOT)
    with pytest.raises(DriveTrouble):
        await copies.store(place_of("o2"), head_of("o2", 2, b"x"), b"x")
    assert set(disk.files) == before
    disk.full.clear()
    clock.time_s += 10
    await copies.store(place_of("o2"), head_of("o2", 3, b"y"), b"y")
    assert (await read_all(copies, "o2")) == (head_of("o2", 3, b"y"), b"y")


@awaited
async def test_an_unmounted_drive_has_lost_nothing() -> None:
    """Its log is still open: to write down that the files are lost would be true once it is back."""
    disk, clock = FaultyDisk(), ManualClock()
    copies = await opened(disk, clock)
    data = bytes(range(256)) * (LARGE // 256)
    await store_large(copies, "o1", head_of("o1", 1, data), data)
    away = disk.unmount(ROOT)
    with pytest.raises(DriveTrouble) as refused:
        await all_of(copies.read(place_of("o1"), head_of("o1", 1, data), 0, len(data)))
    assert not isinstance(refused.value, CorruptCopy)
    disk.mount(away)
    assert await read_all(copies, "o1") == (head_of("o1", 1, data), data)

    disk.wipe(ROOT / "large")  # and this is a loss
    with pytest.raises(CorruptCopy):
        await all_of(copies.read(place_of("o1"), head_of("o1", 1, data), 0, len(data)))
    assert await copies.head(place_of("o1")) is None


@awaited
async def test_an_unmounted_drive_has_lost_no_volume() -> None:
    """Only some volumes are open at once; the others cannot be opened while the drive is away."""
    disk, clock = FaultyDisk(), ManualClock()
    copies = await opened(disk, clock, volume_bytes=1000)
    data = bytes(1000)
    names = [f"n{number}" for number in range(OPEN_MAX + 6)]
    for ticks, name in enumerate(names, 1):
        await copies.store(place_of(name), head_of(name, ticks, data), data)
    disk.open_files = {max(path for path in disk.files if path.suffix == ".volume")}
    away = disk.unmount(ROOT)
    with pytest.raises(DriveTrouble) as refused:
        await copies.fetch(place_of(names[0]))
    assert not isinstance(refused.value, CorruptCopy)
    disk.mount(away)
    assert await copies.fetch(place_of(names[0])) == (head_of(names[0], 1, data), data)


@awaited
async def test_a_volume_that_cannot_be_read_is_put_aside_once() -> None:
    """One whose header never came is nothing; of another, somebody may want to save something."""
    disk, clock = FaultyDisk(), ManualClock()
    copies = await opened(disk, clock, volume_bytes=1)
    for ticks, name in enumerate(NAMES[:3], 1):
        await copies.store(place_of(name), head_of(name, ticks, b"x"), b"x")
    first, second, third = sorted(path for path in disk.files if path.suffix == ".volume")
    for path, data in ((first, b"?" + disk.files[first][1:]), (third, disk.files[third][:10])):
        disk.files[path] = disk.synced[path] = data
    disk.read_only.add(ROOT)
    await opened(disk, clock, volume_bytes=1)
    disk.read_only.clear()
    for _ in range(2):
        copies = await opened(disk, clock, volume_bytes=1)
        assert [await read_all(copies, name) for name in NAMES[:3]] == [None, (head_of("o1", 2, b"x"), b"x"), None]
        assert aside(disk) == [first.name]
        assert [path for path in disk.files if path.suffix == ".volume"] == [second]
    await copies.store(place_of("o5"), head_of("o5", 4, b"y"), b"y")
    assert await read_all(await opened(disk, clock), "o5") == (head_of("o5", 4, b"y"), b"y")


def aside(disk: FaultyDisk) -> list[str]:
    return [path.name.partition("-")[0] for path in disk.files if path.parent.name == DIRECTORY]


@awaited
async def test_what_was_put_aside_is_kept_for_a_month_or_until_room_is_short() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    copies = await opened(disk, clock, volume_bytes=1000)
    for ticks, name in enumerate(NAMES[:4], 1):
        bad = ROOT / f"{name}.bad"
        disk.files[bad] = disk.synced[bad] = b"?"
        await copies.large.quarantine.take(bad, name)
        await copies.large.quarantine.take(bad, name)  # it is no longer there
        clock.time_s += KEPT_S / 3
        await copies.tidy()
        assert aside(disk) == list(NAMES[max(0, ticks - 3) : ticks])
    clock.time_s += KEPT_S / 3 + 1
    await copies.tidy()
    assert aside(disk) == [NAMES[3]]
    disk.full.add(ROOT)
    clock.time_s += 2
    await copies.tidy()
    assert aside(disk) == []


@awaited
async def test_dead_bytes_are_given_back() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    copies = await opened(disk, clock, volume_bytes=20_000)
    for ticks in range(1, 201):
        name = NAMES[ticks % 3]
        data = bytes([ticks]) * 1000
        await copies.store(place_of(name), head_of(name, ticks, data), data)
    used = sum(len(data) for data in disk.snapshot(ROOT).values())
    assert used > 200_000
    assert await copies.tidy() < 20_000
    assert sum(len(data) for data in disk.snapshot(ROOT).values()) < 30_000
    for _ in range(2):
        for ticks in (198, 199, 200):
            name = NAMES[ticks % 3]
            found = await read_all(copies, name)
            assert found is not None
            assert found[1] == bytes([ticks]) * 1000
        copies = await opened(disk, clock)


def test_a_run_that_is_made_again_is_not_taken_for_the_lost_one() -> None:
    """The power goes between the new run and the manifest that knows of it: the old one has the lost run's name."""
    story = Volumes()
    story.delete("o0")
    story.close_and_open()
    story.lose_index(".run")
    story.crash()
    story.delete("o0")
    for after in range(1, 13):
        story.cut_soon(after)
        story.close_and_open()
        story.all_is_there()
        story.lose_index(".run")
        story.crash()
    story.teardown()


@awaited
async def test_who_comes_a_few_turns_of_the_loop_later_shares_the_sync() -> None:
    disk = FaultyDisk()
    copies = await opened(disk, ManualClock(), volume_bytes=1 << 20)

    async def store(number: int) -> None:
        for _ in range(number):
            await asyncio.sleep(0)
        await copies.store(place_of(f"n{number}"), head_of(f"n{number}", 1, b"x"), b"x")

    await store(0)
    before = disk.writes
    await asyncio.gather(*(store(number) for number in range(1, 9)))
    assert disk.writes - before < 4


@awaited
async def test_large_data_begin_at_a_page_and_are_found_again_without_the_index() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    copies = await opened(disk, clock, volume_bytes=1 << 30)
    bodies = {"o1": b"s" * 10, "o2": Random(1).randbytes(ALIGNED_BYTES), "o3": Random(2).randbytes(ALIGNED_BYTES + 9)}
    for tick, (name, data) in enumerate(bodies.items(), 1):
        await copies.store(place_of(name), head_of(name, tick, data), data)
    volume = next(path for path in disk.files if path.suffix == ".volume")
    for data in (bodies["o2"], bodies["o3"]):
        assert disk.files[volume].find(data) % PAGE_BYTES == 0
    for path in [path for path in disk.files if path.name == "manifest" or path.suffix == ".run"]:
        await disk.remove(path)
    copies = await opened(disk, clock, volume_bytes=1 << 30)
    for name, data in bodies.items():
        read = await read_all(copies, name)
        assert read is not None
        assert read[1] == data

"""Objects on drives that fail in every way we know: what was acknowledged stays, what was deleted stays away."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sqlite3
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from apus.kernel.errors import CloudError, NotFound, Unavailable
from apus.kernel.log import set_sink
from apus.services.object.assembly import ObjectStore, drives_in, open_store
from apus.services.object.drivers.fence import DriveIdentity, format_drive
from apus.services.object.fragments import FRAGMENTS_FROM_BYTES
from apus.services.object.logic.code import archive_hash
from apus.services.object.logic.rings import archives_part, is_of_fragments
from apus.services.object.model import STRIDE_BYTES, Head, Place
from apus.services.object.upload import Upload
from apus.wire.body import ClientGone
from tests.object_store import all_of, awaited, chunks, drive_paths, intent, make_world
from tests.sim.object_disk import FaultyDisk, PowerCut

T = TypeVar("T")


def holds_objects(path: Path) -> bool:
    return "volumes" in path.parts or "large" in path.parts


ROOT = Path("/sim")
NAMES = ("one", "two", "three")
BIG = STRIDE_BYTES * 2 + 77


class ManualClock:
    def __init__(self) -> None:
        self.time_s = 1_700_000_000.0

    def now_s(self) -> float:
        return self.time_s

    def monotonic_s(self) -> float:
        return self.time_s

    async def sleep(self, duration_s: float) -> None:
        self.time_s += duration_s


async def opened(disk: FaultyDisk, clock: ManualClock, count: int = 4) -> ObjectStore:
    return await open_store(
        make_world(disk, clock),
        drives_in(drive_paths(ROOT, count)),
        ROOT / "layout.json",
        part_power=1,
        policies={"two": 2, "four": 4, "coded": "2+1"},
        connect=lambda path: sqlite3.connect(":memory:", isolation_level=None),
    )


class Machine(RuleBasedStateMachine):
    """Put, delete and read while drives go, come back old, empty or rotten; then heal, and compare all copies."""

    policy, copies = 0, 3

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.disk, self.clock = FaultyDisk(), ManualClock()
        self.acknowledged: dict[str, tuple[str, bytes | None]] = {}
        self.saved: dict[Path, dict[Path, bytes]] = {}

    def do(self, work: Awaitable[T]) -> T:
        self.clock.time_s += 10
        return self.loop.run_until_complete(asyncio.ensure_future(work, loop=self.loop))

    @initialize()
    def start(self) -> None:
        self.store = self.do(opened(self.disk, self.clock))
        service = self.store.service
        self.do(service.make_container("AUTH_a", "c", {}, service.policies[self.policy]))
        self.do(self.store.replicator.run_once())

    def healthy(self) -> list[Path]:
        return [path for path in drive_paths(ROOT) if path not in self.disk.away]

    @rule(name=st.sampled_from(NAMES), size=st.sampled_from([0, 5, 5000, BIG]), fill=st.integers(0, 255))
    def put(self, name: str, size: int, fill: int) -> None:
        data = bytes([fill]) * size
        try:
            head = self.do(self.store.service.engine.put(intent(name), chunks(data)))
        except Unavailable:
            assert self.disk.away or self.disk.full
            # It may have reached some drive: whichever wins later is newer than what was acknowledged.
            self.acknowledged.pop(name, None)
            return
        self.acknowledged[name] = head.stamp, data

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        try:
            head = self.do(self.store.service.engine.delete("AUTH_a", "c", name)).tombstone
        except NotFound:
            assert self.acknowledged.get(name, ("", None))[1] is None
            return
        except Unavailable:
            self.acknowledged.pop(name, None)
            return
        self.acknowledged[name] = head.stamp, None

    @rule(number=st.integers(0, 3))
    def lose_one(self, number: int) -> None:
        """One at a time: with three copies and a quorum of two that must never lose anything."""
        if not self.disk.away and not self.dirty:
            path = drive_paths(ROOT)[number]
            self.saved[path] = self.disk.snapshot(path)
            self.disk.away.add(path)

    @property
    def dirty(self) -> bool:
        """Copies are known to be missing: losing another drive now would be a second failure at once."""
        return self.store.cluster.repairs.count() > 0

    @rule(how=st.sampled_from(["as it was", "old", "empty"]))
    def bring_back(self, how: str) -> None:
        for path in list(self.disk.away):
            self.disk.away.discard(path)
            if how == "old":
                self.disk.restore(path, self.saved[path])
            elif how == "empty":
                self.disk.wipe(path)
                self.disk.full.discard(path)
            drive = next(drive for drive in self.store.drives if drive.root == path)
            self.do(self.store.adopt(drive.id))

    @rule(number=st.integers(0, 3))
    def fill_one(self, number: int) -> None:
        if not self.disk.away:
            self.disk.full = {drive_paths(ROOT)[number]}

    @rule()
    def empty_room(self) -> None:
        self.disk.full.clear()

    @rule()
    def heal(self) -> None:
        self.do(self.store.replicator.run_once())

    @rule(data=st.data())
    def rot_one(self, data: st.DataObject) -> None:
        """A bit flips in a copy, while all copies are there."""
        if self.disk.away or self.disk.full or self.dirty:
            return
        files = [path for path in sorted(self.disk.files) if holds_objects(path) and self.disk.files[path]]
        if files:
            path = data.draw(st.sampled_from(files))
            self.disk.flip_bit(path)
            for drive in self.store.drives:
                drive.copies.forget()
            self.do(self.store.auditor.run_once())
            self.do(self.store.replicator.run_once())
            assert self.store.cluster.repairs.count() == 0

    @invariant()
    def reads_are_right(self) -> None:
        if not hasattr(self, "store") or self.disk.full:
            return
        for name, (stamp, data) in self.acknowledged.items():
            found = self.do(self.store.service.engine.locate(self.place(name), newest=True))
            assert found is not None
            assert found.head.stamp == stamp
            if data is None:
                assert found.head.gone
            else:
                assert self.do(all_of(self.store.service.engine.read(found, 0, len(data)))) == data

    def place(self, name: str) -> object:
        return self.store.cluster.place("AUTH_a", "c", name, policy=self.policy)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.heal_and_compare()
            self.loop.close()

    def heal_and_compare(self) -> None:
        self.disk.full.clear()
        self.bring_back("old")
        for _ in range(3):
            self.do(self.store.replicator.run_once())
        assert self.store.cluster.repairs.count() == 0
        for name, (stamp, _data) in self.acknowledged.items():
            place = self.store.cluster.place("AUTH_a", "c", name, policy=self.policy)
            heads: list[Head | None] = [
                self.do(drive.copies.head(place)) for drive in self.store.cluster.primaries(place.part)
            ]
            assert [head and head.stamp for head in heads] == [stamp] * self.copies
            others = [drive for drive in self.store.drives if drive not in self.store.cluster.primaries(place.part)]
            assert [self.do(drive.copies.head(place)) for drive in others] == [None] * (4 - self.copies)


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


class TwoCopies(Machine):
    """Under a storage policy: its partitions are other ones, in other volumes."""

    policy, copies = 1, 2


class FourCopies(Machine):
    policy, copies = 2, 4


class Fragments(Machine):
    """Any two of three: the heads are in two copies."""

    policy, copies = 3, 2

    @rule()
    def sweep(self) -> None:
        """What was overwritten or deleted goes; what is read stays."""
        self.clock.time_s += 100
        self.do(self.store.archive_sweeper.run_once())

    def heal_and_compare(self) -> None:
        super().heal_and_compare()
        for name, (_, data) in self.acknowledged.items():
            if data and len(data) >= FRAGMENTS_FROM_BYTES:
                self.check_archives(name)

    def check_archives(self, name: str) -> None:
        place = self.store.cluster.place("AUTH_a", "c", name, policy=self.policy)
        head = self.do(self.store.cluster.primaries(place.part)[0].copies.head(place))
        assert head is not None
        assert head.coded is not None
        part = archives_part(place.part)
        for index, drive in enumerate(self.store.cluster.primaries(part)):
            archive = Place(part, archive_hash(place.hash, head.coded.nonce, index))
            assert self.do(drive.copies.audit(archive)) is not None


TestFragments = Fragments.TestCase
TestFragments.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestTwoCopies, TestFourCopies = TwoCopies.TestCase, FourCopies.TestCase
TestTwoCopies.settings = TestFourCopies.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)


@pytest.mark.parametrize("policy", ["replicated", "coded"])
@pytest.mark.parametrize("size", [100, FRAGMENTS_FROM_BYTES, BIG])
def test_power_may_fail_at_any_write(size: int, policy: str) -> None:
    """An overwrite that is cut off leaves the old version or the new, whole; an acknowledged one stays."""

    async def attempt(cut_at: int) -> bool:
        disk, clock = FaultyDisk(), ManualClock()
        store = await opened(disk, clock)
        await store.service.make_container("AUTH_a", "c", {}, policy)
        old, new = b"o" * size, b"n" * size
        await store.service.engine.put(intent("one"), chunks(old))
        await store.updater.run_once()
        disk.writes, disk.cut_at = 0, cut_at
        acknowledged = False
        try:
            await store.service.engine.put(intent("one"), chunks(new))
            acknowledged = True
        except (PowerCut, CloudError):
            acknowledged = False
        except BaseExceptionGroup:
            acknowledged = False
        disk.power_cut()
        clock.time_s += 60
        store = await opened(disk, clock)
        await store.service.make_container("AUTH_a", "c", {}, policy)
        await store.replicator.run_once()
        for _ in range(3):  # orphans go when they were that for long
            await store.archive_sweeper.run_once()
            clock.time_s += 7 * 3600
        found = await store.service.engine.find("AUTH_a", "c", "one")
        assert found is not None
        data = await all_of(store.service.engine.read(found, 0, size))
        assert data == new if acknowledged else data in (old, new)
        held = [path for path in disk.files if "large" in path.parts]
        for drive in store.drives:
            await drive.copies.tidy()
        kept = [path for path in disk.files if "large" in path.parts]
        assert len(kept) == (3 if size == BIG else 0), (held, kept)
        archives = [part for drive in store.drives for part in await drive.copies.parts() if is_of_fragments(part)]
        assert len(archives) == (3 if policy == "coded" and size >= FRAGMENTS_FROM_BYTES else 0)
        return acknowledged

    cut_at = 1
    while not asyncio.run(attempt(cut_at)):
        cut_at += 1
        assert cut_at < 100
    assert cut_at > 3


@awaited
async def test_a_copy_that_rots_while_it_is_read_is_replaced_by_another() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    store = await opened(disk, clock)
    data = bytes(range(256)) * (BIG // 256)
    await store.service.engine.put(intent("one"), chunks(data))
    await store.replicator.run_once()
    place = store.cluster.place("AUTH_a", "c", "one")
    first = store.cluster.primaries(place.part)[0]
    (path,) = [p for p in disk.files if p.name.startswith(place.hash) and f"d{first.id[-1]}" in p.parts]
    disk.flip_bit(path)
    found = await store.service.find("AUTH_a", "c", "one")
    assert found is not None
    assert await all_of(store.service.engine.read(found, 0, len(data))) == data
    await store.auditor.run_once()
    await store.replicator.run_once()
    assert path not in disk.files
    assert await first.copies.audit(place) is not None


class BusyClock(ManualClock):
    """Whatever is done takes time: between any two looks at it."""

    rested_s = 0.0

    def monotonic_s(self) -> float:
        self.time_s += 0.002
        return self.time_s

    async def sleep(self, duration_s: float) -> None:
        self.rested_s += duration_s
        await super().sleep(duration_s)


@awaited
async def test_an_audit_leaves_most_of_the_time_to_others() -> None:
    disk, clock = FaultyDisk(), BusyClock()
    store = await opened(disk, clock)
    for number in range(100):
        await store.service.engine.put(intent(f"n{number}"), chunks(b"x"))
    began_s, clock.rested_s = clock.time_s, 0.0
    await store.auditor.run_once()
    worked_s = clock.time_s - began_s - clock.rested_s
    assert worked_s > 0.2
    assert clock.rested_s > 10 * worked_s


@awaited
async def test_a_wrong_mount_is_fenced() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    store = await opened(disk, clock)
    disk.wipe(ROOT / "d1")
    clock.time_s += 10
    await store.service.engine.put(intent("one"), chunks(b"x" * 100))
    assert not disk.snapshot(ROOT / "d1")
    with pytest.raises(OSError, match="drive2"):
        await format_drive(store.world, ROOT / "d2", DriveIdentity("d1", "another"))


@awaited
async def test_read_only_and_full_drives_are_passed_over_and_two_are_too_many() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    store = await opened(disk, clock)
    disk.read_only.add(ROOT / "d1")
    await store.service.engine.put(intent("one"), chunks(b"x" * 100))
    assert sum(path.suffix == ".volume" for path in disk.files) == 3
    disk.read_only |= {ROOT / "d2", ROOT / "d3"}
    clock.time_s += 10
    with pytest.raises(Unavailable, match="1 of 3"):
        await store.service.engine.put(intent("two"), chunks(b"x" * 100))
    with pytest.raises(Unavailable):
        await store.service.engine.put(intent("two"), chunks(b"x" * BIG))
    assert not [path for path in disk.files if "large" in path.parts]


@pytest.mark.parametrize("policy", ["two", "coded"])
@pytest.mark.parametrize("drives_fail", [False, True])
@awaited
async def test_an_upload_that_breaks_off_leaves_nothing_to_the_collector(drives_fail: bool, policy: str) -> None:
    """It holds buffers of megabytes, and the collector comes when it likes."""
    disk, clock = FaultyDisk(), ManualClock()
    store = await opened(disk, clock)
    await store.service.make_container("AUTH_a", "c", {}, policy)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(2):
            yield b"x" * STRIDE_BYTES
        if drives_fail:
            disk.away.update(drive_paths(ROOT))
            yield b"x" * STRIDE_BYTES
        raise ClientGone

    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(ClientGone, Unavailable):
            await store.service.engine.put(intent("one"), body())
        left = [one for one in gc.get_objects() if isinstance(one, Upload)]
    finally:
        gc.enable()
    assert not left


@awaited
async def test_a_drive_that_is_away_is_in_the_log_once_and_in_the_metrics() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    store = await opened(disk, clock)
    said: list[tuple[str, str, str]] = []
    set_sink(lambda level, log, event, fields: said.append((level, event, str(fields.get("drive")))))
    try:
        disk.read_only.add(ROOT / "d1")
        for name in ("one", "two", "three"):
            clock.time_s += 10
            await store.service.engine.put(intent(name), chunks(b"x" * 100))
        assert await store.cluster.away() == {"drive1": 1, "drive2": 0, "drive3": 0, "drive4": 0}
        disk.read_only.clear()
        for name in ("four", "five", "six", "seven"):
            clock.time_s += 10
            await store.service.engine.put(intent(name), chunks(b"x" * 100))
    finally:
        set_sink(None)
    assert set((await store.cluster.away()).values()) == {0}
    assert [one for one in said if one[2] == "drive1"] == [
        ("warning", "a drive does not answer", "drive1"), ("info", "a drive answers again", "drive1"),
    ]  # fmt: skip


@awaited
async def test_metadata_is_a_version_of_its_own() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    store = await opened(disk, clock)
    engine = store.service.engine
    await engine.put(intent("one"), chunks(b"data"))
    disk.away.add(ROOT / "d1")
    clock.time_s += 10
    await engine.describe("AUTH_a", "c", "one", "text/new", {"x-object-meta-k": "v"})
    disk.away.clear()
    clock.time_s += 10
    await store.replicator.run_once()
    place = store.cluster.place("AUTH_a", "c", "one")
    for drive in store.cluster.primaries(place.part):
        head = await drive.copies.head(place)
        assert head is not None
        assert head.shown_headers == {"x-object-meta-k": "v"}
        assert (await drive.copies.fetch(place)) == (head, b"data")


@awaited
async def test_old_tombstones_are_forgotten_by_all() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    store = await opened(disk, clock)
    await store.service.engine.put(intent("one"), chunks(b"data"))
    await store.service.engine.delete("AUTH_a", "c", "one")
    clock.time_s += 8 * 86_400
    await store.replicator.run_once()
    place = store.cluster.place("AUTH_a", "c", "one")
    assert None not in [await drive.copies.head(place) for drive in store.cluster.primaries(place.part)]
    await store.auditor.run_once()
    assert [await drive.copies.head(place) for drive in store.cluster.primaries(place.part)] == [None] * 3

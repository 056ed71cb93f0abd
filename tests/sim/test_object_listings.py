"""Listings across power cuts: what was acknowledged is listed after a start, and what was deleted is not."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from random import Random

import pytest

from apus.kernel.errors import CloudError
from apus.services.object.assembly import ObjectStore, drives_in, open_store
from apus.services.object.directory import Directory
from apus.services.object.drivers.volumes.journal import Put
from apus.services.object.lister import EXPIRING, GATHER_S, PARTS_FEW, RELIST_AFTER_S
from apus.services.object.model import Change, ListingAsk, Row
from apus.services.object.repair import COMPARED_AT_ONCE, heal_index
from tests.object_store import awaited, chunks, drive_paths, intent, make_world
from tests.sim.object_disk import FaultyDisk, PowerCut, sqlite_on
from tests.sim.test_object_faults import ROOT, ManualClock

CONTAINER = "AUTH_a", "c"
BODY = b"x" * 100


async def opened(disk: FaultyDisk, clock: ManualClock) -> ObjectStore:
    return await open_store(
        make_world(disk, clock),
        drives_in(drive_paths(ROOT)),
        ROOT / "layout.json",
        part_power=1,
        connect=sqlite_on(disk),
    )


async def names_in(store: ObjectStore, container: str = "c", account: str = "AUTH_a") -> dict[str, str]:
    rows = await store.service.listing(account, container, ListingAsk())
    return {row.name: row.content_type for row in rows if isinstance(row, Row)}


class Story:
    """What is done between two power cuts, and what was answered."""

    def __init__(self, store: ObjectStore) -> None:
        self.store, self.listed = store, dict[str, str]()
        self.doubtful: tuple[str, str] | None = None
        """The name of what was not answered, and what it would be: "" for deleted."""

    async def put(self, name: str) -> None:
        await self._do(name, "text/plain", self.store.service.put(intent(name), chunks(BODY)))

    async def describe(self, name: str, content_type: str) -> None:
        await self._do(name, content_type, self.store.service.describe(*CONTAINER, name, content_type, {}))

    async def delete(self, name: str) -> None:
        await self._do(name, "", self.store.service.delete(*CONTAINER, name))

    async def _do(self, name: str, then: str, work: object) -> None:
        self.doubtful = name, then
        await work  # type: ignore[misc]
        self._take(name, then)
        self.doubtful = None

    def _take(self, name: str, then: str) -> None:
        if then:
            self.listed[name] = then
        else:
            self.listed.pop(name, None)

    async def tell(self) -> None:
        await self.put("a")
        await self.put("b")
        await self.describe("b", "text/new")
        await self.store.updater.run_once()
        await self.delete("a")
        await self.put("c")
        await self.store.updater.run_once()
        await self.delete("c")
        await self.put("a")

    def may_be(self) -> list[dict[str, str]]:
        states = [dict(self.listed)]
        if self.doubtful is not None:
            self._take(*self.doubtful)
            states.append(self.listed)
        return states


@pytest.mark.parametrize("seed", range(3))
def test_a_listing_is_whole_after_a_power_cut_at_any_write(seed: int) -> None:
    async def attempt(cut_at: int) -> bool:
        disk, clock = FaultyDisk(Random(seed * 1000 + cut_at)), ManualClock()
        store = await opened(disk, clock)
        await store.service.make_container(*CONTAINER, {})
        story = Story(store)
        disk.writes, disk.cut_at = 0, cut_at
        try:
            await story.tell()
            ended = True
        except (PowerCut, CloudError, BaseExceptionGroup):
            ended = False
        disk.power_cut()
        clock.time_s += 60
        store = await opened(disk, clock)
        listed = await names_in(store)
        assert listed in story.may_be()
        head = await store.service.container(*CONTAINER, fresh=True)
        assert (head.rows, head.size_bytes) == (len(listed), len(listed) * len(BODY))
        assert [drive for drive in store.drives if await drive.copies.unlisted()] == []
        await store.replicator.run_once()
        assert await names_in(store) == listed
        kind, place = store.service.directory.place(*CONTAINER)
        copies = store.cluster.primaries(place.part)
        assert len({await drive.indexes.digest(kind, place) for drive in copies}) == 1
        for drive in copies:
            assert await drive.indexes.audit(kind, place)
        return ended

    cut_at = 1
    while not asyncio.run(attempt(cut_at)):
        cut_at += 1
        assert cut_at < 200
    assert cut_at > 20


@awaited
async def test_a_put_syncs_no_index_and_a_listing_shows_it_at_once() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    store = await opened(disk, clock)
    await store.service.make_container(*CONTAINER, {})
    for number in range(8):  # each drive begins its volume
        await store.service.put(intent(f"o{number}"), chunks(BODY))
    before = disk.writes
    for number in range(8, 10):
        await store.service.put(intent(f"o{number}"), chunks(BODY))
    assert disk.writes - before == 2 * 3 * 2  # each a write and a sync on three drives
    assert len(await names_in(store)) == 10


@awaited
async def test_promises_are_taken_back_once_their_rows_are_durable() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    store = await opened(disk, clock)
    await store.service.make_container(*CONTAINER, {})
    await store.service.put(intent("a"), chunks(BODY))
    assert [len(await drive.copies.unlisted()) for drive in store.drives].count(1) == 3
    await store.service.shelf.lister.flush()
    assert [await drive.copies.unlisted() for drive in store.drives] == [{}] * 4
    disk.power_cut()
    assert await names_in(await opened(disk, clock)) == {"a": "text/plain"}


@awaited
async def test_rows_of_many_indexes_are_gathered_for_a_while() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    store = await open_store(
        make_world(disk, clock), drives_in(drive_paths(ROOT)), ROOT / "layout.json", connect=sqlite_on(disk)
    )
    for number in range(2 * PARTS_FEW):
        await store.service.make_container("AUTH_a", f"c{number}", {})
        await store.service.put(dataclasses.replace(intent("o"), container=f"c{number}"), chunks(BODY))
    await store.updater.run_once()
    assert sum([len(await drive.copies.unlisted()) for drive in store.drives]) == 3 * 2 * PARTS_FEW
    clock.time_s += GATHER_S
    await store.updater.run_once()
    assert [await drive.copies.unlisted() for drive in store.drives] == [{}] * 4


@awaited
async def test_a_container_whose_copies_were_away_is_told_when_they_are_back() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    store = await opened(disk, clock)
    await store.service.make_container(*CONTAINER, {})
    _, place = store.service.directory.place(*CONTAINER)
    index_drives = store.cluster.candidates(place.part)  # with the one that would step in
    for drive in index_drives:
        drive.indexes.note = lambda kind, place, change: _refused()  # type: ignore[attr-defined]
        drive.indexes.apply = lambda kind, place, change: _refused()  # type: ignore[attr-defined]
    await store.service.put(intent("a"), chunks(BODY))
    for drive in index_drives:
        del drive.indexes.note  # type: ignore[attr-defined]
        del drive.indexes.apply  # type: ignore[attr-defined]
    await store.updater.run_once()
    assert await names_in(store) == {}
    clock.time_s += RELIST_AFTER_S + 1
    await store.updater.run_once()
    assert await names_in(store) == {"a": "text/plain"}
    assert [await drive.copies.unlisted() for drive in store.drives] == [{}] * 4


async def _refused() -> None:
    raise OSError("away")


@awaited
async def test_what_expires_is_known_to_the_expirer_after_a_crash() -> None:
    disk, clock = FaultyDisk(), ManualClock()
    store = await opened(disk, clock)
    await store.service.make_container(*CONTAINER, {})
    await store.service.put(intent("a", **{"x-delete-at": str(int(clock.time_s) + 100)}), chunks(BODY))
    disk.power_cut()
    store = await opened(disk, clock)
    await store.updater.run_once()
    (hour,) = await names_in(store, "", EXPIRING)
    assert len(await names_in(store, hour, EXPIRING)) == 1
    clock.time_s += 200
    await store.expirer.run_once()
    assert await names_in(store) == {}


@awaited
async def test_volumes_from_before_rows_followed_promise_nothing() -> None:
    """Their records have no mark, and their rows were made durable with them."""
    disk, clock = FaultyDisk(), ManualClock()
    store = await opened(disk, clock)
    await store.service.make_container(*CONTAINER, {})
    head = await store.service.engine.put(intent("a"), chunks(BODY))
    place = store.cluster.place(*CONTAINER, "a")
    for drive in store.cluster.primaries(place.part):
        drive.copies.listed(place, head.changed)
    journal = store.drives[0].copies.rooms[0]._journal
    assert journal is not None
    await journal.submit(Put(bytes(16), head, BODY, unlisted=False))
    disk.power_cut()
    store = await opened(disk, clock)
    assert bytes(16).hex() not in await store.drives[0].copies.unlisted()


def test_the_simulated_index_forgets_what_was_not_committed() -> None:
    disk, path = FaultyDisk(), Path("/sim/i.db")
    connection = sqlite_on(disk)(path)
    connection.execute("CREATE TABLE t (x)")
    connection.execute("BEGIN")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.execute("COMMIT")
    connection.execute("INSERT INTO t VALUES (2)")
    disk.power_cut()
    assert sqlite_on(disk)(path).execute("SELECT x FROM t").fetchall() == [(1,)]


@awaited
async def test_a_copy_that_lost_an_index_and_heard_of_one_name_since_is_not_believed() -> None:
    clock = ManualClock()
    store = await opened(FaultyDisk(), clock)
    await store.service.make_container(*CONTAINER, {})
    for name in "abc":
        await store.service.put(intent(name), chunks(BODY))
    await store.updater.run_once()
    kind, place = store.service.directory.place(*CONTAINER)
    first = store.cluster.primaries(place.part)[0]
    await first.indexes.drop(kind, place)
    await first.indexes.apply(kind, place, Change(*CONTAINER, (Row("d", store.cluster.stamp()),)))
    directory = Directory(store.cluster)  # with nothing in memory
    rows = await directory.listing(*CONTAINER, ListingAsk())
    assert [row.name for row in rows][:3] == ["a", "b", "c"]
    head = await directory.known(*CONTAINER)
    assert head is not None
    assert head.exists
    healed = await first.indexes.head(kind, place)
    assert healed is not None
    assert healed.made, "who found it did not make it whole"


@awaited
async def test_copies_of_an_index_become_equal_whatever_each_of_them_lacks() -> None:
    """Compared in windows, of which one copy may have more names than the other."""
    dice, store = Random(1), await opened(FaultyDisk(), ManualClock())
    await store.service.make_container(*CONTAINER, {})
    await store.replicator.run_once()
    kind, place = store.service.directory.place(*CONTAINER)
    for _ in range(4):
        newest: dict[str, Row] = {}
        for drive in store.cluster.primaries(place.part):
            names = sorted(dice.sample(range(3 * COMPARED_AT_ONCE), dice.choice((0, 1, 2000, COMPARED_AT_ONCE))))
            rows = tuple(Row(f"{name:05d}", store.cluster.stamp(), gone=dice.random() < 0.2) for name in names)
            await drive.indexes.apply(kind, place, Change(*CONTAINER, rows))
            newest.update({row.name: row for row in rows})
        outcome = await heal_index(store.cluster, kind, place)
        assert outcome.whole
        copies = [await drive.indexes.rows(kind, place, "", 10**6) for drive in store.cluster.primaries(place.part)]
        assert copies[0] == copies[1] == copies[2]
        assert newest.items() <= {row.name: row for row in copies[0]}.items()
        assert (await heal_index(store.cluster, kind, place)).copied == 0

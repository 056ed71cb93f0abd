"""Indexes that are cut all the time: what is listed and counted is right at every step, after a power cut at any write,
while two cut at once, and while drives go, come back, lose everything, and join and leave."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from random import Random
from typing import Final

import msgspec
import pytest

from apus.kernel.errors import CloudError, Conflict, NotFound
from apus.services.object.assembly import ObjectStore, drives_in, open_store
from apus.services.object.directory import Directory
from apus.services.object.logic.shards import SHARDS, owner_text, shard_of
from apus.services.object.loops.sharder import SETTLE_S, Sharder
from apus.services.object.model import Change, ListingAsk, Row
from apus.services.object.service import Options
from apus.sim.loop import run
from tests.history.checker import Operation
from tests.object_store import awaited, chunks, drive_paths, intent, make_world
from tests.sim.object_disk import FaultyDisk, PowerCut, sqlite_on
from tests.sim.running_store import ROOT, RunningStore, live, running
from tests.sim.slow_disk import SlowDisk
from tests.sim.test_object_consistency import Client, Trouble, judge
from tests.sim.test_object_faults import ManualClock

SEEDS: Final = int(os.environ.get("SHARD_SEEDS", "2"))
CONTAINER: Final = "AUTH_a", "c"
BODY: Final = b"x" * 10
STORY_S: Final = 60.0


async def opened(disk: FaultyDisk, clock: ManualClock, shard_rows: int = 4) -> ObjectStore:
    return await open_store(
        make_world(disk, clock),
        drives_in(drive_paths(ROOT)),
        ROOT / "layout.json",
        part_power=1,
        connect=sqlite_on(disk),
        options=Options(shard_rows=shard_rows),
    )


async def sharded(store: ObjectStore, clock: ManualClock, rounds: int = 12) -> None:
    for _ in range(rounds):
        await store.updater.run_once()
        await store.sharder.run_once()
        clock.time_s += SETTLE_S / 2


async def names_in(store: ObjectStore, **ask: object) -> list[str]:
    found = await store.service.listing(*CONTAINER, msgspec.convert(ask, ListingAsk))
    return [row.name for row in found]


async def counted(store: ObjectStore) -> tuple[int, int]:
    head = await store.service.container(*CONTAINER, fresh=True)
    return head.rows, head.size_bytes


async def held(store: ObjectStore) -> list[str]:
    """Live names of the container, of whatever shard, as its first copy has them."""
    found: list[str] = []
    for part in range(store.cluster.ring.parts):
        places = {place for drive in store.drives for place in await drive.indexes.places("containers", part)}
        for place in places:
            drives = store.cluster.primaries(part)
            assert len({await drive.indexes.digest("containers", place) for drive in drives}) == 1
            head = await drives[0].indexes.head("containers", place)
            if head is None:
                continue
            for drive in drives:
                assert await drive.indexes.audit("containers", place)
            ours = (head.account, head.container) == CONTAINER
            if ours or (head.account == SHARDS and shard_of(head.container)[2] is not None):
                found += [
                    row.name for row in await drives[0].indexes.rows("containers", place, "", 1000) if not row.gone
                ]
    return found


def bounds_of(store: ObjectStore) -> tuple[str, ...]:
    return store.service.directory.shards.known()[CONTAINER].bounds


@awaited
async def test_a_container_is_cut_while_it_is_written_and_joined_when_it_shrinks() -> None:
    clock = ManualClock()
    store = await opened(FaultyDisk(), clock, shard_rows=8)
    await store.service.make_container(*CONTAINER, {})
    listed: set[str] = set()
    for number in range(60):
        name = f"{number * 37 % 60:02d}/o"
        await store.service.put(intent(name), chunks(BODY))
        listed.add(name)
        await sharded(store, clock, rounds=1)
        assert await names_in(store) == sorted(listed)
        assert await counted(store) == (len(listed), len(listed) * len(BODY))
    assert len(bounds_of(store)) > 8
    assert await names_in(store, reverse=True, limit=7, marker="50") == sorted(listed, reverse=True)[10:17]
    assert await names_in(store, prefix="2", delimiter="/") == [f"2{digit}/" for digit in range(10)]
    with pytest.raises(Conflict):
        await store.service.delete_container(*CONTAINER)
    for name in sorted(listed):
        await store.service.delete(*CONTAINER, name)
        listed.remove(name)
        await sharded(store, clock, rounds=1)
        assert await names_in(store) == sorted(listed)
        assert await counted(store) == (len(listed), len(listed) * len(BODY))
    head = await store.service.account("AUTH_a")
    assert head is not None
    assert (head.rows, head.objects, head.size_bytes) == (1, 0, 0)
    clock.time_s += 8 * 86_400.0
    await store.replicator.run_once()  # forgets the tombstones
    await store.auditor.run_once()
    await sharded(store, clock)
    assert bounds_of(store) == ("",) if CONTAINER in store.service.directory.shards.known() else True
    await store.service.delete_container(*CONTAINER)
    assert await held(store) == []


@awaited
async def test_totals_of_a_shard_that_there_is_not_do_not_count() -> None:
    clock = ManualClock()
    store = await opened(FaultyDisk(), clock, shard_rows=8)
    await store.service.make_container(*CONTAINER, {})
    for number in range(40):
        await store.service.put(intent(f"{number:02d}"), chunks(BODY))
    await sharded(store, clock)
    told, indexes = (SHARDS, owner_text(*CONTAINER)), store.service.directory.indexes
    bounds = bounds_of(store)[1:]
    assert [row.name for row in await indexes.rows(*told, "", 100) if not row.gone] == list(bounds)
    assert await counted(store) == (40, 40 * len(BODY))
    await indexes.apply(Change(*told, (Row("zz", store.cluster.stamp(), count=7, size_bytes=7),)))
    assert await counted(store) == (40, 40 * len(BODY))
    await indexes.apply(Change(*told, (Row("zz", store.cluster.stamp(), gone=True),)))
    assert await counted(store) == (40, 40 * len(BODY))
    await indexes.apply(Change(*told, (Row(bounds[0], store.cluster.stamp(), gone=True),)))
    assert (await counted(store))[0] < 40
    store.service.directory.shards.changed(CONTAINER, bounds)
    assert await counted(store) == (40, 40 * len(BODY))
    await store.service.put(intent("00-new"), chunks(BODY))
    assert await counted(store) == (41, 41 * len(BODY))


@awaited
async def test_an_account_with_many_containers_is_cut_too() -> None:
    clock = ManualClock()
    store = await opened(FaultyDisk(), clock, shard_rows=6)
    for number in range(20):
        await store.service.make_container("AUTH_a", f"c{number:02d}", {})
        await sharded(store, clock, rounds=1)
    await sharded(store, clock)
    assert len(store.service.directory.shards.known()["AUTH_a", ""].bounds) > 2
    rows = await store.service.listing("AUTH_a", "", ListingAsk())
    assert [row.name for row in rows] == [f"c{number:02d}" for number in range(20)]
    head = await store.service.account("AUTH_a")
    assert head is not None
    assert head.rows == 20


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_or_doubled_by_a_power_cut_at_any_write(seed: int) -> None:
    async def attempt(cut_at: int) -> bool:
        disk, clock = FaultyDisk(Random(seed * 1000 + cut_at)), ManualClock()
        store = await opened(disk, clock)
        await store.service.make_container(*CONTAINER, {})
        listed, doubtful = set[str](), set[str]()

        async def put(name: str) -> None:
            doubtful.add(name)
            await store.service.put(intent(name), chunks(BODY))
            listed.add(name)
            doubtful.clear()

        async def delete(name: str) -> None:
            listed.discard(name)
            doubtful.add(name)
            await store.service.delete(*CONTAINER, name)
            doubtful.clear()

        async def tell() -> None:
            for name in "abcdef":
                await put(name)
            for name in "ghi":  # through the whole of a cut
                await sharded(store, clock, 2)
                await put(name)
            for name in "dbag":  # and of a join
                await delete(name)
                await sharded(store, clock, 2)
            await store.auditor.run_once()
            await sharded(store, clock, 4)

        disk.writes, disk.cut_at = 0, cut_at
        try:
            await tell()
            ended = True
        except (PowerCut, CloudError, BaseExceptionGroup):
            ended = False
        disk.power_cut()
        clock.time_s += 60
        store = await opened(disk, clock)
        found = await names_in(store)
        assert listed <= set(found) <= listed | doubtful
        assert await counted(store) == (len(found), len(found) * len(BODY))
        await store.replicator.run_once()
        await store.auditor.run_once()
        await sharded(store, clock)
        assert await names_in(store) == found
        assert await counted(store) == (len(found), len(found) * len(BODY))
        await store.replicator.run_once()
        assert sorted(await held(store)) == found
        return ended

    cut_at = 1 + seed
    while not asyncio.run(attempt(cut_at)):
        cut_at += 7
        assert cut_at < 3000
    assert cut_at > 100


@awaited
async def test_two_nodes_cut_at_once_and_a_third_knows_an_old_map() -> None:
    clock = ManualClock()
    store = await opened(FaultyDisk(), clock, shard_rows=6)
    await store.service.make_container(*CONTAINER, {})
    other = Directory(store.cluster, 4)
    late = Directory(store.cluster, 1000)
    sharders = store.sharder, Sharder(store.cluster, other)
    listed = set[str]()

    async def insert(directory: Directory, name: str) -> None:
        await directory.apply(Change(*CONTAINER, (Row(name, store.cluster.stamp(), size_bytes=1),)))
        listed.add(name)

    for number in range(40):
        await insert((store.service.directory, other, late)[number % 3], f"{number * 17 % 40:02d}")
        old = dict(late.shards._maps)
        for directory in (store.service.directory, other):
            await directory.report()
        await asyncio.gather(*(sharder.run_once() for sharder in sharders))
        clock.time_s += SETTLE_S / 3
        late.shards._maps.update({key: (clock.time_s, known) for key, (_, known) in old.items() if number % 5})
    await sharded(store, clock)
    await store.auditor.run_once()  # finds what came by an old map, later than it may
    await sharded(store, clock)
    await store.replicator.run_once()
    assert sorted(await held(store)) == sorted(listed)
    for directory in (store.service.directory, other):
        clock.time_s += 10
        rows = await directory.listing(*CONTAINER, ListingAsk())
        assert [row.name for row in rows] == sorted(listed)
        head = await directory.head(*CONTAINER)
        assert head is not None
        assert (head.rows, head.size_bytes) == (len(listed), len(listed))


class Keeper:
    """Writes and deletes names of its own, and knows what of them must be listed, and what may be."""

    def __init__(self, one: RunningStore, number: int, dice: Random) -> None:
        self._one, self._number, self._dice = one, number, dice
        self.listed, self.doubtful = set[str](), set[str]()

    async def live(self) -> None:
        service = self._one.store.service
        while True:
            await asyncio.sleep(self._dice.uniform(0, 0.5))
            name = f"{self._dice.randrange(30):02d}/{self._number}"
            grows = self._one.now_s % 60 < 40
            self.doubtful.add(name)
            try:
                if self._dice.random() < (0.8 if grows else 0.2):
                    await service.put(intent(name), chunks(BODY))
                    self.listed.add(name)
                else:
                    self.listed.discard(name)
                    await service.delete(*CONTAINER, name)
            except NotFound:
                pass
            except CloudError:
                self.listed.discard(name)
                continue
            self.doubtful.discard(name)

    def names(self) -> Iterator[str]:
        yield from (f"{number:02d}/{self._number}" for number in range(30))


async def story(seed: int) -> int:
    """How many cuts there were."""
    dice, history = Random(f"shards/{seed}"), list[Operation]()
    async with running(4, SlowDisk(dice), Options(shard_rows=8), keeps_indexes=True) as one:
        await one.until(one.is_whole, 60)
        await one.store.service.make_container(*CONTAINER, {})
        keepers = [Keeper(one, number, Random(f"{seed}/{number}")) for number in range(3)]
        client = Client(one, 0, Random(f"{seed}/client"), history)
        await live([Trouble(one, dice).run(), *(who.live() for who in (*keepers, client))], STORY_S)
        disk = one.disk
        disk.away.clear()
        disk.read_only.clear()
        await one.until(one.is_whole, 600)
        await asyncio.sleep(60)
        await one.store.auditor.run_once()
        await asyncio.sleep(90)
        await one.until(one.is_whole, 600)
        found = [name for name in await names_in(one.store) if "/" in name]
        assert found == sorted(set(found))
        for keeper in keepers:
            own = {name for name in found if name.endswith(f"/{keeper._number}")}
            assert keeper.listed - keeper.doubtful <= own <= keeper.listed | keeper.doubtful
        assert (await counted(one.store))[0] == len(await names_in(one.store))
        cuts = one.store.service.directory.shards.cuts
    judge(history)
    return cuts


@pytest.mark.parametrize("seed", range(SEEDS))
def test_listings_are_whole_after_any_history(seed: int) -> None:
    assert run(story(seed)) > 0

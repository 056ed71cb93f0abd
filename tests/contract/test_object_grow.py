"""Indexes on a real disk when partitions are cut in two: found at once, moved by and by, also after a crash."""

from __future__ import annotations

import asyncio
from pathlib import Path

from apus.platform.process import LocalRunner
from apus.services.object.assembly import ObjectStore, drives_in, open_store
from apus.services.object.logic.ring import part_of
from apus.services.object.model import ListingAsk
from tests.object_store import awaited, chunks, drive_paths, intent, make_world

NAMES = [f"box{number}" for number in range(12)]


async def opened(root: Path) -> ObjectStore:
    world = make_world(runner=LocalRunner())
    return await open_store(world, drives_in(drive_paths(root)), root / "layout.json", part_power=3)


async def filled(root: Path) -> ObjectStore:
    store = await opened(root)
    for name in NAMES:
        await store.service.make_container("AUTH_a", name, {})
    await store.service.make_container("AUTH_a", "c", {})
    await store.service.put(intent("one"), chunks(b"data"))
    await store.replicator.run_once()
    return store


async def all_there(store: ObjectStore) -> None:
    for name in NAMES:
        head = await store.service.directory.head("AUTH_a", name)
        assert head is not None, name
        assert head.exists
    listed = await store.service.directory.listing("AUTH_a", "c", ListingAsk(limit=10))
    assert [row.name for row in listed] == ["one"]


def misplaced(root: Path, power: int) -> list[Path]:
    files = [path for path in root.glob("d*/*/*/*.db") if path.parts[-3] in ("accounts", "containers")]
    assert len(files) == 3 * (len(NAMES) + 2)
    return [path for path in files if path.parts[-2] != str(part_of(path.stem, power))]


@awaited
async def test_indexes_are_found_and_moved(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    stop = asyncio.Event()

    async def write() -> int:
        count = 0
        while not stop.is_set():
            await store.service.put(intent(f"more{count}"), chunks(b"x"))
            await store.service.delete("AUTH_a", "c", f"more{count}")
            count += 1
        return count

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.1)
    await store.membership.grow()
    await asyncio.sleep(0.1)
    stop.set()
    assert await writing
    await all_there(store)
    assert misplaced(tmp_path, 4)
    for drive in store.drives:
        await drive.indexes.settle()
    assert not misplaced(tmp_path, 4)
    await all_there(store)
    await store.replicator.run_once()
    assert store.cluster.repairs.count() == 0
    await store.close()


@awaited
async def test_a_restart_in_the_middle_changes_nothing(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await store.membership.grow()
    await store.close()
    store = await opened(tmp_path)
    assert store.cluster.ring.part_power == 4
    assert misplaced(tmp_path, 4)
    await all_there(store)
    await store.replicator.run_once()
    await store.compactor.run_once()
    assert not misplaced(tmp_path, 4)
    await all_there(store)
    await store.close()

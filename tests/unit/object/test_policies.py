"""Storage policies over the life of a store: they come later, stay, and go along when drives and partitions change."""

from __future__ import annotations

from pathlib import Path

import pytest

from apus.kernel.errors import Invalid
from apus.services.object.assembly import ObjectStore, drives_in, open_store
from apus.services.object.logic.drive_places import parse_place
from apus.services.object.logic.ring import DriveSpec
from apus.services.object.model import ListingAsk
from tests.object_store import all_of, awaited, chunks, drive_paths, intent, make_world


async def opened(root: Path, policies: dict[str, int]) -> ObjectStore:
    drives = drives_in(drive_paths(root))
    return await open_store(make_world(), drives, root / "layout.json", part_power=2, policies=policies)


async def read(store: ObjectStore, name: str) -> bytes:
    found = await store.service.find("AUTH_a", "c", name)
    assert found is not None
    return await all_of(store.service.engine.read(found, 0, found.head.size_bytes))


async def held(store: ObjectStore, name: str) -> int:
    await store.cluster.settle()
    place = await store.service.engine.place("AUTH_a", "c", name)
    heads = [await drive.copies.head(place) for drive in store.drives]
    assert [head is not None for head in heads].count(True) == sum(
        head is not None and drive.id in store.cluster.ring.primaries(place.part)
        for drive, head in zip(store.drives, heads, strict=True)
    )
    return sum(head is not None for head in heads)


@awaited
async def test_a_policy_comes_later_and_stays(tmp_path: Path) -> None:
    store = await opened(tmp_path, {})
    await store.service.make_container("AUTH_a", "old", {})
    ring = store.cluster.ring
    await store.close()
    store = await opened(tmp_path, {"two": 2})
    assert store.cluster.ring.primaries(1) == ring.primaries(1)
    assert not store.membership.moving
    await store.service.make_container("AUTH_a", "c", {}, "two")
    await store.service.put(intent("one"), chunks(b"data"))
    assert await held(store, "one") == 2
    await store.close()
    for policies in ({}, {"five": 5, "two": 2}, {"two": 2}):
        store = await opened(tmp_path, policies)
        assert store.service.policies[:2] == ("replicated", "two")
        assert await read(store, "one") == b"data"
        await store.close()
    with pytest.raises(Invalid, match="two = 3; it is two = 2"):
        await opened(tmp_path, {"two": 3})


@awaited
async def test_partitions_are_cut_and_drives_change_under_a_policy(tmp_path: Path) -> None:
    store = await opened(tmp_path, {"two": 2})
    await store.service.make_container("AUTH_a", "c", {}, "two")
    names = [f"o{number}" for number in range(20)]
    for name in names:
        await store.service.put(intent(name), chunks(name.encode()))
    await store.replicator.run_once()
    await store.membership.grow()
    assert [await read(store, name) for name in names] == [name.encode() for name in names]
    await store.replicator.run_once()
    (tmp_path / "d5").mkdir()
    await store.membership.add(parse_place(str(tmp_path / "d5")), DriveSpec("", host="host1"))
    await store.membership.change("drive1", weight=0.0)
    for _ in range(3):
        await store.replicator.run_once()
    assert [await read(store, name) for name in names] == [name.encode() for name in names]
    assert [await held(store, name) for name in names] == [2] * len(names)
    await store.membership.remove("drive1")
    assert [await read(store, name) for name in names] == [name.encode() for name in names]
    rows = await store.service.listing("AUTH_a", "c", ListingAsk())
    assert [row.name for row in rows] == sorted(names)
    await store.close()

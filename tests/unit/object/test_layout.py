"""What is kept about a store: drives are known by their paths, whatever the order in which they are named."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from apus.kernel.errors import Invalid
from apus.services.object.assembly import DrivePath, ObjectStore, drives_in, open_store
from apus.services.object.layout import Layout, LayoutFile
from apus.services.object.logic.ring import DriveSpec, Ring
from tests.object_store import awaited, chunks, drive_paths, intent, make_world


async def opened(root: Path, drives: list[DrivePath]) -> ObjectStore:
    return await open_store(make_world(), drives, root / "layout.json", part_power=3)


async def kept(root: Path) -> Layout:
    layout = await LayoutFile(make_world(), root / "layout.json").load()
    assert layout is not None
    return layout


@awaited
async def test_the_order_in_which_drives_are_named_says_nothing(tmp_path: Path) -> None:
    store = await opened(tmp_path, drives_in(drive_paths(tmp_path)))
    await store.service.engine.put(intent("one"), chunks(b"data"))
    ring = store.cluster.ring
    await store.close()
    store = await opened(tmp_path, drives_in(drive_paths(tmp_path)[::-1]))
    assert store.cluster.ring == ring
    assert {drive.id: drive.root.name for drive in store.drives} == {f"drive{n}": f"d{n}" for n in range(1, 5)}
    assert await store.service.engine.find("AUTH_a", "c", "one") is not None
    await store.close()


@awaited
async def test_a_drive_that_was_moved_is_known_by_its_mark_and_a_new_one_joins(tmp_path: Path) -> None:
    await (await opened(tmp_path, drives_in(drive_paths(tmp_path)))).close()
    (tmp_path / "d2").rename(tmp_path / "moved")
    named = [tmp_path / name for name in ("d1", "moved", "d3", "d4", "d5")]
    store = await opened(tmp_path, drives_in(named))
    layout = await kept(tmp_path)
    assert layout.paths["drive2"] == str(tmp_path / "moved")
    assert layout.paths["drive5"] == str(tmp_path / "d5")
    assert len(layout.former) == 1
    assert store.cluster.former == list(layout.former)
    await store.close()


@awaited
async def test_a_layout_from_before_paths_were_kept_takes_them_from_what_is_named(tmp_path: Path) -> None:
    store = await opened(tmp_path, drives_in(drive_paths(tmp_path)))
    ring = store.cluster.ring
    await store.close()
    old = await kept(tmp_path)
    written = {"cluster": old.cluster, "secret": old.secret, "ring": old.ring}
    (tmp_path / "layout.json").write_bytes(msgspec.json.encode(written))
    store = await opened(tmp_path, drives_in(drive_paths(tmp_path)))
    assert store.cluster.ring == ring
    assert (await kept(tmp_path)).paths == old.paths
    await store.close()
    (tmp_path / "layout.json").write_bytes(msgspec.json.encode(written))
    store = await opened(tmp_path, drives_in(drive_paths(tmp_path, 3)))
    assert sorted(store.cluster.drives) == ["drive1", "drive2", "drive3"]
    await store.close()


@awaited
async def test_a_layout_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "layout.json").write_bytes(b"{")
    with pytest.raises(Invalid, match="cannot be read"):
        await opened(tmp_path, drives_in(drive_paths(tmp_path)))


def test_numbers_of_drives_are_not_given_twice() -> None:
    layout = Layout("c", "s", msgspec.structs.replace(_ring(), drives=(DriveSpec("drive3"), DriveSpec("other"))), {})
    assert layout.next_id() == "drive4"
    assert layout.next_id(["drive7"]) == "drive8"
    assert msgspec.structs.replace(layout, last_number=9).next_id() == "drive10"


def _ring() -> Ring:
    return Ring(0, 1, (DriveSpec("drive1"),), b"\0\0")

"""Objects in fragments, on six directories as drives: 4 of data, 2 of parity, each on a drive of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from apus.kernel.errors import Conflict, Invalid, NotFound, Unavailable
from apus.services.object.assembly import ObjectStore, drives_in, open_store
from apus.services.object.cluster import ask_each
from apus.services.object.fragments import FRAGMENTS_FROM_BYTES
from apus.services.object.logic.code import archive_hash
from apus.services.object.logic.drive_places import parse_place
from apus.services.object.logic.ring import DriveSpec
from apus.services.object.logic.rings import archives_part
from apus.services.object.model import STRIDE_BYTES, Head, Place
from apus.services.object.repair_status import repair_status
from tests.object_store import all_of, awaited, chunks, drive_paths, intent, make_world

SIZES = {
    "empty": 0,
    "small": 1000,
    "edge": FRAGMENTS_FROM_BYTES,
    "odd": FRAGMENTS_FROM_BYTES + 1,
    "segment": STRIDE_BYTES,
    "more": STRIDE_BYTES + 1,
    "many": 6 * STRIDE_BYTES + 12_345,
}


def body(name: str) -> bytes:
    return Random(name).randbytes(SIZES[name])


async def opened(root: Path, drives: int = 6, code: str = "4+2") -> ObjectStore:
    store = await open_store(
        make_world(), drives_in(drive_paths(root, drives)), root / "layout.json", part_power=2, policies={"coded": code}
    )
    await store.service.make_container("AUTH_a", "c", {}, "coded")
    return store


async def filled(root: Path) -> ObjectStore:
    store = await opened(root)
    for name in SIZES:
        await store.service.put(intent(name, SIZES[name]), chunks(body(name)))
    await store.cluster.settle()
    return store


async def read(store: ObjectStore, name: str, offset: int = 0, length: int | None = None) -> bytes:
    found = await store.service.find("AUTH_a", "c", name)
    assert found is not None
    size = found.head.size_bytes - offset if length is None else length
    return await all_of(store.service.engine.read(found, offset, size))


async def where(store: ObjectStore, name: str) -> dict[int, list[str]]:
    """Drives by the number of the archive."""
    found = await store.service.find("AUTH_a", "c", name)
    assert found is not None
    coded, part = found.head.coded, archives_part(found.place.part)
    assert coded is not None
    held: dict[int, list[str]] = {}
    for index in range(6):
        place = Place(part, archive_hash(found.place.hash, coded.nonce, index))
        heads = await ask_each(store.drives, lambda drive, place=place: drive.copies.head(place), 5)
        held[index] = [drive.id for drive, head in zip(store.drives, heads, strict=True) if isinstance(head, Head)]
    return held


async def take_away(store: ObjectStore, root: Path, number: int) -> None:
    (root / f"d{number}").rename(root / f"gone{number}")
    with pytest.raises(OSError):
        await store.membership.drives[f"drive{number}"].look(write=False)


@awaited
async def test_objects_of_all_sizes_are_read_whole_and_in_part(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    dice = Random(1)
    for name, size in SIZES.items():
        found = await store.service.find("AUTH_a", "c", name)
        assert found is not None
        assert (found.head.coded is not None) == (size >= FRAGMENTS_FROM_BYTES)
        assert found.head.size_bytes == size
        assert await read(store, name) == body(name)
        for _ in range(5 if size else 0):
            offset = dice.randrange(size)
            length = dice.randint(1, size - offset)
            assert await read(store, name, offset, length) == body(name)[offset : offset + length]
    await store.close()


@awaited
async def test_each_archive_is_on_a_drive_of_its_own(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    for name in ("odd", "many"):
        held = await where(store, name)
        assert all(held.values())
        assert sorted(drive for drives in held.values() for drive in drives) == sorted(store.cluster.drives)
    await store.close()


@pytest.mark.parametrize("lost", [(1, 2), (3, 6), (4, 5)])
@awaited
async def test_two_of_six_drives_are_lost_and_made_again(tmp_path: Path, lost: tuple[int, int]) -> None:
    store = await filled(tmp_path)
    await store.replicator.run_once()
    for number in lost:
        for path in (tmp_path / f"d{number}").iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        store.membership.drives[f"drive{number}"].copies.forget()
    assert [await read(store, name) == body(name) for name in SIZES] == [True] * len(SIZES)
    for number in lost:
        await store.adopt(f"drive{number}")
    status = await repair_status(store.cluster)
    assert status.copies_at_risk > 0
    assert status.versions_alone > 0
    for _ in range(2):
        await store.replicator.run_once()
    status = await repair_status(store.cluster)
    assert (status.copies_at_risk, status.copies_to_make, status.versions_alone) == (0, 0, 0)
    two = [number for number in range(1, 7) if number not in lost][:2]
    for number in two:
        await take_away(store, tmp_path, number)
    assert [await read(store, name) == body(name) for name in SIZES] == [True] * len(SIZES)
    await store.close()


@awaited
async def test_bad_archives_are_passed_over_and_made_again(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await store.replicator.run_once()
    bad = 0
    for number in (2, 5):
        for path in (tmp_path / f"d{number}" / "policy-1" / "fragments").rglob("*"):
            if path.suffix == ".volume" or path.parent.parent.name == "large":
                data = bytearray(path.read_bytes())
                for at in range(5_000, len(data), 50_000):
                    data[at] ^= 1
                path.write_bytes(data)
                bad += 1
    assert bad >= 4
    assert [await read(store, name) == body(name) for name in SIZES] == [True] * len(SIZES)
    await store.auditor.run_once()
    assert store.auditor.bad > 0
    for _ in range(2):
        await store.replicator.run_once()
    found = store.auditor.bad
    await store.auditor.run_once()
    assert store.auditor.bad == found
    for name in ("odd", "segment", "many"):
        assert all((await where(store, name)).values())
    await store.close()


@awaited
async def test_three_lost_drives_are_too_many_for_fragments(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    for number in (1, 3, 4):
        await take_away(store, tmp_path, number)
    with pytest.raises(Unavailable, match="4 are needed"):
        await read(store, "many")
    with pytest.raises(Unavailable, match="5 are needed"):
        await store.service.put(intent("new", SIZES["segment"]), chunks(body("segment")))
    await store.close()


@awaited
async def test_stand_ins_take_what_drives_that_are_away_should(tmp_path: Path) -> None:
    store = await opened(tmp_path, drives=8)
    away = (2, 5)
    for number in away:
        await take_away(store, tmp_path, number)
    for name in SIZES:
        await store.service.put(intent(name), chunks(body(name)))
        assert await read(store, name) == body(name)
    await store.cluster.settle()
    for name in ("odd", "more"):
        assert all((await where(store, name)).values())
    for number in away:
        (tmp_path / f"gone{number}").rename(tmp_path / f"d{number}")
    for drive in store.drives:
        await drive.look(write=False)
    for _ in range(2):
        await store.replicator.run_once()
    for name in ("odd", "more"):
        found = await store.service.find("AUTH_a", "c", name)
        assert found is not None
        homes = store.cluster.ring.primaries(archives_part(found.place.part))
        assert await where(store, name) == {index: [home] for index, home in enumerate(homes)}
        assert await read(store, name) == body(name)
    await store.close()


@awaited
async def test_what_was_overwritten_or_deleted_goes_after_its_readers(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    engine = store.service.engine
    await store.service.put(intent("o"), chunks(body("many")))
    before = await engine.find("AUTH_a", "c", "o")
    assert before is not None
    await store.service.put(intent("o"), chunks(body("segment")))
    after = await engine.find("AUTH_a", "c", "o")
    assert after is not None
    assert await all_of(engine.read(before, 0, SIZES["many"])) == body("many")
    await store.archive_sweeper.run_once()
    assert await read(store, "o") == body("segment")
    assert store.archive_sweeper.removed == 1  # a scan at the start
    with pytest.raises(Unavailable):
        await all_of(engine.read(before, 0, SIZES["many"]))
    await engine.delete("AUTH_a", "c", "o")
    assert len(store.cluster.unclaimed) == 2
    for key in store.cluster.unclaimed:
        store.cluster.unclaimed[key] = 0.0
    await store.archive_sweeper.run_once()
    assert store.archive_sweeper.removed == 2
    assert not [part for drive in store.drives for part in await drive.copies.parts() if part >> 24 == 129]
    assert store.cluster.unclaimed == {}
    await store.close()


@awaited
async def test_a_write_that_fails_leaves_nothing_that_is_read(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.service.put(intent("o"), chunks(body("more")))
    with pytest.raises(Invalid, match="were announced"):
        await store.service.put(intent("o", SIZES["many"]), chunks(body("more")))
    assert await read(store, "o") == body("more")
    assert [await drive.copies.strays() for drive in store.drives] == [[]] * 6
    with pytest.raises(NotFound):
        await store.service.engine.delete("AUTH_a", "c", "nothing")
    await store.close()


@awaited
async def test_drives_join_are_drained_and_leave(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    await store.membership.grow()
    for _ in range(2):
        await store.replicator.run_once()
    with pytest.raises(Conflict, match=r"4\+2 needs 6 drives, and there would be 5"):
        await store.membership.change("drive1", weight=0.0)
    for number in (7, 8):
        (tmp_path / f"d{number}").mkdir()
        await store.membership.add(parse_place(f"{tmp_path}/d{number}"), DriveSpec("", host="host1"))
    await store.membership.change("drive1", weight=0.0)
    assert [await read(store, name) == body(name) for name in SIZES] == [True] * len(SIZES)
    for _ in range(3):
        await store.replicator.run_once()
    await store.membership.remove("drive1")
    await store.replicator.run_once()
    assert [await read(store, name) == body(name) for name in SIZES] == [True] * len(SIZES)
    assert (await repair_status(store.cluster)).copies_to_make == 0
    await store.close()
    store = await opened(tmp_path, drives=8)
    assert [await read(store, name) == body(name) for name in SIZES] == [True] * len(SIZES)
    await store.close()


@awaited
async def test_too_few_drives_are_refused_with_how_many_there_must_be(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"coded = 4\+2 needs 6 drives, and there would be 5") as caught:
        await opened(tmp_path, drives=5)
    assert caught.value.field == "storage_policies"

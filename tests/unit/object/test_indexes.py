"""The files of listings on a real disk: whatever byte of one is turned over, it is put aside or it serves what it was
given."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from random import Random

import pytest

from apus.services.object.drivers.fence import DriveIdentity, Fence, format_drive
from apus.services.object.drivers.indexes import SqliteIndexes
from apus.services.object.drivers.sqlite_index import connect_file
from apus.services.object.logic.merge import make_stamp
from apus.services.object.model import Change, CorruptCopy, DriveFull, ListingAsk, Place, Row
from tests.object_store import awaited, make_world

PLACE = Place(3, "ab" * 16)
ROWS = tuple(Row(f"name{number}", make_stamp(number + 1, "n1"), "", False, 5, 1, "e", "t") for number in range(40))


@awaited
@pytest.mark.parametrize("schema", [True, False])
async def test_a_damaged_file_is_put_aside(tmp_path: Path, schema: bool) -> None:
    world, dice = make_world(), Random(7)
    identity = DriveIdentity("d1", "c1")
    await format_drive(world, tmp_path, identity)
    damaged, change = 0, Change("a", "c", ROWS, make_stamp(1, "n1"), fields={"acl": ("me", make_stamp(1, "n1"))})
    for _ in range(80):
        indexes = SqliteIndexes(world, tmp_path, Fence(world, tmp_path, identity), part_power=8)
        made = await indexes.apply("containers", PLACE, change)
        await indexes.close()
        (path,) = tmp_path.glob("containers/*/*.db")
        data = bytearray(path.read_bytes())
        at = dice.randrange(100, data.rindex(b"CREATE TABLE") + 500) if schema else dice.randrange(len(data))
        data[at] ^= dice.randrange(1, 256)
        path.write_bytes(data)
        indexes = SqliteIndexes(world, tmp_path, Fence(world, tmp_path, identity), part_power=8)
        try:
            head = await indexes.head("containers", PLACE)
            listed = await indexes.listing("containers", PLACE, ListingAsk())
            await indexes.digest("containers", PLACE)
            await indexes.audit("containers", PLACE)
            assert head == made
            assert sorted(listed, key=lambda row: row.name) == sorted(ROWS, key=lambda row: row.name)
        except CorruptCopy:
            damaged += 1
            assert await indexes.head("containers", PLACE) is None
        assert await indexes.apply("containers", PLACE, change) == made
        await indexes.audit("containers", PLACE)
        await indexes.drop("containers", PLACE)
        await indexes.close()
    assert damaged > 3


@awaited
@pytest.mark.parametrize(
    ("what", "instead"),
    [(b"etag-of-one", b"etag-of-two"), (b"my-account", b"no-account"), (b'"readers"', b'"writers"')],
)
async def test_what_has_rotted_into_something_plausible_is_put_aside(
    tmp_path: Path, what: bytes, instead: bytes
) -> None:
    """No version tells the two apart, so a copy that is right could be healed from one that is not."""
    world, identity = make_world(), DriveIdentity("d1", "c1")
    await format_drive(world, tmp_path, identity)
    indexes = SqliteIndexes(world, tmp_path, Fence(world, tmp_path, identity), part_power=8)
    row = Row("name", make_stamp(2, "n1"), "", False, 5, 1, "etag-of-one", "t")
    change = Change("my-account", "c", (row,), make_stamp(1, "n1"), fields={"acl": ("readers", make_stamp(1, "n1"))})
    await indexes.apply("containers", PLACE, change)
    await indexes.close()
    (path,) = tmp_path.glob("containers/*/*.db")
    assert path.read_bytes().count(what) == 1
    path.write_bytes(path.read_bytes().replace(what, instead))
    indexes = SqliteIndexes(world, tmp_path, Fence(world, tmp_path, identity), part_power=8)
    with pytest.raises(CorruptCopy):
        await indexes.audit("containers", PLACE)
    assert await indexes.head("containers", PLACE) is None
    await indexes.close()


@awaited
async def test_a_file_from_before_there_were_checksums_serves_and_gets_them(tmp_path: Path) -> None:
    world, identity = make_world(), DriveIdentity("d1", "c1")
    await format_drive(world, tmp_path, identity)
    indexes = SqliteIndexes(world, tmp_path, Fence(world, tmp_path, identity), part_power=8)
    made = await indexes.apply("containers", PLACE, Change("account", "c", ROWS, make_stamp(1, "n1")))
    await indexes.close()
    (path,) = tmp_path.glob("containers/*/*.db")
    with contextlib.closing(sqlite3.connect(path)) as before:
        before.executescript("ALTER TABLE head DROP COLUMN crc; ALTER TABLE entry DROP COLUMN crc; VACUUM;")
    indexes = SqliteIndexes(world, tmp_path, Fence(world, tmp_path, identity), part_power=8)
    assert await indexes.head("containers", PLACE) == made
    await indexes.apply("containers", PLACE, Change("account", "c", (Row("new", make_stamp(99, "n1")),)))
    await indexes.audit("containers", PLACE)
    await indexes.close()
    with contextlib.closing(sqlite3.connect(path)) as after:
        assert after.execute("SELECT count(crc) FROM entry").fetchone() == (1,)
        assert after.execute("SELECT count(crc) FROM head").fetchone() == (1,)


@awaited
async def test_a_full_drive_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    """SQLite rolls back by itself there: that is no damage."""
    world, identity = make_world(), DriveIdentity("d1", "c1")
    await format_drive(world, tmp_path, identity)

    def small(path: Path) -> sqlite3.Connection:
        connection = connect_file(path)
        connection.execute("PRAGMA max_page_count=12")
        return connection

    indexes = SqliteIndexes(world, tmp_path, Fence(world, tmp_path, identity), part_power=8, connect=small)
    made = make_stamp(1, "n1")
    await indexes.apply("containers", PLACE, Change("a", "c", ROWS, made))
    large = tuple(Row("n" * 900 + str(number), make_stamp(9, "n1"), "", False, 5, 1, "e", "t") for number in range(90))
    for _ in range(3):
        with pytest.raises(DriveFull):
            await indexes.apply("containers", PLACE, Change("a", "c", large))
    head = await indexes.head("containers", PLACE)
    assert head is not None
    assert (head.made, head.rows) == (made, len(ROWS))
    assert not (tmp_path / "quarantine").exists()
    assert (await indexes.apply("containers", PLACE, Change("a", "c", gone=make_stamp(10, "n1")))).exists is False
    await indexes.close()


@awaited
async def test_a_head_whose_text_cannot_be_read_is_put_aside(tmp_path: Path) -> None:
    world, identity = make_world(), DriveIdentity("d1", "c1")
    await format_drive(world, tmp_path, identity)
    indexes = SqliteIndexes(world, tmp_path, Fence(world, tmp_path, identity), part_power=8)
    await indexes.apply("containers", PLACE, Change("account", "c", ROWS, make_stamp(1, "n1")))
    await indexes.close()
    (path,) = tmp_path.glob("containers/*/*.db")
    data = path.read_bytes()

    at = data.rindex(b"account")
    path.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    indexes = SqliteIndexes(world, tmp_path, Fence(world, tmp_path, identity), part_power=8)
    with pytest.raises(CorruptCopy):
        await indexes.head("containers", PLACE)
    assert await indexes.head("containers", PLACE) is None
    await indexes.close()

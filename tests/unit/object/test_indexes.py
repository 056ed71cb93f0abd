"""The files of listings on a real disk: whatever byte of one is turned over, it is put aside or it serves."""

from __future__ import annotations

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
    damaged = 0
    for _ in range(40):
        indexes = SqliteIndexes(world, tmp_path, Fence(world, tmp_path, identity), part_power=8)
        await indexes.apply("containers", PLACE, Change("a", "c", ROWS, make_stamp(1, "n1")))
        await indexes.close()
        (path,) = tmp_path.glob("containers/*/*.db")
        data = bytearray(path.read_bytes())
        at = dice.randrange(100, data.rindex(b"CREATE TABLE") + 500) if schema else dice.randrange(len(data))
        data[at] ^= dice.randrange(1, 256)
        path.write_bytes(data)
        indexes = SqliteIndexes(world, tmp_path, Fence(world, tmp_path, identity), part_power=8)
        try:
            await indexes.head("containers", PLACE)
            await indexes.listing("containers", PLACE, ListingAsk())
            await indexes.digest("containers", PLACE)
            await indexes.audit("containers", PLACE)
        except CorruptCopy:
            damaged += 1
            assert await indexes.head("containers", PLACE) is None
        head = await indexes.apply("containers", PLACE, Change("a", "c", ROWS, make_stamp(1, "n1")))
        assert head.rows == len(ROWS)
        await indexes.audit("containers", PLACE)
        await indexes.drop("containers", PLACE)
        await indexes.close()
    assert damaged > 3


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

"""The files of listings on a real disk: whatever byte of one is turned over, it is put aside or it serves what it was
given."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from apus.services.object.drivers.fence import DriveIdentity, Fence, format_drive
from apus.services.object.drivers.indexes import SLICE, WARM_MAX, OpenFiles, SqliteIndexes
from apus.services.object.drivers.sqlite_index import AUDIT_ROWS, Connect, connect_file
from apus.services.object.logic.merge import make_stamp
from apus.services.object.model import Change, CorruptCopy, DriveFull, ListingAsk, Place, Row
from tests.object_store import awaited, make_world

PLACE = Place(3, "ab" * 16)
ROWS = tuple(Row(f"name{number}", make_stamp(number + 1, "n1"), "", False, 5, 1, "e", "t") for number in range(40))
IDENTITY = DriveIdentity("d1", "c1")


@contextlib.asynccontextmanager
async def opened(
    root: Path, connect: Connect = connect_file, files: OpenFiles | None = None
) -> AsyncIterator[SqliteIndexes]:
    """Of a drive, which is marked when it is new."""
    world = make_world()
    if not any(root.iterdir()):
        await format_drive(world, root, IDENTITY)
    fence = Fence(world, root, IDENTITY)
    indexes = SqliteIndexes(world, root, fence, part_power=8, connect=connect, files=files)
    try:
        yield indexes
    finally:
        await indexes.close()


def file_in(root: Path) -> Path:
    (path,) = root.glob("containers/*/*.db")
    return path


@awaited
@pytest.mark.parametrize("schema", [True, False])
async def test_a_damaged_file_is_put_aside(tmp_path: Path, schema: bool) -> None:
    dice, damaged = Random(7), 0
    change = Change("a", "c", ROWS, make_stamp(1, "n1"), fields={"acl": ("me", make_stamp(1, "n1"))})
    for _ in range(80):
        async with opened(tmp_path) as indexes:
            made = await indexes.apply("containers", PLACE, change)
        data = bytearray(file_in(tmp_path).read_bytes())
        at = dice.randrange(100, data.rindex(b"CREATE TABLE") + 500) if schema else dice.randrange(len(data))
        data[at] ^= dice.randrange(1, 256)
        file_in(tmp_path).write_bytes(data)
        async with opened(tmp_path) as indexes:
            try:
                head = await indexes.head("containers", PLACE)
                listed = await indexes.listing("containers", PLACE, ListingAsk())
                await indexes.digest("containers", PLACE)
                assert await indexes.audit("containers", PLACE)
                assert head == made
                assert sorted(listed, key=lambda row: row.name) == sorted(ROWS, key=lambda row: row.name)
            except CorruptCopy:
                damaged += 1
                assert await indexes.head("containers", PLACE) is None
            assert await indexes.apply("containers", PLACE, change) == made
            assert await indexes.audit("containers", PLACE)
            await indexes.drop("containers", PLACE)
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
    row = Row("name", make_stamp(2, "n1"), "", False, 5, 1, "etag-of-one", "t")
    change = Change("my-account", "c", (row,), make_stamp(1, "n1"), fields={"acl": ("readers", make_stamp(1, "n1"))})
    async with opened(tmp_path) as indexes:
        await indexes.apply("containers", PLACE, change)
    data = file_in(tmp_path).read_bytes()
    assert data.count(what) == 1
    file_in(tmp_path).write_bytes(data.replace(what, instead))
    async with opened(tmp_path) as indexes:
        with pytest.raises(CorruptCopy):
            await indexes.audit("containers", PLACE)
        assert await indexes.head("containers", PLACE) is None


@awaited
async def test_a_file_from_before_there_were_checksums_serves_and_gets_them(tmp_path: Path) -> None:
    async with opened(tmp_path) as indexes:
        made = await indexes.apply("containers", PLACE, Change("account", "c", ROWS, make_stamp(1, "n1")))
    with contextlib.closing(sqlite3.connect(file_in(tmp_path))) as before:
        before.executescript("ALTER TABLE head DROP COLUMN crc; ALTER TABLE entry DROP COLUMN crc; VACUUM;")
    async with opened(tmp_path) as indexes:
        assert await indexes.head("containers", PLACE) == made
        await indexes.apply("containers", PLACE, Change("account", "c", (Row("new", make_stamp(99, "n1")),)))
        assert await indexes.audit("containers", PLACE)
    with contextlib.closing(sqlite3.connect(file_in(tmp_path))) as after:
        assert after.execute("SELECT count(crc) FROM entry").fetchone() == (1,)
        assert after.execute("SELECT count(crc) FROM head").fetchone() == (1,)


@awaited
@pytest.mark.parametrize("read", [True, False])
async def test_a_flush_of_much_lets_others_in_between_and_keeps_all(tmp_path: Path, read: bool) -> None:
    rows = [Row(f"name{number:04d}", make_stamp(number + 1, "n1")) for number in range(5 * SLICE + 1)]
    async with opened(tmp_path) as indexes:
        await indexes.apply("containers", PLACE, Change("a", "c", made=make_stamp(1, "n1")))
        for row in rows:
            assert indexes.note("containers", PLACE, Change("a", "c", (row,))) is None
        flushing = asyncio.create_task(indexes.flush())
        if read:  # and merges what is left
            assert list(await indexes.rows("containers", PLACE, "", len(rows))) == rows
            assert not flushing.done()
        await flushing
    with contextlib.closing(sqlite3.connect(file_in(tmp_path))) as kept:
        assert kept.execute("SELECT count(*) FROM entry").fetchone() == (len(rows),)


@awaited
async def test_a_full_drive_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    """SQLite rolls back by itself there: that is no damage."""

    def small(path: Path) -> sqlite3.Connection:
        connection = connect_file(path)
        connection.execute("PRAGMA max_page_count=12")
        return connection

    made = make_stamp(1, "n1")
    large = tuple(Row("n" * 900 + str(number), make_stamp(9, "n1"), "", False, 5, 1, "e", "t") for number in range(90))
    async with opened(tmp_path, small) as indexes:
        await indexes.apply("containers", PLACE, Change("a", "c", ROWS, made))
        for _ in range(3):
            with pytest.raises(DriveFull):
                await indexes.apply("containers", PLACE, Change("a", "c", large))
        head = await indexes.head("containers", PLACE)
        assert head is not None
        assert (head.made, head.rows) == (made, len(ROWS))
        assert not (tmp_path / "quarantine").exists()
        assert (await indexes.apply("containers", PLACE, Change("a", "c", gone=make_stamp(10, "n1")))).exists is False


@awaited
async def test_a_head_whose_text_cannot_be_read_is_put_aside(tmp_path: Path) -> None:
    async with opened(tmp_path) as indexes:
        await indexes.apply("containers", PLACE, Change("account", "c", ROWS, make_stamp(1, "n1")))
    path = file_in(tmp_path)
    data = path.read_bytes()
    at = data.rindex(b"account")
    path.write_bytes(data[:at] + b"\xff" + data[at + 1 :])
    async with opened(tmp_path) as indexes:
        with pytest.raises(CorruptCopy):
            await indexes.head("containers", PLACE)
        assert await indexes.head("containers", PLACE) is None


@awaited
async def test_a_head_that_is_known_is_told_from_memory(tmp_path: Path) -> None:
    statements: list[str] = []

    def traced(path: Path) -> sqlite3.Connection:
        connection = connect_file(path)
        connection.set_trace_callback(statements.append)
        return connection

    async with opened(tmp_path, traced) as indexes:
        made = await indexes.apply("containers", PLACE, Change("a", "c", ROWS[:3], make_stamp(1, "n1")))
        statements.clear()
        assert await indexes.head("containers", PLACE) == made
        assert statements == []
        assert indexes.note("containers", PLACE, Change("a", "c", ROWS[3:5])) is None
        head = await indexes.head("containers", PLACE)  # of what is noted the file has to hear first
        assert head is not None
        assert head.rows == 5
        await indexes.expel("containers", PLACE, [(row.name, *row.version) for row in ROWS[:2]])
        statements.clear()
        head = await indexes.head("containers", PLACE)
        assert head is not None
        assert (head.rows, statements) == (3, [])
    async with opened(tmp_path) as indexes:
        assert await indexes.head("containers", PLACE) == head
        assert await indexes.audit("containers", PLACE)


def places(count: int) -> list[Place]:
    return [Place(number % 256, f"{number:032x}") for number in range(count)]


async def fill(indexes: SqliteIndexes, count: int) -> None:
    for number, place in enumerate(places(count)):
        await indexes.apply("containers", place, Change("a", f"c{number}", ROWS[: number % 7], make_stamp(1, "n1")))


async def right(indexes: SqliteIndexes, count: int) -> None:
    for number, place in enumerate(places(count)):
        head = await indexes.head("containers", place)
        assert head is not None
        assert (head.container, head.rows) == (f"c{number}", number % 7)


@awaited
async def test_drives_share_how_many_files_are_open_and_each_keeps_a_few(tmp_path: Path) -> None:
    files, many = OpenFiles(WARM_MAX + 20), WARM_MAX + 40
    roots = [tmp_path / name for name in ("one", "two")]
    for root in roots:
        root.mkdir()
    async with opened(roots[0], files=files) as one, opened(roots[1], files=files) as two:
        await fill(one, many)
        assert files.count == files.most
        await fill(two, WARM_MAX)
        assert files.count == files.most + WARM_MAX
        await fill(one, many)  # closes its own, down to the few
        assert files.count == 2 * WARM_MAX
        for indexes in (one, two):
            await right(indexes, WARM_MAX)
        await right(one, many)
    assert files.count == 0


@awaited
async def test_files_that_nobody_uses_are_closed(tmp_path: Path) -> None:
    files = OpenFiles(100)
    async with opened(tmp_path, files=files) as indexes:
        await fill(indexes, 6)
        await indexes.rest()
        assert files.count == 6
        await indexes.head("containers", places(6)[2])
        await indexes.rest()
        assert files.count == 1
        await indexes.rest()
        assert files.count == 0
        await right(indexes, 6)


@awaited
async def test_partitions_are_cut_in_two_while_one_file_more_is_opened_than_may_be(tmp_path: Path) -> None:
    """Who opens it closes another, and does not wait for whoever waits for him."""
    last, cutting = places(WARM_MAX + 1)[-1], list[asyncio.Task[None]]()

    def meanwhile(path: Path) -> sqlite3.Connection:
        if path.stem == last.hash:
            cutting.append(asyncio.get_running_loop().create_task(indexes.repartition(9)))
        return connect_file(path)

    async with opened(tmp_path, meanwhile, OpenFiles(WARM_MAX)) as indexes:
        await fill(indexes, WARM_MAX)
        async with asyncio.timeout(10):
            await indexes.apply("containers", last, Change("a", "c", made=make_stamp(1, "n1")))
            await cutting[0]
        await right(indexes, WARM_MAX)


@awaited
async def test_an_audit_lets_others_in_and_keeps_its_file_open(tmp_path: Path) -> None:
    files, rows = OpenFiles(1), [Row(f"{number:05}", make_stamp(1, "n1")) for number in range(2 * AUDIT_ROWS)]
    async with opened(tmp_path, files=files) as indexes:
        await indexes.apply("containers", PLACE, Change("a", "c", tuple(rows), make_stamp(1, "n1")))
        assert not await indexes.audit("containers", PLACE)
        await fill(indexes, WARM_MAX + 5)
        for row in (rows[3], rows[-3]):  # behind it and before it
            gone = Row(row.name, make_stamp(2, "n1"), gone=True)
            await indexes.apply("containers", PLACE, Change("a", "c", (gone,)))
        assert not await indexes.audit("containers", PLACE)
        assert await indexes.audit("containers", PLACE)
        await fill(indexes, WARM_MAX + 5)
        assert files.count == WARM_MAX

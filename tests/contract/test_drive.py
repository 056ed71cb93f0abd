"""What the engine asks of a drive, asked of one that is here and of one behind a connection; then the connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from apus.kernel.buffers import Chunk
from apus.services.object.cluster import Cluster
from apus.services.object.drivers.drive import Copies, KeptDrive
from apus.services.object.drivers.fence import DriveIdentity, format_drive
from apus.services.object.drivers.local import LocalDrive, LocalSite
from apus.services.object.drivers.remote.channel import call_host
from apus.services.object.drivers.remote.drive import RemoteDrive
from apus.services.object.drivers.remote.link import RETRY_S
from apus.services.object.drivers.remote.server import DriveServer
from apus.services.object.drivers.remote.verbs import SHORT_S
from apus.services.object.drivers.trailer import checksums_of
from apus.services.object.engine import Engine
from apus.services.object.logic.merge import make_stamp
from apus.services.object.logic.ring import DriveSpec
from apus.services.object.logic.rings import joined
from apus.services.object.membership import new_ring
from apus.services.object.model import (
    Change,
    CorruptCopy,
    DriveFull,
    DriveTrouble,
    Head,
    ListingAsk,
    Meta,
    Place,
    ReplacedCopy,
    Row,
    Subdir,
    Totals,
)
from tests.object_store import all_of, awaited, chunks, intent, make_world

SECRET = b"the cluster's key"
IDENTITY = DriveIdentity("drive1", "cluster1")
PLACE = Place(0xAB, "ab" * 16)
POWER = 8
LARGE = bytes(range(256)) * 8192  # 2 MiB: several blocks, several frames


def stamp(number: int) -> str:
    return make_stamp(number, "n1")


def head_of(data: bytes, number: int = 1, **more: Any) -> Head:
    return Head("a", "c", "o", stamp(number), size_bytes=len(data), etag="e", checksums=checksums_of(data), **more)


def local(root: Path, identity: DriveIdentity = IDENTITY, power: int = POWER, **more: Any) -> LocalDrive:
    return LocalDrive(make_world(), root, identity, part_power=power, **more)


class Host:
    """A disk host in this process, and a proxy's drives on it."""

    def __init__(self, **more: Any) -> None:
        self.port, self._more = 0, more
        self.secret = SECRET

    async def start(self) -> None:
        self.server = DriveServer(SECRET, LocalSite(make_world(), **self._more))
        self.port = await self.server.start("127.0.0.1", self.port)

    def drive(self, root: Path, identity: DriveIdentity = IDENTITY) -> RemoteDrive:
        return RemoteDrive(
            lambda: call_host("127.0.0.1", self.port, self.secret), str(root), identity, part_power=POWER
        )


@contextlib.asynccontextmanager
async def opened(kind: str, root: Path, **more: Any) -> AsyncIterator[KeptDrive]:
    await format_drive(make_world(), root, IDENTITY)
    host = Host(**more)
    await host.start()
    drive: KeptDrive = local(root, **more) if kind == "local" else host.drive(root)
    await drive.start()
    try:
        yield drive
    finally:
        await drive.close()
        await host.server.close()


Test = Callable[[KeptDrive, Path], Coroutine[Any, Any, None]]


def on_both(test: Test) -> Any:
    @pytest.mark.parametrize("kind", ["local", "remote"])
    @awaited
    async def run(kind: str, tmp_path: Path) -> None:
        async with opened(kind, tmp_path) as drive:
            await test(drive, tmp_path)

    return run


async def _small(drive: KeptDrive, root: Path) -> None:
    copies = drive.copies
    assert await copies.head(PLACE) is None
    assert await copies.fetch(PLACE) is None
    await copies.store(PLACE, head_of(b"new", 2), memoryview(b"new"))
    await copies.store(PLACE, head_of(b"old", 1), b"old")
    assert await copies.fetch(PLACE) == (head_of(b"new", 2), b"new")
    assert await copies.fetch(PLACE, 0) == (head_of(b"new", 2), None)
    assert await all_of(copies.read(PLACE, head_of(b"new", 2), 1, 2)) == b"ew"
    assert copies.glance(PLACE) in (None, (stamp(2), ""))
    meta = Meta(stamp(2), stamp(3), "text/plain", {"x-object-meta-a": "é"})
    await copies.describe(PLACE, meta)
    assert await copies.audit(PLACE) == head_of(b"new", 2, meta=meta)
    assert await copies.unlisted() == {PLACE.hash: stamp(3)}
    copies.listed(PLACE, stamp(3))
    await asyncio.sleep(0)
    assert await copies.unlisted() == {}
    assert await copies.parts() == [PLACE.part]
    assert await copies.census() == {PLACE.part: (1, await copies.digest(PLACE.part))}
    assert await copies.inventory(PLACE.part) == {PLACE.hash: (stamp(2), stamp(3))}
    await copies.drop(PLACE, (stamp(1), ""))
    assert await copies.head(PLACE) is not None
    await copies.drop(PLACE, (stamp(2), stamp(3)))
    assert await copies.head(PLACE) is None


async def _large(drive: KeptDrive, root: Path) -> None:
    writer = await drive.copies.begin(PLACE)
    async for chunk in chunks(LARGE, 1 << 20):
        await writer.write(chunk)
    assert await drive.copies.head(PLACE) is None
    head = head_of(LARGE)
    await writer.commit(head)
    await writer.abort()
    assert await drive.copies.fetch(PLACE) == (head, None)
    for offset, length in ((0, len(LARGE)), (300_000, 700_000), (5, 0)):
        assert await all_of(drive.copies.read(PLACE, head, offset, length)) == LARGE[offset : offset + length]
    async with aclosing(drive.copies.read(PLACE, head, 0, len(LARGE))) as pieces:
        assert await anext(pieces)  # and no more: whoever reads may stop
    assert await drive.copies.audit(PLACE) == head


async def _at_hand(drive: KeptDrive, root: Path) -> None:
    copies = drive.copies
    assert copies.at_hand(PLACE, 1 << 21) is None
    for number, data in enumerate((b"small", LARGE[: 1 << 20]), 1):
        head = head_of(data, number)
        await copies.store(PLACE, head, data)
        assert await copies.fetch(PLACE) == (head, data)  # so it is in the page cache
        if isinstance(drive, RemoteDrive):
            assert copies.at_hand(PLACE, 1 << 21) is None
            continue
        assert copies.at_hand(PLACE, 0) == (head, None)
        assert _read_at_hand(copies) == (head, data)
        (volume,) = (root / "volumes").glob("*.volume")
        with volume.open("r+b") as file:
            file.seek(-1, 2)
            last = file.read(1)
            for byte, found in ((bytes([last[0] ^ 1]), None), (last, (head, data))):
                file.seek(-1, 2)
                file.write(byte)
                file.flush()
                assert _read_at_hand(copies) == found
                assert copies.at_hand(PLACE, 0) == (head, None)


def _read_at_hand(copies: Copies) -> tuple[Head, Chunk] | None:
    """Of what was not read with its head, what is read when it is sent."""
    found = copies.at_hand(PLACE, 1 << 21)
    if found is None or found[1] is None:
        return None
    head, kept = found
    data = kept if isinstance(kept, bytes | memoryview) else kept.read()
    return None if data is None else (head, data)


async def _aborted(drive: KeptDrive, root: Path) -> None:
    for _ in range(2):
        writer = await drive.copies.begin(PLACE)
        await writer.write(LARGE[: 1 << 20])
        await writer.abort()
        await writer.abort()
    assert await drive.copies.head(PLACE) is None
    assert not [path for path in root.glob("large/*/*") if path.is_file()]


async def _indexes(drive: KeptDrive, root: Path) -> None:
    indexes, rows = drive.indexes, tuple(Row(name, stamp(2), size_bytes=5, etag="e") for name in ("a/1", "a/2", "b"))
    assert await indexes.head("containers", PLACE) is None
    assert await indexes.digest("containers", PLACE) == 0
    made = await indexes.apply("containers", PLACE, Change("a", "c", rows[:1], made=stamp(1)))
    assert made.exists
    is_here = not isinstance(drive, RemoteDrive)
    assert await indexes.head("containers", PLACE) == made
    assert indexes.at_hand("containers", PLACE) == (made if is_here else None)
    wait = indexes.note("containers", PLACE, Change("a", "c", rows[1:]))
    if wait is not None:
        await wait
    assert indexes.at_hand("containers", PLACE) is None  # of that it knows nothing
    assert await indexes.rows("containers", PLACE, "a/1", 10) == list(rows[1:])
    assert list(await indexes.versions("containers", PLACE, "", 2)) == [(row.name, *row.version) for row in rows[:2]]
    found = await indexes.listing("containers", PLACE, ListingAsk(delimiter="/"))
    assert list(found) == [Subdir("a/"), rows[2]]
    await indexes.flush()
    head = await indexes.head("containers", PLACE)
    assert head is not None
    assert head.rows == len(rows)
    assert indexes.at_hand("containers", PLACE) == (head if is_here else None)
    assert await indexes.audit("containers", PLACE)
    assert await indexes.digest("containers", PLACE) != 0
    assert list(await indexes.parts("containers")) == [PLACE.part]
    assert list(await indexes.places("containers", PLACE.part)) == [PLACE]
    whole, behind = [await indexes.totals("containers", PLACE, after, "") for after in ("", "a/1")]
    assert (whole.entries, whole.rows) == (len(rows), len(rows))
    assert behind.rows == len(rows) - 1
    assert await indexes.totals("containers", PLACE, "", "a/1") == Totals(1, 1, rows[0].size_bytes, 0)
    await indexes.expel("containers", PLACE, [("a/1", rows[0].stamp, ""), (rows[1].name, "another", "")])
    assert await indexes.rows("containers", PLACE, "", 10) == list(rows[1:])
    assert await indexes.audit("containers", PLACE)
    await indexes.reclaim("containers", PLACE, stamp(1))
    await indexes.drop("containers", PLACE)
    assert indexes.at_hand("containers", PLACE) is None
    assert await indexes.head("containers", PLACE) is None


async def _pending(drive: KeptDrive, root: Path) -> None:
    change = Change("a", "c", (Row("o", stamp(1)),))
    await drive.pending.add("one", change)
    assert list(await drive.pending.names()) == ["one"]
    assert await drive.pending.get("one") == change
    await drive.pending.remove("one")
    await drive.pending.remove("one")
    assert await drive.pending.get("one") is None


async def _kept(drive: KeptDrive, root: Path) -> None:
    """What its membership and its watch ask."""
    returns: list[int] = []
    drive.on_return = lambda: returns.append(1)
    await drive.copies.store(PLACE, head_of(b"x"), b"x")
    await drive.look(write=True)
    assert await drive.free_bytes() > 0
    assert await drive.tidy() >= 0
    await drive.repartition(POWER + 1)
    assert list(await drive.copies.parts()) == [int(PLACE.hash, 16) >> (128 - POWER - 1)]
    assert not drive.comparing
    assert not returns
    mark = root / "drive.json"
    mark.rename(root / "away")
    with pytest.raises(DriveTrouble):
        await drive.look(write=False)
    (root / "away").rename(mark)
    await drive.look(write=True)
    assert returns == [1]
    assert drive.comparing
    await drive.compared()
    assert not drive.comparing
    await drive.forget()
    assert returns == [1, 1]


async def _troubles(drive: KeptDrive, root: Path) -> None:
    head = head_of(LARGE)
    writer = await drive.copies.begin(PLACE)
    await writer.write(LARGE)
    await writer.commit(head)
    with pytest.raises(ReplacedCopy):
        await all_of(drive.copies.read(PLACE, head_of(LARGE, 9), 0, 5))
    with pytest.raises(DriveTrouble) as absent:
        await drive.copies.describe(Place(1, "01" * 16), Meta(stamp(1), stamp(2), "", {}))
    assert absent.value.errno
    (path,) = [path for path in root.glob("large/*/*") if path.is_file()]
    data = bytearray(path.read_bytes())
    data[600_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptCopy):
        await all_of(drive.copies.read(PLACE, head, 0, len(LARGE)))
    assert await drive.copies.head(PLACE) is None
    await drive.copies.store(PLACE, head, LARGE)  # the connection of the failed read is as good as before
    assert await all_of(drive.copies.read(PLACE, head, 0, len(LARGE))) == LARGE


test_small_objects = on_both(_small)
test_large_objects = on_both(_large)
test_what_is_at_hand_is_sound = on_both(_at_hand)
test_an_aborted_upload_leaves_nothing = on_both(_aborted)
test_indexes = on_both(_indexes)
test_pending_changes = on_both(_pending)
test_looks_and_returns = on_both(_kept)
test_troubles_keep_their_kinds = on_both(_troubles)


@pytest.mark.parametrize("kind", ["local", "remote"])
@awaited
async def test_a_full_drive_still_deletes(kind: str, tmp_path: Path) -> None:
    async with opened(kind, tmp_path, reserve_bytes=1 << 60) as drive:
        with pytest.raises(DriveFull):
            await drive.copies.store(PLACE, head_of(b"x"), b"x")
        with pytest.raises(DriveFull):
            await drive.copies.begin(PLACE)
        await drive.copies.store(PLACE, head_of(b"", 2, gone=True), b"")


@awaited
async def test_nobody_gets_in_without_the_key(tmp_path: Path) -> None:
    await format_drive(make_world(), tmp_path, IDENTITY)
    host = Host()
    await host.start()
    host.secret = b"another key"
    drive = host.drive(tmp_path)
    with pytest.raises(DriveTrouble):
        await drive.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", host.port)
    writer.write(b"apusdrv1" + bytes(32) + bytes(32) + b"\0" * 64)
    assert len(await reader.read()) == 64  # a nonce and the host's own proof, and the end
    writer.close()
    assert not host.server.served
    await drive.close()
    await host.server.close()


class Between:
    """Stands between a proxy and a host, and does to the bytes what is said."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.spoils = self.swallows_answers = False

    async def start(self) -> int:
        self.server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        await asyncio.gather(self._pump(reader, far_writer, False), self._pump(far_reader, writer, True))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if not (answers and self.swallows_answers):
                    writer.write(bytes([*data[:-1], data[-1] ^ self.spoils]))
        writer.close()


@contextlib.asynccontextmanager
async def relayed(root: Path) -> AsyncIterator[tuple[RemoteDrive, Between, Host, int]]:
    """A drive whose connections go through something; and the port past it."""
    await format_drive(make_world(), root, IDENTITY)
    host = Host()
    await host.start()
    past, between = host.port, Between(host.port)
    host.port = await between.start()
    drive = host.drive(root)
    await drive.start()
    yield drive, between, host, past
    await drive.close()
    between.server.close()
    await host.server.close()


@awaited
async def test_a_frame_that_is_changed_on_its_way_ends_the_connection(tmp_path: Path) -> None:
    async with relayed(tmp_path) as (drive, between, host, past):
        between.spoils = True
        with pytest.raises(DriveTrouble):
            await drive.copies.store(PLACE, head_of(b"x"), b"x")
        host.port = past
        assert await drive.copies.head(PLACE) is None


@awaited
async def test_a_host_whose_answers_do_not_come_is_cut_off_for_all_who_wait(tmp_path: Path) -> None:
    """It hears us: what was asked for may have happened, and asking again is harmless."""
    async with relayed(tmp_path) as (drive, between, host, past):
        between.swallows_answers = True
        began_s = asyncio.get_running_loop().time()
        store = asyncio.ensure_future(drive.copies.store(PLACE, head_of(b"x"), b"x"))
        look = asyncio.ensure_future(drive.look(write=False))
        outcomes = await asyncio.gather(store, look, return_exceptions=True)
        assert all(isinstance(outcome, DriveTrouble) for outcome in outcomes)
        assert asyncio.get_running_loop().time() - began_s < SHORT_S  # a look's deadline, not that of the write
        host.port = past
        await drive.copies.store(PLACE, head_of(b"x"), b"x")
        assert await drive.copies.fetch(PLACE) == (head_of(b"x"), b"x")


@awaited
async def test_a_host_that_is_started_anew_says_so(tmp_path: Path) -> None:
    """What was only noted is lost: `flush` must not say that it is durable."""
    await format_drive(make_world(), tmp_path, IDENTITY)
    host = Host()
    await host.start()
    drive, returns = host.drive(tmp_path), list[int]()
    drive.on_return = lambda: returns.append(1)
    await drive.start()
    await drive.copies.store(PLACE, head_of(b"x"), b"x")
    wait = drive.indexes.note("containers", PLACE, Change("a", "c", (Row("o", stamp(1)),), made=stamp(1)))
    assert wait is not None
    await wait
    await host.server.close()
    with pytest.raises(DriveTrouble):
        await drive.look(write=False)
    await host.start()
    await asyncio.sleep(RETRY_S)  # for so long after a refusal nobody is asked
    with pytest.raises(DriveTrouble):
        await drive.indexes.flush()
    assert returns == [1]
    await drive.indexes.flush()
    assert await drive.copies.fetch(PLACE) == (head_of(b"x"), b"x")
    await drive.close()
    await host.server.close()


@awaited
async def test_an_upload_whose_connection_ends_leaves_nothing(tmp_path: Path) -> None:
    await format_drive(make_world(), tmp_path, IDENTITY)
    host = Host()
    await host.start()
    drive = host.drive(tmp_path)
    writer = await drive.copies.begin(PLACE)
    await writer.write(LARGE)
    await host.server.close()
    assert not [path for path in tmp_path.glob("large/*/*") if path.is_file()]
    with pytest.raises(DriveTrouble):
        await writer.commit(head_of(LARGE))
    await writer.abort()
    await drive.close()


@awaited
async def test_the_engine_on_three_hosts_goes_on_without_one(tmp_path: Path) -> None:
    hosts = [Host() for _ in range(3)]
    drives: dict[str, RemoteDrive] = {}
    for number, host in enumerate(hosts, 1):
        await host.start()
        identity = DriveIdentity(f"drive{number}", "cluster1")
        await format_drive(make_world(), tmp_path / f"d{number}", identity)
        drives[identity.drive] = host.drive(tmp_path / f"d{number}", identity)
    ring = new_ring([DriveSpec(name, host=name) for name in drives], POWER, 3)

    async def first_policy(account: str, container: str) -> int:
        return 0

    engine = Engine(Cluster(make_world(), joined([ring]), drives, b"secret", "n1"), first_policy)
    small, large = b"small", LARGE + LARGE
    for name, data in (("small", small), ("large", large)):
        await engine.put(intent(name, len(data)), chunks(data))
    await engine.cluster.settle()
    await hosts[0].server.close()
    await engine.put(intent("later", len(large)), chunks(large))
    await engine.put(intent("late", len(small)), chunks(small))
    for name, data in (("small", small), ("large", large), ("late", small), ("later", large)):
        found = await engine.locate(engine.cluster.place("AUTH_a", "c", name), newest=True)
        assert found is not None
        assert await all_of(engine.read(found, 0, len(data))) == data
    await engine.cluster.settle()
    for drive in drives.values():
        await drive.close()
    for host in hosts[1:]:
        await host.server.close()

"""A store of many hosts: several proxies over the same drives, each behind a connection of its own."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apus.kernel.errors import Conflict, Invalid, Unavailable
from apus.platform.clock import SystemClock
from apus.services.object.assembly import ObjectStore, drives_in, open_store
from apus.services.object.consistency import READING, Level, Reading
from apus.services.object.logic.drive_places import DISK_PORT, DrivePlace, parse_place
from apus.services.object.logic.ring import DriveSpec
from apus.services.object.logic.rings import policy_of
from apus.services.object.loops.scrubber import Scrubber
from apus.services.object.model import DriveTrouble
from apus.services.object.pace import Wish
from tests.object_hosts import HEARD_S, Hosts, hosts
from tests.object_store import all_of, awaited, chunks, drive_paths, intent, make_world

NAMES = st.from_regex(r"[a-z0-9][a-z0-9.-]{0,20}", fullmatch=True)
PATHS = st.from_regex(r"/[ -~é]{0,30}", fullmatch=True)


@given(host=NAMES | st.just("fd00::7"), port=st.integers(1, 65535), path=PATHS)
def test_a_place_is_written_as_it_is_read(host: str, port: int, path: str) -> None:
    place = DrivePlace(path, host, port)
    assert parse_place(place.text) == place
    assert parse_place(path) == DrivePlace(path)
    assert parse_place(f"{host}:{path}" if ":" not in host else f"[{host}]:{path}").port == DISK_PORT


@pytest.mark.parametrize("text", ["h:0:/d", "h:65536:/d"])
def test_a_place_has_a_port_that_can_be(text: str) -> None:
    with pytest.raises(Invalid, match="port"):
        parse_place(text)


async def three(made: Hosts) -> tuple[ObjectStore, ObjectStore]:
    """Two proxies over three hosts."""
    first = await made.proxy("p1", [made.place(number) for number in range(3)])
    return first, await made.proxy("p2")


async def read(store: ObjectStore, name: str, level: Level = Level.EVENTUAL) -> bytes | None:
    token = READING.set(Reading(level))
    try:
        engine = store.service.engine
        found = await engine.find("AUTH_a", "c", name)
        return None if found is None else await all_of(engine.read(found, 0, found.head.size_bytes))
    finally:
        READING.reset(token)


@awaited
async def test_what_one_proxy_wrote_the_other_reads(tmp_path: Path) -> None:
    async with hosts(tmp_path) as made:
        one, two = await three(made)
        await one.service.engine.put(intent("o"), chunks(b"first"))
        assert await read(two, "o") == b"first"
        await two.service.engine.put(intent("o"), chunks(b"second"))
        assert await read(one, "o", Level.STRONG) == b"second"
        await two.close()  # its drives stay open for the other
        assert await read(one, "o", Level.STRONG) == b"second"
        await one.close()


@awaited
async def test_a_strong_read_bears_one_silent_host_and_no_more(tmp_path: Path) -> None:
    async with hosts(tmp_path, 4) as made:
        one = await made.proxy("p1", [made.place(number) for number in range(4)])
        await one.service.engine.put(intent("o"), chunks(b"data"))
        await one.cluster.settle()
        await made.stop(3)
        assert await read(one, "o", Level.STRONG) == b"data"
        await made.stop(2)
        with pytest.raises(Unavailable, match="strong"):
            await read(one, "o", Level.STRONG)
        await one.close()


@awaited
async def test_two_drives_of_one_host_are_no_quorum(tmp_path: Path) -> None:
    """Else a strong read that does not hear this one host would miss what was acknowledged."""
    async with hosts(tmp_path) as made:
        one = await made.proxy("p1", [made.place(number) for number in range(3)])
        spec = DriveSpec("", host="host0")
        await one.membership.add(parse_place(made.place(0, "second")), spec)
        await one.service.engine.put(intent("o"), chunks(b"data"))
        await one.cluster.settle()
        await made.stop(1)
        await made.stop(2)
        with pytest.raises(Unavailable, match="2 on 2 hosts"):
            await one.service.engine.put(intent("o"), chunks(b"more"))
        with pytest.raises(Unavailable, match="2 on 2 hosts"):
            await one.service.engine.put(intent("o"), chunks(b"x" * (3 << 20), 1 << 20))
        await one.close()


@awaited
async def test_a_change_of_drives_reaches_the_other_proxy_or_it_is_refused(tmp_path: Path) -> None:
    async with hosts(tmp_path) as made:
        one, two = await three(made)
        await one.service.engine.put(intent("o"), chunks(b"data"))
        spec = await one.membership.add(parse_place(made.place(0, "new")), DriveSpec("", host="host0"))
        assert spec.id == "drive4"
        await asyncio.sleep(2 * HEARD_S)
        with pytest.raises(DriveTrouble, match="has not heard of it"):
            await two.membership.drives["drive1"].look(write=False)
        await two.membership.follow()
        assert two.cluster.ring == one.cluster.ring
        assert two.cluster.former == one.cluster.former
        await two.service.engine.put(intent("o"), chunks(b"more"))
        assert await read(one, "o") == b"more"
        await two.membership.set_wish(Wish(paused=True))
        await one.membership.follow()
        assert one.cluster.pace.wish.paused
        made.home.layout = msgspec.structs.replace(made.home.layout, number=99)
        with pytest.raises(Conflict, match="quicker"):
            await two.membership.change("drive4", weight=0.5)
        await one.close()
        await two.close()


@awaited
async def test_partitions_are_cut_in_two_under_both_proxies(tmp_path: Path) -> None:
    async with hosts(tmp_path) as made:
        one, two = await three(made)
        for number in range(20):
            await two.service.engine.put(intent(f"o{number}"), chunks(b"x"))
        await one.replicator.run_once()
        await one.membership.grow()
        with pytest.raises(DriveTrouble, match="has not heard of it"):
            await two.membership.drives["drive1"].copies.parts()
        await two.membership.follow()
        for number in range(20):
            assert await read(two, f"o{number}") == b"x"
            assert await read(one, f"o{number}", Level.STRONG) == b"x"
        await one.close()
        await two.close()


@awaited
async def test_a_policy_that_one_proxy_brings_the_other_serves(tmp_path: Path) -> None:
    async with hosts(tmp_path) as made:
        one, two = await three(made)
        third = await made.proxy("p3", policies={"two": 2})
        for store in (one, two):
            await store.membership.follow()
            assert list(store.service.policies) == ["replicated", "two"]
        await two.service.make_container("AUTH_a", "cheap", {}, policy="two")
        await two.service.engine.put(dataclasses.replace(intent("o"), container="cheap"), chunks(b"x"))
        for store in (one, two, third):
            found = await store.service.engine.find("AUTH_a", "cheap", "o")
            assert found is not None
            assert policy_of(found.place.part) == 1
            await store.close()


@awaited
async def test_fragments_are_on_hosts_of_their_own(tmp_path: Path) -> None:
    """Any two of three: what one proxy wrote, the other reads while a host is silent."""
    async with hosts(tmp_path) as made:
        places = [made.place(number) for number in range(3)]
        one = await made.proxy("p1", places, policies={"coded": "2+1"})
        two = await made.proxy("p2")
        await one.service.make_container("AUTH_a", "c", {}, policy="coded")
        bodies = {str(size): bytes(range(256)) * (size // 256) for size in (256, 128 << 10, 3 << 20)}
        for name, data in bodies.items():
            await one.service.engine.put(intent(name), chunks(data))
        await one.replicator.run_once()
        assert [await read(two, name, Level.STRONG) for name in bodies] == list(bodies.values())
        await made.stop(1)
        assert [await read(two, name) for name in bodies] == list(bodies.values())
        await made.start(1)
        for store in (one, two):
            await store.close()


@awaited
async def test_what_a_host_finds_bad_all_proxies_hear(tmp_path: Path) -> None:
    async with hosts(tmp_path) as made:
        one, two = await three(made)
        data = bytes(range(256)) * 8192
        await one.service.engine.put(intent("o", len(data)), chunks(data))
        await one.replicator.run_once()
        await two.replicator.run_once()
        assert all(store.cluster.remembers_all("drive1") for store in (one, two))
        (path,) = [path for path in (tmp_path / "host0").glob("drive/large/*/*") if path.is_file()]
        spoiled = bytearray(path.read_bytes())
        spoiled[600_000] ^= 1
        path.write_bytes(spoiled)
        scrubber = Scrubber(SystemClock(), made.servers[0].drives)
        for key in await scrubber.keys():
            await scrubber.settle(key)
        assert scrubber.bad == 1
        for store in (one, two):
            await store.membership.drives["drive1"].look(write=False)
            assert not store.cluster.remembers_all("drive1")
        await two.replicator.run_once()
        assert await two.cluster.drives["drive1"].copies.audit(two.cluster.place("AUTH_a", "c", "o")) is not None
        await one.close()
        await two.close()


@awaited
async def test_a_drive_that_nobody_uses_is_closed_by_its_host(tmp_path: Path) -> None:
    async with hosts(tmp_path) as made:
        one, two = await three(made)
        (path,) = made.servers[0].drives()
        await one.close()
        await made.servers[0].leave_unused(path)
        assert list(made.servers[0].drives()) == [path]
        await two.close()
        server = made.servers[0]
        while server.served[path].connections:
            await asyncio.sleep(0)
        with server.held(path):
            await server.leave_unused(path)
            assert list(server.drives()) == [path]
        await server.leave_unused(path)
        assert not server.drives()


@awaited
async def test_a_drive_that_is_opened_anew_is_first_left_in_order(tmp_path: Path) -> None:
    """A proxy brings a policy while another one uploads, and while somebody works on the drive."""
    async with hosts(tmp_path) as made:
        one, two = await three(made)
        server = made.servers[0]
        (path,) = server.drives()
        before = server.drives()[path]
        writer = await one.membership.drives["drive1"].copies.begin(one.cluster.place("AUTH_a", "c", "o"))
        await writer.write(b"x" * 1000)
        with server.held(path):
            opening = asyncio.ensure_future(made.proxy("p3", policies={"two": 2}))
            while server.served.get(path) is not None:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            assert not server.drives()
        third = await opening
        assert server.drives()[path] is not before
        with pytest.raises(DriveTrouble):
            await writer.write(b"more")
        assert not [found for found in Path(path).glob("large/*/*") if found.is_file()]
        for store in (one, two, third):
            await store.close()


@awaited
async def test_a_store_of_one_machine_has_no_drives_elsewhere(tmp_path: Path) -> None:
    store = await open_store(make_world(), drives_in(drive_paths(tmp_path)), tmp_path / "layout.json", part_power=3)
    with pytest.raises(Invalid, match="on another host"):
        await store.membership.add(parse_place("elsewhere:/srv/a"), DriveSpec(""))
    await store.close()


@awaited
async def test_directories_of_hosts_are_looked_over_before_they_are_drives(tmp_path: Path) -> None:
    async with hosts(tmp_path) as made:
        one, two = await three(made)
        (tmp_path / "host1" / "full").mkdir()
        (tmp_path / "host1" / "full" / "letter").write_text("dear")
        add = one.membership.add
        with pytest.raises(Conflict, match="letter"):
            await add(parse_place(made.place(1, "full")), DriveSpec(""))
        with pytest.raises(Conflict, match="drive2"):
            await two.membership.add(parse_place(made.place(1)), DriveSpec(""))
        with pytest.raises(Invalid, match="cannot be used"):
            await add(parse_place("127.0.0.1:1:/nowhere"), DriveSpec(""))
        for store in (one, two):
            await store.close()

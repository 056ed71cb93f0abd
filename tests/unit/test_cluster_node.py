"""What a node of several agrees on before it runs: roles that can work, one set of keys, one first start."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from apus.cli.node import check
from apus.kernel.errors import Invalid, Unavailable
from apus.kernel.settings import Settings
from apus.kernel.table import metadata
from apus.kernel.world import World
from apus.node import first_marks
from apus.node.keys import StoredKeys, fetch_token_keys
from apus.platform.bus_local import LocalBus
from apus.platform.clock import SystemClock
from apus.platform.disk import LocalDisk
from apus.platform.process import LocalRunner
from apus.platform.store_sqlite import SqliteStore
from apus.services.identity.drivers.keys import TokenKeys
from tests.doubles import HandClock


def world() -> World:
    clock = SystemClock()
    return World(clock, Random(1), LocalBus(), SqliteStore(None, clock), LocalDisk(), LocalRunner())


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        (Settings(roles=("cook",)), "roles"),
        (Settings(roles=()), "roles"),
        (Settings(roles=("compute", "network")), "join"),
        (Settings(roles=("object",)), "join"),
        (Settings(roles=("compute",), bus_url="nats://x"), "control_url"),
        (Settings(roles=("object-proxy",)), "join"),
        (Settings(roles=("identity", "object-proxy")), "join"),
        (Settings(roles=("object", "object-proxy"), bus_url="nats://x"), "roles"),
        (Settings(roles=("object-disk", "compute")), "join"),
    ],
)
def test_roles_that_cannot_work_are_refused(settings: Settings, field: str) -> None:
    with pytest.raises(Invalid) as refused:
        check(settings)
    assert refused.value.field == field


def test_roles_that_can_work() -> None:
    check(Settings(roles=("control",)))
    check(Settings(roles=("object",), bus_url="nats://x"))
    check(Settings(roles=("object-proxy",), bus_url="nats://x"))
    check(Settings(roles=("object-disk",)))
    check(Settings(roles=("compute", "network"), bus_url="nats://x", control_url="http://x"))


def test_nodes_of_one_cloud_have_the_same_keys(tmp_path: Path) -> None:
    async def story() -> None:
        here = world()
        await here.store.create_schema(metadata)  # type: ignore[attr-defined]
        await asyncio.gather(
            *(StoredKeys(here.store, "secret").agree(here.disk, tmp_path / name) for name in ("one", "two"))
        )
        one = await TokenKeys.load(here.disk, tmp_path / "one" / "tokens")
        sealed = one.seal(b"who", 1.0)
        for place in ("two",):
            other = await TokenKeys.load(here.disk, tmp_path / place / "tokens")
            assert other.open(sealed) == b"who"
        fetched = await fetch_token_keys(here, tmp_path / "objects", StoredKeys(here.store, "secret"), "secret")
        assert fetched.open(sealed) == b"who"
        row = await here.store.read(lambda tx: tx.execute("SELECT body FROM node_sealed_keys").first())
        assert all(key.read_bytes() not in row[0] for key in (tmp_path / "one" / "tokens").iterdir())
        with pytest.raises(Invalid, match=r"secrets\.json"):
            await StoredKeys(here.store, "another").agree(here.disk, tmp_path / "three")

    asyncio.run(story())


def test_an_object_node_starts_with_the_keys_of_its_last_start(tmp_path: Path) -> None:
    class Away:
        async def token_keys(self) -> bytes:
            raise Unavailable("bus.no_answerer", "nobody answers")

    async def story() -> None:
        here = world()
        kept = await TokenKeys.ensure(here.disk, tmp_path)
        found = await fetch_token_keys(here, tmp_path, Away(), "secret")
        assert found.open(kept.seal(b"who", 1.0)) == b"who"

    asyncio.run(story())


def test_each_first_thing_is_made_once_and_by_one_node() -> None:
    async def story() -> None:
        clock = HandClock()
        store = SqliteStore(None, clock)
        await store.create_schema(metadata)
        assert await first_marks.claim(store, "network", "one")
        assert not await first_marks.claim(store, "network", "two")
        assert await first_marks.claim(store, "network", "one")  # its former process is dead
        await first_marks.release(store, "network", "one")
        assert await first_marks.claim(store, "network", "two")
        await first_marks.done(store, "network", "two")
        assert not await first_marks.claim(store, "network", "one")
        assert not await first_marks.claim(store, "network", "two")

    asyncio.run(story())

"""What the proxies of one object store agree on through the control plane: layout, secrets, who leads; and disk hosts' key."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import pytest

from apus.kernel.errors import Conflict, Invalid, Unavailable
from apus.kernel.table import metadata
from apus.kernel.world import World
from apus.node.secrets import load_drive_key, load_root_secrets, load_secrets
from apus.node.shared_store import LEASE_S, Kept, Lead, SharedLayout, SharedStore, StoredShared, shared_root_secrets
from apus.platform.bus_local import LocalBus
from apus.platform.disk import LocalDisk
from apus.platform.process import LocalRunner
from apus.services.object.layout import Layout
from apus.services.object.logic.ring import DriveSpec
from apus.services.object.logic.storage_policies import StoragePolicy
from apus.services.object.membership import new_rings
from tests.doubles import HandClock
from tests.stores import open_store

KEY = "the cluster's key"
RING = new_rings([DriveSpec("drive1"), DriveSpec("drive2")], 3, [StoragePolicy("replicated", 2)])

Story = Callable[[World, StoredShared], Coroutine[Any, Any, None]]


def told(story: Story) -> None:
    async def run() -> None:
        clock = HandClock()
        store = open_store(None, clock)
        await store.create_schema(metadata)
        await story(World(clock, Random(1), LocalBus(), store, LocalDisk(), LocalRunner()), StoredShared(store))
        await store.close()

    asyncio.run(run())


class Away:
    """No control node answers."""

    async def kept(self, name: str, than: int) -> Kept | None:
        raise Unavailable("bus.no_answerer", "nobody answers")

    async def keep(self, name: str, kept: Kept) -> bool:
        raise Unavailable("bus.no_answerer", "nobody answers")

    async def lead(self, node: str, for_s: float) -> bool:
        raise Unavailable("bus.no_answerer", "nobody answers")


def test_a_layout_is_changed_by_one_proxy_after_the_other(tmp_path: Path) -> None:
    async def story(world: World, control: StoredShared) -> None:
        def home(name: str, of: SharedStore = control) -> SharedLayout:
            return SharedLayout(world, tmp_path / name / "layout.json", of, KEY)

        one, two = home("one"), home("two")
        assert await one.load() is None
        first = Layout("c", "placement", RING, {"drive1": "h:1:/a", "drive2": "h:1:/b"}, number=1)
        await one.save(first)
        assert await two.newer(0) == first
        assert await two.newer(1) is None
        second = Layout("c", "placement", RING, first.paths, number=2)
        await two.save(second)
        with pytest.raises(Conflict, match="Another proxy"):
            await one.save(Layout("c", "placement", RING, {}, number=2))
        assert await one.newer(1) == second
        assert await home("one", Away()).load() == second  # it serves with its copy
        kept = await control.kept("layout", 0)
        assert kept is not None
        assert b"placement" not in kept.sealed
        with pytest.raises(Invalid, match=r"secrets\.json"):
            await SharedLayout(world, tmp_path / "other.json", control, "another key").load()

    told(story)


def test_a_layout_that_a_restored_database_has_lost_comes_from_a_proxy(tmp_path: Path) -> None:
    async def story(world: World, control: StoredShared) -> None:
        home = SharedLayout(world, tmp_path / "layout.json", control, KEY)
        await home.save(Layout("c", "s", RING, {}, number=1))
        older = await control.kept("layout", 0)
        await home.save(Layout("c", "s", RING, {}, number=2))
        await home.save(Layout("c", "s", RING, {}, number=3))
        assert older is not None
        await world.store.write(
            lambda tx: tx.execute("UPDATE node_object_store SET number = 1, body = :body", {"body": older.sealed})
        )
        found = await home.load()
        assert found is not None
        assert found.number == 3
        await home.save(Layout("c", "s", RING, {}, number=4))

    told(story)


def test_one_proxy_leads_until_its_lease_ends(tmp_path: Path) -> None:
    async def story(world: World, control: StoredShared) -> None:
        one, two = Lead("one", control), Lead("two", control)
        for lead in (one, two, one):
            await lead.settle("all")
        assert (one.is_held, two.is_held) == (True, False)
        assert isinstance(world.clock, HandClock)
        world.clock.ahead_s += LEASE_S + 1
        await two.settle("all")
        await one.settle("all")
        assert (one.is_held, two.is_held) == (False, True)
        two._control = Away()
        with pytest.raises(Unavailable):
            await two.settle("all")
        assert two.is_held  # nobody else can be told so either

    told(story)


def test_proxies_encrypt_under_the_same_secrets(tmp_path: Path) -> None:
    async def story(world: World, control: StoredShared) -> None:
        one, two = tmp_path / "one", tmp_path / "two"
        for directory in (one, two):
            directory.mkdir()
            await shared_root_secrets(world, directory, control, KEY, make=directory is one)
        root = Path("keys") / "object-root"
        assert (one / root).read_text() == (two / root).read_text()
        longer = (one / root).read_text() + "2 " + "A" * 43 + "=\n"
        (one / root).write_text(longer)
        for directory in (one, two):
            await shared_root_secrets(world, directory, control, KEY, make=True)
        assert (two / root).read_text() == longer
        await shared_root_secrets(world, two, Away(), KEY, make=True)
        assert load_root_secrets(two, make=False) is not None

    told(story)


def test_no_secrets_are_made_where_none_are_needed(tmp_path: Path) -> None:
    async def story(world: World, control: StoredShared) -> None:
        await shared_root_secrets(world, tmp_path, control, KEY, make=False)
        assert not (tmp_path / "keys").exists()

    told(story)


def test_disk_hosts_are_given_a_key_that_says_nothing_else(tmp_path: Path) -> None:
    control, disk = tmp_path / "control", tmp_path / "disk"
    for directory in (control, disk / "keys"):
        directory.mkdir(parents=True)
    with pytest.raises(Invalid, match="drive-key"):
        load_drive_key(disk)
    cluster_key = load_secrets(control).cluster_key
    key = load_drive_key(control)
    written = control / "keys" / "object-drives"
    assert written.stat().st_mode & 0o777 == 0o600
    assert cluster_key not in written.read_text()
    (disk / "keys" / "object-drives").write_text(written.read_text())
    assert load_drive_key(disk) == key
    (disk / "keys" / "object-drives").write_text("zz")
    with pytest.raises(Invalid, match="damaged"):
        load_drive_key(disk)

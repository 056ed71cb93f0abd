"""Opens the real world of one process: its store, its bus, its disk and its dice."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TypeVar

from apus.kernel.errors import Invalid, Unavailable
from apus.kernel.events import keep_numbers_rising
from apus.kernel.log import get_logger
from apus.kernel.settings import Settings
from apus.kernel.world import Bus, Store, Transaction, World
from apus.platform.bus_local import LocalBus
from apus.platform.bus_unix import UnixBus, UnixHub
from apus.platform.clock import SystemClock
from apus.platform.disk import LocalDisk
from apus.platform.migrations import migrate
from apus.platform.process import LocalRunner

T = TypeVar("T")
DATABASE_EVERY_S = 1.0

_log = get_logger("apus.node")


class NoStore:
    """The store of a process that has none: hosts and object processes keep nothing but files."""

    async def write(self, work: Callable[[Transaction], T]) -> T:
        raise Unavailable("store.none", "This process has no store: it asks the control node.")

    async def read(self, work: Callable[[Transaction], T]) -> T:
        raise Unavailable("store.none", "This process has no store: it asks the control node.")

    async def close(self) -> None:
        return


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """A world, and what must run or be closed for it."""

    world: World
    hub: UnixHub | None
    """Opens the local bus to the other processes of this machine."""
    joined: UnixBus | None
    """To be run: the connection to the hub."""

    async def close(self) -> None:
        if self.hub is not None:
            await self.hub.close()
        await self.world.bus.close()
        await self.world.store.close()


async def open_world(state_dir: Path, settings: Settings, *, with_store: bool, with_bus: bool = True) -> Opened:
    """Raise Unavailable when the store or the bus cannot be used.  Without a bus nobody else is told or asked."""
    clock = SystemClock()
    dice = Random(int.from_bytes(os.urandom(32), "big"))
    bus: Bus
    hub: UnixHub | None = None
    joined: UnixBus | None = None
    if with_bus:
        bus, hub, joined = await _open_bus(state_dir, settings, is_hub=with_store)
    else:
        bus = LocalBus()
    store: Store = await _open_store(state_dir, settings, clock, dice) if with_store else NoStore()
    return Opened(World(clock, dice, bus, store, LocalDisk(), LocalRunner()), hub, joined)


async def _open_bus(state_dir: Path, settings: Settings, *, is_hub: bool) -> tuple[Bus, UnixHub | None, UnixBus | None]:
    if settings.bus_url:
        from apus.platform.bus_nats import NatsBus

        bus = NatsBus(settings.bus_url.split(","), name=settings.node)
        await bus.open()
        return bus, None, None
    path = state_dir / "run" / "bus.sock"
    if is_hub:
        local = LocalBus()
        hub = UnixHub(local, path)
        await hub.start()
        return local, hub, None
    joined = UnixBus(path)
    return joined, None, joined


async def _until_it_answers(store: Store, clock: SystemClock) -> None:
    """A database that is away is waited for: it may start after us, as after a power cut.  Raise Invalid."""
    from asyncpg import InvalidAuthorizationSpecificationError, InvalidCatalogNameError

    while True:
        try:
            await store.read(lambda tx: tx.execute("SELECT 1"))
            return
        except (InvalidAuthorizationSpecificationError, InvalidCatalogNameError) as error:
            raise Invalid("store.refused", f"The database refuses us: {error}.", field="store_url") from error
        except Unavailable as error:
            _log.warning("waiting for the database", why=error.shown)
            await clock.sleep(DATABASE_EVERY_S)


async def _open_store(state_dir: Path, settings: Settings, clock: SystemClock, dice: Random) -> Store:
    store: Store
    if settings.store_url:
        from apus.platform.store_postgres import PostgresStore

        store = PostgresStore(settings.store_url, clock, dice)
        await _until_it_answers(store, clock)
    else:
        from apus.platform.store_sqlite import SqliteStore

        directory = state_dir / "store"
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        store = SqliteStore(directory / "apus.sqlite", clock)
    from apus.node.schema import metadata

    await migrate(store, metadata)
    await store.write(keep_numbers_rising)
    return store

"""An identity service of its own for each test: store in memory, quick hashes, real everything else."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

from apus.kernel.table import metadata
from apus.kernel.world import World
from apus.platform.bus_local import LocalBus
from apus.platform.clock import SystemClock
from apus.platform.disk import LocalDisk
from apus.platform.process import LocalRunner
from apus.services.identity.api.routes import identity_api
from apus.services.identity.contract import CatalogueEntry
from apus.services.identity.drivers.keys import TokenKeys
from apus.services.identity.drivers.passwords import Passwords
from apus.services.identity.service import Bootstrap, Identity
from apus.wire.app import App
from tests.stores import open_store

ADMIN_PASSWORD, DEMO_PASSWORD = "admin-secret", "demo-secret"


@contextlib.asynccontextmanager
async def identity_cloud(url: str = "http://127.0.0.1:1", path: Path | None = None) -> AsyncIterator[tuple[App, Any]]:
    clock, bus, run = SystemClock(), LocalBus(), LocalRunner()
    store, disk = open_store(path, clock), LocalDisk()
    await store.create_schema(metadata)
    world = World(clock=clock, dice=Random(7), bus=bus, store=store, disk=disk, run=run)
    identity = Identity(
        world, TokenKeys.in_memory(), TokenKeys.in_memory(), passwords=Passwords(run, memory_kib=64, passes=1)
    )
    await identity.start()
    await identity.bootstrap(
        Bootstrap(
            admin_password=ADMIN_PASSWORD,
            tenants={"demo": DEMO_PASSWORD},
            catalogue=[
                CatalogueEntry(type="identity", name="keystone", url=f"{url}/identity"),
                CatalogueEntry(type="compute", name="nova", url=f"{url}/compute/v2.1"),
                CatalogueEntry(type="object-store", name="swift", url=f"{url}/v1/AUTH_%(project_id)s"),
            ],
        )
    )
    try:
        yield App([identity_api(identity)], identity.verifier, dice=Random(8)), identity
    finally:
        await bus.close()
        await store.close()
        run.close()
        disk.close()

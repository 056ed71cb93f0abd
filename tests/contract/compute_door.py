"""Compute and placement behind a real HTTP server on a loopback port, with fixed tokens instead of identity."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from random import Random
from typing import Any

import uvicorn

from apus.kernel.caller import Caller
from apus.kernel.errors import Unauthenticated
from apus.kernel.table import metadata
from apus.kernel.world import World
from apus.platform.bus_local import LocalBus
from apus.platform.clock import SystemClock
from apus.platform.disk import LocalDisk
from apus.platform.process import LocalRunner
from apus.services.compute.api.routes import compute_apis
from apus.services.placement.api.routes import placement_api
from apus.services.placement.inventory import Inventories
from apus.wire.app import App
from tests.sim.cloud import ADMIN, ALICE, BOB, READER, Cloud
from tests.stores import open_store

TOKENS = {"alice": ALICE, "bob": BOB, "admin": ADMIN, "reader": READER}


class Tokens:
    def verify(self, token: str) -> Caller:
        if token not in TOKENS:
            raise Unauthenticated("identity.token", "The token is wrong.")
        return TOKENS[token]


@contextlib.contextmanager
def serving(**cloud_options: Any) -> Iterator[tuple[str, Cloud]]:
    """The base URL, and the cloud behind it (its loop runs in another thread)."""
    started = threading.Event()
    found: dict[str, Any] = {}

    async def main() -> None:
        clock = SystemClock()
        store = open_store(None, clock)
        await store.create_schema(metadata)
        world = World(clock=clock, dice=Random(7), bus=LocalBus(), store=store, disk=LocalDisk(), run=LocalRunner())
        async with Cloud(world, **cloud_options) as cloud:
            app = App(
                [*compute_apis(cloud.compute), placement_api(Inventories(world, cloud.placement))],
                Tokens(),
                dice=Random(8),
            )
            server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
            serve = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            found.update(server=server, cloud=cloud, port=server.servers[0].sockets[0].getsockname()[1])
            started.set()
            await serve

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        assert started.wait(20)
        yield f"http://127.0.0.1:{found['port']}", found["cloud"]
    finally:
        if "server" in found:
            found["server"].should_exit = True
        thread.join(20)

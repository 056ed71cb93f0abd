"""The network service behind a real port, for tests with real clients: tokens are the names of projects."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

from apus.kernel.caller import Caller
from apus.kernel.errors import Unauthenticated
from apus.kernel.table import metadata
from apus.kernel.world import World
from apus.node.http import HttpServer, listen_on
from apus.platform.bus_local import LocalBus
from apus.platform.clock import SystemClock
from apus.platform.disk import LocalDisk
from apus.platform.process import LocalRunner
from apus.services.network.api.routes import network_api
from apus.services.network.service.service import NetworkService
from apus.wire.app import App
from tests.stores import open_store


class TokensAreProjects:
    """`admin` is the administrator, `p-NAME` a member of that project."""

    def verify(self, token: str) -> Caller:
        if token == "admin":
            roles = frozenset({"admin", "manager", "member", "reader"})
            return Caller(user_id="root", project_id="p-admin", roles=roles)
        if token.startswith("p-"):
            return Caller(user_id="u", project_id=token, roles=frozenset({"member", "reader"}))
        if token.startswith("r-"):
            return Caller(user_id="u", project_id="p" + token[1:], roles=frozenset({"reader"}))
        raise Unauthenticated("wire.bad_token", "The request you have made requires authentication.")


class NetworkServer:
    def __init__(self, world: World, url: str, service: NetworkService) -> None:
        self.world, self.url, self.service = world, url, service


@contextlib.asynccontextmanager
async def network_world(path: Path | None = None) -> AsyncIterator[World]:
    clock = SystemClock()
    store = open_store(path, clock)
    await store.create_schema(metadata)
    bus, disk, run = LocalBus(), LocalDisk(), LocalRunner()
    try:
        yield World(clock, Random(1), bus, store, disk, run)
    finally:
        await bus.close()
        await store.close()
        run.close()
        disk.close()


@contextlib.asynccontextmanager
async def network_server(path: Path | None = None) -> AsyncIterator[NetworkServer]:
    async with network_world(path) as world:
        service = NetworkService(world)
        listening = listen_on("127.0.0.1", 0)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/network"
        app = App([network_api(service)], TokensAreProjects(), dice=Random(2))
        server = HttpServer(app, listening)
        running = asyncio.create_task(server.run())
        try:
            yield NetworkServer(world, url, service)
        finally:
            server.stop()
            await running

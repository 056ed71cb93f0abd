"""A store of many hosts in one process: disk hosts on ports of this machine, and proxies that share a layout."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from apus.kernel.errors import Conflict
from apus.platform.bus_local import LocalBus
from apus.services.object.assembly import DrivePath, ObjectStore, Shared, drives_in, open_store
from apus.services.object.drivers.local import LocalSite
from apus.services.object.drivers.remote.server import DriveServer
from apus.services.object.drivers.remote.site import RemoteSite
from apus.services.object.layout import Layout
from apus.services.object.logic.drive_places import DrivePlace
from tests.object_store import make_world

SECRET = b"the cluster's key"
HEARD_S = 0.2


class SharedLayout:
    """What all proxies find, and may change one after the other.  Implements LayoutHome."""

    def __init__(self) -> None:
        self.layout: Layout | None = None

    async def load(self) -> Layout | None:
        return self.layout

    async def newer(self, than: int) -> Layout | None:
        return self.layout if self.layout is not None and self.layout.number > than else None

    async def save(self, layout: Layout) -> None:
        before = self.layout.number if self.layout is not None else 0
        if layout.number != before + 1:
            raise Conflict("object.layout_changed", "Another proxy was quicker.")
        self.layout = layout


class Hosts:
    """`count` hosts, each with the directory `drive` below its own."""

    def __init__(self, root: Path, count: int) -> None:
        self.root, self.home, self.bus = root, SharedLayout(), LocalBus()
        self.servers: dict[int, DriveServer] = {}
        self.ports = [0] * count

    async def start(self, number: int) -> None:
        server = DriveServer(SECRET, LocalSite(make_world()), heard_s=HEARD_S)
        self.ports[number] = await server.start("127.0.0.1", self.ports[number])
        self.servers[number] = server

    async def stop(self, number: int) -> None:
        await self.servers.pop(number).close()

    def place(self, number: int, name: str = "drive") -> str:
        return f"127.0.0.1:{self.ports[number]}:{self.root / f'host{number}' / name}"

    async def proxy(self, node: str, drives: Sequence[str] = (), **more: Any) -> ObjectStore:
        shared = Shared(self.home, _site, lambda: node == "p1")
        wanted = [apart(drive, number) for number, drive in enumerate(drives_in(drives))]
        world = make_world(bus=self.bus)
        return await open_store(world, wanted, self.root / "unused", node=node, part_power=3, shared=shared, **more)


def apart(drive: DrivePath, number: int) -> DrivePath:
    """All hosts have one address here: their names keep them apart."""
    return dataclasses.replace(drive, spec=msgspec.structs.replace(drive.spec, host=f"host{number}"))


def _site(place: DrivePlace) -> RemoteSite:
    return RemoteSite(place.host, place.port, SECRET)


@contextlib.asynccontextmanager
async def hosts(root: Path, count: int = 3) -> AsyncIterator[Hosts]:
    made = Hosts(root, count)
    for number in range(count):
        await made.start(number)
    try:
        yield made
    finally:
        for server in made.servers.values():
            await server.close()

"""The object-disk role: this host's drives for the proxies of a store, and the loops that belong with the bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from apus.kernel.errors import Unavailable
from apus.kernel.log import get_logger
from apus.kernel.loop import Loop
from apus.kernel.settings import Settings
from apus.kernel.world import World
from apus.node.secrets import load_drive_key
from apus.node.stages import Stages
from apus.node.wiring import Part, looped
from apus.services.object.drivers.drive import KeptDrive
from apus.services.object.drivers.local import LocalSite
from apus.services.object.drivers.remote.server import DriveServer
from apus.services.object.loops.compactor import Compactor
from apus.services.object.loops.idle_drives import IdleDrives
from apus.services.object.loops.on_drives import OnDrives
from apus.services.object.loops.scrubber import Scrubber
from apus.wire.metrics import Metrics

_log: Final = get_logger("apus.object.disk")


class WiredDisks:
    def __init__(self, server: DriveServer, at: str, world: World, stages: Stages) -> None:
        self._server, self._at, self._world, self._stages = server, at, world, stages
        self._metrics = Metrics(world.clock.monotonic_s)

    def parts(self) -> Sequence[Part]:
        server, drives = self._server, self._server.drives
        work: list[Loop] = [Scrubber(self._world.clock, drives), Compactor(drives, _failed)]
        loops: list[Loop] = [*(OnDrives(loop, server) for loop in work), IdleDrives(server)]
        return [looped(loop, self._world.clock, self._metrics) for loop in loops]

    async def begin(self) -> None:
        self._stages.reached(f"drives are served at {self._at}")

    async def close(self) -> None:
        await self._server.close()


def _failed(drive: KeptDrive, error: OSError) -> None:
    _log.warning("a drive cannot be tidied", drive=drive.id, why=str(error))


async def wire_disks(state_dir: Path, settings: Settings, world: World, stages: Stages) -> WiredDisks:
    """Listen.  Raise Invalid without the key, Unavailable where somebody else has the port."""
    server = DriveServer(load_drive_key(state_dir), LocalSite(world))
    at = f"{settings.bind}:{settings.disk_port}"
    try:
        await server.start(settings.bind, settings.disk_port)
    except OSError as error:
        raise Unavailable("node.port", f"{at} cannot be listened on: {error.strerror or error}.") from error
    return WiredDisks(server, at, world, stages)

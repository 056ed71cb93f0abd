"""`apus down`: what of a cloud outlives its processes (guests, their networks) goes as well, and nothing else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from apus.kernel.errors import CloudError
from apus.kernel.settings import Settings
from apus.node.places import network_run_dir
from apus.node.world import Opened, open_world


def sweep_machine(state_dir: Path, settings: Settings) -> Sequence[str]:
    """Stop this cloud's guests and take its networks away; returns what was done, a line each."""
    return asyncio.run(_sweep(state_dir, settings))


async def _sweep(state_dir: Path, settings: Settings) -> Sequence[str]:
    opened = await open_world(state_dir, settings, with_store=False)
    try:
        return [*await _guests(opened, state_dir), *await _networks(opened, settings)]
    finally:
        await opened.close()


async def _guests(opened: Opened, state_dir: Path) -> Sequence[str]:
    compute_dir = state_dir / "compute"
    if not (compute_dir / "domains").exists():
        return ()
    from apus.services.compute.drivers.hypervisor import Power
    from apus.services.compute.drivers.qemu.driver import QemuHypervisor

    driver = QemuHypervisor(opened.world, compute_dir, "tcg")
    running = [found for found in await driver.inventory() if found.power in (Power.ON, Power.PAUSED, Power.STARTING)]
    await asyncio.gather(*(driver.halt(found.incarnation_id) for found in running))
    return [f"{len(running)} guests stopped"] if running else ()


async def _networks(opened: Opened, settings: Settings) -> Sequence[str]:
    if os.geteuid() != 0 or settings.network in ("user", "simulated"):
        return ()
    from apus.services.network.drivers.flat.driver import FlatDriver

    world = opened.world
    driver = FlatDriver(
        world.run,
        world.disk,
        prefix=settings.network_prefix,
        run_directory=network_run_dir(settings),
        serve_metadata=None,
    )
    try:
        await driver.sweep()
    except CloudError as error:
        return [f"networks: {error.shown}"]
    return ()

"""The host roles: the agents of compute and network on this machine, or of hosts that are only simulated."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from apus.kernel import loop as loops
from apus.kernel.errors import Unavailable
from apus.kernel.ids import child_id
from apus.kernel.log import get_logger
from apus.kernel.settings import Settings
from apus.kernel.world import World
from apus.node.places import network_run_dir
from apus.node.seams import ControlSeams, serve_consoles
from apus.node.stages import Stages
from apus.node.wiring import Part
from apus.services.compute.agent.agent import Agent
from apus.services.compute.agent.image_cache import ReadImage
from apus.services.network.agent.agent import NetworkAgent
from apus.services.network.drivers.driver import NetworkDriver
from apus.services.network.drivers.metadata_proxy import MetadataServer
from apus.services.placement.contract import HostReport, Inventory
from apus.wire.client import HttpClient

_log = get_logger("apus.host")
MEMORY_RESERVED_MIB = 512
"""Left to the machine itself."""
SIM_VCPUS, SIM_MEMORY_MIB, SIM_DISK_GIB = 64, 262_144, 10_000


class WiredHost:
    def __init__(self, world: World, stages: Stages, make: Callable[[WiredHost], Awaitable[None]]) -> None:
        self._world, self._stages = world, stages
        self.agents: list[Agent] = []
        self.networks: list[NetworkAgent] = []
        self.kind = ""
        self._make, self._made = make, asyncio.Event()

    def parts(self) -> Sequence[Part]:
        return [("host", self._run())]

    async def _run(self) -> None:
        """The APIs do not wait for the machine to be looked over (the first time, a guest is run to probe it)."""
        await self._make(self)
        clock = self._world.clock
        async with asyncio.TaskGroup() as tasks:
            for agent in self.agents:
                tasks.create_task(agent.run(), name=f"agent-{agent.host}")
            for network in self.networks:
                tasks.create_task(loops.drive(network, network.mailbox, clock), name="network-agent")
            await serve_consoles(self._world.bus, [(agent.host, agent) for agent in self.agents])
            self._made.set()

    async def begin(self) -> None:
        await self._made.wait()
        self._stages.reached(self.kind)

    async def close(self) -> None:
        for network in self.networks:
            await network.close()


def wire_host(
    state_dir: Path, settings: Settings, world: World, control: ControlSeams, read_image: ReadImage, stages: Stages
) -> WiredHost:
    """`read_image`: an image's bytes, from this process or the control node.  What is made, is made when it runs."""

    async def make(wired: WiredHost) -> None:
        if settings.sim_hosts:
            await _simulated(wired, settings, world, control)
        else:
            await _real(wired, state_dir, settings, world, control, read_image)

    return WiredHost(world, stages, make)


async def _simulated(wired: WiredHost, settings: Settings, world: World, control: ControlSeams) -> None:
    from apus.services.compute.agent.journal import MemoryJournal
    from apus.services.compute.agent.sim import SimGuests
    from apus.services.network.drivers.simulated import SimulatedDriver

    for number in range(1, settings.sim_hosts + 1):
        name = f"{settings.node}-sim-{number}"
        report = _report(name, SIM_VCPUS, SIM_MEMORY_MIB, SIM_DISK_GIB, settings)
        network = NetworkAgent(world, control.network, SimulatedDriver(), host=name)
        await network.start()
        agent = Agent(
            world,
            lambda report=report: report,  # type: ignore[misc]
            work=control.work,
            placement=control.placement,
            guests=SimGuests(world.clock, network),
            journal=MemoryJournal(),
        )
        wired.networks.append(network)
        wired.agents.append(agent)
    wired.kind = f"{settings.sim_hosts} simulated hosts"


async def _real(
    wired: WiredHost, state_dir: Path, settings: Settings, world: World, control: ControlSeams, read_image: ReadImage
) -> None:
    from apus.services.compute.agent.hypervisor_guests import HypervisorGuests
    from apus.services.compute.agent.image_cache import ImageCache
    from apus.services.compute.agent.journal import DiskJournal
    from apus.services.compute.drivers.qemu.accelerator import probe
    from apus.services.compute.drivers.qemu.driver import QemuHypervisor

    compute_dir = state_dir / "compute"
    compute_dir.mkdir(parents=True, exist_ok=True, mode=0o755)
    driver = await open_network_driver(state_dir, settings, world, control)
    network = NetworkAgent(world, control.network, driver, host=settings.node)
    try:
        await network.start()
    except Unavailable as error:
        if settings.network != "auto":
            raise
        _log.warning("the flat network does not work here", why=error.shown)
        driver = _user_driver(state_dir, world)
        network = NetworkAgent(world, control.network, driver, host=settings.node)
        await network.start()
    accelerator = await probe(world, compute_dir)
    guests = HypervisorGuests(
        world,
        QemuHypervisor(world, compute_dir, accelerator),
        images=ImageCache(world, compute_dir / "images", read_image),
        plugs=network,
        work=control.work,
        config_dir=compute_dir / "config",
    )
    agent = Agent(
        world,
        lambda: _machine_report(state_dir, settings, accelerator, driver.capabilities().name),
        work=control.work,
        placement=control.placement,
        guests=guests,
        journal=DiskJournal(world.disk, compute_dir / "journal"),
    )
    wired.networks.append(network)
    wired.agents.append(agent)
    wired.kind = f"host {settings.node}: QEMU ({accelerator}), {driver.capabilities().name} network"


async def open_network_driver(
    state_dir: Path, settings: Settings, world: World, control: ControlSeams
) -> NetworkDriver:
    """The driver that was asked for; by `auto` the flat one for root, else QEMU's user-mode network."""
    kind = settings.network
    if kind == "auto":
        kind = "flat" if os.geteuid() == 0 else "user"
    if kind == "simulated":
        from apus.services.network.drivers.simulated import SimulatedDriver

        return SimulatedDriver()
    if kind == "user":
        return _user_driver(state_dir, world)
    from apus.services.network.drivers.flat.driver import FlatDriver

    async def metadata(
        network_id: str, remote_ip: str, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        answer = await control.metadata.answer(network_id, remote_ip, method, path, dict(headers), body)
        return answer.status, answer.headers, answer.body

    server = MetadataServer(metadata)
    return FlatDriver(
        world.run,
        world.disk,
        prefix=settings.network_prefix,
        run_directory=network_run_dir(settings),
        serve_metadata=server.serve,
    )


def _user_driver(state_dir: Path, world: World) -> NetworkDriver:
    from apus.services.network.drivers.user.driver import UserDriver

    return UserDriver(world.run, world.disk, state_path=state_dir / "network" / "user.json")


def image_reader(settings: Settings, control: ControlSeams) -> ReadImage:
    """Images from the control node over HTTP, with a token that is good for that alone."""
    parts = [urlsplit(url) for url in (settings.control_url or f"http://127.0.0.1:{settings.port}").split(",")]
    clients = [HttpClient(part.hostname or "127.0.0.1", part.port or 80) for part in parts]

    async def read(image_id: str) -> AsyncIterator[bytes]:
        token = await control.tokens.image_token()
        target = f"/image/v2/images/{image_id}/file".encode()
        for client in list(clients):
            begun = False
            try:
                async with client.request("GET", target, [(b"x-auth-token", token.encode())]) as reply:
                    if reply.status != 200:
                        why = f"Image {image_id} cannot be read: HTTP {reply.status}."
                        raise Unavailable("compute.image_refused", why)
                    async for chunk in reply.body():
                        begun = True
                        yield chunk
                    return
            except (Unavailable, OSError) as error:
                clients.append(clients.pop(clients.index(client)))  # the next image begins with another node
                if begun or client is clients[0] or len(clients) == 1:
                    raise Unavailable(
                        "compute.image_unread", f"Image {image_id} cannot be read now: {error}"
                    ) from error
        raise Unavailable("compute.image_unread", f"No control node gives image {image_id}.")

    return read


def _report(name: str, vcpus: int, memory_mib: int, disk_gib: int, settings: Settings, *traits: str) -> HostReport:
    return HostReport(
        host=name,
        host_id=child_id("host", name),
        inventories={
            "VCPU": Inventory(total=vcpus, allocation_ratio=settings.cpu_allocation_ratio),
            "MEMORY_MB": Inventory(total=memory_mib, allocation_ratio=settings.memory_allocation_ratio),
            "DISK_GB": Inventory(total=disk_gib),
        },
        traits=traits,
        booted_at_s=_booted_at_s(),
    )


def _booted_at_s() -> int:
    lines = Path("/proc/stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("btime "))


def _machine_report(state_dir: Path, settings: Settings, accelerator: str, network: str) -> HostReport:
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    memory_mib = max(1, pages * page_bytes // (1 << 20) - MEMORY_RESERVED_MIB)
    disk = shutil.disk_usage(state_dir)
    traits = (f"CUSTOM_APUS_{accelerator.upper()}", f"CUSTOM_APUS_NETWORK_{network.upper()}")
    return _report(settings.node, os.cpu_count() or 1, memory_mib, max(1, disk.total >> 30), settings, *traits)

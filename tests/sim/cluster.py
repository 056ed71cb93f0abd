"""A whole cluster on a simulated World: control nodes and five hosts, wired as `node/` wires them over the bus.

Everything that runs is production code, except what stands for hardware: guests, network devices, images.  Machines
outlive the processes on them, so a host's guests and plugs are kept here and not in its agents.  What a process is
built of is `Parts`: with a broken one in place of one of them, the histories must find it out.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from apus.kernel import loop as loops
from apus.kernel.caller import Caller, the_system
from apus.kernel.errors import Conflict, Unavailable
from apus.kernel.flow import FencedStore, FlowRunner
from apus.kernel.once import OnceStore
from apus.kernel.world import Clock, Store, Transaction, World
from apus.node.schema import metadata
from apus.node.seams import ControlSeams, ask_control, console_of, serve_consoles, serve_control
from apus.services.compute.agent.agent import Agent
from apus.services.compute.agent.guests import Guests, State
from apus.services.compute.agent.hypervisor_guests import HypervisorGuests
from apus.services.compute.agent.image_cache import ImageCache
from apus.services.compute.agent.journal import DiskJournal
from apus.services.compute.agent.sim import SimGuests
from apus.services.compute.contract import HostWork, Power, Wish
from apus.services.compute.drivers.fake import FakeHypervisor, FakeMachine, Mishaps
from apus.services.compute.loops.host_watch import HostWatch
from apus.services.compute.loops.orphan_sweep import OrphanSweep
from apus.services.compute.service import Compute
from apus.services.network.agent.agent import NetworkAgent
from apus.services.network.drivers.simulated import SimulatedDriver, SimulatedMachine
from apus.services.network.service.service import HostSide, NetworkService
from apus.services.placement.service import Placement
from apus.sim.world import SimHost, SimWorld
from apus.skins.metadata.door import MetadataDoor
from tests.sim.cloud import TINY, FakeImages, host_report

T = TypeVar("T")

CONTROL: Final = "control"
CONTROLS: Final = (CONTROL, "control2")
HOSTS: Final = ("h1", "h2", "h3", "h4", "h5")
HYPERVISED: Final = ("h4", "h5")
"""These run their guests through the hypervisor's contract, the others through the simplest guests there are."""
JOURNAL: Final = Path("/compute/journal")
RESTART_S: Final = 1.0
STARTING_S: Final = 10.0
"""A process may fail to start; one that runs goes on, whatever becomes of its store, its bus and its disk."""


class NoTokens:
    async def image_token(self) -> str:
        return "token"


@dataclasses.dataclass(frozen=True)
class Pulse:
    """A guest that runs, as it feels itself."""

    server_id: str
    boots: int
    devices: dict[str, int]
    """Its ports that are plugged: which device of that name it is."""


@dataclasses.dataclass
class Machine:
    """What is on a host whichever process runs there."""

    states: dict[str, State] = dataclasses.field(default_factory=dict)
    said: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    wishes: dict[str, Wish] = dataclasses.field(default_factory=dict)
    """What was last asked of the simplest guests."""
    ended: dict[str, None] = dataclasses.field(default_factory=dict)
    """Guests that ended by themselves, or with the power, since somebody looked."""
    domains: FakeMachine = dataclasses.field(default_factory=FakeMachine)
    network: SimulatedMachine = dataclasses.field(default_factory=SimulatedMachine)

    def running(self) -> dict[str, Pulse]:
        """Incarnations that run."""
        found = {}
        for id, state in self.states.items():
            if state.power in (Power.ON, Power.PAUSED):
                wish = self.wishes[id]
                found[id] = self._pulse(wish.server_id, state.boots, [port.id for port in wish.spec.ports])
        for id, one in self.domains.domains.items():
            if one.found.power in ("on", "paused", "starting"):
                ports = [nic.port_id for nic in one.spec.nics]
                found[id] = self._pulse(one.spec.server_id, one.found.boot_count, ports)
        return found

    def _pulse(self, server_id: str, boots: int, ports: Sequence[str]) -> Pulse:
        return Pulse(server_id, boots, {id: self.network.made[id] for id in ports if id in self.network.ports})

    def guests(self) -> set[str]:
        return {*self.states, *self.domains.domains}

    def die(self, id: str) -> None:
        """The guest ends by itself."""
        self.ended[id] = None
        if id in self.states:
            self.states[id] = State(Power.OFF, self.states[id].boots, "it ended by itself")
        else:
            self.domains.crash(id)

    def power_cut(self) -> None:
        for id in self.running():
            self.die(id)
        self.network.networks.clear()
        self.network.ports.clear()
        self.network.sets.clear()


class MachineGuests(SimGuests):
    def __init__(self, machine: Machine, world: World, plugs: NetworkAgent, **settings: Any) -> None:
        super().__init__(world.clock, plugs, **settings)
        self.states, self.said, self._machine = machine.states, machine.said, machine

    async def ensure(self, wish: Wish) -> State:
        self._machine.wishes[wish.id] = wish
        return await super().ensure(wish)


@dataclasses.dataclass(frozen=True)
class Character:
    """What guests of this cluster are like."""

    boot_s: float = 0.5
    stop_s: float = 0.5
    fails: Callable[[str], bool] = lambda verb: False
    hopeless: Callable[[str], bool] = lambda id: False
    """Incarnations that can never be started, on the simplest hosts."""
    deaf: bool = False
    """Guests ignore the power button."""
    network_s: float = 0.0
    """How long a network device may take."""
    vcpus: int = 2
    """Of a host: four times as many servers fit, so that now and then it is full."""


@dataclasses.dataclass(frozen=True)
class Parts:
    """What the processes of a cluster are built of."""

    store: Callable[[Store, Clock], Store] = lambda store, clock: store
    """How a control node reaches the database."""
    guard: Callable[[Store], Store] = lambda store: FencedStore(OnceStore(store))
    """What stands between the services and the store, as in `node/control.py`."""
    runner: type[FlowRunner] = FlowRunner
    placement: type[Placement] = Placement
    work: Callable[[HostWork], HostWork] = lambda work: work
    agent: type[Agent] = Agent
    network_agent: type[NetworkAgent] = NetworkAgent


SOUND: Final = Parts()


@dataclasses.dataclass(frozen=True)
class Control:
    """The services of one control node's process."""

    compute: Compute
    network: NetworkService
    placement: Placement
    sweep: OrphanSweep


class Cluster:
    def __init__(
        self, sim: SimWorld, character: Character, parts: Parts = SOUND, controls: Sequence[str] = (CONTROL,)
    ) -> None:
        self.sim, self.character, self.parts, self.controls = sim, character, parts, controls
        self.nodes = (*controls, *HOSTS)
        self.machines = {name: Machine() for name in HOSTS}
        self.images = FakeImages()
        self.down: dict[str, None] = {}
        """Nodes that somebody has switched off; the supervisor restarts what died by itself."""
        self.began_at_s: dict[str, float] = {}
        self.control: dict[str, Control] = {}
        """Of those whose process is up."""
        self.freed = 0
        """What sweeps found to do, in processes that are over too."""
        self._lines = sim.dice_of("lines")

    # ------------------------------------------------------------------ processes
    async def begin(self) -> None:
        await self.sim.database.engine.create_schema(metadata)
        dice = self.sim.dice
        for name in self.nodes:
            self.sim.host(name, drift=dice.uniform(-0.01, 0.01), offset_s=dice.uniform(-2, 2))
            self.start(name)
        await asyncio.sleep(1)
        control = self.control[CONTROL]
        await control.compute.flavors.ensure(TINY)
        admin = msgspec.structs.replace(the_system(), project_id="p0")
        made = await control.network.create_networks(admin, [{"name": "default", "shared": True}])
        fields = {"network_id": made[0].id, "cidr": "10.42.0.0/24", "ip_version": 4}
        await control.network.create_subnets(admin, [fields])
        self.network_id = made[0].id

    def node(self, name: str) -> SimHost:
        return self.sim.host(name)

    def start(self, name: str) -> None:
        self.down.pop(name, None)
        self.began_at_s[name] = asyncio.get_running_loop().time()
        main = self._control if name in CONTROLS else self._host
        self.node(name).start(lambda world: self._until_it_fails(name, main, world))

    async def _until_it_fails(self, name: str, main: Callable[[World, str], Awaitable[None]], world: World) -> None:
        """A process may end for want of its store or disk, which it then may not have done later than at its start."""
        try:
            await main(world, name)
        except* (Unavailable, OSError) as errors:
            self.sim.trace.note("died", name, *map(str, errors.exceptions))

    async def supervise(self) -> None:
        while True:
            await asyncio.sleep(RESTART_S)
            for name in self.nodes:
                if not self.node(name).is_up and name not in self.down:
                    await self.crash(name)  # raises what it failed with
                    lived_s = asyncio.get_running_loop().time() - self.began_at_s[name]
                    assert lived_s < STARTING_S, f"{name} ended by itself after {lived_s:g} s"
                    self.start(name)

    async def crash(self, name: str, *, power: bool = False) -> None:
        self.down[name] = None
        node = self.node(name)
        await (node.power_cut() if power else node.crash())
        if power and name in self.machines:
            self.machines[name].power_cut()
        over = self.control.pop(name, None)
        self.freed += over.sweep.freed if over is not None else 0

    async def _control(self, world: World, name: str) -> None:
        parts = self.parts
        world = dataclasses.replace(world, store=parts.guard(parts.store(world.store, world.clock)))
        runner = parts.runner(world, name)
        placement = parts.placement(world)
        await placement.follow()
        network = NetworkService(world)
        compute = Compute(
            world, runner, images=self.images, network=network, placement=placement,
            console=lambda host: console_of(world.bus, host), quota_defaults={"instances": -1, "cores": -1, "ram": -1},
        )  # fmt: skip
        seams = ControlSeams(
            work=parts.work(compute.work), placement=placement, network=HostSide(world),
            metadata=MetadataDoor(network, compute), tokens=NoTokens(),
        )  # fmt: skip
        await serve_control(world.bus, seams)
        sweep = OrphanSweep(world, network, placement)
        self.control[name] = Control(compute, network, placement, sweep)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(runner.run())
            tasks.create_task(compute.kicks.run())
            tasks.create_task(loops.drive(HostWatch(world, compute.hosts), loops.Mailbox(), world.clock))
            tasks.create_task(loops.drive(sweep, loops.Mailbox(), world.clock))

    async def _host(self, world: World, name: str) -> None:
        control, machine = ask_control(world.bus), self.machines[name]
        driver = SimulatedDriver(
            machine.network, pause=lambda: world.clock.sleep(world.dice.uniform(0, self.character.network_s))
        )
        network = self.parts.network_agent(world, control.network, driver, host=name)
        await network.start()
        agent = self.parts.agent(
            world, lambda: host_report(name, vcpus=self.character.vcpus),
            work=control.work, placement=control.placement, guests=self._guests(world, name, network, control),
            journal=DiskJournal(world.disk, JOURNAL),
        )  # fmt: skip
        await serve_consoles(world.bus, [(name, agent)])
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(agent.run())
                tasks.create_task(loops.drive(network, network.mailbox, world.clock))
        finally:
            await network.close()

    def _guests(self, world: World, name: str, network: NetworkAgent, control: ControlSeams) -> Guests:
        machine, character = self.machines[name], self.character
        if name not in HYPERVISED:

            def mishap(verb: str, wish: Wish) -> None:
                if verb == "ensure" and character.hopeless(wish.id):
                    raise Conflict("test.hopeless", "it is hopeless")
                if character.fails(verb):
                    raise Unavailable("test.mishap", "it did not work this time")

            return MachineGuests(
                machine, world, network, boot_s=character.boot_s, stop_s=character.stop_s, mishap=mishap
            )
        mishaps = Mishaps(
            fails=lambda verb, _: "it did not work this time" if character.fails(verb) else None,
            boot_s=character.boot_s, shutdown_s=character.stop_s, ignores_power_button=lambda _: character.deaf,
        )  # fmt: skip
        return HypervisorGuests(
            world, FakeHypervisor(world.clock, mishaps, machine.domains),
            images=ImageCache(world, Path("/compute/images"), self.images.read), plugs=network, work=control.work,
            config_dir=Path("/compute/config"),
        )  # fmt: skip

    # ------------------------------------------------------------------ users
    async def ask(self, call: Callable[[Compute], Awaitable[T]]) -> T:
        """A request, as HTTP would carry it: raise Unavailable when the process dies before it has answered."""
        return await self.ask_any(lambda control: call(control.compute))

    async def ask_any(self, call: Callable[[Control], Awaitable[T]]) -> T:
        there = [control for name, control in self.control.items() if self.node(name).is_up]
        if not there:
            raise Unavailable("test.refused", "the connection was refused")
        control = self._lines.choice(there)

        async def run() -> T:
            return await call(control)

        request = asyncio.create_task(run())
        request.add_done_callback(lambda done: done.cancelled() or done.exception())  # a user may have gone meanwhile
        await asyncio.wait([request])
        if request.cancelled():
            raise Unavailable("test.reset", "the connection was reset")
        return request.result()

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Past all faults."""
        return await self.sim.database.engine.read(work)


def as_caller(name: str, number: int) -> Caller:
    roles = frozenset({"member", "reader"})
    return Caller(user_id=name, user_name=name, project_id="p1", roles=roles, request_id=f"req-{name}-{number}")

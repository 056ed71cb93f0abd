"""A whole simulated cluster from one seed: machines that each have a `World`, and everything that goes wrong.

async def story(sim: SimWorld) -> None:
    host = sim.host("h1")
    host.start(lambda world: agent(world))     # the production code, with a simulated World
    await asyncio.sleep(60)                    # which takes no time
    await host.crash()                         # kill -9: the programs it started live on
    host.start(lambda world: agent(world))
    await host.power_cut()                     # and these do not, nor what was not synced

trace = simulate(seed, story)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from apus.kernel.log import set_sink
from apus.kernel.world import World
from apus.sim.bus import SimBus, SimNetwork
from apus.sim.clock import SimClock
from apus.sim.disk import SimDisk, SimDrive
from apus.sim.life import Life
from apus.sim.loop import run
from apus.sim.process import SimMachine, SimRunner
from apus.sim.store import SimDatabase, SimStore
from apus.sim.trace import Trace

Main = Callable[[World], Awaitable[None]]


class SimHost:
    """One machine: its clock, drive and programs stay; the process of ours on it comes and goes."""

    def __init__(self, sim: SimWorld, name: str, *, drift: float, offset_s: float) -> None:
        self._sim, self.name = sim, name
        self.clock = SimClock(drift=drift, offset_s=offset_s)
        self.drive = SimDrive(sim.dice_of(f"{name}/disk"), sim.trace, name=name)
        self.machine = SimMachine(sim.dice_of(f"{name}/programs"), sim.trace, name=name)
        self._lives = 0
        self._life: Life | None = None
        self._bus: SimBus | None = None
        self._task: asyncio.Task[None] | None = None

    def world(self) -> World:
        """A new process' view of the machine; the one before is killed."""
        self._kill()
        self._lives += 1
        life = self._life = Life(self.name)
        clock = self.clock.of(life)
        self._bus = SimBus(self._sim.network, self.name, life)
        return World(
            clock=clock,
            dice=self._sim.dice_of(f"{self.name}/{self._lives}"),
            bus=self._bus,
            store=SimStore(self._sim.database, self.name, clock, life),
            disk=SimDisk(self.drive, clock.now_s, life),
            run=SimRunner(self.machine, life),
        )

    def start(self, main: Main) -> None:
        """Run our process on the machine."""
        world = self.world()
        self._sim.trace.note("up", self.name)
        self._task = asyncio.get_running_loop().create_task(self._run(main, world))

    async def _run(self, main: Main, world: World) -> None:
        await main(world)

    @property
    def is_up(self) -> bool:
        return self._task is not None and not self._task.done()

    async def crash(self) -> None:
        """`kill -9`.  Raises what our process has failed with, if it had ended already by itself."""
        task, self._task = self._task, None
        self._sim.trace.note("crash", self.name)
        if task is not None and task.done():
            task.result()
        self._kill()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def freeze(self, duration_s: float, *, at_write: int = 0) -> None:
        """Our process is stopped for a while, and knows nothing of it (see `Life.freeze`)."""
        if self._life is not None:
            self._sim.trace.note("freeze", self.name, duration_s, at_write)
            self._life.freeze(duration_s, at_write=at_write)

    async def power_cut(self) -> None:
        await self.crash()
        self.machine.power_cut()
        self.drive.power_cut()

    def _kill(self) -> None:
        if self._life is not None:
            self._life.ended = True
        if self._bus is not None:
            self._bus.kill()


class SimWorld:
    """Made inside a `SimLoop`, see `simulate`."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.trace = Trace()
        self.dice = self.dice_of("story")
        self.network = SimNetwork(self.dice_of("network"), self.trace)
        self.database = SimDatabase(self.dice_of("store"), self.trace, SimClock())
        self.hosts: dict[str, SimHost] = {}

    def dice_of(self, part: str) -> Random:
        """Each part has a stream of its own, so that one more message does not change every disk."""
        return Random(f"{self.seed}/{part}")

    def host(self, name: str, *, drift: float = 0.0, offset_s: float = 0.0) -> SimHost:
        if name not in self.hosts:
            self.hosts[name] = SimHost(self, name, drift=drift, offset_s=offset_s)
        return self.hosts[name]

    async def close(self) -> None:
        for host in self.hosts.values():
            await host.crash()
            host.machine.power_cut()
        await self.database.engine.close()


def simulate(seed: int, story: Callable[[SimWorld], Awaitable[None]]) -> Trace:
    """Tell one story in virtual time.  Whatever fails says its seed and the last that happened."""

    async def tell() -> Trace:
        sim = SimWorld(seed)
        set_sink(sim.trace.said)
        try:
            await story(sim)
            await sim.close()
        except BaseException as error:
            error.add_note(f"seed {seed}, trace {sim.trace.digest()}, last events:")
            error.add_note("\n".join(list(sim.trace.tail)[-20:]))
            raise
        finally:
            set_sink(None)
        return sim.trace

    return run(tell())

"""One history of the control plane and five hosts under faults, from a seed: first safety while all goes wrong, then it
must become quiet within a stated time, and nothing may be left, lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, Final

from apus.kernel.errors import CloudError, Unavailable
from apus.services.compute.commands import CreateServer
from apus.services.compute.contract import Power
from apus.services.compute.service import Compute
from apus.services.compute.store import SERVERS
from apus.services.network.contract import PortAsk
from apus.sim.bus import NetworkFaults
from apus.sim.disk import DiskFaults
from apus.sim.store import StoreFaults
from apus.sim.trace import Trace
from apus.sim.world import SimWorld, simulate
from tests.sim.cloud import IMAGE_ID
from tests.sim.cluster import CONTROLS, HOSTS, SOUND, Character, Cluster, Parts, as_caller
from tests.sim.truths import Witness, consistent, one_copy_each, unquiet

SAFETY_S: Final = 45.0
"""While faults run."""
QUIET_WITHIN_S: Final = 600.0
"""After the last fault.  The longest way there: a guest that nobody wants is held for five minutes."""
USERS: Final = 2
CALM_EVERY: Final = 10
"""One history in so many has no faults: the sweeps must find nothing then, or an undo is missing."""
POWERS: Final = {
    "start": Power.ON,
    "stop": Power.OFF,
    "reboot": Power.ON,
    "reboot_hard": Power.ON,
    "pause": Power.PAUSED,
    "unpause": Power.ON,
}
BOOTS: Final = ("start", "reboot", "reboot_hard")


@dataclasses.dataclass
class Told:
    """What a user was told of his server, and what he may have asked besides."""

    wanted: dict[Power, None]
    maybe: dict[Power, None] = dataclasses.field(default_factory=dict)
    """Of requests that were not answered, and may be carried out much later."""
    boots_min: int = 1
    boots_max: int = 1
    deleted: bool = False
    maybe_deleted: bool = False


class User:
    """Boots, reboots, stops, deletes, and remembers what was acknowledged."""

    def __init__(self, cluster: Cluster, name: str, dice: Random) -> None:
        self.cluster, self.name, self.dice = cluster, name, dice
        self.servers: dict[str, Told] = {}
        self._count = 0
        self._pause_s = self.dice.choice((1.0, 8.0))
        """Some do not wait to see what became of the last thing that they asked for."""
        self._port: str | None = None
        """One that he made himself, and gives to one server after the other."""

    async def live(self) -> None:
        while True:
            await asyncio.sleep(self.dice.uniform(0.05, self._pause_s))
            known = [id for id, told in self.servers.items() if not told.deleted]
            try:
                if len(known) < 2 or self.dice.random() < 0.4:
                    await self._boot()
                elif self.dice.random() < 0.4:
                    await self.delete(self.dice.choice(known))
                else:
                    await self._power(self.dice.choice(known), self.dice.choice(list(POWERS)))
            except CloudError:
                continue  # a refusal, or no answer: he tries something else

    def _caller(self) -> Any:
        self._count += 1
        return as_caller(self.name, self._count)

    async def _boot(self) -> None:
        count, networks = self.dice.choice((1, 1, 1, 3, 8)), None
        if self.dice.random() < 0.3:
            count, networks = 1, (PortAsk(port_id=await self._own_port()),)
        await self.boot(max_count=count, networks=networks)

    async def boot(self, at: str | None = None, **fields: Any) -> list[str]:
        caller = self._caller()
        ask = CreateServer(name=f"{self.name}-{self._count}", flavor_id="1", image_id=IMAGE_ID, **fields)
        made = await self.cluster.ask(lambda compute: compute.create_servers(caller, ask), at)
        self.servers.update({server.id: Told({Power.ON: None}) for server in made})
        return [server.id for server in made]

    async def _own_port(self) -> str:
        if self._port is None:
            caller, asks = self._caller(), [{"network_id": self.cluster.network_id}]
            made = await self.cluster.ask_any(lambda control: control.network.create_ports(caller, asks))
            self._port = made[0].id
        return self._port

    async def delete(self, id: str, at: str | None = None) -> None:
        caller, told = self._caller(), self.servers[id]
        told.maybe_deleted = True
        try:
            await self.cluster.ask(lambda compute: compute.delete(caller, id), at)
            told.deleted = True
        except Unavailable:
            raise
        except CloudError:
            told.deleted = told.maybe_deleted  # an earlier delete, of which he had not heard

    async def _power(self, id: str, action: str) -> None:
        caller, told = self._caller(), self.servers[id]
        before, boots = dict(told.wanted), int(action in BOOTS)
        told.wanted[POWERS[action]] = None
        told.boots_max += boots
        try:
            await self.cluster.ask(lambda compute: compute.power(caller, id, action))
            told.wanted = {POWERS[action]: None}
            told.boots_min += boots
        except Unavailable as error:
            if error.code == "test.slow":
                told.maybe[POWERS[action]] = None
            raise
        except CloudError:
            told.wanted = before
            told.boots_max -= boots


class Trouble:
    """What goes wrong, one thing after another, each for a while."""

    def __init__(self, cluster: Cluster, dice: Random, hasty: User) -> None:
        self.cluster, self.sim, self.dice, self.hasty = cluster, cluster.sim, dice, hasty
        self.kinds = dice.sample(list(self._kinds()), dice.randint(2, len(self._kinds())))
        """Each seed has troubles of its own: all at once hide one another."""

    def _kinds(self) -> dict[str, Any]:
        return {
            "control": self._control_dies, "crash": self._host_dies, "power": self._power_fails,
            "cut": self._cut_off, "one way": self._cut_one_way, "store": self._store_refuses,
            "unreachable": self._store_away, "bus": self._bus_fails, "clock": self._clock_jumps,
            "guest": self._guest_dies, "disk": self._disk_refuses, "frozen": self._node_sleeps,
            "takeover": self._flow_is_taken_over,
        }  # fmt: skip

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self.dice.uniform(0.5, 10))
            await self._kinds()[self.dice.choice(self.kinds)]()

    async def _a_while(self, at_most_s: float) -> None:
        await asyncio.sleep(self.dice.uniform(0.1, at_most_s))

    async def _node_dies(self, name: str, *, power: bool) -> None:
        if name in self.cluster.down:
            return
        await self.cluster.crash(name, power=power)
        await self._a_while(40)
        self.cluster.start(name)

    async def _control_dies(self) -> None:
        await self._node_dies(self.dice.choice(self.cluster.controls), power=self.dice.random() < 0.3)

    async def _host_dies(self) -> None:
        await self._node_dies(self.dice.choice(HOSTS), power=False)

    async def _power_fails(self) -> None:
        await self._node_dies(self.dice.choice(HOSTS), power=True)

    async def _cut_off(self) -> None:
        self.sim.network.isolate(self.dice.choice(self.cluster.nodes))
        await self._a_while(80)
        self.sim.network.heal()

    async def _cut_one_way(self) -> None:
        host, control = self.dice.choice(HOSTS), self.dice.choice(self.cluster.controls)
        self.sim.network.cut(*self.dice.choice(((control, host), (host, control))))
        await self._a_while(60)
        self.sim.network.heal()

    async def _store_refuses(self) -> None:
        self.sim.database.faults = StoreFaults(
            delay_max_s=self.dice.choice((0.003, 0.3)), refused=self.dice.choice((0.02, 0.3)),
            answer_lost=self.dice.choice((0.0, 0.1)), run_again=0.2,
        )  # fmt: skip
        await self._a_while(30)
        self.sim.database.faults = StoreFaults()

    async def _store_away(self) -> None:
        self.sim.database.unreachable[self.dice.choice(self.cluster.controls)] = None
        await self._a_while(30)
        self.sim.database.unreachable.clear()

    async def _bus_fails(self) -> None:
        self.sim.network.faults = NetworkFaults(
            delay_max_s=self.dice.choice((0.005, 1.0, 4.0)), lost=self.dice.choice((0.0, 0.1, 0.5)),
            repeated=self.dice.choice((0.0, 0.3)),
        )  # fmt: skip
        await self._a_while(60)
        self.sim.network.faults = NetworkFaults()

    async def _clock_jumps(self) -> None:
        node = self.cluster.node(self.dice.choice((*self.cluster.controls, *self.cluster.nodes)))
        by_s = self.dice.choice((-3600.0, -60.0, -1.0, 1.0, 60.0, 3600.0))
        self.sim.trace.note("clock", node.name, by_s)
        node.clock.step(by_s)

    async def _guest_dies(self) -> None:
        machine = self.cluster.machines[self.dice.choice(HOSTS)]
        running = list(machine.running())
        if running:
            machine.die(self.dice.choice(running))

    async def _disk_refuses(self) -> None:
        drive = self.cluster.node(self.dice.choice(HOSTS)).drive
        drive.faults = DiskFaults(refused=self.dice.choice((0.02, 0.3)))
        await self._a_while(20)
        drive.faults = DiskFaults()

    async def _node_sleeps(self) -> None:
        """Stopped for a while, in the middle of whatever it does; others may have taken its work over by then."""
        duration_s = self.dice.choice((1.0, 20.0, 60.0)) * self.dice.random()
        if self.dice.random() < 0.3:
            self.cluster.node(self.dice.choice(HOSTS)).freeze(duration_s)
        else:
            control = self.cluster.node(self.dice.choice(self.cluster.controls))
            control.freeze(duration_s, at_write=self.dice.randint(1, 30))

    async def _flow_is_taken_over(self) -> None:
        """A control node falls asleep in a boot that it runs; another ends it, and the server is deleted meanwhile."""
        asleep, awake = self.cluster.controls[0], self.cluster.controls[-1]
        self.cluster.node(asleep).freeze(self.dice.uniform(20, 45), at_write=self.dice.randint(1, 10))
        try:
            ids = await self.hasty.boot(asleep)
            await asyncio.sleep(self.dice.uniform(10, 25))
            for id in ids:
                await self.hasty.delete(id, awake)
        except CloudError:
            return

    def end(self) -> None:
        """The last fault is over."""
        self.sim.network.heal()
        self.sim.network.faults, self.sim.database.faults = NetworkFaults(), StoreFaults()
        self.sim.database.unreachable.clear()
        for name in self.cluster.nodes:
            self.cluster.node(name).drive.faults = DiskFaults()
            self.cluster.node(name).stay_awake()
        for name in list(self.cluster.down):
            self.cluster.start(name)
        self.sim.trace.note("no more faults")


async def _watch(cluster: Cluster) -> None:
    """What is always true, looked at all the time."""
    witness, count = Witness(cluster), 0
    while True:
        await asyncio.sleep(0.5)
        count += 1
        wrong = one_copy_each(cluster) + await witness.look()
        assert not wrong, wrong
        if count % 10 == 0:
            wrong = await cluster.read(consistent)
            assert not wrong, wrong


async def becomes_quiet(cluster: Cluster, within_s: float = QUIET_WITHIN_S) -> None:
    loop = asyncio.get_running_loop()
    ends_s, calm = loop.time() + within_s, 0
    while calm < 3:
        await asyncio.sleep(2)
        left = await unquiet(cluster)
        calm = 0 if left else calm + 1
        assert loop.time() < ends_s, "not quiet: " + "\n".join(left)


def _lost(users: Sequence[User], servers: dict[str, Any]) -> list[str]:
    """What was acknowledged and is not so."""
    lost = []
    for user in users:
        for id, told in user.servers.items():
            server = servers.get(id)
            if server is None:
                lost.append(f"{id} was made and is not there")
            elif told.deleted and not server.deleted:
                lost.append(f"{id} was deleted and is there")
            elif server.deleted and not told.maybe_deleted:
                lost.append(f"{id} was never deleted and is gone")
            elif not server.deleted and not server.error and server.wanted not in told.wanted | told.maybe:
                lost.append(f"{id} shall be {server.wanted}, asked was {list(told.wanted)}")
            elif not told.boots_min <= server.boots <= told.boots_max:
                lost.append(f"{id} shall boot {server.boots} times, asked was {told.boots_min} to {told.boots_max}")
    return lost


async def story(sim: SimWorld, parts: Parts) -> None:
    faults = sim.seed % CALM_EVERY != CALM_EVERY - 1
    dice = sim.dice_of("trouble")
    mishaps = dice.choice((0.0, 0.0, 0.1)) if faults else 0.0
    hopeless = dice.choice((0.0, 0.0, 0.3))
    character = Character(
        boot_s=dice.choice((0.0, 1.0, 10.0)), stop_s=dice.choice((0.0, 2.0, 20.0)), deaf=dice.random() < 0.1,
        fails=lambda verb: dice.random() < mishaps,
        hopeless=lambda id: Random(f"{sim.seed}/{id}").random() < hopeless, network_s=dice.choice((0.0, 0.1, 2.0)), vcpus=dice.choice((1, 2)),
    )  # fmt: skip
    cluster = Cluster(sim, character, parts, CONTROLS[: dice.choice((1, 2, 2))])
    await cluster.begin()
    users = [User(cluster, f"user{number}", sim.dice_of(f"user{number}")) for number in range(USERS)]
    hasty = User(cluster, "hasty", sim.dice_of("hasty"))
    trouble = Trouble(cluster, dice, hasty)
    async with asyncio.TaskGroup() as watching:
        watch = [watching.create_task(cluster.supervise()), watching.create_task(_watch(cluster))]
        async with asyncio.TaskGroup() as safety:
            acting = [safety.create_task(user.live()) for user in users]
            if faults:
                acting += [safety.create_task(trouble.run()) for _ in range(2)]
            await asyncio.sleep(SAFETY_S)
            for task in acting:
                task.cancel()
        mishaps = 0.0
        trouble.end()
        await becomes_quiet(cluster)
        rows = {row.id: row for row in await cluster.read(SERVERS.find)}
        lost = _lost([*users, hasty], rows)
        assert not lost, lost
        await _delete_all(cluster, rows)
        await becomes_quiet(cluster)
        for task in watch:
            task.cancel()
    for name, machine in cluster.machines.items():
        left = [*machine.guests(), *machine.network.ports, *machine.network.networks]
        assert not left, f"left on {name}: {left}"
    if not faults:
        freed = cluster.freed + sum(control.sweep.freed for control in cluster.control.values())
        assert not freed, "the sweep found work after a clean run: an undo is missing"
        failed = [row.fault for row in rows.values() if row.error and not row.deleted]
        assert all("No valid host" in fault.message or "hopeless" in fault.message for fault in failed), failed
    unexpected = [line for line in sim.trace.errors if "flow is stuck" in line or "traceback" in line]
    assert not unexpected, unexpected


async def _delete_all(cluster: Cluster, rows: dict[str, Any]) -> None:
    for row in rows.values():
        if not row.deleted:
            await cluster.ask(_deleting(row.id))


def _deleting(id: str) -> Callable[[Compute], Awaitable[None]]:
    return lambda compute: compute.delete(as_caller("user0", 0), id)


def takeover(at_write: int, parts: Parts = SOUND, *, deleted_after_s: float = 16.0) -> Trace:
    """A control node falls asleep when it is about to write for the n-th time since a boot was asked of it; the other
    takes the boot over and ends it, deletes the server, and then the first wakes up.  Every n is a case of its own."""

    async def tell(sim: SimWorld) -> None:
        cluster = Cluster(sim, Character(boot_s=0.2), parts, CONTROLS)
        await cluster.begin()
        asleep, awake = CONTROLS
        user = User(cluster, "hasty", sim.dice_of("hasty"))
        cluster.node(asleep).freeze(40, at_write=at_write)
        with contextlib.suppress(Unavailable):
            await user.boot(asleep)
        await asyncio.sleep(deleted_after_s)
        for row in await cluster.read(SERVERS.find):
            await cluster.ask(_deleting(row.id), awake)
        async with asyncio.TaskGroup() as watching:
            watch = watching.create_task(_watch(cluster))
            await asyncio.sleep(60)
            await becomes_quiet(cluster, 300)
            watch.cancel()

    return simulate(1, tell)


def history(seed: int, parts: Parts = SOUND) -> Trace:
    """Tell it.  Raises what is not as it must be."""

    async def tell(sim: SimWorld) -> None:
        await story(sim, parts)

    return simulate(seed, tell)

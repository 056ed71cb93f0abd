"""A host's compute agent: what it does once more must not hurt what came after."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping, Sequence

from apus.services.compute.agent.agent import Agent
from apus.services.compute.agent.journal import Entry, MemoryJournal
from apus.services.compute.agent.sim import SimGuests, SimPlugs
from apus.services.compute.contract import Found, GuestSpec, Power, Wish
from apus.services.network.contract import ServerPort
from apus.services.placement.contract import HostReport
from tests.flow.virtual import memory_world, run_virtual
from tests.sim.cloud import host_report

PORT = ServerPort(
    id="p", network_id="n", network_name="n", project_id="", server_id="", mac="fa:16:3e:00:00:01", fixed_ips=(),
    mtu=1500, host="h1", made_for_server=False,
)  # fmt: skip


def wish(id: str, seq: int, power: Power) -> Wish:
    spec = GuestSpec(name=id, vcpus=1, memory_mib=64, disk_gib=1, ports=(PORT,))
    return Wish(id=id, server_id=f"server-{id}", host="h1", seq=seq, power=power, spec=spec)


class Control:
    def __init__(self, *wishes: Wish) -> None:
        self.wishes = wishes

    async def wanted(self, host: str, since: int) -> Sequence[Wish]:
        return [wish for wish in self.wishes if wish.seq > since]

    async def report(self, host: str, found: Sequence[Found], complete: bool) -> None: ...

    async def drive_files(self, incarnation_id: str) -> Mapping[str, bytes]:
        return {}

    async def report_host(self, report: HostReport) -> None: ...

    async def host_heard(self, host: str) -> None: ...


def test_what_is_over_and_made_absent_again_leaves_its_port_to_the_next_server() -> None:
    """The host died between the end of a guest and forgetting it; its port has a new server since."""

    async def story() -> None:
        world = await memory_world()
        journal, plugs = MemoryJournal(), SimPlugs()
        await journal.keep(Entry(wish=wish("next", 3, Power.ON)))
        await journal.keep(Entry(wish=wish("over", 2, Power.GONE)))
        guests = SimGuests(world.clock, plugs)
        await guests.ensure(wish("next", 3, Power.ON))
        control = Control(wish("next", 3, Power.ON))
        agent = Agent(world, lambda: host_report("h1"), work=control, placement=control, guests=guests, journal=journal)
        running = asyncio.create_task(agent.run())
        await asyncio.sleep(5)
        running.cancel()
        assert list(await journal.load()) == ["next"]
        assert list(plugs.plugged) == ["p"]

    run_virtual(story())


def test_a_wish_older_than_what_was_accepted_is_refused() -> None:
    """The journal knows the newest, whatever the control plane says after a restart of ours."""

    async def story() -> None:
        world = await memory_world()
        journal, plugs = MemoryJournal(), SimPlugs()
        await journal.keep(Entry(wish=wish("one", 7, Power.PAUSED)))
        guests = SimGuests(world.clock, plugs)
        await guests.ensure(wish("one", 7, Power.PAUSED))
        control = Control(wish("one", 6, Power.OFF))
        agent = Agent(world, lambda: host_report("h1"), work=control, placement=control, guests=guests, journal=journal)
        running = asyncio.create_task(agent.run())
        await asyncio.sleep(60)
        running.cancel()
        assert guests.states["one"].power is Power.PAUSED
        assert (await journal.load())["one"].wish.seq == 7

    run_virtual(story())


class HalfWrittenJournal(MemoryJournal):
    """Each file is written, and what follows is refused, until it is mended."""

    mended = False

    async def keep(self, entry: Entry) -> None:
        await super().keep(entry)
        if not self.mended:
            raise OSError(errno.EIO, "written, and not synced")


def test_a_wish_that_was_written_and_not_accepted_leaves_no_file() -> None:
    """The control plane knows already that the guest is over, and does not name it again."""

    async def story() -> None:
        world = await memory_world()
        journal, control = HalfWrittenJournal(), Control(wish("over", 2, Power.GONE))
        guests = SimGuests(world.clock, SimPlugs())
        agent = Agent(world, lambda: host_report("h1"), work=control, placement=control, guests=guests, journal=journal)
        running = asyncio.create_task(agent.run())
        await asyncio.sleep(1)
        assert list(await journal.load()) == ["over"]
        control.wishes, journal.mended = (), True
        await asyncio.sleep(30)
        running.cancel()
        assert not await journal.load()

    run_virtual(story())

"""What seeds come to rarely: clocks that jump by an hour, guests that never answer, hosts that are long silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from apus.services.compute.commands import CreateServer
from apus.services.compute.logic.status import project
from apus.services.compute.store import SERVERS
from apus.sim.world import SimWorld, simulate
from tests.sim.cloud import IMAGE_ID
from tests.sim.cluster import CONTROL, HOSTS, Character, Cluster, as_caller
from tests.sim.history import becomes_quiet

ALICE = as_caller("alice", 1)
HOUR_S = 3600.0
Case = Callable[[Cluster], Awaitable[None]]


def in_cluster(case: Case, character: Character | None = None) -> None:
    async def story(sim: SimWorld) -> None:
        cluster = Cluster(sim, character or Character())
        await cluster.begin()
        await case(cluster)
        assert not sim.trace.errors, sim.trace.errors

    simulate(1, story)


async def boot(cluster: Cluster) -> str:
    ask = CreateServer(name="one", flavor_id="1", image_id=IMAGE_ID)
    return (await cluster.ask(lambda compute: compute.create_servers(ALICE, ask)))[0].id


async def delete(cluster: Cluster, id: str) -> None:
    await cluster.ask(lambda compute: compute.delete(ALICE, id))


async def power(cluster: Cluster, id: str, action: str) -> None:
    await cluster.ask(lambda compute: compute.power(ALICE, id, action))


async def until(cluster: Cluster, id: str, status: str, within_s: float) -> Any:
    ends_s = asyncio.get_running_loop().time() + within_s
    while True:
        row = await cluster.read(lambda tx: SERVERS.require(tx, id))
        if project(row).status == status and project(row).task_state is None:
            return row
        assert asyncio.get_running_loop().time() < ends_s, f"{project(row)}, not {status}"
        await asyncio.sleep(0.5)


@pytest.mark.parametrize("by_s", [HOUR_S, -HOUR_S])
@pytest.mark.parametrize("when_s", [0.05, 0.5, 5.0, 40.0])
@pytest.mark.parametrize("who", [(CONTROL,), HOSTS, (CONTROL, *HOSTS)], ids=["control", "hosts", "all"])
def test_a_clock_that_jumps_delays_nothing(by_s: float, when_s: float, who: tuple[str, ...]) -> None:
    """A boot that waits, and a deletion that does, end as if nothing had been; or the boot is undone and says why."""

    async def case(cluster: Cluster) -> None:
        kept, gone = await boot(cluster), await boot(cluster)
        await asyncio.sleep(60)
        waiting = [await boot(cluster) for _ in range(3)]
        await delete(cluster, gone)
        await power(cluster, kept, "reboot")
        await asyncio.sleep(when_s)
        for name in who:
            cluster.node(name).clock.step(by_s)
        await becomes_quiet(cluster, within_s=300)
        assert project(await until(cluster, kept, "ACTIVE", 1)).status == "ACTIVE"
        await until(cluster, gone, "DELETED", 1)
        for id in (kept, *waiting):
            await delete(cluster, id)
        await becomes_quiet(cluster, within_s=300)
        assert not any(machine.guests() for machine in cluster.machines.values())

    in_cluster(case, Character(boot_s=20.0, stop_s=1.0))


def test_a_clock_that_goes_back_leaves_no_flow_lying_until_its_old_time_comes() -> None:
    """All hints are lost as well: only the scan finds what was parked for a time that is an hour away now."""

    async def case(cluster: Cluster) -> None:
        id = await boot(cluster)
        await asyncio.sleep(10)  # it waits for its guest, parked
        cluster.node(CONTROL).clock.step(-HOUR_S)
        await cluster.crash(CONTROL)
        await asyncio.sleep(40)
        cluster.start(CONTROL)
        await until(cluster, id, "ACTIVE", 60)

    in_cluster(case, Character(boot_s=30.0))


def test_a_guest_that_never_answers_is_stopped_after_its_grace() -> None:
    async def case(cluster: Cluster) -> None:
        ids = [await boot(cluster) for _ in range(10)]  # on all hosts, those with a hypervisor too
        for id in ids:
            await until(cluster, id, "ACTIVE", 60)
            await power(cluster, id, "stop")
        for id in ids:
            await until(cluster, id, "SHUTOFF", 120)

    in_cluster(case, Character(stop_s=50.0, deaf=True))


def test_a_boot_that_never_ends_is_given_up_with_a_reason() -> None:
    async def case(cluster: Cluster) -> None:
        ids = [await boot(cluster) for _ in range(5)]
        for id in ids:
            row = await until(cluster, id, "ERROR", 900)
            assert "in time" in row.fault.message
        await becomes_quiet(cluster)
        assert not any(machine.guests() for machine in cluster.machines.values())

    in_cluster(case, Character(boot_s=10_000.0))


def test_a_host_that_was_silent_for_long_comes_back_clean() -> None:
    async def case(cluster: Cluster) -> None:
        ids = [await boot(cluster) for _ in range(10)]
        rows = {id: await until(cluster, id, "ACTIVE", 60) for id in ids}
        silent = rows[ids[0]].host
        there = [id for id, row in rows.items() if row.host == silent]
        cluster.sim.network.isolate(silent)
        await asyncio.sleep(100)
        for id in there:
            await delete(cluster, id)
            await until(cluster, id, "DELETED", 200)
        assert {pulse.server_id for pulse in cluster.machines[silent].running().values()} == set(there), (
            "nobody told the host"
        )
        later = [await boot(cluster) for _ in range(5)]
        for id in later:
            assert (await until(cluster, id, "ACTIVE", 60)).host != silent
        await asyncio.sleep(HOUR_S)
        cluster.sim.network.heal()
        await becomes_quiet(cluster)
        assert not cluster.machines[silent].guests()

    in_cluster(case)

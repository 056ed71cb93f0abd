"""Boot and delete through every generated case: refused, repeated, undone twice, killed at each write, taken over."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

from apus.kernel.flow import Flow, FlowRunner, FlowState, Saga, live_key
from apus.kernel.flow.log import live_flow
from apus.kernel.world import World
from apus.services.compute.flows.boot import BOOT
from apus.services.compute.flows.delete import DELETE
from apus.services.compute.flows.tools import Tools
from tests.flow.harness import check_saga
from tests.flow.virtual import memory_world
from tests.sim.cloud import ALICE, TINY, Cloud


class Stepped(Cloud):
    """A cloud whose agents run only while the flow under test waits, and whose flows nobody else runs."""

    def tools(self) -> Tools:
        return Tools(FlowRunner(self.world, "tools"), self.network, self.placement, self.compute.kicks.kick)

    async def agents_for(self, duration_s: float) -> None:
        for host in self.agents:
            self.start_agent(host)
        await asyncio.sleep(duration_s)
        for host in self.agents:
            await self.stop(host)


@dataclasses.dataclass
class CloudTrial:
    cloud: Stepped
    world: World
    deps: Tools
    flow_id: str
    server_id: str

    async def stir(self) -> None:
        """The hosts look what is wanted of them."""
        await self.cloud.agents_for(0.5)


class BootTrial(CloudTrial):
    async def check(self, flow: Flow) -> None:
        server = await self.cloud.row(self.server_id)
        if flow.state is FlowState.SUCCEEDED:
            assert server.launched_at_s is not None
            assert len(await self.cloud.placement.claims()) == 1
            assert len(self.cloud.network.ports) == 1
            assert sum(len(guests.states) for guests in self.cloud.guests.values()) == 1
        else:
            assert server.error
            assert server.fault is not None
            await self.stir()
            await self.cloud.nothing_left()


class DeleteTrial(CloudTrial):
    async def check(self, flow: Flow) -> None:
        if flow.state is FlowState.SUCCEEDED:
            assert (await self.cloud.row(self.server_id)).deleted
            await self.cloud.nothing_left()
        else:
            assert not (await self.cloud.row(self.server_id)).deleting


async def _cloud() -> Stepped:
    cloud = Stepped(await memory_world(), hosts=("h1",))
    await cloud.compute.flavors.ensure(TINY)
    await cloud.agents_for(0.2)
    return cloud


async def _live(cloud: Stepped, server_id: str, live: str = "") -> Flow:
    flow = await cloud.world.store.read(lambda tx: live_flow(tx, live_key("server", server_id, live)))
    assert flow is not None
    return flow


async def prepare_boot(saga: Saga) -> Any:
    cloud = await _cloud()
    server = await cloud.boot()
    flow = await _live(cloud, server.id)
    return BootTrial(cloud, cloud.world, cloud.tools(), flow.id, server.id)


async def prepare_delete(saga: Saga) -> Any:
    cloud = await _cloud()
    server = await cloud.boot()
    runner = FlowRunner(cloud.world, "booter")
    tools = cloud.tools()
    runner.register(BOOT, tools)
    boot = await _live(cloud, server.id)
    while (await runner.advance_to_rest(boot.id)).state.live:
        await cloud.agents_for(0.5)
    await cloud.compute.delete(ALICE, server.id)
    flow = await _live(cloud, server.id, "delete")
    return DeleteTrial(cloud, cloud.world, tools, flow.id, server.id)


def test_boot() -> None:
    assert check_saga(BOOT, prepare_boot) > 40


def test_delete() -> None:
    assert check_saga(DELETE, prepare_delete) > 40

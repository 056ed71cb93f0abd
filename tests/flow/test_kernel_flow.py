"""The runner itself, through the generated tests of a toy saga, and what the harness cannot reach."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import msgspec
import pytest

from apus.kernel import limits
from apus.kernel.errors import Conflict, Unavailable
from apus.kernel.flow import PENDING, Effect, Flow, FlowRunner, FlowState, Run, Saga, Step, Wait, load_flow
from apus.kernel.world import World
from tests.flow.harness import check_saga
from tests.flow.virtual import memory_world, run_virtual


class Ask(msgspec.Struct, frozen=True):
    name: str


@dataclasses.dataclass
class Outside:
    """Another service: what it holds, by the id of whom it holds it for."""

    held: dict[str, str] = dataclasses.field(default_factory=dict)
    ready: bool = False
    told: list[str] = dataclasses.field(default_factory=list)


async def acquire(run: Run[Ask, Outside]) -> Any:
    key = run.child_id("held")
    run.deps.held[key] = run.input.name
    return key


async def give_back(run: Run[Ask, Outside]) -> Any:
    run.deps.held.pop(run.child_id("held"), None)
    return None


async def nothing(run: Run[Ask, Outside]) -> Any:
    return Effect(lambda tx: "written")


async def is_ready(run: Run[Ask, Outside]) -> Any:
    return "ready" if run.deps.ready else PENDING


TOY = Saga(
    "toy",
    version=1,
    input=Ask,
    steps=(
        Step("reserve", do=nothing, undo=nothing),
        Step("acquire", do=acquire, undo=give_back),
        Wait("ready", until=is_ready, within_s=600, wake_on=lambda run: f"toy:{run.input.name}"),
        Step("commit", do=nothing, pivot=True),
        Step("tidy", do=nothing),
    ),
    on_unwound=lambda tx, run, reason: run.deps.told.append(reason),
)


@dataclasses.dataclass
class ToyTrial:
    world: World
    deps: Outside
    flow_id: str

    async def stir(self) -> None:
        self.deps.ready = True

    async def check(self, flow: Flow) -> None:
        assert len(self.deps.held) == (1 if flow.state is FlowState.SUCCEEDED else 0)
        assert bool(self.deps.told) == (flow.state is FlowState.UNWOUND)


async def start(world: World, saga: Saga, runner: FlowRunner, resource_id: str = "t1") -> Flow:
    return await world.store.write(
        lambda tx: runner.start(
            tx, saga, Ask(resource_id), resource_type="toy", resource_id=resource_id, project_id="p"
        )
    )


async def prepare(saga: Saga) -> ToyTrial:
    world = await memory_world()
    deps = Outside()
    runner = FlowRunner(world, "starter")
    runner.register(saga, deps)
    flow = await start(world, saga, runner)
    return ToyTrial(world, deps, flow.id)


def test_every_generated_case_of_a_toy_saga() -> None:
    assert check_saga(TOY, prepare) > 40


class Node:
    """A runner that runs, for the tests that need its hints and scans."""

    def __init__(self, world: World, saga: Saga = TOY, name: str = "node") -> None:
        self.world, self.deps, self.saga = world, Outside(), saga
        self.runner = FlowRunner(world, name)
        self.runner.register(saga, self.deps)

    async def __aenter__(self) -> Node:
        self.task = asyncio.create_task(self.runner.run())
        await asyncio.sleep(0.1)
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.world.bus.close()
        await self.world.store.close()

    async def flow(self, flow_id: str) -> Flow:
        return await self.world.store.read(lambda tx: load_flow(tx, flow_id))

    async def end(self, flow_id: str) -> Flow:
        for _ in range(4000):
            flow = await self.flow(flow_id)
            if not flow.state.live or flow.state is FlowState.STUCK:
                return flow
            await asyncio.sleep(0.25)
        raise AssertionError(flow)


def test_a_parked_flow_wakes_at_its_hint() -> None:
    async def story() -> None:
        async with Node(await memory_world()) as node:
            flow = await start(node.world, TOY, node.runner)
            await asyncio.sleep(limits.FLOW_LINGER_S * 2)
            assert (await node.flow(flow.id)).state is FlowState.WAITING
            node.deps.ready = True
            node.runner.wake("toy:t1")
            await asyncio.sleep(0.1)
            assert (await node.flow(flow.id)).state is FlowState.SUCCEEDED

    run_virtual(story())


def test_a_lost_hint_costs_one_scan() -> None:
    async def story() -> None:
        async with Node(await memory_world()) as node:
            flow = await start(node.world, TOY, node.runner)
            await asyncio.sleep(5)
            node.deps.ready = True
            await asyncio.sleep(40)
            assert (await node.flow(flow.id)).state is FlowState.SUCCEEDED

    run_virtual(story())


def test_a_hint_that_comes_while_the_flow_is_being_parked_is_not_lost() -> None:
    async def story() -> None:
        world = await memory_world()
        async with Node(world) as node:
            save = node.runner._save

            async def hinted_save(flow: Flow, new: Flow, effect: Effect | None = None) -> Flow:
                if new.state is FlowState.WAITING:
                    node.deps.ready = True
                    node.runner.wake("toy:t1")
                return await save(flow, new, effect)

            node.runner._save = hinted_save  # type: ignore[method-assign]
            flow = await start(world, TOY, node.runner)
            await asyncio.sleep(limits.FLOW_LINGER_S + 0.5)
            assert (await node.flow(flow.id)).state is FlowState.SUCCEEDED

    run_virtual(story())


@pytest.mark.parametrize("after_s", [0.5, 5.0])
def test_cancelling_unwinds_also_while_waiting(after_s: float) -> None:
    async def story() -> None:
        async with Node(await memory_world()) as node:
            flow = await start(node.world, TOY, node.runner)
            await asyncio.sleep(after_s)
            await node.world.store.write(lambda tx: node.runner.cancel(tx, "toy", "t1"))
            await asyncio.sleep(1)
            assert (await node.flow(flow.id)).state is FlowState.UNWOUND
            assert node.deps.held == {}

    run_virtual(story())


def test_one_live_flow_per_resource() -> None:
    async def story() -> None:
        async with Node(await memory_world()) as node:
            await start(node.world, TOY, node.runner)
            with pytest.raises(Conflict) as refused:
                await start(node.world, TOY, node.runner)
            assert refused.value.code == "flow.busy"

    run_virtual(story())


def test_a_wait_that_never_comes_true_unwinds_at_its_deadline() -> None:
    async def story() -> None:
        async with Node(await memory_world()) as node:
            flow = await start(node.world, TOY, node.runner)
            ended = await node.end(flow.id)
            assert ended.state is FlowState.UNWOUND
            assert ended.reason is not None
            assert "600" in ended.reason
            assert ended.finished_at_s is not None
            assert ended.finished_at_s - ended.created_at_s < 640

    run_virtual(story())


async def _unavailable(run: Run[Ask, Outside]) -> Any:
    raise Unavailable("test.away", "the other service is away")


async def _bug(run: Run[Ask, Outside]) -> Any:
    raise ZeroDivisionError


def test_failures_after_the_pivot_and_of_undos_are_visible_as_stuck_and_can_be_resumed() -> None:
    async def story() -> None:
        away = dataclasses.replace(TOY, steps=(*TOY.steps[:1], *TOY.steps[3:4], Step("tidy", do=_unavailable)))
        async with Node(await memory_world(), away) as node:
            flow = await start(node.world, away, node.runner)
            stuck = await node.end(flow.id)
            assert stuck.state is FlowState.STUCK
            assert "point of no return" in str(stuck.reason)
            node.runner.register(
                dataclasses.replace(away, steps=(*away.steps[:2], Step("tidy", do=nothing))), node.deps
            )
            await node.runner.resume(flow.id)
            assert (await node.end(flow.id)).state is FlowState.SUCCEEDED
        failing = dataclasses.replace(TOY, steps=(Step("a", do=nothing, undo=_bug), Step("b", do=_refuse)))
        async with Node(await memory_world(), failing) as node:
            flow = await start(node.world, failing, node.runner)
            assert (await node.end(flow.id)).state is FlowState.STUCK
            gone = await node.runner.abandon(flow.id, "the test gives up")
            assert gone.state is FlowState.UNWOUND
            await start(node.world, failing, node.runner)

    run_virtual(story())


async def _refuse(run: Run[Ask, Outside]) -> Any:
    raise Conflict("test.no", "no")


def test_a_flow_that_breaks_the_runner_is_stuck_and_the_runner_lives() -> None:
    def broken(tx: Any, run: Any, reason: str) -> None:
        raise ZeroDivisionError

    async def story() -> None:
        bad = dataclasses.replace(TOY, steps=(Step("b", do=_refuse),), on_unwound=broken)
        async with Node(await memory_world(), bad) as node:
            node.runner.register(dataclasses.replace(TOY, name="good"), node.deps)
            flow = await start(node.world, bad, node.runner)
            assert (await node.end(flow.id)).state is FlowState.STUCK
            node.deps.ready = True
            good = await start(node.world, dataclasses.replace(TOY, name="good"), node.runner, "t2")
            assert (await node.end(good.id)).state is FlowState.SUCCEEDED

    run_virtual(story())


def test_a_dead_node_is_succeeded_by_its_next_process_at_once_and_by_another_after_the_lease() -> None:
    async def story() -> None:
        world = await memory_world()
        first = Node(world)
        await first.__aenter__()
        flow = await start(world, TOY, first.runner)
        await asyncio.sleep(0.5)
        first.task.cancel()
        await asyncio.gather(first.task, return_exceptions=True)
        other = Node(world, name="other")
        other.deps.ready = True
        async with other:
            await asyncio.sleep(limits.FLOW_LEASE_S - 5)
            assert (await other.flow(flow.id)).state is FlowState.RUNNING
            await asyncio.sleep(limits.FLOW_SCAN_S + 10)
            assert (await other.flow(flow.id)).state is FlowState.SUCCEEDED

    run_virtual(story())


def test_many_flows_at_once_end() -> None:
    async def story() -> None:
        async with Node(await memory_world()) as node:
            node.deps.ready = True
            flows = [await start(node.world, TOY, node.runner, f"t{number}") for number in range(500)]
            ended = [await node.end(flow.id) for flow in flows]
            assert {flow.state for flow in ended} == {FlowState.SUCCEEDED}

    run_virtual(story())

"""The tests that every saga gets, generated from its steps; no case is written by hand.

A service describes how to make a fresh world with one flow in it (`Prepare`) and what must hold when the flow has
ended (`Trial.check`); the harness refuses each step, repeats each step and each undo, kills the runner at every
write, and lets a second runner take over while the first still runs.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from apus.kernel.errors import Conflict
from apus.kernel.flow import Flow, FlowRunner, FlowState, Run, Saga, Step, Wait, load_flow
from apus.kernel.world import World
from tests.flow.virtual import run_virtual


class Killed(BaseException):
    """The process is gone."""


class Trial(Protocol):
    """One world with one flow started in it (its row is written; nobody runs it yet)."""

    world: World
    deps: Any
    flow_id: str

    async def stir(self) -> None:
        """What the rest of the cloud does meanwhile (a host reports …).  Called every second."""
        ...

    async def check(self, flow: Flow) -> None:
        """Assert what must hold at the end: all is there (SUCCEEDED), or nothing is (UNWOUND)."""
        ...


Prepare = Callable[[Saga], Awaitable[Trial]]
Wrap = Callable[[Step | Wait], Step | Wait]


class KillingStore:
    """Ends the process at the n-th write, before or after its commit."""

    def __init__(self, store: Any, at: int, *, after: bool) -> None:
        self._store, self._at, self._after, self.writes = store, at, after, 0

    async def write(self, work: Any) -> Any:
        self.writes += 1
        if self.writes == self._at and not self._after:
            raise Killed
        result = await self._store.write(work)
        if self.writes == self._at and self._after:
            raise Killed
        return result

    async def read(self, work: Any) -> Any:
        return await self._store.read(work)

    async def close(self) -> None: ...


async def _advance(trial: Trial, saga: Saga, world: World | None = None, node: str = "second") -> Flow:
    """Drive the flow to its end with one runner."""
    runner = FlowRunner(world or trial.world, node)
    runner.register(saga, trial.deps)
    stirring = asyncio.create_task(_stir(trial))
    try:
        for _ in range(200):
            flow = await runner.advance_to_rest(trial.flow_id)
            if not flow.state.live or flow.state is FlowState.STUCK:
                return flow
            await trial.world.clock.sleep(1.0)
        raise AssertionError(f"the flow did not end: {flow}")
    finally:
        stirring.cancel()
        await asyncio.gather(stirring, return_exceptions=True)


async def _stir(trial: Trial) -> None:
    """The rest of the cloud lives on while a flow waits, retries or unwinds."""
    while True:
        await trial.world.clock.sleep(1.0)
        await trial.stir()


def _with(saga: Saga, name: str, wrap: Wrap) -> Saga:
    return dataclasses.replace(saga, steps=tuple(wrap(step) if step.name == name else step for step in saga.steps))


def _acting(step: Step | Wait, act: Callable[[Any, Run[Any, Any]], Awaitable[Any]]) -> Step | Wait:
    """The same step with its action run by `act(action, run)`."""
    if isinstance(step, Wait):
        until = step.until
        return dataclasses.replace(step, until=lambda run: act(until, run))
    do = step.do
    return dataclasses.replace(step, do=lambda run: act(do, run))


def refusable(saga: Saga) -> list[str]:
    """Steps that may refuse: those up to the point of no return, with it."""
    names = [step.name for step in saga.steps]
    pivots = [index for index, step in enumerate(saga.steps) if step.pivot]
    return names[: pivots[0] + 1] if pivots else names


def check_saga(saga: Saga, prepare: Prepare) -> int:
    """Run every generated case; returns how many there were."""
    cases = [lambda: _plain(saga, prepare)]
    for name in refusable(saga):
        cases.append(lambda name=name: _refused(saga, prepare, name, acted=False))
        cases.append(lambda name=name: _refused(saga, prepare, name, acted=True))
        cases.append(lambda name=name: _refused(saga, prepare, name, acted=True, undo_twice=True))
    for step in saga.steps:
        cases.append(lambda name=step.name: _repeated(saga, prepare, name))
        cases.append(lambda name=step.name: _taken_over(saga, prepare, name))
    for case in cases:
        run_virtual(case())
    return len(cases) + _killed_everywhere(saga, prepare)


async def _plain(saga: Saga, prepare: Prepare) -> None:
    trial = await prepare(saga)
    flow = await _advance(trial, saga)
    assert flow.state is FlowState.SUCCEEDED, (flow.state, flow.reason, flow.log)
    await trial.check(flow)


async def _refused(saga: Saga, prepare: Prepare, name: str, *, acted: bool, undo_twice: bool = False) -> None:
    async def act(action: Any, run: Run[Any, Any]) -> Any:
        if acted:
            await action(run)
        raise Conflict("test.refused", f"{name} was refused by the test")

    def repeat_undo(step: Step | Wait) -> Step | Wait:
        undo = step.undo
        if undo is None:
            return step

        async def twice(run: Run[Any, Any]) -> Any:
            effect = await undo(run)
            if effect is not None:
                await run.world.store.write(effect.apply)
            return await undo(run)

        return dataclasses.replace(step, undo=twice)

    changed = _with(saga, name, lambda step: _acting(step, act))
    if undo_twice:
        changed = dataclasses.replace(changed, steps=tuple(map(repeat_undo, changed.steps)))
    trial = await prepare(changed)
    flow = await _advance(trial, changed)
    assert flow.state is FlowState.UNWOUND, (name, flow.state, flow.reason)
    await trial.check(flow)


async def _repeated(saga: Saga, prepare: Prepare, name: str) -> None:
    async def act(action: Any, run: Run[Any, Any]) -> Any:
        await action(run)
        return await action(run)

    changed = _with(saga, name, lambda step: _acting(step, act))
    trial = await prepare(changed)
    flow = await _advance(trial, changed)
    assert flow.state is FlowState.SUCCEEDED, (name, flow.state, flow.reason)
    await trial.check(flow)


async def _taken_over(saga: Saga, prepare: Prepare, name: str) -> None:
    """While the first runner is inside the step, a second finishes the flow; then the first goes on."""
    ended: list[Flow] = []

    async def act(action: Any, run: Run[Any, Any]) -> Any:
        if not ended:
            ended.append(run.flow)
            ended[0] = await _advance(trial, saga, node="second")
        return await action(run)

    changed = _with(saga, name, lambda step: _acting(step, act))
    trial = await prepare(changed)
    await _advance(trial, changed, node="first")
    flow = await trial.world.store.read(lambda tx: load_flow(tx, trial.flow_id))
    assert flow.state is FlowState.SUCCEEDED, (name, flow.state, flow.reason)
    assert flow == ended[0], f"{name}: the old runner changed what the new one had finished"


def _killed_everywhere(saga: Saga, prepare: Prepare) -> int:
    cases = 0
    middle = refusable(saga)[len(refusable(saga)) // 2]

    async def refuse(action: Any, run: Run[Any, Any]) -> Any:
        await action(run)
        raise Conflict("test.refused", f"{middle} was refused by the test")

    unwinding = _with(saga, middle, lambda step: _acting(step, refuse))
    for tried, end in ((saga, FlowState.SUCCEEDED), (unwinding, FlowState.UNWOUND)):
        for after in (False, True):
            at, more = 1, True
            while more:
                more = run_virtual(_killed_at(tried, prepare, at, after=after, end=end))
                at += 1
                cases += 1
    return cases


async def _killed_at(saga: Saga, prepare: Prepare, at: int, *, after: bool, end: FlowState) -> bool:
    """Whether the flow was still alive at that write."""
    trial = await prepare(saga)
    store = KillingStore(trial.world.store, at, after=after)
    died = False
    try:
        await _advance(trial, saga, dataclasses.replace(trial.world, store=store), node="first")
    except Killed:
        died = True
    flow = await _advance(trial, saga, node="second")
    assert flow.state is end, (at, after, flow.state, flow.reason)
    await trial.check(flow)
    return died

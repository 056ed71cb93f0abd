"""The flow runner: takes each flow from wherever its log stopped to rest.  Recovery is this same code.

One write to the store per step: the mark that a step is done, the step's own effect and the mark that the next one
begins are committed together.  Being cancelled here is being killed here: the lease runs out, or the next process of
this node orphans it, and another runner goes on with a higher epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from apus.kernel import limits
from apus.kernel.caller import Caller
from apus.kernel.errors import CloudError, Conflict, Unavailable
from apus.kernel.flow import log as flow_log
from apus.kernel.flow.fence import fenced
from apus.kernel.flow.log import Flow, FlowState, LogEntry, Mark, Superseded
from apus.kernel.flow.step import PENDING, Effect, Run, Saga, Step, Wait
from apus.kernel.ids import new_id
from apus.kernel.log import get_logger
from apus.kernel.record import encode
from apus.kernel.world import Transaction, World

_log: Final = get_logger("apus.flow")
_replace = msgspec.structs.replace


class _Later(Exception):
    """Not now: park the flow (a wait that is not over, a retry whose time has not come)."""

    def __init__(self, wake_at_s: float, wake_key: str | None = None, *, failed: str | None = None) -> None:
        self.wake_at_s, self.wake_key, self.failed = wake_at_s, wake_key, failed


class _Cancelled(Exception):
    """Somebody asked for the end of this flow while it waited."""


class FlowRunner:
    """Starts flows (in any process) and, while `run` runs, advances them."""

    def __init__(self, world: World, node: str) -> None:
        self._world, self._node = world, node
        self.owner = f"{node}:{new_id(world.dice)}"
        self._sagas: dict[tuple[str, int], tuple[Saga, Any]] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._running: set[str] = set()
        self._lingering: dict[str, set[asyncio.Event]] = {}
        self._hinted: set[str] = set()
        """Flows whose hint came while they were being parked."""
        self._left: set[str] = set()
        """Ours still, and put down because the store was away: taken up again by the next scan that reaches it."""
        self._places = asyncio.Semaphore(limits.FLOWS_AT_ONCE_MAX)
        self._look = asyncio.Event()

    def register(self, saga: Saga, deps: Any) -> None:
        """Make a saga runnable here.  Old versions stay registered until no row uses them."""
        self._sagas[saga.name, saga.version] = (saga, deps)

    def saga_of(self, flow: Flow) -> Saga | None:
        """What the flow's steps are, if they are known here."""
        found = self._sagas.get((flow.saga, flow.version))
        return None if found is None else found[0]

    # ------------------------------------------------------------------ what services call, inside transactions
    def start(
        self,
        tx: Transaction,
        saga: Saga,
        input: msgspec.Struct,
        *,
        resource_type: str,
        resource_id: str,
        project_id: str | None,
        caller: Caller | None = None,
        live: str = "",
    ) -> Flow:
        """Write the flow's row; it begins after the commit.

        At most one live flow per (resource, `live`): raise Conflict when there is one.
        """
        first, now_s = saga.steps[0], tx.now_s
        here = self._tasks is not None
        flow = Flow(
            id=new_id(self._world.dice),
            saga=saga.name,
            version=saga.version,
            resource_type=resource_type,
            resource_id=resource_id,
            project_id=project_id,
            user_id=caller.user_id if caller else None,
            request_id=caller.request_id if caller else "",
            live_key=live_key(resource_type, resource_id, live),
            owner=self.owner if here else None,
            lease_until_s=now_s + limits.FLOW_LEASE_S if here else 0.0,
            created_at_s=now_s,
            input=msgspec.Raw(encode(input)),
            log=(LogEntry(first.name, Mark.STARTED, now_s),),
        )
        flow_log.insert_flow(tx, flow)
        tx.after_commit(lambda: self._begin(flow))
        return flow

    def cancel(self, tx: Transaction, resource_type: str, resource_id: str, live: str = "") -> Flow | None:
        """Ask the live flow to unwind; past its pivot it finishes.  Returns it, or None when there is none."""
        flow = flow_log.cancel_flow(tx, live_key(resource_type, resource_id, live))
        if flow is not None:
            tx.after_commit(lambda: self.wake(f"flow:{flow.id}"))
        return flow

    def wake(self, key: str) -> None:
        """A hint: whoever waits for this key should look again.  Cheap, and may be lost."""
        self._wake_here(key)
        if self._tasks is not None:
            self._tasks.create_task(self._world.bus.publish("flow.wake", f"{self.owner}\0{key}".encode()))

    # ------------------------------------------------------------------ operators
    async def resume(self, flow_id: str) -> Flow:
        """Let a stuck flow try again."""

        def work(tx: Transaction) -> Flow:
            flow = _must_be_stuck(flow_log.load_flow(tx, flow_id))
            again = _replace(flow, state=FlowState.RUNNING, attempts=0, lease_until_s=0.0, epoch=flow.epoch + 1)
            return flow_log.save_flow(tx, again, seen_epoch=flow.epoch)

        flow = await self._world.store.write(work)
        self._look.set()
        return flow

    async def abandon(self, flow_id: str, reason: str) -> Flow:
        """Give a stuck flow up: what it holds is left to the sweeps."""

        def work(tx: Transaction) -> Flow:
            flow = _must_be_stuck(flow_log.load_flow(tx, flow_id))
            saga, deps = self._sagas[flow.saga, flow.version]
            end = _replace(
                flow,
                state=FlowState.UNWOUND,
                live_key=None,
                finished_at_s=tx.now_s,
                reason=f"abandoned: {reason}",
                epoch=flow.epoch + 1,
            )
            if saga.on_unwound is not None:
                saga.on_unwound(tx, self._run(end, saga, deps, saga.steps[0]), end.reason or reason)
            return flow_log.save_flow(tx, end, seen_epoch=flow.epoch)

        return await self._world.store.write(work)

    # ------------------------------------------------------------------ running
    async def run(self) -> None:
        """Advance flows until cancelled.  The first unexpected failure of the runner itself ends it."""
        heard = await self._world.bus.listen("flow.wake", self._on_hint)
        started = await self._world.bus.listen("flow.started", self._on_started)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._heartbeat(), name="flow-heartbeat")
                await self._scan()
        finally:
            self._tasks = None
            await heard.stop()
            await started.stop()

    async def advance_to_rest(self, flow_id: str) -> Flow:
        """Take one flow over, whoever has it, and drive it until it ends or parks.  For tests and operators."""

        def take(tx: Transaction) -> Flow | None:
            flow = flow_log.load_flow(tx, flow_id)
            if not flow.state.live:
                return None
            return flow_log.take_flow(tx, flow, self.owner, tx.now_s + limits.FLOW_LEASE_S)

        flow = await self._world.store.write(take)
        if flow is not None:
            await self._drive(flow)
        return await self._world.store.read(lambda tx: flow_log.load_flow(tx, flow_id))

    def _begin(self, flow: Flow) -> None:
        if self._tasks is None:
            return
        if flow.owner == self.owner:
            self._spawn(flow)
        else:
            self._look.set()

    def _spawn(self, flow: Flow) -> None:
        if self._tasks is not None and flow.id not in self._running:
            self._running.add(flow.id)
            self._tasks.create_task(self._drive_in_turn(flow), name=f"flow-{flow.saga}-{flow.id}")

    def _wake_here(self, key: str) -> None:
        waiting = self._lingering.get(key)
        if waiting:
            for event in waiting:
                event.set()
        elif self._tasks is not None:
            self._tasks.create_task(self._take_hinted(lambda tx, _: flow_log.parked_on(tx, key)))
            if key.startswith("flow:"):
                self._look.set()

    async def _on_hint(self, subject: str, body: bytes) -> None:
        origin, _, key = body.decode().partition("\0")
        if not key:
            self._look.set()
        elif origin != self.owner:
            self._wake_here(key)

    async def _on_started(self, subject: str, body: bytes) -> None:
        self._look.set()

    async def _heartbeat(self) -> None:
        while True:
            await self._world.clock.sleep(limits.FLOW_HEARTBEAT_S)
            if self._running:
                with contextlib.suppress(Unavailable):
                    await self._world.store.write(
                        lambda tx: flow_log.renew_leases(
                            tx, self.owner, list(self._running), tx.now_s + limits.FLOW_LEASE_S
                        )
                    )

    async def _scan(self) -> None:
        fresh = True
        while True:
            self._look.clear()
            try:
                if fresh:  # the former process of this node is dead: what it leased is free now
                    await self._world.store.write(lambda tx: flow_log.orphan_leases(tx, self._node, self.owner))
                    fresh = False
                await self._take_due()
            except Unavailable as error:
                _log.warning("flow scan put off", why=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limits.FLOW_SCAN_S):
                    await self._look.wait()

    async def _take_due(self) -> None:
        left, self._left = self._left, set()
        try:
            await self._take(lambda tx, now_s: self._due(tx, now_s, left))
        except Unavailable:
            self._left |= left
            raise

    def _due(self, tx: Transaction, now_s: float, left: set[str]) -> Sequence[Flow]:
        due = [*flow_log.due_flows(tx, now_s, limits.FLOWS_AT_ONCE_MAX)]
        return [*due, *flow_log.owned_flows(tx, self.owner, left - {flow.id for flow in due})] if left else due

    async def _take_hinted(self, find: Callable[[Transaction, float], Sequence[Flow]]) -> None:
        """Take what a hint is about.  Without the store the hint is lost, and the scan finds them."""
        with contextlib.suppress(Unavailable):
            await self._take(find)

    async def _take(self, find: Callable[[Transaction, float], Sequence[Flow]]) -> None:
        def ours(tx: Transaction) -> list[Flow]:
            known = (flow for flow in find(tx, tx.now_s) if flow.id not in self._running)
            return [flow for flow in known if (flow.saga, flow.version) in self._sagas]

        if not await self._world.store.read(ours):
            return

        def take(tx: Transaction) -> list[Flow]:
            lease_until_s = tx.now_s + limits.FLOW_LEASE_S
            taken = [flow_log.take_flow(tx, flow, self.owner, lease_until_s) for flow in ours(tx)]
            return [flow for flow in taken if flow is not None]

        for flow in await self._world.store.write(take):
            self._spawn(flow)

    async def _drive_in_turn(self, flow: Flow) -> None:
        try:
            async with self._places:
                await self._drive(flow)
        except Unavailable as error:
            _log.warning("flow left to the scan", flow=flow.id, why=str(error))
            self._left.add(flow.id)
        except Exception as error:
            _log.exception("flow cannot be advanced", flow=flow.id, saga=flow.saga)
            await self._give_up(flow.id, f"it cannot be advanced: {error!r}")
        finally:
            self._running.discard(flow.id)
            if flow.id in self._hinted:
                self._hinted.discard(flow.id)
                if self._tasks is not None:
                    self._tasks.create_task(self._take_hinted(lambda tx, _: flow_log.waiting_flow(tx, flow.id)))

    async def _give_up(self, flow_id: str, reason: str) -> None:
        """A flow that breaks the runner itself (a row that does not decode, a failing `on_unwound`) is stuck."""

        def work(tx: Transaction) -> None:
            flow = flow_log.load_flow(tx, flow_id)
            if flow.owner == self.owner and flow.state is FlowState.RUNNING:
                stuck = _replace(flow, state=FlowState.STUCK, reason=reason, lease_until_s=0.0)
                flow_log.save_flow(tx, stuck, seen_epoch=flow.epoch)

        with contextlib.suppress(Unavailable):
            await self._world.store.write(work)

    async def _drive(self, flow: Flow) -> None:
        saga, deps = self._sagas[flow.saga, flow.version]
        try:
            while flow.state is FlowState.RUNNING:
                flow = await self._turn(flow, saga, deps)
        except Superseded:
            _log.info("flow was taken over", flow=flow.id)

    async def _turn(self, flow: Flow, saga: Saga, deps: Any) -> Flow:
        if flow.unwinding:
            return await self._unwind(flow, saga, deps)
        step = next((step for step in saga.steps if flow.last_mark(step.name) is not Mark.DONE), None)
        if step is None:
            return await self._save(flow, _ended(flow, FlowState.SUCCEEDED, self._now_s()))
        if flow.cancelled and not saga.past_pivot(flow):
            return await self._refuse(flow, saga, step, "cancelled: the end of the resource was asked for")
        run = self._run(flow, saga, deps, step)
        try:
            if isinstance(step, Wait):
                output = await self._wait(step, run)
            else:
                with fenced(flow):
                    output = await step.do(run)
            return await self._done(flow, saga, step, output)
        except _Cancelled:
            return _replace(flow, cancelled=True)
        except _Later as later:
            return await self._park(flow, later)
        except Superseded:
            raise
        except CloudError as error:
            if error.retry:
                return await self._again(flow, saga, step, error)
            _log.info("step refused", flow=flow.id, saga=saga.name, step=step.name, code=error.code, why=error.shown)
            return await self._refuse(flow, saga, step, error.shown)
        except Exception as error:
            _log.exception("step failed", flow=flow.id, saga=saga.name, step=step.name)
            return await self._again(flow, saga, step, error)

    async def _wait(self, step: Wait, run: Run[Any, Any]) -> Any:
        """Look, linger a moment for the hint, then park."""
        deadline_s = run.started_at_s + step.within_s
        linger_until_s = self._world.clock.monotonic_s() + limits.FLOW_LINGER_S
        keys = [f"flow:{run.flow.id}", *([step.wake_on(run)] if step.wake_on else [])]
        with self._listening(keys) as hint:
            while True:
                hint.clear()
                found = await step.until(run)
                if found is not PENDING:
                    return found
                now_s = self._now_s()
                if now_s >= deadline_s:
                    raise step.late(run) if step.late else _too_late(step)
                linger_s = linger_until_s - self._world.clock.monotonic_s()
                if linger_s <= 0 and not hint.is_set():
                    raise _Later(min(deadline_s, now_s + limits.FLOW_PARK_S), keys[-1])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, min(linger_s, deadline_s - now_s))):
                        await hint.wait()
                now = await self._world.store.read(lambda tx: flow_log.load_flow(tx, run.flow.id))
                if now.cancelled and not run.flow.cancelled:
                    raise _Cancelled

    @contextlib.contextmanager
    def _listening(self, keys: Sequence[str]) -> Any:
        event = asyncio.Event()
        for key in keys:
            self._lingering.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            for key in keys:
                self._lingering[key].discard(event)
                if not self._lingering[key]:
                    del self._lingering[key]

    async def _done(self, flow: Flow, saga: Saga, step: Step | Wait, output: Any) -> Flow:
        def work(tx: Transaction) -> Flow:
            made = output.apply(tx) if isinstance(output, Effect) else output
            marks = [LogEntry(step.name, Mark.DONE, tx.now_s, made)]
            following = saga.steps[saga.steps.index(step) + 1 :]
            new = _replace(flow, attempts=0, lease_until_s=tx.now_s + limits.FLOW_LEASE_S)
            if following:
                marks.append(LogEntry(following[0].name, Mark.STARTED, tx.now_s))
            else:
                new = _ended(new, FlowState.SUCCEEDED, tx.now_s)
            return flow_log.save_flow(tx, _replace(new, log=(*flow.log, *marks)), seen_epoch=flow.epoch)

        return await self._world.store.write(work)

    async def _refuse(self, flow: Flow, saga: Saga, step: Step | Wait, reason: str) -> Flow:
        if any(passed.pivot and flow.last_mark(passed.name) is Mark.DONE for passed in saga.steps):
            return await self._stick(flow, f"{step.name} was refused after the point of no return: {reason}")
        entry = LogEntry(step.name, Mark.REFUSED, self._now_s(), reason=reason)
        return await self._save(flow, _replace(flow, log=(*flow.log, entry), reason=reason, attempts=0))

    async def _again(self, flow: Flow, saga: Saga, step: Step | Wait, error: Exception) -> Flow:
        late = self._now_s() >= flow.began_at_s(step.name) + step.within_s
        if late and flow.attempts >= limits.STEP_TRIES_MIN:
            why = error.shown if isinstance(error, CloudError) else f"{step.name} kept failing ({error!r})"
            return await self._refuse(flow, saga, step, why)
        return await self._retry_later(flow, str(error))

    async def _retry_later(self, flow: Flow, why: str) -> Flow:
        """Sleep a short back-off here; park for a long one."""
        pause_s = min(limits.BACKOFF_MAX_S, limits.BACKOFF_FIRST_S * 2.0**flow.attempts)
        pause_s *= 0.5 + self._world.dice.random() / 2
        flow = _replace(flow, attempts=flow.attempts + 1)
        if pause_s > limits.FLOW_LINGER_S:
            return await self._park(flow, _Later(self._now_s() + pause_s, failed=why))
        await self._world.clock.sleep(pause_s)
        return flow

    async def _park(self, flow: Flow, later: _Later) -> Flow:
        parked = _replace(
            flow,
            state=FlowState.WAITING,
            wake_key=later.wake_key,
            wake_at_s=later.wake_at_s,
            lease_until_s=0.0,
            reason=later.failed or flow.reason,
        )
        keys = [f"flow:{flow.id}", *([later.wake_key] if later.wake_key else [])]
        with self._listening(keys) as hint:
            saved = await self._save(flow, parked)
        if hint.is_set() or saved.cancelled > flow.cancelled:
            self._hinted.add(flow.id)
        return saved

    async def _unwind(self, flow: Flow, saga: Saga, deps: Any) -> Flow:
        touched = [step for step in saga.steps if flow.last_mark(step.name) not in (None, Mark.UNDONE)]
        if not touched:
            run = self._run(flow, saga, deps, saga.steps[0])
            reason = flow.reason or "refused"

            def tell(tx: Transaction) -> None:
                if saga.on_unwound is not None:
                    saga.on_unwound(tx, run, reason)

            return await self._save(flow, _ended(flow, FlowState.UNWOUND, self._now_s()), Effect(tell))
        step = touched[-1]
        if flow.last_mark(step.name) is not Mark.UNDOING:
            entry = LogEntry(step.name, Mark.UNDOING, self._now_s())
            flow = await self._save(flow, _replace(flow, log=(*flow.log, entry)))
        run = self._run(flow, saga, deps, step)
        try:
            with fenced(flow):
                undone = None if step.undo is None else await step.undo(run)
            effect = undone if isinstance(undone, Effect) else None
            entries = [LogEntry(step.name, Mark.UNDONE, self._now_s())]
            if len(touched) > 1:
                entries.append(LogEntry(touched[-2].name, Mark.UNDOING, self._now_s()))
            return await self._save(flow, _replace(flow, log=(*flow.log, *entries), attempts=0), effect)
        except Superseded:
            raise
        except Exception as error:
            _log.warning("undo failed", flow=flow.id, saga=saga.name, step=step.name, why=repr(error))
            if flow.attempts >= limits.UNDO_TRIES_MAX:
                return await self._stick(flow, f"the undo of {step.name} keeps failing: {error}")
            return await self._retry_later(flow, flow.reason or str(error))

    async def _stick(self, flow: Flow, reason: str) -> Flow:
        _log.error("flow is stuck", flow=flow.id, saga=flow.saga, why=reason)
        return await self._save(flow, _replace(flow, state=FlowState.STUCK, reason=reason, lease_until_s=0.0))

    async def _save(self, flow: Flow, new: Flow, effect: Effect | None = None) -> Flow:
        def work(tx: Transaction) -> Flow:
            if effect is not None:
                effect.apply(tx)
            leased = new.state is FlowState.RUNNING
            kept = _replace(new, lease_until_s=tx.now_s + limits.FLOW_LEASE_S) if leased else new
            return flow_log.save_flow(tx, kept, seen_epoch=flow.epoch)

        return await self._world.store.write(work)

    def _run(self, flow: Flow, saga: Saga, deps: Any, step: Step | Wait) -> Run[Any, Any]:
        outputs = {entry.step: entry.output for entry in flow.log if entry.mark is Mark.DONE}
        input = msgspec.json.decode(flow.input, type=saga.input)
        return Run(flow, input, outputs, deps, self._world, flow.began_at_s(step.name))

    def _now_s(self) -> float:
        return self._world.clock.now_s()


def live_key(resource_type: str, resource_id: str, live: str = "") -> str:
    """What makes a flow the only one of its kind on its resource."""
    return f"{resource_type}:{resource_id}#{live}"


def _ended(flow: Flow, state: FlowState, now_s: float) -> Flow:
    return _replace(
        flow,
        state=state,
        live_key=None,
        finished_at_s=now_s,
        lease_until_s=0.0,
        wake_key=None,
        wake_at_s=None,
    )


def _too_late(step: Wait) -> Conflict:
    return Conflict("flow.too_late", f"{step.name} did not come true within {step.within_s:g} s.")


def _must_be_stuck(flow: Flow) -> Flow:
    if flow.state is not FlowState.STUCK:
        raise Conflict("operation.not_stuck", f"The operation {flow.id} is {flow.state}, not stuck.")
    return flow

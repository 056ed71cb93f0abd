"""Broken parts, each with one mistake that somebody might make: what the histories are worth is that they find it."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec.structs

from apus.kernel.errors import Unavailable
from apus.kernel.flow import FlowRunner, Saga, Step, Wait
from apus.kernel.once import OnceStore
from apus.kernel.sql import Rows
from apus.kernel.world import Clock, Store, Transaction
from apus.services.compute.agent.agent import AWAY_S, Agent
from apus.services.compute.contract import Found, HostWork, Wish
from apus.services.network.agent.agent import NetworkAgent
from apus.services.network.drivers.driver import PortSpec
from apus.services.placement.model import Provider
from apus.services.placement.service import Placement
from tests.sim.cluster import Parts

T = TypeVar("T")


# ------------------------------------------------------------------ stores
class EdgedTransaction:
    """A transaction whose statements pass through `edit`: None leaves one out."""

    def __init__(self, tx: Transaction, edit: Callable[[str, Any], str | None]) -> None:
        self._tx, self._edit = tx, edit

    @property
    def dialect(self) -> Any:
        return self._tx.dialect

    @property
    def now_s(self) -> float:
        return self._tx.now_s

    def after_commit(self, hint: Callable[[], None]) -> None:
        self._tx.after_commit(hint)

    def execute(self, statement: str, parameters: Any = ()) -> Rows:
        edited = self._edit(statement, parameters)
        return Rows((), 0) if edited is None else self._tx.execute(edited, parameters)


@dataclasses.dataclass
class WrappedStore:
    store: Store
    clock: Clock

    async def write(self, work: Callable[[Transaction], T]) -> T:
        return await self.store.write(work)

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self.store.read(work)

    async def close(self) -> None:
        await self.store.close()


class NoEpochs(WrappedStore):
    """A runner that was taken over still writes its flow."""

    async def write(self, work: Callable[[Transaction], T]) -> T:
        def edit(statement: str, _: Any) -> str:
            return re.sub(r" AND epoch = :seen_epoch", "", statement)

        return await self.store.write(lambda tx: work(EdgedTransaction(tx, edit)))


class _OnlyTried(Exception):
    """Rolls back what was run for its value."""


class EarlyAnswers(WrappedStore):
    """What is answered is committed a moment later, if the process lives that long."""

    async def write(self, work: Callable[[Transaction], T]) -> T:
        tried: list[T] = []

        def attempt(tx: Transaction) -> None:
            tried.append(work(EdgedTransaction(tx, lambda statement, _: statement)))
            raise _OnlyTried

        try:
            await self.store.write(attempt)
        except _OnlyTried:
            asyncio.get_running_loop().create_task(self._commit(work))
        return tried[-1]

    async def _commit(self, work: Callable[[Transaction], Any]) -> None:
        await self.clock.sleep(0.02)
        await self.store.write(work)


class EventsBeside(WrappedStore):
    """Events are written in a transaction of their own, after the one that they tell of."""

    async def write(self, work: Callable[[Transaction], T]) -> T:
        events: list[tuple[str, Any]] = []

        def edit(statement: str, parameters: Any) -> str | None:
            if statement.startswith("INSERT INTO event "):
                events.append((statement, parameters))
                return None
            return statement

        def run(tx: Transaction) -> T:
            events.clear()
            return work(EdgedTransaction(tx, edit))

        value = await self.store.write(run)
        if events:
            await self.store.write(lambda tx: [tx.execute(*event) for event in events])
        return value


# ------------------------------------------------------------------ flows
def changed_runner(name: str, step: str, change: Callable[[Any], Step | Wait]) -> type[FlowRunner]:
    """A runner that is given another saga of that name."""

    class Changed(FlowRunner):
        def register(self, saga: Saga, deps: Any) -> None:
            if saga.name == name:
                steps = tuple(change(one) if one.name == step else one for one in saga.steps)
                saga = dataclasses.replace(saga, steps=steps)
            super().register(saga, deps)

    return Changed


async def nothing(run: Any) -> None:
    return None


async def at_once(run: Any) -> str:
    return "gone"


class HintsOnly(FlowRunner):
    """Looks once, and then only where a hint says so."""

    async def _scan(self) -> None:
        await self._take_due()
        while True:
            self._look.clear()
            await self._look.wait()
            await self._take_due()


# ------------------------------------------------------------------ services
class Overbooking(Placement):
    """What was chosen on the snapshot is claimed, however full the host is by now."""

    def _has_room(self, host: Provider, resources: Mapping[str, int]) -> bool:
        return True


@dataclasses.dataclass
class TakesOldWord:
    """A host's late word counts as its newest."""

    work: HostWork
    count: int = 0

    async def wanted(self, host: str, since: int) -> Sequence[Wish]:
        return await self.work.wanted(host, since)

    async def report(self, host: str, found: Sequence[Found], complete: bool) -> None:
        self.count += 1
        newest = int(2e12) + self.count
        await self.work.report(host, [msgspec.structs.replace(one, counter=newest) for one in found], complete)

    async def drive_files(self, incarnation_id: str) -> Mapping[str, bytes]:
        return await self.work.drive_files(incarnation_id)


# ------------------------------------------------------------------ agents
class Unscanning(Agent):
    """Asks for everything at its start, and then only when it is told that there is something."""

    async def _pull(self) -> None:
        everything = True
        while True:
            self._hinted.clear()
            try:
                await self._pull_pages(0 if everything else self._since)
                everything = False
            except (Unavailable, OSError):
                await self._world.clock.sleep(AWAY_S)
                continue
            await self._hinted.wait()


class Crossing(NetworkAgent):
    """Its look acts on what it saw, whatever was plugged and unplugged since."""

    async def _settle_port(self, id: str, wanted: PortSpec | None) -> bool:
        self._moved.pop(id, None)
        return await super()._settle_port(id, wanted)


BROKEN: Final[Mapping[str, Parts]] = {
    "an undo keeps the claim": Parts(
        runner=changed_runner("server.boot", "claim_host", lambda step: dataclasses.replace(step, undo=nothing))
    ),
    "an undo keeps the ports": Parts(
        runner=changed_runner("server.boot", "bind_ports", lambda step: dataclasses.replace(step, undo=nothing))
    ),
    "an undo leaves the guest": Parts(
        runner=changed_runner("server.boot", "want_on", lambda step: dataclasses.replace(step, undo=nothing))
    ),
    "a deletion does not wait for its host": Parts(
        runner=changed_runner("server.delete", "found_gone", lambda step: dataclasses.replace(step, until=at_once))
    ),
    "the epoch of a lease is not looked at": Parts(store=NoEpochs),
    "what was undone is made again by a runner that wakes up": Parts(guard=OnceStore),
    "late word of a host is taken for its newest": Parts(work=TakesOldWord),
    "a commit is answered before it is one": Parts(store=EarlyAnswers),
    "events are not in the transaction": Parts(store=EventsBeside),
    "a claim is not checked at its commit": Parts(placement=Overbooking),
    "a lost hint to a host is not made up for": Parts(agent=Unscanning),
    "a lost hint to a flow is not made up for": Parts(runner=HintsOnly),
    "a look undoes what crossed it": Parts(network_agent=Crossing),
}

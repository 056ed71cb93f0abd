"""A bus that does what networks do: it delays, loses, repeats and reorders, and links break in one direction.

Each machine has a `LocalBus` for what reaches it; between them is the `SimNetwork`.  Reordering needs nothing of its
own: two messages with different delays overtake each other.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from random import Random
from typing import Final

from apus.kernel.errors import Unavailable
from apus.kernel.world import Handler, Listener, Subscription
from apus.platform.bus_local import LocalBus
from apus.platform.subjects import check_body, check_subject, hears
from apus.sim.life import Life
from apus.sim.trace import Trace

REPEATED_LATER: Final = 10


@dataclasses.dataclass(slots=True)
class NetworkFaults:
    delay_min_s: float = 0.000_1
    delay_max_s: float = 0.005
    lost: float = 0.0
    """Probability, for each message on each link."""
    repeated: float = 0.0


class SimNetwork:
    def __init__(self, dice: Random, trace: Trace, faults: NetworkFaults | None = None) -> None:
        self.faults = faults or NetworkFaults()
        self.buses: dict[str, SimBus] = {}
        self._dice, self._trace = dice, trace
        self._cut: dict[tuple[str, str], None] = {}

    def cut(self, source: str, target: str) -> None:
        """From now on nothing gets from the one to the other; the other way is a cut of its own."""
        self._cut[source, target] = None
        self._trace.note("cut", source, target)

    def isolate(self, node: str) -> None:
        for other in self.buses:
            if other != node:
                self.cut(node, other)
                self.cut(other, node)

    def heal(self) -> None:
        self._cut.clear()
        self._trace.note("heal")

    def connected(self, source: str, target: str) -> bool:
        return (source, target) not in self._cut

    def carry(self, source: str, target: str, subject: str, arrive: Callable[[], None]) -> None:
        """Take one message along one link: never, once or twice, each time after a delay of its own.

        What comes again may come much later than it could the first time.
        """
        if not self.connected(source, target) or self._dice.random() < self.faults.lost:
            self._trace.note("lost", source, target, subject)
            return
        for longer in (1, REPEATED_LATER) if self._dice.random() < self.faults.repeated else (1,):
            delay_s = self._dice.uniform(self.faults.delay_min_s, self.faults.delay_max_s * longer)
            asyncio.get_running_loop().call_later(delay_s, self._arrive, source, target, subject, arrive)

    def _arrive(self, source: str, target: str, subject: str, arrive: Callable[[], None]) -> None:
        if not self.connected(source, target):
            self._trace.note("lost", source, target, subject)
            return
        there = self.buses.get(target)
        if there is not None and (frozen_s := there.frozen_s()):  # it waits in a buffer of the machine
            asyncio.get_running_loop().call_later(frozen_s, self._arrive, source, target, subject, arrive)
            return
        self._trace.note("carried", source, target, subject)
        arrive()

    def choose(self, buses: list[SimBus]) -> SimBus:
        return self._dice.choice(buses)


class SimBus:
    """The bus as one process sees it.  It joins the network when made and leaves it when closed or killed."""

    def __init__(self, network: SimNetwork, node: str, life: Life | None = None) -> None:
        self._network, self.node = network, node
        self._life = life or Life(node)
        self._local = LocalBus()
        network.buses[node] = self

    def leave(self) -> None:
        if self._network.buses.get(self.node) is self:
            del self._network.buses[self.node]

    def frozen_s(self) -> float:
        return self._life.frozen_s()

    async def publish(self, subject: str, body: bytes = b"") -> None:
        self._life.check()
        check_subject(subject)
        check_body(body)
        for bus in list(self._network.buses.values()):
            if any(hears(ear.pattern, subject) for ear in bus._local.ears):
                self._network.carry(self.node, bus.node, subject, lambda bus=bus: bus._hear(subject, body))  # type: ignore[misc]

    def _hear(self, subject: str, body: bytes) -> None:
        if not self._life.ended:
            self._local.offer(subject, body)

    async def listen(self, subject: str, listener: Listener) -> Subscription:
        self._life.check()
        return await self._local.listen(subject, listener)

    async def answer(self, subject: str, handler: Handler) -> Subscription:
        self._life.check()
        return await self._local.answer(subject, handler)

    async def ask(self, subject: str, body: bytes, *, timeout_s: float) -> bytes:
        self._life.check()
        check_subject(subject)
        check_body(body)
        answering = [bus for bus in self._network.buses.values() if bus.answers(subject)]
        if not answering:
            raise Unavailable("bus.no_answerer", f"nobody answers {subject}")
        there = self._network.choose(answering)
        # A task of the bus, so that closing it ends the question.
        asking: asyncio.Task[bytes] = self._local.own(self._ask(there, subject, body, timeout_s))
        try:
            await asyncio.wait([asking])
        finally:
            asking.cancel()
        self._life.check()
        if asking.cancelled():
            raise Unavailable("bus.closed", f"the bus was closed before {subject} was answered")
        return asking.result()

    def answers(self, subject: str) -> bool:
        return any(hears(answerer.subject, subject) for answerer in self._local.answerers)

    async def _ask(self, there: SimBus, subject: str, body: bytes, timeout_s: float) -> bytes:
        answered: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

        def settle(reply: bytes | None) -> None:
            if not answered.done():
                answered.set_result(reply)

        async def handle() -> None:
            try:
                reply: bytes | None = await there._local.ask(subject, body, timeout_s=timeout_s)
            except Unavailable:
                reply = None
            if not there._life.ended:
                self._network.carry(there.node, self.node, f"{subject} answer", lambda: settle(reply))

        def arrive() -> None:
            if not there._life.ended:
                there._local.own(handle())

        self._network.carry(self.node, there.node, subject, arrive)
        try:
            async with asyncio.timeout(timeout_s):
                reply = await answered
        except TimeoutError:
            raise Unavailable("bus.no_answer", f"{subject} was not answered within {timeout_s:g} s") from None
        if reply is None:
            raise Unavailable("bus.no_answer", f"{subject} was heard and not answered")
        return reply

    def kill(self) -> None:
        """As the process that it belongs to: without a word to anybody."""
        self.leave()
        self._local.kill()

    async def close(self) -> None:
        self.leave()
        await self._local.close()

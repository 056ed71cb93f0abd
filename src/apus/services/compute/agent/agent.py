"""The agent of one host: pulls what is wanted, makes it so, reports what it found.  Takes no orders.

Each incarnation is settled by one task at a time; different ones in parallel.  A newer wish interrupts a polite
stop that is still waiting.  Guests do not belong to this process: when it ends they live on, and the next one
adopts them through the inventory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final, Protocol

import msgspec

from apus.kernel.errors import CloudError, Unavailable
from apus.kernel.log import get_logger
from apus.kernel.world import World
from apus.services.compute.agent.guests import Guests, State
from apus.services.compute.agent.journal import Entry, Journal
from apus.services.compute.contract import Found, GuestSpec, HostWork, Power, Wish
from apus.services.compute.kicks import wanted_subject
from apus.services.placement.contract import HostReport

_log: Final = get_logger("apus.agent")

AT_ONCE_MAX: Final = 16
"""Guests being started or stopped at the same time on one host."""
SCAN_S: Final = 20.0
"""A lost hint costs this much at most."""
AWAY_S: Final = 2.0
"""When the control plane is asked again that did not answer."""
HEARTBEAT_S: Final = 15.0
AGAIN_S: Final = 1.0
TRIES_MAX: Final = 6
"""Of an action that may succeed later; then it is reported as failed, and tried again with every scan."""
AWAY: Final = ("bus.", "store.")
"""Begins the codes that say that the control plane is away: no fault of the guest's, so tried until it is back."""
WATCH_S: Final = 3.0
"""A guest that ends by itself is noticed after so long."""
GRACE_S: Final = 300.0
"""A guest that nobody wants is held so long before it is removed: the control plane may be behind."""


class HostPlacement(Protocol):
    """The part of placement that a host talks to."""

    async def report_host(self, report: HostReport) -> None: ...

    async def host_heard(self, host: str) -> None: ...


class Agent:
    def __init__(
        self,
        world: World,
        report: Callable[[], HostReport],
        *,
        work: HostWork,
        placement: HostPlacement,
        guests: Guests,
        journal: Journal,
        watch_every_s: float = WATCH_S,
    ) -> None:
        self._world, self._report, self._work, self._placement = world, report, work, placement
        self._guests, self._journal, self._watch_every_s = guests, journal, watch_every_s
        self.host = report().host
        self._since = 0
        self._wishes: dict[str, Wish] = {}
        self._found: dict[str, Found] = {}
        self._states: dict[str, State] = {}
        self._working: dict[str, asyncio.Event] = {}
        """Being settled; the event is set when there is something newer."""
        self._put_off: set[str] = set()
        """Failed for what may pass, or must end: tried again with every scan."""
        self._unkept: set[str] = set()
        """Wishes that were not accepted, as the journal could not keep them."""
        self._unsent: dict[str, Found] = {}
        self._unwanted_since_s: dict[str, float] = {}
        self._hinted = asyncio.Event()
        self._to_send = asyncio.Event()
        self._places = asyncio.Semaphore(AT_ONCE_MAX)
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Until cancelled; guests live on."""
        for id, entry in (await self._journal.load()).items():
            self._wishes[id] = entry.wish
            if entry.found is not None:
                self._found[id] = entry.found
                if entry.found.error is not None:
                    self._put_off.add(id)
        self._states = dict(await self._guests.inventory())
        heard = await self._world.bus.listen(wanted_subject(self.host), self._on_hint)
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._heartbeat(), name=f"heartbeat-{self.host}")
                tasks.create_task(self._sending(), name=f"report-{self.host}")
                tasks.create_task(self._watch(), name=f"watch-{self.host}")
                await self._pull()
        finally:
            self._tasks = None
            await heard.stop()

    def _soon_s(self) -> float:
        """When to ask again a control plane that is away: not all hosts at once."""
        return AGAIN_S * self._world.dice.uniform(0.5, 1.5)

    # ------------------------------------------------------------------ the HostConsole contract
    async def console_log(self, incarnation_id: str, lines: int | None) -> str:
        return await self._guests.console_log(incarnation_id, lines)

    # ------------------------------------------------------------------ hearing
    async def _on_hint(self, subject: str, body: bytes) -> None:
        self._hinted.set()

    async def _pull(self) -> None:
        """Ask for what is newer than what we know; everything at the start and after a silence."""
        everything = True
        while True:
            self._hinted.clear()
            pause_s = SCAN_S
            try:
                wanted = await self._pull_pages(0 if everything else self._since)
                if everything:
                    self._compare(wanted)
                    await self._tidy_journal()
                everything = False
            except (Unavailable, OSError) as error:  # OSError: of the journal, without which nothing is accepted
                everything, pause_s = True, AWAY_S
                _log.info("nothing was pulled", host=self.host, why=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._hinted.wait()
                    continue
            everything = True

    async def _pull_pages(self, since: int) -> set[str]:
        """Take in all that is newer; returns the ids that were named."""
        named: set[str] = set()
        while True:
            wishes = await self._work.wanted(self.host, since)
            for wish in wishes:
                await self._accept(wish)
                named.add(wish.id)
                since = max(since, wish.seq)
            if not wishes:
                return named

    async def _accept(self, wish: Wish) -> None:
        known = self._wishes.get(wish.id)
        if known is None or wish.seq > known.seq:
            self._unkept.add(wish.id)
            await self._journal.keep(Entry(wish=wish, found=self._found.get(wish.id)))
            self._unkept.discard(wish.id)
            self._wishes[wish.id] = wish
        self._since = max(self._since, wish.seq)
        if known is None or wish.seq > known.seq:
            self._look_at(wish.id)
            return
        if wish.seq < known.seq:
            return
        if not self._differs(wish):
            self._send_again(wish.id)
        elif wish.id in self._working:
            return  # this very wish is being settled: a look would begin a polite stop anew
        else:
            self._look_at(wish.id)

    def _compare(self, wanted: set[str]) -> None:
        """Guests that nobody wants are held for a while, then removed; forget what is over."""
        now_s = self._world.clock.monotonic_s()
        for id in [*self._states, *self._wishes]:
            if id in wanted or id in self._working:
                self._unwanted_since_s.pop(id, None)
                continue
            since_s = self._unwanted_since_s.setdefault(id, now_s)
            wish = self._wishes.get(id) or self._stranger(id)
            if wish.power is Power.GONE or now_s - since_s >= GRACE_S:
                self._wishes[id] = msgspec.structs.replace(wish, power=Power.GONE, hard=True)
                self._look_at(id)

    async def _tidy_journal(self) -> None:
        """A wish that could not be kept was not accepted, but its file may be there all the same."""
        for id in list(self._unkept):
            if id not in self._wishes:
                await self._journal.forget(id)
            self._unkept.discard(id)

    def _stranger(self, id: str) -> Wish:
        """A guest of which neither the control plane nor our journal knows."""
        spec = GuestSpec(name="", vcpus=0, memory_mib=0, disk_gib=0)
        return Wish(id=id, server_id="", host=self.host, seq=0, power=Power.ON, spec=spec)

    def _look_at(self, id: str) -> None:
        newer = self._working.get(id)
        if newer is not None:
            newer.set()
        elif self._tasks is not None:
            self._working[id] = asyncio.Event()
            self._tasks.create_task(self._settle_in_turn(id), name=f"settle-{id}")

    # ------------------------------------------------------------------ settling
    async def _settle_in_turn(self, id: str) -> None:
        newer = self._working[id]
        try:
            async with self._places:
                while True:
                    newer.clear()
                    await self._settle(id, newer)
                    if not newer.is_set():
                        return
        finally:
            del self._working[id]

    async def _settle(self, id: str, newer: asyncio.Event) -> None:
        wish = self._wishes.get(id)
        if wish is None:
            return
        attempt = -1
        while True:
            attempt += 1
            try:
                if await self._act(wish, newer):
                    self._put_off.discard(id)
                    await self._tell(wish, None)
                return
            except (CloudError, OSError) as error:
                passes, why, hidden = _judged(error)
                if isinstance(error, Unavailable) and error.code.startswith(AWAY):
                    attempt = min(attempt, TRIES_MAX - 2)
                _log.warning("wish not fulfilled", host=self.host, id=id, power=wish.power, why=why, hidden=hidden)
                if not passes or attempt == TRIES_MAX - 1:
                    if passes or wish.power is Power.GONE:
                        self._put_off.add(id)
                    await self._tell(wish, why)
                    return
            except Exception as error:
                _log.exception("wish failed", host=self.host, id=id, power=wish.power)
                if attempt == TRIES_MAX - 1:
                    await self._tell(wish, f"{type(error).__name__}: {error}")
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(5.0, 0.2 * 2**attempt)):
                    await newer.wait()
                    return

    async def _act(self, wish: Wish, newer: asyncio.Event) -> bool:
        """Make it so; False when something newer came meanwhile."""
        if wish.power is Power.GONE:
            await self._guests.absent(wish, lambda port_id: self._another_has(port_id, wish))
            self._states.pop(wish.id, None)
            return True
        ensure = asyncio.ensure_future(self._guests.ensure(wish))
        interrupt = asyncio.ensure_future(newer.wait())
        try:
            await asyncio.wait([ensure, interrupt], return_when=asyncio.FIRST_COMPLETED)
        finally:
            interrupt.cancel()
            if not ensure.done():
                ensure.cancel()
            await asyncio.gather(ensure, interrupt, return_exceptions=True)
        if ensure.cancelled():
            return False
        self._states[wish.id] = ensure.result()
        return True

    def _another_has(self, port_id: str, wish: Wish) -> bool:
        """Whether a port belongs to another guest by now: what is over may be made absent once more, much later."""
        others = [other for id, other in self._wishes.items() if id != wish.id and other.power is not Power.GONE]
        return any(port.id == port_id for other in others for port in other.spec.ports)

    # ------------------------------------------------------------------ telling
    async def _tell(self, wish: Wish, error: str | None) -> None:
        if error is not None:
            await self._look_again(wish.id)
        known = self._found.get(wish.id)
        over = wish.power is Power.GONE and error is None
        state = self._states.get(wish.id, State(Power.GONE if over else Power.OFF, 0))
        found = Found(
            id=wish.id,
            counter=max(known.counter if known else 0, wish.heard, int(self._world.clock.now_s() * 1000)) + 1,
            seq=wish.seq,
            power=state.power,
            boots=state.boots,
            forwards=state.forwards or (known.forwards if known else ()),
            error=error,
            at_s=self._world.clock.now_s(),
        )
        self._found[wish.id] = found
        try:
            if over:
                await self._journal.forget(wish.id)
                self._wishes.pop(wish.id, None)
            else:
                await self._journal.keep(Entry(wish=self._wishes.get(wish.id, wish), found=found))
        except OSError as trouble:  # what was found is found again; what is over is looked at by the next scan
            _log.warning("journal not written", host=self.host, id=wish.id, why=str(trouble))
        self._send_again(wish.id)

    async def _look_again(self, id: str) -> None:
        """What failed may have done half of its work."""
        with contextlib.suppress(CloudError, OSError):
            now = await self._guests.inventory()
            if id in now:
                self._states[id] = now[id]
            else:
                self._states.pop(id, None)

    def _send_again(self, id: str) -> None:
        found = self._found.get(id)
        if found is not None:
            self._unsent[id] = found
            self._to_send.set()

    def _differs(self, wish: Wish) -> bool:
        found = self._found.get(wish.id)
        if found is None or found.seq < wish.seq or wish.id in self._put_off:
            return True
        return found.error is None and found.power is not wish.power

    async def _sending(self) -> None:
        """Reports go out together; what was not taken is sent again."""
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            batch, self._unsent = self._unsent, {}
            try:
                await self._work.report(self.host, list(batch.values()), False)
                for id, found in batch.items():
                    if found.power is Power.GONE and self._found.get(id) is found:
                        del self._found[id]
            except Unavailable as error:
                _log.info("report put off", host=self.host, why=str(error))
                self._unsent = {**batch, **self._unsent}
                await self._world.clock.sleep(self._soon_s())
                self._to_send.set()

    async def _watch(self) -> None:
        """Guests that end by themselves: reported as they are, under the wish that had been fulfilled."""
        while True:
            await self._world.clock.sleep(self._watch_every_s)
            if not self._states:
                continue
            before = dict(self._found)
            try:
                now = await self._guests.inventory()
            except (CloudError, OSError) as error:
                _log.warning("guests not seen", host=self.host, why=str(error))
                continue
            for id, wish in list(self._wishes.items()):
                found = self._found.get(id)
                if id in self._working or found is None or found.seq < wish.seq or found is not before.get(id):
                    continue  # settled meanwhile: what was seen of it is old
                state = now.get(id, State(Power.OFF, found.boots, "it is not there any more"))
                if state.power is not found.power and found.power is not Power.GONE:
                    self._states[id] = state
                    await self._tell(wish, found.error)

    async def _heartbeat(self) -> None:
        last: Any = None
        while True:
            report = self._report()
            try:
                if report != last:
                    await self._placement.report_host(report)
                    last = report
                else:
                    await self._placement.host_heard(self.host)
            except CloudError as error:  # away, or it forgot us: introduce ourselves again
                last = None
                _log.info("heartbeat not heard", host=self.host, why=str(error))
                await self._world.clock.sleep(self._soon_s())
                continue
            await self._world.clock.sleep(HEARTBEAT_S)


def _judged(error: CloudError | OSError) -> tuple[bool, str, str]:
    """Whether it may pass, what is said of it, and what only the log hears."""
    if isinstance(error, CloudError):
        return error.retry, error.shown, error.hidden
    return True, f"The host's disk or a program failed: {error.strerror or error}", repr(error)

"""Tells what is in the outbox: to the cloud's stream of events, and to webhooks.

An event is taken out when its target has it, so it may come twice, and in the order in which it was put in.  A target
that does not answer is tried again, later and later, and its events are dropped after a day.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Final

import msgspec

from apus.kernel.errors import CloudError
from apus.kernel.log import get_logger
from apus.services.object.contract import ObjectEvents
from apus.services.object.drivers.webhook import Webhooks
from apus.services.object.logic.merge import seconds_of
from apus.services.object.logic.notices import STREAM, Letter, letter_of, message
from apus.services.object.model import Change, ListingAsk, Row
from apus.services.object.outbox import OUTBOX
from apus.services.object.service import Objects

PASS_EVERY_S: Final = 1.0
SCAN_EVERY_S: Final = 60.0
KEPT_S: Final = 86_400.0
PAGE: Final = 100
PASS_MAX: Final = 10_000
WAIT_MIN_S: Final = 1.0
WAIT_MAX_S: Final = 300.0
_log: Final = get_logger("apus.object.notices")


class Notifier:
    name = "object.notifier"
    period_s = PASS_EVERY_S

    def __init__(self, objects: Objects, webhooks: Webhooks, events: ObjectEvents | None) -> None:
        self._objects, self._webhooks, self._events = objects, webhooks, events
        self._scan_at_s = 0.0
        self._paused: dict[tuple[str, str], tuple[float, float]] = {}
        """(container, target) to when it is tried again, and how long was waited before."""

    async def keys(self) -> Iterable[str]:
        """`ACCOUNT/CONTAINER` of those with events to tell."""
        waiting, self._objects.outbox.waiting = self._objects.outbox.waiting, {}
        now_s = self._objects.cluster.world.clock.monotonic_s()
        if now_s >= self._scan_at_s:
            rows = await self._objects.listing(OUTBOX, "", ListingAsk())
            waiting.update(dict.fromkeys(row.name for row in rows))
            self._scan_at_s = now_s + SCAN_EVERY_S
        return list(waiting)

    async def settle(self, key: str) -> None:
        ask = ListingAsk(limit=PAGE)
        for _ in range(PASS_MAX // PAGE):
            rows = [row for row in await self._objects.listing(OUTBOX, key, ask) if isinstance(row, Row)]
            done = [row for row in rows if await self._told(key, row)]
            if done:
                gone = tuple(Row(row.name, self._objects.cluster.stamp(), gone=True) for row in done)
                await self._objects.directory.apply(Change(OUTBOX, key, gone))
            if len(done) < len(rows):
                self._objects.outbox.waiting[key] = None
            if len(rows) < PAGE:
                return
            ask = ListingAsk(limit=PAGE, marker=rows[-1].name)

    async def run_once(self) -> None:
        for key in await self.keys():
            await self.settle(key)

    async def _told(self, key: str, row: Row) -> bool:
        """Whether it is done with."""
        letter, clock = letter_of(row.content_type), self._objects.cluster.world.clock
        pause_at_s, waited_s = self._paused.get((key, letter.target), (0.0, 0.0))
        if clock.monotonic_s() < pause_at_s:
            return False
        why = await self._send(letter)
        if why is None:
            self._paused.pop((key, letter.target), None)
            return True
        wait_s = min(WAIT_MAX_S, max(WAIT_MIN_S, 2 * waited_s))
        self._paused[key, letter.target] = clock.monotonic_s() + wait_s, wait_s
        dropped = clock.now_s() - seconds_of(row.stamp) > KEPT_S
        _log.warning("not told", container=key, target=letter.target, why=why, again_s=wait_s, dropped=dropped)
        return dropped

    async def _send(self, letter: Letter) -> str | None:
        """None, or why it did not arrive."""
        try:
            if letter.target == STREAM:
                if self._events is not None:
                    await self._events.announce(letter.event)
                return None
            at = datetime.datetime.fromtimestamp(letter.event.at_s, datetime.UTC)
            time_text = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            body = msgspec.json.encode(message(letter, self._objects.options.region, time_text))
            status = await self._webhooks.send(letter.target, body)
        except (CloudError, OSError) as error:
            return str(error)
        return None if 200 <= status < 300 else f"it answered {status}"

"""`GET /apus/v1/events`: what changes, as server-sent events, from any point on.

The table is the truth: a stream reads on from its cursor, so nothing is missed over a lost connection or a restart.
Hints on the bus say when to look; a stream whose hints are lost looks every few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

from apus.kernel.errors import Unavailable
from apus.kernel.events import Event, events_after, last_seq, subject_of
from apus.kernel.record import encode
from apus.kernel.world import World
from apus.wire.route import ApiRequest

LOOK_EVERY_S: Final = 5.0
"""Without a hint."""
LOOK_AGAIN_S: Final = 0.05
"""After a hint with nothing to see yet: PostgreSQL shows an event when all older transactions have ended."""
HEARTBEAT_S: Final = 15.0
"""Below the usual 30 to 60 s after which proxies give a silent connection up."""
STREAMS_MAX: Final = 1000
"""Of one process: each costs a read of an index now and then, and a place on the bus."""


class EventStreams:
    def __init__(self, world: World, *, look_every_s: float = LOOK_EVERY_S, heartbeat_s: float = HEARTBEAT_S) -> None:
        self._world, self._look_every_s, self._heartbeat_s = world, look_every_s, heartbeat_s
        self._open = 0

    async def open(
        self, request: ApiRequest, after: int | None, project_id: str | None, resource_id: str | None
    ) -> AsyncIterator[bytes]:
        """Chunks until the client is gone.  `after` None: only what happens from now on.  Raise Unavailable."""
        if self._open >= STREAMS_MAX:
            raise Unavailable("apus.too_many_streams", f"{STREAMS_MAX} event streams are open here already.")
        await request.read()
        seq = await self._world.store.read(last_seq) if after is None else after
        return self._chunks(request, seq, project_id, resource_id)

    async def _chunks(
        self, request: ApiRequest, seq: int, project_id: str | None, resource_id: str | None
    ) -> AsyncIterator[bytes]:
        hint = asyncio.Event()

        async def hinted(subject: str, body: bytes) -> None:
            hint.set()

        subject = "event.>" if project_id is None else subject_of(project_id)
        ear = await self._world.bus.listen(subject, hinted)
        gone = asyncio.ensure_future(request.gone())
        self._open += 1
        try:
            yield f"retry: 1000\n: events after {seq}\n\n".encode()
            quiet_since_s, wait_s = self._world.clock.monotonic_s(), self._look_every_s
            while not gone.done():
                wait_s = LOOK_AGAIN_S if hint.is_set() else min(2 * wait_s, self._look_every_s)
                hint.clear()
                found = await self._events(seq, project_id, resource_id)
                if found:
                    wait_s = self._look_every_s
                    seq, quiet_since_s = found[-1].seq, self._world.clock.monotonic_s()
                    yield b"".join(_chunk(event) for event in found)
                    continue
                if self._world.clock.monotonic_s() - quiet_since_s >= self._heartbeat_s:
                    quiet_since_s = self._world.clock.monotonic_s()
                    yield b": still here\n\n"
                waiting = asyncio.ensure_future(hint.wait())
                await asyncio.wait((waiting, gone), timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
        finally:
            self._open -= 1
            gone.cancel()
            with contextlib.suppress(Unavailable):
                await ear.stop()

    async def _events(self, seq: int, project_id: str | None, resource_id: str | None) -> Sequence[Event]:
        try:
            return await self._world.store.read(
                lambda tx: events_after(tx, seq, project_id=project_id, resource_id=resource_id)
            )
        except Unavailable:
            return ()  # the store is away for a moment: the stream outlives it


def _chunk(event: Event) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.seq, event.kind.encode(), encode(event))

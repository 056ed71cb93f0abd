"""`GET /apus/v1/events`: what changes, as server-sent events, from any point on.

The table is the truth: a stream reads on from its cursor, so nothing is missed over a lost connection or a restart.
Hints on the bus say when to look; a stream whose hints are lost looks every few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol, cast

from apus.kernel.errors import Forbidden, Unavailable
from apus.kernel.events import Event, events_after, last_seq, subject_of
from apus.kernel.policy import Policy, Rule
from apus.kernel.record import encode
from apus.kernel.world import World
from apus.wire.app import Api
from apus.wire.faults import Faults, errors_fault
from apus.wire.listing import boolean, whole_number
from apus.wire.route import ApiRequest, Reply, Route

LOOK_EVERY_S: Final = 5.0
"""Without a hint."""
LOOK_AGAIN_S: Final = 0.05
"""After a hint with nothing to see yet: PostgreSQL shows an event when all older transactions have ended."""
HEARTBEAT_S: Final = 15.0
"""Below the usual 30 to 60 s after which proxies give a silent connection up."""
STREAMS_MAX: Final = 1000
"""Of one process: each costs a read of an index now and then, and a place on the bus."""


_SEQ_MAX: Final = (1 << 63) - 1


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


class HasStreams(Protocol):
    """What the handler needs of its door."""

    @property
    def streams(self) -> EventStreams: ...


def scope_of(request: ApiRequest) -> str | None:
    """The project whose things are shown; None for all: an administrator's wish (`all_projects=1`)."""
    caller = request.who
    if boolean("all_projects", request.query("all_projects") or "false"):
        if not caller.is_admin:
            raise Forbidden("apus.all_projects", "all_projects is for an administrator.")
        return None
    if caller.project_id is None:
        if caller.is_admin:
            return None
        raise Forbidden("apus.no_project", "This needs a token that is scoped to a project.")
    return caller.project_id


async def events(request: ApiRequest) -> Reply:
    raw = request.headers.get("last-event-id") or request.query("after")
    after = None if raw is None else whole_number("after", raw, minimum=0, maximum=_SEQ_MAX)
    streams = cast(HasStreams, request.service).streams
    stream = await streams.open(request, after, scope_of(request), request.query("resource_id"))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Reply(stream=stream, headers=headers, content_type="text/event-stream")


EVENTS: Final = Route("GET", "/v1/events", to=events, may="event:list")
EVENT_POLICY: Final[Policy] = {"event:list": Rule.READER}


@dataclasses.dataclass(frozen=True, slots=True)
class EventDoor:
    """Events and nothing else: the door of an object store that stands alone."""

    streams: EventStreams


def events_api(world: World) -> Api:
    return Api(
        name="apus-events",
        prefix="/apus",
        routes=(EVENTS,),
        service=EventDoor(EventStreams(world)),
        policy=EVENT_POLICY,
        faults=Faults(errors_fault),
    )

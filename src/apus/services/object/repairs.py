"""Partitions whose copies are known, or not known not, to differ: what readers doubt, and what is repaired next.

Readers ask more than one copy of these.  The replicator takes them in the order of their urgency, and takes them off
the list when every copy is where it belongs.  One that cannot be whole now (a drive is away) is put aside, and tried
again at the next scan or when something changes.  After a start nothing is known, so everything is on the list until
the first pass is through.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Final, Literal

Room = Literal["objects", "containers", "accounts"]
ROOMS: Final[tuple[Room, ...]] = ("accounts", "containers", "objects")

REST_S: Final = 2.0
"""A partition that was just looked at is not looked at again for so long: under load it changes all the time."""

SOON_S: Final = 0.5

LOOKS: Final = 64
"""So many partitions that are others' to begin with are passed over for one that is ours."""

ASIDE_S: Final = 30.0
"""The same, of one that cannot be whole now and of which no copy is known to be missing."""

Key = tuple[Room, int]
"""A room and a partition of it."""


class Urgency(enum.IntEnum):
    """What goes first."""

    ALONE = 0
    """One good copy is left."""
    LISTS = 1
    """Accounts and containers: they are few, and small."""
    SHORT = 2
    """Copies are known to be missing."""
    DOUBT = 3
    """They may be."""


@dataclasses.dataclass(slots=True)
class _Doubt:
    told: int
    """Rises with everything that is told: what is told during a repair is not lost."""
    since_s: float
    """When it was first told."""
    urgency: Urgency
    loose: bool = False
    """Something was acknowledged by fewer primaries than a quorum: it may be on other drives alone."""
    stranded: bool = False
    """Something really was, since we began: not only is nothing known."""
    settled: bool = False
    """All that is there is where it shall be while drives are away: readers need not doubt it."""
    tries: int = 0
    """Looks since then, or since the last that found nothing wrong."""
    rested_s: float = 0.0
    """Until when it is left alone."""


class Repairs:
    def __init__(self, keys: Iterable[Key], monotonic_s: Callable[[], float]) -> None:
        self._monotonic_s = monotonic_s
        self._doubts: dict[Room, dict[int, _Doubt]] = {room: {} for room in ROOMS}
        self._queues: dict[Urgency, dict[Key, None]] = {urgency: {} for urgency in Urgency}
        self._soon: dict[Key, Urgency] = {}
        """Told since the last `ripen`."""
        self._taken: set[Key] = set()
        self._put_back = asyncio.Event()
        self._held = False
        self._filled = asyncio.Event()
        self._told = 0
        self.on_whole: Callable[[Room, int, float, bool], None] = lambda room, part, window_s, whole: None
        """Hears of a partition that is whole again, or only settled, and for how many seconds it was in doubt."""
        self.turn: Callable[[], tuple[int, int]] = lambda: (0, 1)
        """Where we are among those that repair the store, and how many they are."""
        self.doubt(keys, loose=True)

    # Who finds something wrong.

    def add(self, room: Room, part: int, urgency: Urgency = Urgency.SHORT, *, loose: bool = False) -> None:
        """Something is wrong here, or was changed on fewer copies than it should be: look soon."""
        self._told += 1
        doubt = self._doubts[room].get(part)
        if doubt is None:
            doubt = self._doubts[room][part] = _Doubt(self._told, self._monotonic_s(), urgency)
        elif doubt.settled:
            doubt.since_s = self._monotonic_s()
        doubt.told, doubt.settled = self._told, False
        doubt.loose |= loose
        doubt.stranded |= loose
        self._soon[room, part] = min(urgency, self._soon.get((room, part), urgency))
        if urgency < Urgency.DOUBT:
            doubt.tries = 0
            doubt.rested_s = min(doubt.rested_s, self._monotonic_s() + REST_S)

    def suspect(self, room: Room, part: int) -> None:
        """A copy did not answer.  What is in doubt already need not be looked at again for that."""
        if part not in self._doubts[room]:
            self.add(room, part, Urgency.DOUBT)

    def doubt(self, keys: Iterable[Key], urgency: Urgency = Urgency.DOUBT, *, loose: bool = False) -> None:
        """Look at these now.  `loose`: it is not known what is there."""
        for room, part in keys:
            self.add(room, part, urgency)
            self._doubts[room][part].loose |= loose
            del self._soon[room, part]
            self._queue(room, part, urgency)

    # Who asks.

    def suspects(self, room: Room, part: int) -> bool:
        """Whether one copy that answers may not be enough."""
        doubt = self._doubts[room].get(part)
        return doubt is not None and not doubt.settled

    def is_settled(self, room: Room, part: int) -> bool:
        """Whether it waits for a drive, and everybody who shall hold it meanwhile does."""
        doubt = self._doubts[room].get(part)
        return doubt is not None and doubt.settled

    def strand(self, keys: Collection[Key]) -> None:
        """Something may have been acknowledged by fewer primaries than a quorum, in any of these."""
        self.doubt(keys, loose=True)
        for room, part in keys:
            self._doubts[room][part].stranded = True

    def loosen(self, room: Room, part: int) -> None:
        """Something was acknowledged by fewer primaries than a quorum."""
        doubt = self._doubts[room].get(part)
        if doubt is not None:
            doubt.loose = doubt.stranded = True

    def is_loose(self, room: Room, part: int) -> bool:
        """Whether something acknowledged may be on fewer primaries than a quorum."""
        doubt = self._doubts[room].get(part)
        return doubt is not None and doubt.loose

    def is_stranded(self, room: Room, part: int) -> bool:
        """Whether something was, for all we know: then it may be on as many silent drives as a quorum has."""
        doubt = self._doubts[room].get(part)
        return doubt is not None and doubt.stranded

    def any_stranded(self) -> bool:
        return any(doubt.stranded for doubts in self._doubts.values() for doubt in doubts.values())

    def since_s(self, room: Room, part: int) -> float | None:
        """When this partition came into doubt (monotonic); None when it is not, or is settled."""
        doubt = self._doubts[room].get(part)
        return None if doubt is None or doubt.settled else doubt.since_s

    def oldest_s(self) -> float | None:
        """When the partition that is longest in doubt came into it."""
        doubts = (doubt for room in ROOMS for doubt in self._doubts[room].values() if not doubt.settled)
        return min((doubt.since_s for doubt in doubts), default=None)

    def waiting(self) -> Iterable[Key]:
        return [(room, part) for room in ROOMS for part in self._doubts[room]]

    def count(self) -> int:
        return sum(len(doubts) for doubts in self._doubts.values())

    @property
    def queued(self) -> int:
        """To be looked at now; the rest waits for a drive."""
        return sum(len(queue) for queue in self._queues.values()) + len(self._taken) + len(self._soon)

    # Who repairs.

    def ripen(self) -> None:
        """What was told becomes due, unless it was looked at a moment ago.  Called several times a second."""
        now_s = self._monotonic_s()
        for key, urgency in list(self._soon.items()):
            doubt = self._doubts[key[0]].get(key[1])
            if doubt is None or now_s >= doubt.rested_s:
                del self._soon[key]
                self._queue(*key, urgency)

    async def next(self) -> Key:
        """The most urgent, once there is one.  Give it back with `put_back`."""
        while self._held or (key := self._pop()) is None:
            self._filled.clear()
            await self._filled.wait()
        self._taken.add(key)
        return key

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Nobody repairs in this block."""
        self._held = True
        try:
            while self._taken:
                self._put_back.clear()
                await self._put_back.wait()
            yield
        finally:
            self._held = False
            self._filled.set()

    def reset(self, keys: Collection[Key]) -> None:
        """These are the partitions from now on.  What was on stand-ins alone may be in any of them."""
        stranded = self.any_stranded()
        for room in ROOMS:
            self._doubts[room].clear()
        for queue in self._queues.values():
            queue.clear()
        self._soon.clear()
        if stranded:
            self.strand(keys)
        else:
            self.doubt(keys, loose=True)

    def mark(self, room: Room, part: int) -> int:
        """Taken before a repair, given back to `done` after it."""
        doubt = self._doubts[room].get(part)
        return 0 if doubt is None else doubt.told

    def done(self, room: Room, part: int, mark: int) -> None:
        """Every copy was where it belongs; not for sure any more if something was told meanwhile."""
        doubt = self._doubts[room].get(part)
        if doubt is None:
            return
        doubt.tries = 0
        if doubt.told == mark:
            del self._doubts[room][part]
            if doubt.settled:
                doubt.since_s = self._monotonic_s()
            self.on_whole(room, part, self._monotonic_s() - doubt.since_s, True)

    def settle(self, room: Room, part: int, mark: int) -> None:
        """Everybody who shall hold it now does; somebody whose it is is away."""
        doubt = self._doubts[room].get(part)
        if doubt is not None and doubt.told == mark and not doubt.settled:
            doubt.settled = True
            self.on_whole(room, part, self._monotonic_s() - doubt.since_s, False)

    def put_back(self, key: Key, mark: int, *, waits: bool) -> None:
        """A look at it has ended.  The next is after a rest; if it waits for a drive, when something is told."""
        self._taken.discard(key)
        self._put_back.set()
        doubt = self._doubts[key[0]].get(key[1])
        if doubt is None:
            return
        told = self._soon.get(key)
        if waits and told in (None, Urgency.DOUBT):
            rest_s = ASIDE_S
        else:
            rest_s = min(REST_S * 2**doubt.tries, ASIDE_S)  # it may be a drive that is full: do not look all the time
            doubt.tries += 1
        doubt.rested_s = self._monotonic_s() + rest_s
        if told is None and (doubt.told != mark or not waits):
            self._soon[key] = Urgency.DOUBT

    def retry(self) -> None:
        """A drive works again: what waited for it is looked at soon."""
        now_s = self._monotonic_s()
        for room in ROOMS:
            for part, doubt in self._doubts[room].items():
                doubt.tries, doubt.rested_s = 0, min(doubt.rested_s, now_s + SOON_S)
                if doubt.settled:  # it may lack what was written meanwhile
                    doubt.settled, doubt.since_s = False, now_s
                self._soon.setdefault((room, part), Urgency.DOUBT)

    def again(self, keys: Iterable[Key]) -> None:
        """Look at these, which may be in no doubt at all."""
        for key in keys:
            self._queue(*key, Urgency.DOUBT)

    def _pop(self) -> Key | None:
        """Of those that are as urgent, first what is ours to begin with: two at one partition copy all twice."""
        ours, count = self.turn()
        for queue in self._queues.values():
            others = list[Key]()
            for key in queue:
                if key not in self._taken:
                    if key[1] % count == ours or len(others) == LOOKS:
                        break
                    others.append(key)
            else:
                if not others:
                    continue
                key = others.pop(0)
            del queue[key]
            for other in others:
                del queue[other]
                queue[other] = None
            return key
        return None

    def _queue(self, room: Room, part: int, urgency: Urgency) -> None:
        if room != "objects" and urgency > Urgency.LISTS:
            urgency = Urgency.LISTS
        key = room, part
        for other, queue in self._queues.items():
            if key in queue:
                if other <= urgency:
                    return
                del queue[key]
        self._queues[urgency][key] = None
        self._filled.set()

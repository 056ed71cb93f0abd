"""The drives of a ring, and how a write is spread over them: in parallel, past those that fail, to a quorum.

A write is never cancelled once a drive has begun it: its thread would go on, and end after a newer write.  It is left
to finish behind the answer instead (`_late`), which the engine waits for when it stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from random import Random
from typing import Any, Final, Generic, TypeVar

from apus.kernel.errors import Unavailable
from apus.kernel.log import get_logger
from apus.kernel.world import World
from apus.services.object.drivers.drive import Drive
from apus.services.object.freshness import Freshness
from apus.services.object.logic import merge, ring
from apus.services.object.logic.rings import Rings
from apus.services.object.model import CorruptCopy, DriveFull, IndexHead, Place, ReplacedCopy
from apus.services.object.pace import Pace
from apus.services.object.repairs import ROOMS, Key, Repairs, Room, Urgency
from apus.services.object.stranded import StrandedMark

T = TypeVar("T")
D = TypeVar("D", bound=Drive)

_log: Final = get_logger("apus.object")

LATE_S: Final = 0.5
"""How long an answer waits for the last copy once a quorum has it."""

REST_S: Final = 5.0
"""How long a drive that failed is asked only after the others."""

LATE_MAX: Final = 256
"""Writes left to finish behind their answers; beyond it, answers wait for them."""


class Cluster:
    def __init__(
        self,
        world: World,
        the_ring: Rings,
        drives: Mapping[str, Drive],
        secret: bytes,
        node: str,
        former: Sequence[Rings] = (),
        *,
        shared: bool = False,
        stranded: StrandedMark | None = None,
    ) -> None:
        """`shared`: other proxies write too, and what they left short nobody knows here.  `stranded`: where one process
        that does know keeps that there is something."""
        self.world, self.ring, self.drives, self.node = world, the_ring, dict(drives), node
        self.shared, self._stranded = shared, stranded
        self.equal_s: dict[Key, float] = {}
        """When a partition was last found to be where it shall be."""
        self._began_s = world.clock.monotonic_s()
        self.repairs = Repairs(self._every_key(), world.clock.monotonic_s)
        self.pace = Pace(world.clock)
        self.repairs.turn = partial(self.pace.turn_of, node)
        self.former = list(former)
        """Rings whose drives may still hold what has not moved yet."""
        self.freshness = Freshness(self.repairs, world.clock.monotonic_s)
        self.repairs.on_whole = self._whole
        self._forgetful: dict[str, set[int]] = {}
        """Drives that may not hold all that they acknowledged, and the partitions of objects that this is true of."""
        self.passed: tuple[float, float] | None = None
        """When everything was last looked at (Unix time), and what that took."""
        self.strays: dict[Key, tuple[str, ...]] = {}
        """Drives that hold something of a partition and that no ring would ask."""
        self.on_index_healed: Callable[[IndexHead], None] = lambda head: None
        """Hears of each index whose copies differed."""
        self.unclaimed: dict[tuple[int, str], float] = {}
        """Archives that may be nobody's any more: their partition, what their names begin with, and when to look
        (monotonic)."""
        self._secret, self._hosts = secret, hosts_of(the_ring)
        self._failed_s: dict[str, float] = {}
        self._late: set[asyncio.Future[Any]] = set()
        self._last_ticks = 0

    async def recall(self) -> None:
        """What the process before this one left undone."""
        if self._stranded is not None and await self._stranded.load():
            _log.warning("what was written while drives were away may be on others alone")
            self.repairs.strand(self._every_key())

    def place(self, *names: str, policy: int = 0) -> Place:
        """Of an object, by its container's storage policy; of an account or container, by the first."""
        path_hash = ring.path_hash(self._secret, *names)
        return Place(self.ring.part_of(path_hash, policy), path_hash)

    def stamp(self) -> str:
        self._last_ticks = merge.next_ticks(self.world.clock.now_s(), self._last_ticks)
        return merge.make_stamp(self._last_ticks, self.node)

    def primaries(self, part: int) -> list[Drive]:
        return [self.drives[name] for name in self.ring.primaries(part) if name in self.drives]

    def candidates(self, part: int) -> list[Drive]:
        """Where a copy may be, likeliest first; drives that failed a moment ago at the end."""
        names: Iterable[str] = (*self.ring.primaries(part), *self.ring.handoffs(part))
        if self.former:
            names = dict.fromkeys((*names, *(name for old in self.former for name in old.primaries(part))))
        drives = [self.drives[name] for name in names if name in self.drives]
        if not self._failed_s:
            return drives
        return sorted(drives, key=self.resting)

    def everywhere(self, room: Room, part: int) -> list[Drive]:
        """Every drive that may hold something of this partition."""
        drives = self.candidates(part)
        known = {drive.id for drive in drives}
        names = self.strays.get((room, part), ())
        return drives + [self.drives[name] for name in names if name in self.drives and name not in known]

    def wished(self, part: int) -> list[Drive]:
        """Who shall hold this partition now: its primaries, and for each that is away the next that is not."""
        here = [drive for drive in self.primaries(part) if not self.is_away(drive)]
        missing = self.copies(part) - len(here)
        if missing > 0:
            spare = (self.drives[name] for name in self.ring.handoffs(part) if name in self.drives)
            here += islice((drive for drive in spare if not self.is_away(drive)), missing)
        return here

    def is_away(self, drive: Drive) -> bool:
        """It failed, and has not worked since."""
        return drive.id in self._failed_s

    def turn_to(self, new: Rings) -> None:
        """Use this ring from now on; nothing is known to be where it has it."""
        grown = new.part_power != self.ring.part_power
        self.ring, self._hosts = new, hosts_of(new)
        self.equal_s.clear()
        self._began_s = self.world.clock.monotonic_s()
        if grown:
            self.strays.clear()
            self.repairs.reset(self._every_key())
        else:
            self.repairs.doubt(self._every_key(), loose=True)
        for name in self._forgetful:
            self._forgetful[name] = set(new.every_part())

    def forget(self, name: str) -> None:
        """This drive is none of ours any more."""
        self.drives.pop(name, None)
        self._failed_s.pop(name, None)
        self._forgetful.pop(name, None)

    def lost(self, drive: Drive) -> None:
        """What it held is short of a copy: have it copied to others."""
        others_away = any(name != drive.id for name in self._failed_s)
        keys = [key for key in self._every_key() if others_away or drive.id in self.ring.primaries(key[1])]
        self.repairs.doubt(keys, Urgency.ALONE if others_away else Urgency.SHORT)

    def returned(self, drive: Drive) -> None:
        """It is in its place, and may hold anything: nothing is known until it was compared."""
        self.worked(drive)
        self._forgetful[drive.id] = set(self.ring.every_part())
        self.doubt_everything()

    def doubt_everything(self) -> None:
        """A drive came back: look at all now."""
        self.repairs.doubt(self._every_key())

    def _every_key(self) -> list[Key]:
        """All that there is to repair.  Each proxy of several has an order of its own, so that even those that do not
        hear each other share the work: what another has made equal meanwhile costs no more than the digests."""
        keys = keys_of(self.ring)
        if self.shared:
            Random(self.node).shuffle(keys)
        return keys

    def trouble(self, drive: Drive, part: int, error: OSError) -> None:
        """A drive did not give its copy of an object in this partition."""
        if isinstance(error, CorruptCopy | ReplacedCopy):
            if isinstance(error, CorruptCopy):
                self._forgetful.setdefault(drive.id, set()).add(part)
            self.repairs.add("objects", part)
        else:
            self.failed(drive, error)
            self.repairs.suspect("objects", part)

    def remembers(self, name: str, part: int) -> bool:
        """Whether this drive, if it answers, is known to hold all objects here that it acknowledged."""
        return part not in self._forgetful.get(name, ())

    def remembers_all(self, name: str) -> bool:
        return not self._forgetful.get(name)

    def is_loose(self, room: Room, part: int) -> bool:
        """Whether something acknowledged may be on fewer primaries than a quorum."""
        return self.shared or bool(self.former) or self.repairs.is_loose(room, part)

    def doubt_s(self, room: Room, part: int) -> float:
        """For how long copies here may have differed; 0 when they are known not to."""
        since_s = self.repairs.since_s(room, part)
        if self.shared:
            equal_s = self.equal_s.get((room, part), self._began_s)
            since_s = equal_s if since_s is None else min(since_s, equal_s)
        return 0.0 if since_s is None else max(self.world.clock.monotonic_s() - since_s, 0.001)

    def host_of(self, name: str) -> str:
        return self._hosts.get(name, name)

    def hosts_needed(self, part: int) -> int:
        """On so many hosts a write has to be before it is acknowledged.

        As many as the quorum, while any one host may be away; where one process writes, it knows what is where.
        """
        return min(self.quorum(part), max(1, len(set(self._hosts.values())) - 1)) if self.shared else 1

    def is_enough(self, part: int, held_by: Collection[str]) -> bool:
        """Whether a write may be acknowledged that these drives have."""
        if len(held_by) < self.quorum(part):
            return False
        return not self.shared or len({self.host_of(name) for name in held_by}) >= self.hosts_needed(part)

    def saw(self, version: tuple[str, str]) -> None:
        """New stamps are later than this version's, whatever the clock says."""
        self._last_ticks = max(self._last_ticks, *map(merge.ticks_of, version))

    def _whole(self, room: Room, part: int, window_s: float, whole: bool) -> None:
        self.freshness.whole(window_s)
        if whole and room == "objects":
            for parts in self._forgetful.values():
                parts.discard(part)

    def resting(self, drive: Drive) -> bool:
        failed_s = self._failed_s.get(drive.id)
        return failed_s is not None and self.world.clock.monotonic_s() - failed_s < REST_S

    def failed(self, drive: Drive, error: OSError) -> None:
        if isinstance(error, DriveFull):
            return
        if drive.id not in self._failed_s:
            _log.warning("a drive does not answer", drive=drive.id, why=str(error) or type(error).__name__)
        self._failed_s[drive.id] = self.world.clock.monotonic_s()

    def worked(self, drive: Drive) -> None:
        if self._failed_s.pop(drive.id, None) is not None:
            _log.info("a drive answers again", drive=drive.id)
            self.repairs.retry()

    async def away(self) -> dict[str, float]:
        """Drive -> 1 when it failed and has not worked since, else 0: a metric."""
        return {name: float(name in self._failed_s) for name in list(self.drives)}

    def hosts_away(self) -> dict[str, float]:
        """Of each host, which share of its drives failed and has not worked since."""
        by_host: dict[str, list[bool]] = {}
        for name in list(self.drives):
            by_host.setdefault(self.host_of(name), []).append(name in self._failed_s)
        return {host: sum(away) / len(away) for host, away in by_host.items()}

    def copies(self, part: int) -> int:
        return self.ring.ring_of(part).copies

    def quorum(self, part: int) -> int:
        return self.ring.ring_of(part).quorum

    async def spread(self, room: Room, part: int, act: Callable[[Drive], Awaitable[T]]) -> list[T]:
        """Do this on as many drives as there are copies; return when all have, or a quorum has and the rest is late.

        Raise Unavailable without a quorum.  Whatever is short of perfect is left to the replicator.
        """
        candidates, copies = self.candidates(part), self.copies(part)
        attempt = _Attempt(self, act, candidates[copies:], part)
        await attempt.on(candidates[:copies])
        results = attempt.results
        short = attempt.running or len(results) < copies
        self.freshness.writes += 1
        if short or not self._wished(room, part, attempt.asked):
            await self.short(room, part, attempt.succeeded, Urgency.SHORT if short else Urgency.DOUBT)
        elif self._failed_s and self._is_loosening(part, attempt.succeeded):
            self.repairs.loosen(room, part)
            await self._mark_stranded()
        if not self.is_enough(part, attempt.succeeded):
            shown = f"{len(results)} of {copies} copies could be written; {self.needed(part)} are needed."
            raise too_few(shown, attempt.errors)
        return results

    def needed(self, part: int) -> str:
        """For a write, in words."""
        hosts = self.hosts_needed(part)
        return f"{self.quorum(part)} on {hosts} hosts" if hosts > 1 else str(self.quorum(part))

    async def short(self, room: Room, part: int, held_by: Iterable[str], urgency: Urgency = Urgency.SHORT) -> None:
        """A write may be acknowledged, once this returns, that these drives have, which are not all primaries.

        Raise Unavailable.
        """
        self.freshness.short += 1
        loose = self._is_loosening(part, held_by)
        self.repairs.add(room, part, urgency, loose=loose)
        if loose:
            await self._mark_stranded()

    async def _mark_stranded(self) -> None:
        if self._stranded is None:
            return
        try:
            await self._stranded.set()
        except OSError as error:
            shown = "It cannot be noted that what is written now is on drives that only stand in for others."
            raise Unavailable("object.not_noted", shown, hidden=str(error)) from error

    async def look_stranded(self) -> None:
        """Is anything still where it may not be found?  Called now and then."""
        if self._stranded is None:
            return
        try:
            await self._stranded.clear(lambda: not self.repairs.any_stranded())
        except OSError as error:
            _log.warning("the mark of what is on stand-ins stays", why=str(error))

    def _is_loosening(self, part: int, held_by: Iterable[str]) -> bool:
        """Whether these are fewer primaries than a quorum."""
        primaries = self.ring.primaries(part)
        return sum(name in primaries for name in held_by) < self.quorum(part)

    def _wished(self, room: Room, part: int, asked: Sequence[Drive]) -> bool:
        """Whether these are all whose it is; or stand in for those who are away, which repair knows of already."""
        primaries = self.ring.primaries(part)
        if all(drive.id in primaries for drive in asked):
            return True
        known = self.repairs.is_settled(room, part)
        return known and {drive.id for drive in asked} == {drive.id for drive in self.wished(part)}

    async def settle(self) -> None:
        """Wait for what was left behind answers."""
        while self._late:
            await asyncio.wait(self._late)

    @property
    def busy(self) -> bool:
        """As many writes run behind their answers as may."""
        return len(self._late) >= LATE_MAX

    def late(self, work: asyncio.Future[Any]) -> None:
        """Something that is waited for when the store stops."""
        self._late.add(work)
        work.add_done_callback(self._late.discard)


class _Attempt(Generic[T]):
    """One write on its way to several drives.  Counting ends in callbacks costs a fraction of a task for each drive."""

    def __init__(self, cluster: Cluster, act: Callable[[Drive], Awaitable[T]], left: list[Drive], part: int) -> None:
        self._cluster, self._act, self._left, self._part = cluster, act, left, part
        self.results: list[T] = []
        self.errors: list[OSError] = []
        self.asked: list[Drive] = []
        self.succeeded: list[str] = []
        self.running = 0
        self._settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._patience: asyncio.TimerHandle | None = None

    async def on(self, drives: Sequence[Drive]) -> None:
        """Return when all have ended, or a quorum has succeeded and the rest is late."""
        for drive in drives:
            self._begin(drive)
        try:
            if drives:
                await self._settled
        finally:
            if self._patience is not None:
                self._patience.cancel()

    def _begin(self, drive: Drive) -> None:
        work = asyncio.ensure_future(self._act(drive))
        self.running += 1
        self.asked.append(drive)
        self._cluster.late(work)
        work.add_done_callback(lambda ended: self._ended(drive, ended))

    def _ended(self, drive: Drive, work: asyncio.Future[T]) -> None:
        self.running -= 1
        error = asyncio.CancelledError() if work.cancelled() else work.exception()
        if error is None:
            self.results.append(work.result())
            self.succeeded.append(drive.id)
            self._cluster.worked(drive)
        elif isinstance(error, OSError):
            self._cluster.failed(drive, error)
            self.errors.append(error)
            if self._left and not self._settled.done():
                self._begin(self._left.pop(0))
        elif not self._settled.done():
            self._settled.set_exception(error)
        if not self._settled.done():
            self._look()

    def _look(self) -> None:
        if not self.running:
            self._settled.set_result(None)
        elif self._patience is None and not self._cluster.busy and self._cluster.is_enough(self._part, self.succeeded):
            self._patience = asyncio.get_running_loop().call_later(LATE_S, self._no_longer)

    def _no_longer(self) -> None:
        if not self._settled.done():
            self._settled.set_result(None)


def hosts_of(rings: Rings) -> dict[str, str]:
    return {drive.id: drive.host for drive in rings.drives}


def keys_of(rings: Rings) -> list[Key]:
    """All that there is to repair: objects are in the partitions of every policy, indexes in those of the first."""
    return [
        (room, part) for room in ROOMS for part in (rings.every_part() if room == "objects" else range(rings.parts))
    ]


def too_few(shown: str, errors: Sequence[OSError]) -> Unavailable:
    """A write without its quorum; full drives are told apart, since to wait does not mend them."""
    full = sum(isinstance(error, DriveFull) for error in errors)
    if not full:
        return Unavailable("object.no_quorum", shown)
    return Unavailable("object.full", f"{shown} {full} {'drives are' if full > 1 else 'drive is'} full.")


async def ask_each(drives: Sequence[D], act: Callable[[D], Awaitable[T]], timeout_s: float) -> list[T | OSError]:
    """The answers of all, or why there is none, in the order of the drives."""

    async def ask(drive: D) -> T | OSError:
        try:
            async with asyncio.timeout(timeout_s):
                return await act(drive)
        except OSError as error:
            return error

    return list(await asyncio.gather(*(ask(drive) for drive in drives)))

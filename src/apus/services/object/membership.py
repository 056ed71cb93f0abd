"""Drives join, change, are drained and leave while the store serves.

Each change makes a ring that differs as little as it must.  It is written before it is used; the one before stays known
until everything has moved, so that readers and repair still find what is where it was.  One change at a time; the
next may begin before the last has moved everything.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.errors import Conflict, Invalid, NotFound
from apus.kernel.world import World
from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.drivers.drive import Drive
from apus.services.object.drivers.fence import DriveIdentity, format_drive, marked_as
from apus.services.object.drivers.local import LocalDrive
from apus.services.object.layout import Layout, save_layout
from apus.services.object.logic.progress import work_left
from apus.services.object.logic.ring import DRIVES_MAX, PART_POWER_MAX, DriveSpec, Ring
from apus.services.object.logic.rings import Rings, joined, split_all
from apus.services.object.model import IndexKind

FORMER_MAX: Final = 8
"""Changes that may be under way at once: each lengthens the way of a reader who has to ask everywhere."""

ASK_S: Final = 30.0

SETTLE_S: Final = 10.0
"""A request that asked the ring before a change puts its copies by then."""

INDEXES: Final[tuple[IndexKind, ...]] = ("accounts", "containers")

OpenDrive = Callable[[str, Path, int], LocalDrive]
"""By id, path and part power."""


class Membership:
    def __init__(
        self, world: World, cluster: Cluster, layout: Layout, layout_path: Path, open_drive: OpenDrive, replicas: int
    ) -> None:
        self._world, self._cluster, self._path, self._open = world, cluster, layout_path, open_drive
        self.layout = layout
        self._wishes = (replicas, *(policy.copies for policy in layout.policies))
        self.drives: dict[str, LocalDrive] = {}
        self._changing = asyncio.Lock()
        self._turned_s = world.clock.monotonic_s()

    async def start(self) -> None:
        """Open the drives.  One that cannot start is away, and tried again as any other."""
        for spec in self.layout.ring.drives:
            drive = self._register(spec.id, Path(self.layout.paths[spec.id]))
            try:
                await drive.start()
            except OSError as error:
                self._cluster.failed(drive, error)
            if drive.comparing:
                self._cluster.returned(drive)

    async def close(self) -> None:
        for drive in self.drives.values():
            await drive.close()

    @property
    def moving(self) -> bool:
        """A former ring's drives may still hold what has to move."""
        return bool(self.layout.former)

    @property
    def settled(self) -> bool:
        """Everything was looked at, and what was begun before the last change has ended."""
        rested = self._world.clock.monotonic_s() - self._turned_s >= SETTLE_S
        return rested and self._cluster.repairs.count() == 0

    async def moved(self) -> None:
        """Everything is where the ring has it: nobody need ask a former one."""
        async with self._changing:
            if self.settled:
                await self._keep(msgspec.structs.replace(self.layout, former=()))

    async def add(self, path: Path, spec: DriveSpec) -> DriveSpec:
        """Take a directory as a new drive; the id of `spec` is given here.  Raise Invalid, Conflict."""
        async with self._changing:
            self._check_room()
            if len(self.layout.ring.drives) >= DRIVES_MAX:
                raise Conflict("object.too_many_drives", f"There are {DRIVES_MAX} drives, the most there can be.")
            spec = msgspec.structs.replace(spec, id=await self._id_for(path))
            await self._mark(path, spec.id)
            drive = self._register(spec.id, path)
            try:
                await drive.start()
                paths = self.layout.paths | {spec.id: str(path)}
                retired = tuple(one for one in self.layout.retired if one != str(path))
                await self._turn([*self.layout.ring.drives, spec], paths=paths, retired=retired)
            except BaseException:
                self._forget(spec.id)
                raise
            return spec

    async def change(self, drive_id: str, **fields: object) -> DriveSpec:
        """Give it another weight (0 drains it), region, zone or host."""
        async with self._changing:
            before = self.spec(drive_id)
            after = msgspec.structs.replace(before, **fields)
            if after != before:
                self._check_room()
                specs = [after if one.id == drive_id else one for one in self.layout.ring.drives]
                if not any(one.weight > 0 for one in specs):
                    raise Conflict("object.last_drive", f"{drive_id} is the last drive with a weight; add one first.")
                await self._turn(specs)
            return after

    async def remove(self, drive_id: str) -> None:
        """Let it go.  Raise Conflict while that would lose a copy of anything."""
        async with self._changing:
            self.spec(drive_id)
            self._check_room()
            await self._check_spare(drive_id)
            specs = [one for one in self.layout.ring.drives if one.id != drive_id]
            path = self.layout.paths[drive_id]
            paths = {name: at for name, at in self.layout.paths.items() if name != drive_id}
            await self._turn(specs, paths=paths, retired=(*self.layout.retired, path))
            drive = self._forget(drive_id)
            await self._cluster.settle()
            await drive.close()

    async def adopt(self, drive_id: str, path: Path | None = None) -> None:
        """The drive is in its place, or at this path, and empty or what it was: mark it, and bring it up to date.

        Raise Conflict when what is there is marked as another drive.
        """
        async with self._changing:
            self.spec(drive_id)
            at = path or Path(self.layout.paths[drive_id])
            await self._check_place(at, drive_id)
            await self._mark(at, drive_id)
            if str(at) != self.layout.paths[drive_id]:
                old = self._forget(drive_id)
                await self._keep(msgspec.structs.replace(self.layout, paths=self.layout.paths | {drive_id: str(at)}))
                self._register(drive_id, at)
                await old.close()
            drive = self.drives[drive_id]
            await drive.forget()

    async def grow(self) -> Rings:
        """Cut every partition in two; nothing travels.  Raise Conflict while a change is under way, or repair paused.

        What was begun with the old partitions, and ends now, puts things where a partition of the old number is: until
        everything was looked at, the ring that is cut once more says where that is.
        """
        async with self._changing:
            before = self.layout.ring
            if before.part_power >= PART_POWER_MAX:
                raise Conflict("object.ring_full", f"There are 2^{PART_POWER_MAX} partitions, the most there can be.")
            if self.layout.former:
                raise Conflict("object.ring_moving", "Drives were changed; possible when their copies have moved.")
            if self._cluster.pace.wish.paused:
                raise Conflict("object.repair_paused", "Repair is paused; possible after `apus object repair resume`.")
            ring = split_all(before)
            after = split_all(ring) if ring.part_power < PART_POWER_MAX else ring
            async with self._cluster.repairs.held():
                layout = msgspec.structs.replace(self.layout, ring=ring, former=(after,))
                await save_layout(self._world, self._path, layout)
                for drive in self.drives.values():
                    await drive.repartition(ring.part_power)
                self._take(layout)
            return ring

    def spec(self, drive_id: str) -> DriveSpec:
        for one in self.layout.ring.drives:
            if one.id == drive_id:
                return one
        known = ", ".join(one.id for one in self.layout.ring.drives)
        raise NotFound("object.no_drive", f"There is no drive {drive_id!r}; there are: {known}.")

    # What a change needs.

    async def _turn(self, specs: Sequence[DriveSpec], **fields: object) -> None:
        """Write the ring over these drives and use it from now on."""
        before = self.layout.ring
        ring = await self._world.run.in_thread(lambda: new_rings(specs, before.part_power, self._wishes, before))
        number = int(self.layout.next_id(fields.get("paths", {}))[len("drive") :]) - 1  # type: ignore[arg-type]
        former = (before, *self.layout.former)
        layout = msgspec.structs.replace(self.layout, ring=ring, former=former, last_number=number, **fields)
        await self._keep(layout)

    async def _keep(self, layout: Layout) -> None:
        await save_layout(self._world, self._path, layout)
        self._take(layout)

    def _take(self, layout: Layout) -> None:
        before, self.layout = self.layout, layout
        self._cluster.former = list(layout.former)
        if layout.ring != before.ring:
            self._turned_s = self._world.clock.monotonic_s()
            self._cluster.turn_to(layout.ring)

    def _register(self, drive_id: str, path: Path) -> LocalDrive:
        drive = self._open(drive_id, path, self.layout.ring.part_power)
        drive.on_return = partial(self._cluster.returned, drive)
        self.drives[drive_id] = self._cluster.drives[drive_id] = drive
        return drive

    def _forget(self, drive_id: str) -> LocalDrive:
        self._cluster.forget(drive_id)
        return self.drives.pop(drive_id)

    def _check_room(self) -> None:
        if len(self.layout.former) >= FORMER_MAX:
            raise Conflict(
                "object.ring_moving",
                f"{FORMER_MAX} changes are under way; the next is possible when their copies have moved"
                " (`apus object repair status`), which takes all drives being in their places.",
            )

    async def _id_for(self, path: Path) -> str:
        """A new one; or that of its mark, when an earlier attempt was cut off.  Raise Invalid, Conflict."""
        if not path.is_absolute():
            raise Invalid("object.drive_path", f"path: {str(path)[:200]!r} is not absolute.", field="path")
        await self._check_place(path, "")
        marked = await marked_as(self._world, path)
        if marked is not None:
            return marked.drive
        found = await self._look_into(path)
        if found:
            raise Conflict("object.drive_not_empty", f"{path} is not empty: it has {', '.join(found[:5])}.")
        return self.layout.next_id(self.layout.paths)

    async def _mark(self, path: Path, drive_id: str) -> None:
        try:
            await format_drive(self._world, path, DriveIdentity(drive_id, self.layout.cluster))
        except OSError as error:
            raise _unusable(path, error) from error

    async def _look_into(self, path: Path) -> Sequence[str]:
        try:
            return [name for name in await self._world.disk.names(path) if name != "lost+found"]
        except OSError as error:
            raise _unusable(path, error) from error

    async def _check_place(self, path: Path, drive_id: str) -> None:
        """Raise Conflict when another drive is there, or is marked there."""
        user = next((name for name, at in self.layout.paths.items() if at == str(path) and name != drive_id), None)
        if user is not None:
            raise Conflict("object.drive_taken", f"{path} is {user}.")
        marked = await marked_as(self._world, path)
        if marked is None:
            return
        known = marked.drive in self.layout.paths and marked.drive != drive_id
        if marked.cluster != self.layout.cluster or known or (drive_id and marked.drive != drive_id):
            whose = "this store" if marked.cluster == self.layout.cluster else f"the store {marked.cluster}"
            raise Conflict(
                "object.drive_marked",
                f"{path} is marked as {marked.drive} of {whose}; if nothing on it is needed, empty it first.",
            )

    async def _check_spare(self, drive_id: str) -> None:
        """Raise Conflict while others lack something that they should hold without this drive."""
        ring = self.layout.ring
        others = [one for one in ring.drives if one.id != drive_id and one.weight > 0]
        copies = max(one.copies for one in ring.every_ring())
        if len(others) < copies:
            raise Conflict(
                "object.too_few_drives",
                f"{copies} copies need {copies} drives, and {len(others)} would be left;"
                " possible once another was added (`apus object drive add`).",
            )
        drive = self.drives[drive_id]
        away = self._cluster.is_away(drive)
        held = await self._short_without(drive_id) if away else await self._held_by(drive)
        if held:
            shown = f"{drive_id} is away, and {held:,} copies that it should hold are nowhere else"
            drained = f"{drive_id} still holds {held:,} versions and indexes"
            how = (
                "possible when repair has made them (`apus object repair status`), or the drive is back"
                if away
                else f"possible when they have moved: `apus object drive drain {drive_id}`, then"
                " `apus object repair status` says how long it takes"
            )
            raise Conflict("object.copies_needed", f"{shown if away else drained}; {how}.", details={"copies": held})

    async def _held_by(self, drive: LocalDrive) -> int:
        """How much is on it."""
        try:
            held = sum(count for count, _ in (await drive.copies.census()).values())
        except OSError as error:
            self._cluster.failed(drive, error)
            return await self._short_without(drive.id)
        return held + sum([len(await self._index_copies(kind, [drive])) for kind in INDEXES])

    async def _short_without(self, drive_id: str) -> int:
        """Copies of what is known that are missing while this drive is away."""
        drives: list[Drive] = [one for name, one in self.drives.items() if name != drive_id]
        answers = await ask_each(drives, lambda drive: drive.copies.census(), ASK_S)
        held = {one.id: answer for one, answer in zip(drives, answers, strict=True) if not isinstance(answer, OSError)}
        copies = self.layout.ring.copies
        short = work_left(held, self._cluster.copies, lambda part: (), self.layout.ring.every_part()).at_risk
        for kind in INDEXES:
            short += sum(max(0, copies - count) for count in (await self._index_copies(kind, drives)).values())
        return short

    async def _index_copies(self, kind: IndexKind, drives: Sequence[Drive]) -> Counter[str]:
        """On how many of these drives each index is."""
        found = Counter[str]()
        for drive in drives:
            try:
                for part in await drive.indexes.parts(kind):
                    found.update(place.hash for place in await drive.indexes.places(kind, part))
            except OSError:
                continue
        return found


def _unusable(path: Path, error: OSError) -> Invalid:
    return Invalid("object.drive_path", f"path: {path} cannot be used: {error.strerror or error}.", field="path")


def new_rings(
    specs: Sequence[DriveSpec], part_power: int, wishes: Sequence[int], previous: Rings | None = None
) -> Rings:
    """Those of all policies over these drives.  `wishes`: copies, by the numbers of policies."""
    before: tuple[Ring | None, ...] = previous.every_ring() if previous is not None else ()
    before += (None,) * (len(wishes) - len(before))
    return joined([new_ring(specs, part_power, copies, old) for copies, old in zip(wishes, before, strict=True)])


def new_ring(specs: Sequence[DriveSpec], part_power: int, replicas: int, previous: Ring | None = None) -> Ring:
    """A ring over these drives, as near as may be to the previous one."""
    from apus.services.object.logic.ring_builder import rebalance  # numpy: 20 MiB that most starts do without

    replicas = min(replicas, sum(spec.weight > 0 for spec in specs))
    return rebalance(specs, part_power=part_power, replicas=replicas, previous=previous)

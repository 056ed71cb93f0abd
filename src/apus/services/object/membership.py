"""Drives join, change, are drained and leave while the store serves.

Each change makes a ring that differs as little as it must.  It is written before it is used; the one before stays known
until everything has moved, so that readers and repair still find what is where it was.  One change at a time; the
next may begin before the last has moved everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.errors import Conflict, Invalid, NotFound
from apus.kernel.world import World
from apus.services.object.cluster import Cluster
from apus.services.object.drivers.drive import KeptDrive
from apus.services.object.drivers.fence import DriveIdentity
from apus.services.object.drivers.site import Site
from apus.services.object.layout import Layout, LayoutHome
from apus.services.object.logic.code import Code
from apus.services.object.logic.drive_places import DrivePlace, parse_place
from apus.services.object.logic.ring import DRIVES_MAX, PART_POWER_MAX, DriveSpec, Ring
from apus.services.object.logic.rings import Rings, joined, split_all
from apus.services.object.logic.storage_policies import REPLICATED, StoragePolicy, short_of_drives
from apus.services.object.pace import Wish
from apus.services.object.spare import check_spare

FORMER_MAX: Final = 8
"""Changes that may be under way at once: each lengthens the way of a reader who has to ask everywhere."""

SETTLE_S: Final = 10.0
"""A request that asked the ring before a change puts its copies by then."""

Sites = Callable[[DrivePlace], Site]
"""The machine of a place."""


class Membership:
    def __init__(
        self, world: World, cluster: Cluster, layout: Layout, home: LayoutHome, sites: Sites, replicas: int
    ) -> None:
        self._world, self._cluster, self._home, self._sites = world, cluster, home, sites
        self.layout = layout
        self._replicas = replicas
        self.drives: dict[str, KeptDrive] = {}
        self.on_policies: Callable[[Sequence[StoragePolicy]], None] = lambda policies: None
        """Hears that another proxy brought storage policies that were not known here."""
        self._changing = asyncio.Lock()
        self._turned_s = world.clock.monotonic_s()

    async def start(self) -> None:
        """Open the drives.  One that cannot start is away, and tried again as any other."""
        await self._start([self._register(spec.id, self.layout) for spec in self.layout.ring.drives])

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

    async def follow(self) -> None:
        """Take over what another proxy changed, if one did.  Raise Unavailable."""
        layout = await self._home.newer(self.layout.number)
        if layout is None:
            return
        async with self._changing:
            before = self.layout
            if layout.number <= before.number:
                return
            other_policies = layout.policies != before.policies
            moved = [name for name in self.drives if layout.paths.get(name) != before.paths.get(name)]
            old = [self._forget(name) for name in (list(self.drives) if other_policies else moved)]
            fresh = [self._register(name, layout) for name in layout.paths if name not in self.drives]
            if layout.ring.part_power != before.ring.part_power:
                async with self._cluster.repairs.held():
                    await self._repartition(layout.ring.part_power)
                    self._take(layout)
            else:
                self._take(layout)
            if other_policies:
                self.on_policies(layout.policies)
            await self._start(fresh)
            for drive in old:
                await drive.close()

    async def set_wish(self, wish: Wish) -> None:
        """What the operator says about repair, for all proxies and over a restart."""
        async with self._changing:
            await self._keep(msgspec.structs.replace(self.layout, wish=wish))

    async def add(self, place: DrivePlace, spec: DriveSpec) -> DriveSpec:
        """Take a directory as a new drive; the id of `spec` is given here.  Raise Invalid, Conflict."""
        async with self._changing:
            self._check_room()
            if len(self.layout.ring.drives) >= DRIVES_MAX:
                raise Conflict("object.too_many_drives", f"There are {DRIVES_MAX} drives, the most there can be.")
            spec = msgspec.structs.replace(spec, id=await self._id_for(place))
            await self._mark(place, spec.id)
            paths = self.layout.paths | {spec.id: place.text}
            drive = self._register(spec.id, msgspec.structs.replace(self.layout, paths=paths))
            try:
                await self._begin(drive, place)
                retired = tuple(one for one in self.layout.retired if one != place.text)
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
            await check_spare(self._cluster, self.layout.ring, self.drives, drive_id)
            specs = [one for one in self.layout.ring.drives if one.id != drive_id]
            path = self.layout.paths[drive_id]
            paths = {name: at for name, at in self.layout.paths.items() if name != drive_id}
            await self._turn(specs, paths=paths, retired=(*self.layout.retired, path))
            drive = self._forget(drive_id)
            await self._cluster.settle()
            await drive.close()

    async def adopt(self, drive_id: str, place: DrivePlace | None = None) -> None:
        """The drive is in its place, or at this path, and empty or what it was: mark it, and bring it up to date.

        Raise Conflict when what is there is marked as another drive.
        """
        async with self._changing:
            self.spec(drive_id)
            at = place or parse_place(self.layout.paths[drive_id])
            await self._check_place(at, drive_id)
            await self._mark(at, drive_id)
            if at.text != self.layout.paths[drive_id]:
                layout = msgspec.structs.replace(self.layout, paths=self.layout.paths | {drive_id: at.text})
                await self._keep(layout)
                old = self._forget(drive_id)
                self._register(drive_id, layout)
                await old.close()
            drive = self.drives[drive_id]
            try:
                await drive.forget()
            except OSError as error:
                raise _unusable(at, error) from error

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
                layout = self._next(self.layout, ring=ring, former=(after,))
                await self._home.save(layout)
                await self._repartition(ring.part_power)
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
        """Write the ring over these drives and use it from now on.  Raise Conflict when they are too few."""
        short = short_of_drives(self.layout.policies, sum(one.weight > 0 for one in specs))
        if short is not None:
            raise Conflict("object.too_few_drives", f"{short}; add one first (`apus object drive add`).")
        before = self.layout.ring
        policies = (StoragePolicy(REPLICATED, self._replicas), *self.layout.policies)
        ring = await self._world.run.in_thread(lambda: new_rings(specs, before.part_power, policies, before))
        number = int(self.layout.next_id(fields.get("paths", {}))[len("drive") :]) - 1  # type: ignore[arg-type]
        former = (before, *self.layout.former)
        layout = msgspec.structs.replace(self.layout, ring=ring, former=former, last_number=number, **fields)
        await self._keep(layout)

    async def _keep(self, layout: Layout) -> None:
        layout = self._next(layout)
        await self._home.save(layout)
        self._take(layout)

    def _next(self, layout: Layout, **fields: object) -> Layout:
        """The layout that follows ours."""
        layout = msgspec.structs.replace(layout, number=self.layout.number + 1, **fields)
        turned = layout.ring != self.layout.ring
        return msgspec.structs.replace(layout, turn=self.layout.turn + 1) if turned else layout

    def _take(self, layout: Layout) -> None:
        before, self.layout = self.layout, layout
        self._cluster.former = list(layout.former)
        if layout.wish is not None and layout.wish != before.wish:
            self._cluster.pace.set(layout.wish)
        if layout.ring != before.ring:
            self._turned_s = self._world.clock.monotonic_s()
            self._cluster.turn_to(layout.ring)
            self._cluster.late(asyncio.ensure_future(self._tell_turn()))

    async def _tell_turn(self) -> None:
        """Hosts that are away hear it with the next connection."""
        turn, drives = self.layout.turn, list(self.drives.values())
        await asyncio.gather(*(drive.turned(turn) for drive in drives), return_exceptions=True)

    async def _repartition(self, part_power: int) -> None:
        """One after the other, as they share the disks of a machine."""
        for drive in list(self.drives.values()):
            await drive.repartition(part_power)

    async def _start(self, drives: Sequence[KeptDrive]) -> None:
        await asyncio.gather(*map(self._start_one, drives))

    async def _start_one(self, drive: KeptDrive) -> None:
        """One that cannot start is away, and tried again as any other."""
        try:
            await drive.start()
        except OSError as error:
            self._cluster.failed(drive, error)
        if drive.comparing:
            self._cluster.returned(drive)

    async def _begin(self, drive: KeptDrive, place: DrivePlace) -> None:
        try:
            await drive.start()
        except OSError as error:
            raise _unusable(place, error) from error

    def _register(self, drive_id: str, layout: Layout) -> KeptDrive:
        """Open it where this layout has it."""
        place, identity = parse_place(layout.paths[drive_id]), DriveIdentity(drive_id, layout.cluster)
        policies = 1 + len(layout.policies)
        drive = self._sites(place).open(Path(place.path), identity, layout.ring.part_power, policies, layout.turn)
        drive.on_return = partial(self._cluster.returned, drive)
        self.drives[drive_id] = self._cluster.drives[drive_id] = drive
        return drive

    def _forget(self, drive_id: str) -> KeptDrive:
        self._cluster.forget(drive_id)
        return self.drives.pop(drive_id)

    def _check_room(self) -> None:
        if len(self.layout.former) >= FORMER_MAX:
            raise Conflict(
                "object.ring_moving",
                f"{FORMER_MAX} changes are under way; the next is possible when their copies have moved"
                " (`apus object repair status`), which takes all drives being in their places.",
            )

    async def _id_for(self, place: DrivePlace) -> str:
        """A new one; or that of its mark, when an earlier attempt was cut off.  Raise Invalid, Conflict."""
        if not place.path.startswith("/"):
            raise Invalid("object.drive_path", f"path: {place.path[:200]!r} is not absolute.", field="path")
        await self._check_place(place, "")
        try:
            marked = await self._sites(place).marked_as(Path(place.path))
            if marked is not None:
                return marked.drive
            found = [name for name in await self._sites(place).names(Path(place.path)) if name != "lost+found"]
        except OSError as error:
            raise _unusable(place, error) from error
        if found:
            raise Conflict("object.drive_not_empty", f"{place.text} is not empty: it has {', '.join(found[:5])}.")
        return self.layout.next_id(self.layout.paths)

    async def _mark(self, place: DrivePlace, drive_id: str) -> None:
        try:
            await self._sites(place).mark(Path(place.path), DriveIdentity(drive_id, self.layout.cluster))
        except OSError as error:
            raise _unusable(place, error) from error

    async def _check_place(self, place: DrivePlace, drive_id: str) -> None:
        """Raise Conflict when another drive is there, or is marked there."""
        user = next((name for name, at in self.layout.paths.items() if at == place.text and name != drive_id), None)
        if user is not None:
            raise Conflict("object.drive_taken", f"{place.text} is {user}.")
        try:
            marked = await self._sites(place).marked_as(Path(place.path))
        except OSError as error:
            raise _unusable(place, error) from error
        if marked is None:
            return
        known = marked.drive in self.layout.paths and marked.drive != drive_id
        if marked.cluster != self.layout.cluster or known or (drive_id and marked.drive != drive_id):
            whose = "this store" if marked.cluster == self.layout.cluster else f"the store {marked.cluster}"
            raise Conflict(
                "object.drive_marked",
                f"{place.text} is marked as {marked.drive} of {whose}; if nothing on it is needed, empty it first.",
            )


def _unusable(place: DrivePlace, error: OSError) -> Invalid:
    return Invalid("object.drive_path", f"path: {place.text} cannot be used: {error.strerror or error}.", field="path")


def new_rings(
    specs: Sequence[DriveSpec], part_power: int, policies: Sequence[StoragePolicy], previous: Rings | None = None
) -> Rings:
    """Those of all policies over these drives, as near as may be to the previous ones."""
    before: tuple[Ring | None, ...] = previous.by_policy() if previous is not None else ()
    coded: tuple[Ring | None, ...] = previous.fragments if previous is not None else ()
    before += (None,) * (len(policies) - len(before))
    coded += (None,) * (len(policies) - len(coded))
    return joined(
        [new_ring(specs, part_power, one.copies, old) for one, old in zip(policies, before, strict=True)],
        [new_ring_of_fragments(specs, part_power, one.code, old) for one, old in zip(policies, coded, strict=True)],
    )


def new_ring(specs: Sequence[DriveSpec], part_power: int, replicas: int, previous: Ring | None = None) -> Ring:
    """A ring over these drives, as near as may be to the previous one."""
    from apus.services.object.logic.ring_builder import rebalance  # numpy: 20 MiB that most starts do without

    replicas = min(replicas, sum(spec.weight > 0 for spec in specs))
    return rebalance(specs, part_power=part_power, replicas=replicas, previous=previous)


def new_ring_of_fragments(
    specs: Sequence[DriveSpec], part_power: int, code: Code | None, previous: Ring | None = None
) -> Ring | None:
    """The same for the archives of a code; there are drives enough for it."""
    if code is None:
        return None
    ring = new_ring(specs, part_power, code.fragments, previous)
    assert ring.replicas == code.fragments
    return msgspec.structs.replace(ring, data=code.data)

"""Builds the object store from directories: what node/ calls, and tests.

The ring, the cluster's id and its secret are kept in one file of the state directory (`layout.py`), or, of a store of
many hosts, where all of its proxies find them.  A drive that the ring knows and that has lost its mark is left fenced:
it may be an unmounted disk.  `adopt` says that it is meant to be empty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from apus.kernel.errors import Invalid, Unavailable
from apus.kernel.ids import new_id
from apus.kernel.loop import Loop
from apus.kernel.world import World
from apus.services.identity.contract import Principals
from apus.services.object.cluster import Cluster
from apus.services.object.contract import ObjectEvents
from apus.services.object.drivers.drive import KeptDrive
from apus.services.object.drivers.fence import RESERVE_BYTES, DriveIdentity
from apus.services.object.drivers.local import LocalSite
from apus.services.object.drivers.sender import HttpSender, Sender
from apus.services.object.drivers.site import Site
from apus.services.object.drivers.sqlite_index import Connect, connect_file
from apus.services.object.drivers.volumes.files import VOLUME_BYTES
from apus.services.object.drivers.webhook import HttpWebhooks, Webhooks
from apus.services.object.layout import Layout, LayoutFile, LayoutHome
from apus.services.object.logic.drive_places import DrivePlace, parse_place
from apus.services.object.logic.ring import DriveSpec
from apus.services.object.logic.rings import joined
from apus.services.object.logic.storage_policies import REPLICATED, StoragePolicy, short_of_drives, with_wished
from apus.services.object.loops.archive_sweeper import ArchiveSweeper
from apus.services.object.loops.auditor import Auditor
from apus.services.object.loops.compactor import Compactor
from apus.services.object.loops.drive_watch import DriveWatch
from apus.services.object.loops.expirer import Expirer
from apus.services.object.loops.layout_watch import LayoutWatch
from apus.services.object.loops.led import Led
from apus.services.object.loops.lifecycle import Lifecycle
from apus.services.object.loops.notifier import Notifier
from apus.services.object.loops.reaper import Reaper
from apus.services.object.loops.repair_watch import RepairWatch
from apus.services.object.loops.replicator import Replicator
from apus.services.object.loops.sharder import Sharder
from apus.services.object.loops.shared_pace import SharedPace
from apus.services.object.loops.sweeper import Sweeper
from apus.services.object.loops.syncer import Syncer
from apus.services.object.loops.updater import Updater
from apus.services.object.membership import (
    FORMER_MAX,
    Membership,
    Sites,
    new_ring,
    new_ring_of_fragments,
    new_rings,
)
from apus.services.object.pace import Wish
from apus.services.object.service import DEFAULTS, Objects, Options
from apus.services.object.stranded import StrandedMark

PART_POWER: Final = 8
"""256 partitions: enough for a score of drives on one machine, and few directories."""

REPLICAS: Final = 3

HOST: Final = DriveSpec("").host
"""What this machine is called in rings."""


@dataclasses.dataclass(frozen=True, slots=True)
class DrivePath:
    """A directory that is a drive, and where it stands."""

    spec: DriveSpec
    place: DrivePlace


@dataclasses.dataclass(frozen=True, slots=True)
class Shared:
    """What the proxies of a store of many hosts have in common."""

    home: LayoutHome
    sites: Sites
    leads: Callable[[], bool]
    """Whether the loops that one proxy is enough for are run by this one."""


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectStore:
    """Everything that runs; `loops` are driven, and `replicator` is run, by whoever opened it."""

    service: Objects
    cluster: Cluster
    membership: Membership
    replicator: Replicator
    auditor: Auditor
    updater: Updater
    reaper: Reaper
    expirer: Expirer
    lifecycle: Lifecycle
    notifier: Notifier
    sweeper: Sweeper
    sharder: Sharder
    archive_sweeper: ArchiveSweeper
    syncer: Syncer
    compactor: Compactor
    drive_watch: DriveWatch
    repair_watch: RepairWatch
    shared_pace: SharedPace
    identity: str
    world: World
    shared: Shared | None

    @property
    def loops(self) -> tuple[Loop, ...]:
        """All of them are safe to run twice.  Of a store of many hosts, what one proxy is enough for is led by one."""
        everywhere = (
            self.drive_watch, self.repair_watch, self.updater, self.notifier, self.sweeper, self.archive_sweeper,
        )  # fmt: skip
        once = self.expirer, self.lifecycle, self.sharder, self.reaper, self.syncer, self.auditor
        if self.shared is None:
            return (*everywhere, *once, self.compactor)
        leads = self.shared.leads
        return (LayoutWatch(self.membership), self.shared_pace, *everywhere, *(Led(loop, leads) for loop in once))

    @property
    def drives(self) -> tuple[KeptDrive, ...]:
        return tuple(self.membership.drives.values())

    async def adopt(self, drive_id: str) -> None:
        """This drive is in its place and empty, or back: mark it, and bring it up to date."""
        await self.membership.adopt(drive_id)

    async def set_pace(self, wish: Wish) -> None:
        """Pause, resume or cap repair; it stays so over a restart."""
        await self.membership.set_wish(wish)

    async def close(self) -> None:
        await self.service.close()
        await self.membership.close()


def drives_in(paths: Sequence[Path | str]) -> list[DrivePath]:
    """Directories of this machine (`PATH`) and of others (`HOST:PATH`) as drives, named by their order."""
    places = [parse_place(str(path)) for path in paths]
    return [
        DrivePath(DriveSpec(f"drive{number}", host=place.host or HOST), place) for number, place in enumerate(places, 1)
    ]


async def open_store(
    world: World,
    drives: Sequence[DrivePath],
    layout_path: Path,
    *,
    node: str = "n1",
    part_power: int = PART_POWER,
    replicas: int = REPLICAS,
    policies: Mapping[str, int | str] = MappingProxyType({}),
    connect: Connect = connect_file,
    reserve_bytes: int = RESERVE_BYTES,
    options: Options = DEFAULTS,
    volume_bytes: int = VOLUME_BYTES,
    sender: Sender | None = None,
    webhooks: Webhooks | None = None,
    events: ObjectEvents | None = None,
    shared: Shared | None = None,
    principals: Principals | None = None,
) -> ObjectStore:
    """Open it, made if absent.  Drives that are new to it are marked and get their share by and by.

    A drive that it knows and that is not named here stays: only the operator's command removes one.  `shared`: the
    layout is not in `layout_path`, and drives are on other hosts.  `principals`: identity, where there is one.
    """
    here = LocalSite(world, volume_bytes=volume_bytes, connect=connect, reserve_bytes=reserve_bytes)
    home = shared.home if shared is not None else LayoutFile(world, layout_path)
    sites = shared.sites if shared is not None else lambda place: only_here(here, place)
    layout = await settled_layout(
        world, drives, home, sites, part_power=part_power, replicas=replicas, policies=policies
    )
    mark = StrandedMark(world.disk, layout_path.with_name("stranded")) if shared is None else None
    cluster = await _begun(world, layout, node, mark)
    membership = Membership(world, cluster, layout, home, sites, replicas)
    await membership.start()
    cluster.pace.set(layout.wish or Wish())
    service = Objects(cluster, options, _names(layout.policies), principals)

    def know(policies: Sequence[StoragePolicy]) -> None:
        service.policies = _names(policies)

    membership.on_policies = know
    updater = Updater(cluster, service.directory, service.shelf.lister)
    await updater.catch_up()
    shared_pace = SharedPace(cluster)
    if shared is not None:
        await shared_pace.begin()
    return ObjectStore(
        service=service,
        cluster=cluster,
        membership=membership,
        replicator=Replicator(cluster),
        auditor=Auditor(cluster, service.directory, service.shelf.lister, reads=shared is None),
        updater=updater,
        reaper=Reaper(service),
        expirer=Expirer(service),
        lifecycle=Lifecycle(service),
        notifier=Notifier(service, webhooks or HttpWebhooks(options.webhook_networks), events),
        sweeper=Sweeper(service),
        sharder=Sharder(cluster, service.directory),
        archive_sweeper=ArchiveSweeper(cluster),
        syncer=Syncer(service, sender or HttpSender(), options.realms),
        compactor=Compactor(lambda: membership.drives, cluster.failed),
        drive_watch=DriveWatch(cluster, membership.drives),
        repair_watch=RepairWatch(cluster, membership, events, shared.leads if shared is not None else lambda: True),
        shared_pace=shared_pace,
        identity=layout.cluster,
        world=world,
        shared=shared,
    )


async def _begun(world: World, layout: Layout, node: str, mark: StrandedMark | None) -> Cluster:
    """Without its drives.  `mark`: of the one process that writes; None where there are several."""
    secret = layout.secret.encode()
    cluster = Cluster(world, layout.ring, {}, secret, node, layout.former, shared=mark is None, stranded=mark)
    await cluster.recall()
    return cluster


def only_here(here: Site, place: DrivePlace) -> Site:
    """Raise Invalid for a place on another host."""
    if place.host:
        shown = f"path: {place.text} is on another host, and this store is one of a single machine."
        raise Invalid("object.drive_place", shown, field="path")
    return here


def _names(policies: Sequence[StoragePolicy]) -> tuple[str, ...]:
    return REPLICATED, *(policy.name for policy in policies)


async def settled_layout(
    world: World,
    drives: Sequence[DrivePath],
    home: LayoutHome,
    sites: Sites,
    *,
    part_power: int,
    replicas: int,
    policies: Mapping[str, int | str],
) -> Layout:
    """The layout with these drives and storage policies in it, written before it is used.

    Raise Invalid, and Unavailable where a new drive cannot be marked now.
    """
    before = await home.load()
    if before is None and not drives:
        raise Invalid("object.no_drives", "An object store needs one drive at least.", field="drives")
    known = with_wished(before.policies if before is not None else (), policies)
    every = (StoragePolicy(REPLICATED, replicas), *known)
    if before is None:
        _check_enough(known, [drive.spec for drive in drives])
        ring = new_rings([drive.spec for drive in drives], part_power, every)
        paths = {one.spec.id: one.place.text for one in drives}
        layout = Layout(new_id(world.dice), new_id(world.dice), ring, paths, policies=known, number=1)
        fresh = list(drives)
    else:
        layout, fresh = await _joined(drives, before, sites, every)
        layout = _with_policies(layout, known)
    for drive in fresh:
        await _mark(sites(drive.place), drive, layout.cluster)
    if before is not None and layout != before:
        layout = msgspec.structs.replace(layout, number=before.number + 1, turn=before.turn + 1)
    if layout != before:
        await home.save(layout)
    return layout


async def _mark(site: Site, drive: DrivePath, cluster: str) -> None:
    try:
        await site.mark(Path(drive.place.path), DriveIdentity(drive.spec.id, cluster))
    except OSError as error:
        if not drive.place.host:
            raise
        shown = f"{drive.place.text} cannot be made a drive now: {error.strerror or error}."
        raise Unavailable("object.drive_away", shown) from error


async def _joined(
    drives: Sequence[DrivePath], before: Layout, sites: Sites, policies: Sequence[StoragePolicy]
) -> tuple[Layout, list[DrivePath]]:
    """What was known, the drives that are named for the first time, and those that were moved to another path."""
    known = {drive.id for drive in before.ring.drives}
    paths = dict(before.paths) or {drive.spec.id: drive.place.text for drive in drives if drive.spec.id in known}
    fresh: list[DrivePath] = []
    for drive in drives:
        path = drive.place.text
        if path in paths.values() or path in before.retired:
            continue
        marked = await sites(drive.place).marked_as(Path(drive.place.path))
        if marked is not None and marked.cluster == before.cluster and marked.drive in known:
            paths[marked.drive] = path
            continue
        name = drive.spec.id if drive.spec.id not in paths else before.next_id(paths)
        paths[name] = path
        fresh.append(DrivePath(msgspec.structs.replace(drive.spec, id=name), drive.place))
    if not fresh and paths == before.paths:
        return before, fresh
    layout = msgspec.structs.replace(before, paths=paths)
    found = [spec for spec in before.ring.drives if spec.id in paths]  # paths were not always kept: one may be unknown
    if fresh or len(found) < len(before.ring.drives):
        specs = [*found, *(drive.spec for drive in fresh)]
        _check_enough(policies, specs)
        ring = new_rings(specs, before.ring.part_power, policies, before.ring)
        layout = msgspec.structs.replace(layout, ring=ring, former=(before.ring, *before.former)[:FORMER_MAX])
    return layout, fresh


def _with_policies(layout: Layout, policies: tuple[StoragePolicy, ...]) -> Layout:
    """With rings for those that are new: nothing is kept by them yet, so nothing has to move."""
    rings, coded = layout.ring.by_policy(), layout.ring.fragments
    fresh = policies[len(rings) - 1 :]
    if not fresh:
        return msgspec.structs.replace(layout, policies=policies)
    drives, power = rings[0].drives, rings[0].part_power
    _check_enough(fresh, drives)
    coded += (None,) * (len(rings) - len(coded))
    ring = joined(
        [*rings, *(new_ring(drives, power, one.copies) for one in fresh)],
        [*coded, *(new_ring_of_fragments(drives, power, one.code) for one in fresh)],
    )
    return msgspec.structs.replace(layout, ring=ring, policies=policies)


def _check_enough(policies: Sequence[StoragePolicy], specs: Sequence[DriveSpec]) -> None:
    short = short_of_drives(policies, sum(spec.weight > 0 for spec in specs))
    if short is not None:
        raise Invalid("object.policies", f"storage_policies: {short}.", field="storage_policies")

"""Builds the object store from directories: what node/ calls, and tests.

The ring, the cluster's id and its secret are kept in one file of the state directory (`layout.py`).  A drive that the
ring knows and that has lost its mark is left fenced: it may be an unmounted disk.  `adopt` says that it is meant to be
empty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from apus.kernel.errors import Invalid
from apus.kernel.ids import new_id
from apus.kernel.loop import Loop
from apus.kernel.world import World
from apus.services.object.cluster import Cluster
from apus.services.object.contract import ObjectEvents
from apus.services.object.drivers.fence import RESERVE_BYTES, DriveIdentity, format_drive, marked_as
from apus.services.object.drivers.local import LocalDrive
from apus.services.object.drivers.sender import HttpSender, Sender
from apus.services.object.drivers.sqlite_index import Connect, connect_file
from apus.services.object.drivers.volumes.files import VOLUME_BYTES
from apus.services.object.drivers.webhook import HttpWebhooks, Webhooks
from apus.services.object.layout import Layout, load_layout, save_layout
from apus.services.object.logic.ring import DriveSpec
from apus.services.object.logic.rings import joined
from apus.services.object.logic.storage_policies import REPLICATED, StoragePolicy, with_wished
from apus.services.object.loops.auditor import Auditor
from apus.services.object.loops.compactor import Compactor
from apus.services.object.loops.drive_watch import DriveWatch
from apus.services.object.loops.expirer import Expirer
from apus.services.object.loops.lifecycle import Lifecycle
from apus.services.object.loops.notifier import Notifier
from apus.services.object.loops.reaper import Reaper
from apus.services.object.loops.repair_watch import RepairWatch
from apus.services.object.loops.replicator import Replicator
from apus.services.object.loops.sharder import Sharder
from apus.services.object.loops.sweeper import Sweeper
from apus.services.object.loops.syncer import Syncer
from apus.services.object.loops.updater import Updater
from apus.services.object.membership import FORMER_MAX, Membership, new_ring, new_rings
from apus.services.object.pace import Wish
from apus.services.object.service import DEFAULTS, Objects, Options

PART_POWER: Final = 8
"""256 partitions: enough for a score of drives on one machine, and few directories."""

REPLICAS: Final = 3


@dataclasses.dataclass(frozen=True, slots=True)
class DrivePath:
    """A directory that is a drive, and where it stands."""

    spec: DriveSpec
    path: Path


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
    syncer: Syncer
    compactor: Compactor
    drive_watch: DriveWatch
    repair_watch: RepairWatch
    identity: str
    world: World
    wish_path: Path
    """What the operator said about repair."""

    @property
    def loops(self) -> tuple[Loop, ...]:
        return (
            self.drive_watch, self.repair_watch, self.updater, self.expirer, self.lifecycle, self.notifier,
            self.sweeper, self.sharder, self.reaper, self.syncer, self.auditor, self.compactor,
        )  # fmt: skip

    @property
    def drives(self) -> tuple[LocalDrive, ...]:
        return tuple(self.membership.drives.values())

    async def adopt(self, drive_id: str) -> None:
        """This drive is in its place and empty, or back: mark it, and bring it up to date."""
        await self.membership.adopt(drive_id)

    async def set_pace(self, wish: Wish) -> None:
        """Pause, resume or cap repair; it stays so over a restart."""
        await self.world.disk.write_synced(self.wish_path, msgspec.json.encode(wish))
        self.cluster.pace.set(wish)

    async def close(self) -> None:
        await self.service.close()
        await self.membership.close()


def drives_in(paths: Sequence[Path], *, host: str = "host1") -> list[DrivePath]:
    """Directories of this machine as drives, named by their order."""
    return [DrivePath(DriveSpec(f"drive{number}", host=host), path) for number, path in enumerate(paths, 1)]


async def open_store(
    world: World,
    drives: Sequence[DrivePath],
    layout_path: Path,
    *,
    node: str = "n1",
    part_power: int = PART_POWER,
    replicas: int = REPLICAS,
    policies: Mapping[str, int] = MappingProxyType({}),
    connect: Connect = connect_file,
    reserve_bytes: int = RESERVE_BYTES,
    options: Options = DEFAULTS,
    volume_bytes: int = VOLUME_BYTES,
    sender: Sender | None = None,
    webhooks: Webhooks | None = None,
    events: ObjectEvents | None = None,
) -> ObjectStore:
    """Open it, made if absent.  Drives that are new to it are marked and get their share by and by.

    A drive that it knows and that is not named here stays: only the operator's command removes one.
    """
    if not drives:
        raise Invalid("object.no_drives", "An object store needs one drive at least.", field="drives")
    layout = await settled_layout(
        world, drives, layout_path, part_power=part_power, replicas=replicas, policies=policies
    )

    def open_drive(drive_id: str, path: Path, part_power: int) -> LocalDrive:
        identity = DriveIdentity(drive_id, layout.cluster)
        return LocalDrive(
            world, path, identity, part_power=part_power, policies=1 + len(layout.policies),
            volume_bytes=volume_bytes, connect=connect, reserve_bytes=reserve_bytes,
        )  # fmt: skip

    cluster = Cluster(world, layout.ring, {}, layout.secret.encode(), node, layout.former)
    membership = Membership(world, cluster, layout, layout_path, open_drive, replicas)
    await membership.start()
    wish_path = layout_path.with_name("repair.json")
    cluster.pace.set(await _load_wish(world, wish_path))
    service = Objects(cluster, options, [REPLICATED, *(policy.name for policy in layout.policies)])
    updater = Updater(cluster, service.directory, service.shelf.lister)
    await updater.catch_up()
    return ObjectStore(
        service=service,
        cluster=cluster,
        membership=membership,
        replicator=Replicator(cluster),
        auditor=Auditor(cluster, service.directory, service.shelf.lister),
        updater=updater,
        reaper=Reaper(service),
        expirer=Expirer(service),
        lifecycle=Lifecycle(service),
        notifier=Notifier(service, webhooks or HttpWebhooks(options.webhook_networks), events),
        sweeper=Sweeper(service),
        sharder=Sharder(cluster, service.directory),
        syncer=Syncer(service, sender or HttpSender(), options.realms),
        compactor=Compactor(cluster, membership.drives),
        drive_watch=DriveWatch(cluster, membership.drives),
        repair_watch=RepairWatch(cluster, membership, events),
        identity=layout.cluster,
        world=world,
        wish_path=wish_path,
    )


async def settled_layout(
    world: World,
    drives: Sequence[DrivePath],
    layout_path: Path,
    *,
    part_power: int,
    replicas: int,
    policies: Mapping[str, int],
) -> Layout:
    """The layout with these drives and storage policies in it, written before it is used."""
    before = await load_layout(world, layout_path)
    known = with_wished(before.policies if before is not None else (), policies)
    wishes = (replicas, *(policy.copies for policy in known))
    if before is None:
        ring = new_rings([drive.spec for drive in drives], part_power, wishes)
        paths = {one.spec.id: str(one.path) for one in drives}
        layout = Layout(new_id(world.dice), new_id(world.dice), ring, paths, policies=known)
        fresh = list(drives)
    else:
        layout, fresh = await _joined(world, drives, before, wishes)
        layout = _with_policies(layout, known)
    for drive in fresh:
        await format_drive(world, drive.path, DriveIdentity(drive.spec.id, layout.cluster))
    if layout != before:
        await save_layout(world, layout_path, layout)
    return layout


async def _joined(
    world: World, drives: Sequence[DrivePath], before: Layout, wishes: Sequence[int]
) -> tuple[Layout, list[DrivePath]]:
    """What was known, the drives that are named for the first time, and those that were moved to another path."""
    known = {drive.id for drive in before.ring.drives}
    paths = dict(before.paths) or {drive.spec.id: str(drive.path) for drive in drives if drive.spec.id in known}
    fresh: list[DrivePath] = []
    for drive in drives:
        path = str(drive.path)
        if path in paths.values() or path in before.retired:
            continue
        marked = await marked_as(world, drive.path)
        if marked is not None and marked.cluster == before.cluster and marked.drive in known:
            paths[marked.drive] = path
            continue
        name = drive.spec.id if drive.spec.id not in paths else before.next_id(paths)
        paths[name] = path
        fresh.append(DrivePath(msgspec.structs.replace(drive.spec, id=name), drive.path))
    if not fresh and paths == before.paths:
        return before, fresh
    layout = msgspec.structs.replace(before, paths=paths)
    found = [spec for spec in before.ring.drives if spec.id in paths]  # paths were not always kept: one may be unknown
    if fresh or len(found) < len(before.ring.drives):
        specs = [*found, *(drive.spec for drive in fresh)]
        ring = new_rings(specs, before.ring.part_power, wishes, before.ring)
        layout = msgspec.structs.replace(layout, ring=ring, former=(before.ring, *before.former)[:FORMER_MAX])
    return layout, fresh


def _with_policies(layout: Layout, policies: tuple[StoragePolicy, ...]) -> Layout:
    """With rings for those that are new: nothing is kept by them yet, so nothing has to move."""
    rings = layout.ring.every_ring()
    fresh = [new_ring(rings[0].drives, rings[0].part_power, one.copies) for one in policies[len(rings) - 1 :]]
    ring = joined([*rings, *fresh]) if fresh else layout.ring
    return msgspec.structs.replace(layout, ring=ring, policies=policies)


async def _load_wish(world: World, path: Path) -> Wish:
    try:
        return msgspec.json.decode(await world.disk.read(path), type=Wish)
    except FileNotFoundError:
        return Wish()
    except msgspec.DecodeError as error:
        raise Invalid("object.layout", f"{path} cannot be read: {error}.") from error

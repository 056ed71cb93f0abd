"""Builds the object store from directories: what node/ calls, and tests.

The ring, the cluster's id and its secret are kept in one file of the state directory.  A drive that the ring knows
and that has lost its mark is left fenced: it may be an unmounted disk.  `adopt` says that it is meant to be empty.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.errors import Invalid
from apus.kernel.ids import new_id
from apus.kernel.loop import Loop
from apus.kernel.world import World
from apus.services.object.cluster import Cluster
from apus.services.object.drivers.fence import RESERVE_BYTES, DriveIdentity, format_drive
from apus.services.object.drivers.local import LocalDrive
from apus.services.object.drivers.sender import HttpSender, Sender
from apus.services.object.drivers.sqlite_index import Connect, connect_file
from apus.services.object.drivers.volumes.files import VOLUME_BYTES
from apus.services.object.logic.ring import DriveSpec, Ring
from apus.services.object.loops.auditor import Auditor
from apus.services.object.loops.compactor import Compactor
from apus.services.object.loops.drive_watch import DriveWatch
from apus.services.object.loops.expirer import Expirer
from apus.services.object.loops.reaper import Reaper
from apus.services.object.loops.replicator import Replicator
from apus.services.object.loops.syncer import Syncer
from apus.services.object.loops.updater import Updater
from apus.services.object.service import DEFAULTS, Objects, Options

PART_POWER: Final = 8
"""256 partitions: enough for a score of drives on one machine, and few directories."""

REPLICAS: Final = 3


@dataclasses.dataclass(frozen=True, slots=True)
class DrivePath:
    """A directory that is a drive, and where it stands."""

    spec: DriveSpec
    path: Path


class _Layout(msgspec.Struct, frozen=True):
    cluster: str
    secret: str
    ring: Ring


class _NamedRing(msgspec.Struct, frozen=True):
    """A ring as it was written before rings were arrays."""

    part_power: int
    replicas: int
    drives: tuple[DriveSpec, ...]
    table: tuple[tuple[str, ...], ...]


class _NamedLayout(msgspec.Struct, frozen=True):
    cluster: str
    secret: str
    ring: _NamedRing


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectStore:
    """Everything that runs; `loops` are driven, and `replicator` is run, by whoever opened it."""

    service: Objects
    cluster: Cluster
    drives: tuple[LocalDrive, ...]
    replicator: Replicator
    auditor: Auditor
    updater: Updater
    reaper: Reaper
    expirer: Expirer
    syncer: Syncer
    compactor: Compactor
    drive_watch: DriveWatch
    identity: str
    world: World

    @property
    def loops(self) -> tuple[Loop, ...]:
        return (
            self.drive_watch, self.updater, self.expirer, self.reaper, self.syncer, self.auditor, self.compactor,
        )  # fmt: skip

    async def adopt(self, drive_id: str) -> None:
        """This drive is in its place and empty, or back: mark it, and bring it up to date."""
        for drive in self.drives:
            if drive.id == drive_id:
                await format_drive(self.world, drive.root, DriveIdentity(drive_id, self.identity))
                await drive.forget()
                self.cluster.returned(drive)

    async def close(self) -> None:
        await self.service.close()
        for drive in self.drives:
            await drive.close()


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
    connect: Connect = connect_file,
    reserve_bytes: int = RESERVE_BYTES,
    options: Options = DEFAULTS,
    volume_bytes: int = VOLUME_BYTES,
    sender: Sender | None = None,
) -> ObjectStore:
    """Open it, made if absent.  Drives that are new to the ring are marked and get their share by and by."""
    if not drives:
        raise Invalid("object.no_drives", "An object store needs one drive at least.", field="drives")
    before = await _load(world, layout_path)
    specs = [drive.spec for drive in drives]
    known = {drive.id for drive in before.ring.drives} if before else set()
    if before is not None and list(before.ring.drives) == specs:
        layout = before
    else:
        from apus.services.object.logic.ring_builder import rebalance  # numpy: 20 MiB that most starts do without

        ring = rebalance(
            specs,
            part_power=before.ring.part_power if before else part_power,
            replicas=min(replicas, len(drives)),
            previous=before.ring if before else None,
        )
        layout = _Layout(
            before.cluster if before else new_id(world.dice), before.secret if before else new_id(world.dice), ring
        )
        for drive in drives:
            if drive.spec.id not in known:
                await format_drive(world, drive.path, DriveIdentity(drive.spec.id, layout.cluster))
        await world.disk.write_synced(layout_path, msgspec.json.encode(layout))
    opened = [
        LocalDrive(
            world,
            drive.path,
            DriveIdentity(drive.spec.id, layout.cluster),
            part_power=layout.ring.part_power,
            volume_bytes=volume_bytes,
            connect=connect,
            reserve_bytes=reserve_bytes,
        )
        for drive in drives
    ]
    cluster = Cluster(world, layout.ring, {drive.id: drive for drive in opened}, layout.secret.encode(), node)
    for local in opened:
        local.on_return = partial(cluster.returned, local)
    await _start(cluster, opened)
    service = Objects(cluster, options)
    return ObjectStore(
        service,
        cluster,
        tuple(opened),
        Replicator(cluster),
        Auditor(cluster, service.directory),
        Updater(cluster, service.directory),
        Reaper(service),
        Expirer(service),
        Syncer(service, sender or HttpSender(), options.realms),
        Compactor(cluster, opened),
        DriveWatch(cluster, {drive.id: drive for drive in opened}),
        layout.cluster,
        world,
    )


async def _start(cluster: Cluster, drives: Sequence[LocalDrive]) -> None:
    """One that cannot start is away, and tried again as any other."""
    for drive in drives:
        try:
            await drive.start()
        except OSError as error:
            cluster.failed(drive, error)


async def _load(world: World, path: Path) -> _Layout | None:
    try:
        written = await world.disk.read(path)
        if b'"table":' in written:
            old = msgspec.json.decode(written, type=_NamedLayout)
            return _Layout(old.cluster, old.secret, _numbered(old.ring))
        return msgspec.json.decode(written, type=_Layout)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise Invalid("object.layout", f"{path} cannot be read: {error}.") from error


def _numbered(old: _NamedRing) -> Ring:
    places = {drive.id: place for place, drive in enumerate(old.drives)}
    copies = len(old.table[0])
    rows = b"".join(places[row[copy]].to_bytes(2, "little") for copy in range(copies) for row in old.table)
    return Ring(old.part_power, old.replicas, old.drives, rows)

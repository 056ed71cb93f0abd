"""From what is on the drive after whatever happened to an index that knows all of it.

The manifest says which runs there are and up to where they know the volumes; what was appended since is read again.
Without a manifest, or with damage in the index, that is everything.  Reading twice is harmless: records merge.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.log import get_logger
from apus.kernel.world import World
from apus.services.object.drivers.fence import Fence
from apus.services.object.drivers.volumes.files import Usage, Volumes
from apus.services.object.drivers.volumes.journal import Journal
from apus.services.object.drivers.volumes.key_index import KeyIndex
from apus.services.object.drivers.volumes.record import (
    DROP,
    HEADER_BYTES,
    OBJECT,
    UNLISTED,
    VOLUME_HEADER_BYTES,
    Record,
    needed_bytes,
    unpack,
    verify_data,
)
from apus.services.object.drivers.volumes.run import IN_FILE, Entry, IndexDamaged, Nodes
from apus.services.object.logic.merge import Fingerprint, fingerprint
from apus.services.object.model import CorruptCopy

MANIFEST: Final = "manifest"
WINDOW_BYTES: Final = 4 << 20
"""How much of a volume is read at a time."""

ENTRIES_MAX: Final = 1 << 16
"""Entries in memory while volumes are read again; beyond it they go to the drive as a run."""

_log: Final = get_logger("apus.object.volumes")


class Manifest(msgspec.Struct, frozen=True, array_like=True):
    """What the runs know: all up to `end`, a volume and an offset."""

    runs: list[str]
    volumes: dict[int, Usage]
    end: tuple[int, int]
    nodes: list[str]
    part_power: int
    parts: dict[int, tuple[int, int]]
    unlisted: dict[bytes, str]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Manifest).decode


async def load_manifest(world: World, directory: Path) -> Manifest | None:
    """None when there is none, or it is damaged: then the volumes have to be read from the first to the last."""
    try:
        data = await world.disk.read(directory / MANIFEST)
    except FileNotFoundError:
        return None
    try:
        if zlib.crc32(data[4:]).to_bytes(4, "little") == data[:4]:
            return _decode(data[4:])
    except msgspec.DecodeError:
        pass
    _log.warning("manifest damaged", path=str(directory / MANIFEST))
    return None


async def save_manifest(world: World, directory: Path, manifest: Manifest) -> None:
    data = _encode(manifest)
    await world.disk.write_synced(directory / MANIFEST, zlib.crc32(data).to_bytes(4, "little") + data)


async def recover(
    world: World,
    directory: Path,
    part_power: int,
    fence: Fence,
    volume_bytes: int,
    mark: Fingerprint = fingerprint,
    *,
    trust_index: bool = True,
) -> Journal:
    """The journal of this directory, with the index up to date."""

    saved = await load_manifest(world, directory)

    async def recovered(manifest: Manifest | None) -> Journal:
        index = KeyIndex(world, directory, part_power, Nodes(manifest.nodes if manifest else ()), mark)
        volumes = Volumes(world, directory, volume_bytes)
        await index.open(manifest.runs if manifest else (), saved.runs if saved else ())
        return await _recover(Journal(volumes, index, fence), manifest)

    if saved is not None and trust_index:
        try:
            return await recovered(saved)
        except (IndexDamaged, FileNotFoundError) as error:
            _log.warning("index damaged", directory=str(directory), error=str(error))
    return await recovered(None)


async def _recover(journal: Journal, manifest: Manifest | None) -> Journal:
    index, volumes = journal.index, journal.volumes
    if manifest is not None:
        volumes.usage.update(manifest.volumes)
        journal.unlisted.update(manifest.unlisted)
        if manifest.part_power == index.part_power:
            index.parts.update(manifest.parts)
        else:
            await index.count_parts()
    known = manifest.end if manifest else (0, 0)
    for number in await volumes.numbers():
        volumes.last = number
        if number < known[0] and number not in volumes.usage:
            await volumes.remove(number)  # compacted, and a power cut brought its name back
        elif number >= known[0]:
            await _replay(journal, number, known[1] if number == known[0] else 0)
            if len(index.recent) > ENTRIES_MAX:
                index.freeze()
                await index.flush()
    volumes.last = max(volumes.last, known[0])
    journal.end = volumes.last, volumes.usage[volumes.last].total_bytes if volumes.last in volumes.usage else 0
    await _miss(journal)
    return journal


async def _miss(journal: Journal) -> None:
    """Forget what was in volumes that are gone: it is absent then, and repaired."""
    gone = journal.volumes.usage.keys() - set(await journal.volumes.numbers())
    if not gone:
        return
    for part in list(journal.index.parts):
        async for path_hash, entry in journal.index.entries(part):
            if entry.volume in gone:
                journal.index.set(path_hash, entry, None)
    for number in gone:
        del journal.volumes.usage[number]


async def _replay(journal: Journal, number: int, start: int) -> None:
    """Take in what was appended to a volume from `start` on."""
    volumes = journal.volumes
    usage = volumes.usage.get(number)
    if usage is None:
        try:
            usage = await volumes.learn(number)
        except CorruptCopy as error:  # what was in it is absent now, and repaired
            _log.warning("volume unreadable", path=str(volumes.path(number)), error=str(error))
            with suppress(OSError):  # of a drive that takes no writes: the next start tries again
                await volumes.put_aside(number)
            return
    usage.total_bytes = await volumes.size(number)
    read_to = max(start, VOLUME_HEADER_BYTES)
    async with aclosing(scan(volumes, number, read_to)) as records:
        async for offset, record, _ in records:
            usage.dead_bytes += offset - read_to  # torn, or damaged
            read_to = offset + record.length
            await _take(journal, number, offset, record)
    usage.dead_bytes += max(0, usage.total_bytes - read_to)


async def _take(journal: Journal, number: int, offset: int, record: Record) -> None:
    index = journal.index
    before = await index.find(record.hash)
    after: Entry | None
    if record.kind == DROP:
        journal.volumes.died(number, record.length)
        if before is None or before.version > record.dropped:
            return
        after = None
        journal.unlisted.pop(record.hash, None)
    else:
        version = record.head.version
        flags = 0 if record.kind == OBJECT else IN_FILE
        after = Entry(number, offset, record.length, record.head_bytes, *version, flags)
        if before == after:
            return
        if before is not None and before.version > version:
            journal.volumes.died(number, record.length)
            return
        if record.flags & UNLISTED:
            journal.unlisted[record.hash] = record.head.changed
    if before is not None:
        journal.volumes.died(before.volume, before.length)
    index.set(record.hash, before, after)


async def scan(volumes: Volumes, number: int, start: int) -> AsyncGenerator[tuple[int, Record, memoryview], None]:
    """Every sound record from `start` on, with its offset and data; what is torn or damaged is passed over."""
    marker, end = volumes.usage[number].marker, await volumes.size(number)
    window, base = b"", start
    at = start
    while at < end:
        if at + HEADER_BYTES > base + len(window):
            window, base = await volumes.read(number, at, WINDOW_BYTES), at
        view = memoryview(window)[at - base :]
        try:
            _, length = needed_bytes(view, marker)
            if length > len(view) and at + length <= end:
                window, base = await volumes.read(number, at, max(length, WINDOW_BYTES)), at
                view = memoryview(window)
            record = unpack(view[:length], marker)
            if record.kind == OBJECT:
                verify_data(record.head, view[record.head_bytes : length])
        except CorruptCopy:
            at, window, base = await _next_marker(volumes, number, marker, at + 1, end)
            continue
        yield at, record, view[record.head_bytes : length]
        at += record.length


async def _next_marker(volumes: Volumes, number: int, marker: bytes, at: int, end: int) -> tuple[int, bytes, int]:
    """Where the next record may begin, and the window in which it was found."""
    while at < end:
        window = await volumes.read(number, at, WINDOW_BYTES)
        found = window.find(marker)
        if found >= 0:
            return at + found, window, at
        if len(window) < WINDOW_BYTES:
            break
        at += len(window) - len(marker) + 1
    return end, b"", end

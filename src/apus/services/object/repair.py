"""Makes the copies of one partition, or of one index, equal: what the replicator does, a piece at a time.

Digests first: equal ones cost one question to each drive.  Where they differ, versions are compared and only what a
drive lacks travels.  Running it twice, or on two nodes at once, is harmless: everything it does is a merge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.drivers.drive import Drive
from apus.services.object.logic.merge import TICKS_PER_S, make_stamp
from apus.services.object.model import (
    STRIDE_BYTES,
    Change,
    CorruptCopy,
    DriveTrouble,
    Head,
    IndexHead,
    IndexKind,
    Place,
    ReplacedCopy,
)

ASK_TIMEOUT_S: Final = 60.0
ROWS_AT_ONCE: Final = 1_000

RECLAIM_AGE_S: Final = 7 * 86_400.0
"""Tombstones are kept so long.  A drive that was away for longer has to come back empty."""


@dataclasses.dataclass(slots=True)
class Outcome:
    """What a repair did; `whole` when every primary is now known to have everything."""

    whole: bool = True
    copied: int = 0
    dropped: int = 0


async def heal_objects(cluster: Cluster, part: int) -> Outcome:
    primaries = cluster.primaries(part)
    drives = cluster.candidates(part)
    digests = await ask_each(drives, lambda drive: drive.copies.digest(part), ASK_TIMEOUT_S)
    outcome = Outcome(whole=len(primaries) == len(cluster.ring.primaries(part)))
    by_drive = dict(zip((drive.id for drive in drives), digests, strict=True))
    outcome.whole &= not any(isinstance(by_drive[drive.id], OSError) for drive in primaries)
    known = [digest for digest in digests if isinstance(digest, int)]
    of_primaries = {by_drive[drive.id] for drive in primaries}
    elsewhere = [by_drive[drive.id] for drive in drives if drive not in primaries]
    if outcome.whole and len(of_primaries) == 1 and not any(elsewhere):
        return outcome
    if not any(known):
        return outcome
    inventories: dict[str, Mapping[str, tuple[str, str]]] = {}
    reachable = [drive for drive, digest in zip(drives, digests, strict=True) if isinstance(digest, int)]
    answers = await ask_each(reachable, lambda drive: drive.copies.inventory(part), ASK_TIMEOUT_S)
    for drive, answer in zip(reachable, answers, strict=True):
        if isinstance(answer, OSError):
            outcome.whole = False
        else:
            inventories[drive.id] = answer
    holders = [drive for drive in reachable if drive.id in inventories]
    for path_hash in sorted({name for found in inventories.values() for name in found}):
        await _heal_object(cluster, Place(part, path_hash), holders, inventories, outcome)
    return outcome


async def _heal_object(
    cluster: Cluster,
    place: Place,
    drives: Sequence[Drive],
    inventories: Mapping[str, Mapping[str, tuple[str, str]]],
    outcome: Outcome,
) -> None:
    """Bring the newest version to every primary, then take it from where it does not belong."""
    versions = {drive.id: inventories[drive.id].get(place.hash) for drive in drives}
    newest = max(version for version in versions.values() if version is not None)
    sources = [drive for drive in drives if versions[drive.id] == newest]
    primaries = cluster.primaries(place.part)
    lacking = [drive for drive in primaries if versions.get(drive.id) != newest]
    for drive in lacking:
        if drive.id not in inventories or not await _copy(place, newest, sources, drive, cluster):
            outcome.whole = False
        else:
            outcome.copied += 1
    if not outcome.whole:
        return
    strays = [drive for drive in drives if drive not in primaries and versions[drive.id] is not None]
    for drive in strays:
        version = versions[drive.id]
        assert version is not None
        outcome.dropped += await _drop(drive, place, version)


async def _copy(
    place: Place, version: tuple[str, str], sources: Sequence[Drive], target: Drive, cluster: Cluster
) -> bool:
    for source in sources:
        try:
            got = await source.copies.fetch(place)
            if got is None:
                continue
            head, data = got
            if head.version < version:
                continue
            if data is not None:
                await target.copies.store(place, head, data)
            else:
                await _stream(place, head, source, target)
            if head.meta is not None:
                await target.copies.describe(place, head.meta)
            return True
        except CorruptCopy:
            cluster.repairs.add("objects", place.part)
        except ReplacedCopy:
            return False  # the next pass sees the version that came
        except OSError:
            continue
    return False


async def _stream(place: Place, head: Head, source: Drive, target: Drive) -> None:
    present = await target.copies.head(place)
    if present is not None and present.stamp >= head.stamp:
        return
    writer = await target.copies.begin(place)
    try:
        held, parts = 0, list[bytes]()
        async for chunk in source.copies.read(place, head, 0, head.size_bytes):
            parts.append(chunk)
            held += len(chunk)
            if held >= STRIDE_BYTES:
                await writer.write(b"".join(parts))
                held, parts = 0, []
        if parts:
            await writer.write(b"".join(parts))
        await writer.commit(head)
    finally:
        await writer.abort()


async def _drop(drive: Drive, place: Place, version: tuple[str, str]) -> bool:
    try:
        await drive.copies.drop(place, version)
    except OSError:
        return False
    return True


async def reclaim(cluster: Cluster, place: Place, version: tuple[str, str]) -> None:
    """Forget a tombstone that has done its work: it is old, and every copy is known to be it."""
    if version[0] >= reclaim_before(cluster):
        return
    for drive in cluster.primaries(place.part):
        try:
            head = await drive.copies.head(place)
            if head is not None and head.gone:
                await drive.copies.drop(place, version)
        except OSError:
            return


def reclaim_before(cluster: Cluster) -> str:
    return make_stamp(max(0, int((cluster.world.clock.now_s() - RECLAIM_AGE_S) * TICKS_PER_S)), "")


async def heal_index(cluster: Cluster, kind: IndexKind, place: Place) -> Outcome:
    """Merge all copies of one index into each primary."""
    primaries = cluster.primaries(place.part)
    drives = cluster.candidates(place.part)
    digests = await ask_each(drives, lambda drive: drive.indexes.digest(kind, place), ASK_TIMEOUT_S)
    by_drive = {drive.id: digest for drive, digest in zip(drives, digests, strict=True)}
    outcome = Outcome(whole=not any(isinstance(by_drive[drive.id], OSError) for drive in primaries))
    outcome.whole &= len(primaries) == len(cluster.ring.primaries(place.part))
    holders = [drive for drive in drives if isinstance(by_drive[drive.id], int) and by_drive[drive.id]]
    strays = [drive for drive in holders if drive not in primaries]
    if len({by_drive[drive.id] for drive in primaries}) == 1 and not strays:
        return outcome
    for source in holders:
        for target in primaries:
            if target is source or isinstance(by_drive[target.id], OSError):
                continue
            try:
                outcome.copied += await _merge_index(kind, place, source, target)
            except OSError:
                outcome.whole = False
    if outcome.whole:
        for drive in strays:
            try:
                # It may have grown meanwhile: what is not in the primaries yet stays.
                if await drive.indexes.digest(kind, place) == by_drive[drive.id]:
                    await drive.indexes.drop(kind, place)
                    outcome.dropped += 1
            except OSError:
                continue
    return outcome


async def _merge_index(kind: IndexKind, place: Place, source: Drive, target: Drive) -> int:
    """Give the target whatever the source has that it lacks; returns how many rows went."""
    head = await source.indexes.head(kind, place)
    if head is None:
        raise DriveTrouble("the index went away")
    await target.indexes.apply(kind, place, said(head))
    after, copied = "", 0
    while True:
        rows = await source.indexes.rows(kind, place, after, ROWS_AT_ONCE)
        if not rows:
            return copied
        theirs = {row.name: row for row in await target.indexes.rows(kind, place, after, ROWS_AT_ONCE)}
        fresh = tuple(row for row in rows if row.name not in theirs or theirs[row.name].version < row.version)
        if fresh:
            await target.indexes.apply(kind, place, Change(head.account, head.container, fresh))
        copied += len(fresh)
        after = rows[-1].name


def said(head: IndexHead) -> Change:
    """The head of an index, without its rows, as a change."""
    return Change(head.account, head.container, made=head.made, gone=head.gone, fields=head.fields)

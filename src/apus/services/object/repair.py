"""Makes the copies of one partition, or of one index, equal: what the replicator does, a piece at a time.

Digests first: equal ones cost one question to each drive.  Where they differ, versions are compared and only what a
drive lacks travels.  Running it twice, or on two nodes at once, is harmless: everything it does is a merge.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final

from apus.kernel.buffers import Chunk
from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.drivers.drive import Drive
from apus.services.object.logic.heal import Plan, Version, plan
from apus.services.object.logic.merge import TICKS_PER_S, make_stamp
from apus.services.object.logic.rings import policy_of
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
from apus.services.object.pace import Pace

ASK_TIMEOUT_S: Final = 60.0
ROWS_AT_ONCE: Final = 1_000
COMPARED_AT_ONCE: Final = 10_000

NEVER: Final = ("", "")
"""Older than any version."""
AT_ONCE: Final = 8
"""Objects of a partition that are copied side by side: their syncs are shared."""

RECLAIM_AGE_S: Final = 7 * 86_400.0
"""Tombstones are kept so long.  A drive that was away for longer has to come back empty."""


@dataclasses.dataclass(slots=True)
class Outcome:
    """What a repair did; `whole` when every primary is now known to have everything."""

    whole: bool = True
    settled: bool = True
    """Whoever shall hold it now, while drives are away, does."""
    silent: int = 0
    """Drives that may hold something of this, and did not say."""
    copied: int = 0
    dropped: int = 0


async def heal_objects(cluster: Cluster, part: int) -> Outcome:
    drives = cluster.everywhere("objects", part)
    digests = await ask_each(drives, lambda drive: drive.copies.digest(part), ASK_TIMEOUT_S)
    answering = {drive.id: digest for drive, digest in zip(drives, digests, strict=True) if isinstance(digest, int)}
    primaries = cluster.ring.primaries(part)
    wished = {drive.id for drive in cluster.wished(part)}
    outcome = Outcome(whole=all(name in answering and name in wished for name in primaries))
    of_primaries = {answering.get(name) for name in primaries}
    elsewhere = [digest for name, digest in answering.items() if name not in primaries]
    outcome.settled = len(wished) == cluster.copies(part) and all(name in answering for name in wished)
    outcome.silent = len(drives) - len(answering)
    if not any(answering.values()) or (outcome.whole and len(of_primaries) == 1 and not any(elsewhere)):
        return outcome
    healing = _Healing(cluster, part, outcome)
    await healing.take_stock([drive for drive in drives if drive.id in answering])
    await healing.run()
    return outcome


class _Healing:
    """One partition whose copies differ."""

    def __init__(self, cluster: Cluster, part: int, outcome: Outcome) -> None:
        self._cluster, self._part, self._outcome = cluster, part, outcome
        self._primaries = cluster.ring.primaries(part)
        self._held: dict[str, Mapping[str, Version]] = {}
        self._unlisted: set[str] = set()
        """Hashes whose rows may be in no listing yet: their copies promise that too."""
        self._wished: list[str] = []
        self._spare: list[str] = []

    async def take_stock(self, drives: Sequence[Drive]) -> None:
        for drive in drives:  # one after the other: each takes a while, and clients should have their turn
            (answer,) = await ask_each([drive], lambda drive: drive.copies.inventory(self._part), ASK_TIMEOUT_S)
            if not isinstance(answer, OSError):
                self._held[drive.id] = answer
            else:
                self._outcome.silent += 1
            await asyncio.sleep(0)
        self._outcome.whole &= all(name in self._held for name in self._primaries)
        policy = policy_of(self._part)
        promised = await ask_each(drives, lambda drive: drive.copies.unlisted(policy), ASK_TIMEOUT_S)
        self._unlisted = {name for answer in promised if not isinstance(answer, OSError) for name in answer}
        wished = self._cluster.wished(self._part)
        self._wished = [drive.id for drive in wished if drive.id in self._held]
        self._outcome.settled = len(self._wished) == self._cluster.copies(self._part)
        handoffs = self._cluster.ring.handoffs(self._part)
        self._spare = [name for name in handoffs if name in self._held and name not in self._wished]

    async def run(self) -> None:
        hashes = sorted({name for found in self._held.values() for name in found})
        answering = frozenset(self._held)
        todo: list[tuple[Place, Plan]] = []
        for path_hash in hashes:
            versions = {name: found[path_hash] for name, found in self._held.items() if path_hash in found}
            wanted = plan(versions, primaries=self._primaries, wished=self._wished, answering=answering)
            if not wanted.is_done:
                todo.append((Place(self._part, path_hash), wanted))
        for at in range(0, len(todo), AT_ONCE):
            await asyncio.gather(*(self._object(place, wanted) for place, wanted in todo[at : at + AT_ONCE]))

    async def _object(self, place: Place, wanted: Plan) -> None:
        """Bring the newest version to whoever lacks it, then take it from where it does not belong."""
        drives, at_home = self._cluster.drives, True
        for name in wanted.lacking:
            if await self._copy(place, wanted, name):
                self._outcome.copied += 1
                continue
            self._outcome.whole = self._outcome.settled = at_home = False
            spare = next((one for one in self._spare if self._held[one].get(place.hash) != wanted.newest), None)
            if spare is not None and name in self._primaries:  # full, or read-only: it is still short of a copy
                self._outcome.copied += await self._copy(place, wanted, spare)
        for name in wanted.strays if at_home else ():
            if name in drives:
                self._outcome.dropped += await _drop(drives[name], place, self._held[name][place.hash])

    async def _copy(self, place: Place, wanted: Plan, target: str) -> bool:
        drives, pace = self._cluster.drives, self._cluster.pace
        sources = [drives[name] for name in wanted.sources if name in drives]
        if target not in drives:
            return False
        copied = await copy_version(self._cluster, place, wanted.newest, sources, drives[target], pace)
        if copied and place.hash not in self._unlisted:
            drives[target].copies.listed(place, max(wanted.newest))
        return copied


async def copy_version(
    cluster: Cluster,
    place: Place,
    version: Version,
    sources: Sequence[Drive],
    target: Drive,
    pace: Pace | None = None,
) -> bool:
    """Bring this version, or a newer one, to the target from any of the sources; whether that was possible."""
    if pace is not None:
        await pace.turn()
    for source in sources:
        try:
            got = await source.copies.fetch(place)
            if got is None:
                continue
            head, data = got
            if head.version < version:
                continue
            if data is not None:
                if pace is not None:
                    await pace.spend(head.kept_bytes)
                await target.copies.store(place, head, data)
            else:
                await _stream(place, head, source, target, pace)
            if head.meta is not None:
                await target.copies.describe(place, head.meta)
            if pace is not None:
                pace.made(head.kept_bytes)
            return True
        except CorruptCopy as error:
            cluster.trouble(source, place.part, error)
        except ReplacedCopy:
            return False  # the next pass sees the version that came
        except OSError:
            continue
    return False


async def _stream(place: Place, head: Head, source: Drive, target: Drive, pace: Pace | None) -> None:
    present = await target.copies.head(place)
    if present is not None and present.stamp >= head.stamp:
        return
    writer = await target.copies.begin(place)
    try:
        held, parts = 0, list[Chunk]()
        async for chunk in source.copies.read(place, head, 0, head.size_bytes):
            parts.append(chunk)
            held += len(chunk)
            if held >= STRIDE_BYTES:
                if pace is not None:
                    await pace.spend(held)
                await writer.write(parts[0] if len(parts) == 1 else b"".join(parts))
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
    """Merge all copies of one index into each drive that shall hold it."""
    drives = cluster.everywhere(kind, place.part)
    primaries, wished = cluster.ring.primaries(place.part), cluster.wished(place.part)
    asked = await ask_each(drives, lambda drive: drive.indexes.digest(kind, place), ASK_TIMEOUT_S)
    digests = {drive.id: digest for drive, digest in zip(drives, asked, strict=True) if isinstance(digest, int)}
    here = {drive.id for drive in wished}
    outcome = Outcome(whole=all(name in digests and name in here for name in primaries))
    outcome.settled = len(here) == cluster.copies(place.part) and all(name in digests for name in here)
    holders = [drive for drive in drives if digests.get(drive.id)]
    strays = [drive for drive in holders if drive.id not in primaries]
    if outcome.whole and len({digests[name] for name in primaries}) == 1 and not strays:
        return outcome
    known = {digests.get(drive.id) for drive in (*wished, *holders)}
    for source in holders if len(known) > 1 else ():
        for target in wished:
            if target is source or target.id not in digests:
                continue
            try:
                outcome.copied += await _merge_index(cluster, kind, place, source, target)
            except OSError:
                outcome.whole = outcome.settled = False
    if outcome.whole:
        for drive in strays:
            try:
                # It may have grown meanwhile: what is not in the primaries yet stays.
                if await drive.indexes.digest(kind, place) == digests[drive.id]:
                    await drive.indexes.drop(kind, place)
                    outcome.dropped += 1
            except OSError:
                continue
    return outcome


async def _merge_index(cluster: Cluster, kind: IndexKind, place: Place, source: Drive, target: Drive) -> int:
    """Give the target whatever the source has that it lacks; returns how many rows went."""
    head = await source.indexes.head(kind, place)
    if head is None:
        raise DriveTrouble("the index went away")
    await target.indexes.apply(kind, place, said(head))
    after, copied = "", 0
    while ours := await source.indexes.versions(kind, place, after, COMPARED_AT_ONCE):
        theirs = await target.indexes.versions(kind, place, after, COMPARED_AT_ONCE)
        end = ours[-1][0] if len(theirs) < COMPARED_AT_ONCE else min(ours[-1][0], theirs[-1][0])
        known = {name: (stamp, told) for name, stamp, told in theirs}
        behind = after
        for name, stamp, told in ours:
            if name > end:
                break
            if name > after and known.get(name, NEVER) < (stamp, told):
                rows = await source.indexes.rows(kind, place, behind, ROWS_AT_ONCE)
                fresh = tuple(row for row in rows if row.name <= end and known.get(row.name, NEVER) < row.version)
                if fresh:
                    await target.indexes.apply(kind, place, Change(head.account, head.container, fresh))
                copied += len(fresh)
                after = rows[-1].name if rows else name
            behind = name
        after = end
    if copied:
        cluster.on_index_healed(head)
    return copied


def said(head: IndexHead) -> Change:
    """The head of an index, without its rows, as a change."""
    return Change(head.account, head.container, made=head.made, gone=head.gone, fields=head.fields)

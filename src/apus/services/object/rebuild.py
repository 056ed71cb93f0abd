"""Has the archives of one partition where they belong: what repair does for objects in fragments.

Digests first, as for copies: each drive's is turned by its place (`logic/code.py`), so equal ones say that all have
theirs.  An archive that is on another drive is copied; one that is on none is rebuilt from k others of its version.
Running it twice, or on two nodes at once, is harmless: an archive is the same wherever it is made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Final

import msgspec

from apus.kernel.errors import Unavailable
from apus.services.object.archives import Archives
from apus.services.object.claims import Claim, claim_on
from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.drivers.drive import CopyWriter, Drive
from apus.services.object.drivers.trailer import Checksums
from apus.services.object.fragment_reading import windows
from apus.services.object.logic import codec
from apus.services.object.logic.code import group_of, index_of, turned_back
from apus.services.object.logic.heal import Version
from apus.services.object.logic.heal_archives import ArchivePlan, plan
from apus.services.object.model import STRIDE_BYTES, CorruptCopy, Head, Place
from apus.services.object.repair import ASK_TIMEOUT_S, Outcome, copy_version

AT_ONCE: Final = 4
"""Versions of a partition that are repaired side by side: each holds some segments in memory."""

Group = Mapping[int, Collection[str]]
"""The archives of one version: by number, the drives that have it."""


async def heal_archives(cluster: Cluster, part: int) -> Outcome:
    drives = cluster.everywhere("objects", part)
    digests = await ask_each(drives, lambda drive: drive.copies.digest(part), ASK_TIMEOUT_S)
    answering = {drive.id: digest for drive, digest in zip(drives, digests, strict=True) if isinstance(digest, int)}
    primaries = cluster.ring.primaries(part)
    wished = [drive.id for drive in cluster.wished(part)]
    outcome = Outcome(whole=all(name in answering and name in wished for name in primaries))
    outcome.settled = len(wished) == cluster.copies(part) and all(name in answering for name in wished)
    outcome.silent = len(drives) - len(answering)
    at_home = {turned_back(answering[name], index) for index, name in enumerate(primaries) if name in answering}
    elsewhere = [digest for name, digest in answering.items() if name not in primaries]
    if not any(answering.values()) or (outcome.whole and len(at_home) == 1 and not any(elsewhere)):
        return outcome
    healing = _Healing(cluster, part, outcome)
    await healing.take_stock([drive for drive in drives if drive.id in answering])
    await healing.run([name for name in wished if name in answering])
    return outcome


class _Healing:
    """One partition whose archives are not where they belong."""

    def __init__(self, cluster: Cluster, part: int, outcome: Outcome) -> None:
        self._cluster, self._part, self._outcome = cluster, part, outcome
        self._groups: dict[str, dict[int, list[str]]] = {}
        self._versions: dict[str, Version] = {}

    async def take_stock(self, drives: Sequence[Drive]) -> None:
        for drive in drives:  # one after the other: each takes a while, and clients should have their turn
            (answer,) = await ask_each([drive], lambda drive: drive.copies.inventory(self._part), ASK_TIMEOUT_S)
            if isinstance(answer, OSError):
                self._outcome.whole = self._outcome.settled = False
                continue
            for hash_hex, version in answer.items():
                group = self._groups.setdefault(group_of(hash_hex), {})
                group.setdefault(index_of(hash_hex), []).append(drive.id)
                self._versions[group_of(hash_hex)] = version
            await asyncio.sleep(0)

    async def run(self, wished: Sequence[str]) -> None:
        primaries = self._cluster.ring.primaries(self._part)
        todo: list[tuple[str, ArchivePlan]] = []
        for name in sorted(self._groups):
            wanted = plan(self._groups[name], primaries=primaries, wished=wished)
            if not wanted.is_done:
                todo.append((name, wanted))
        for at in range(0, len(todo), AT_ONCE):
            await asyncio.gather(*(self._group(name, wanted) for name, wanted in todo[at : at + AT_ONCE]))

    async def _group(self, name: str, wanted: ArchivePlan) -> None:
        """Make what is lacking, then take from where they do not belong those that need not be there."""
        held, drives = self._groups[name], self._cluster.drives
        missing = {index: drives[target] for index, target in wanted.lacking if not held.get(index)}
        if missing and await self._claim(name, held) is not Claim.LIVE:
            self._cluster.unclaimed.setdefault((self._part, name), self._cluster.world.clock.monotonic_s())
            return  # the sweeper's
        done = True
        for index, target in wanted.lacking:
            if index not in missing:
                sources = [drives[one] for one in held[index] if one in drives]
                done &= await self._copy(Place(self._part, f"{name}{index:02x}"), name, sources, drives[target])
        if missing:
            done &= await self._rebuild(name, held, missing)
        self._outcome.whole &= done
        self._outcome.settled &= done
        for index, stray in wanted.strays if done else ():
            if stray in drives:
                place = Place(self._part, f"{name}{index:02x}")
                self._outcome.dropped += await drop_archive(drives[stray], place, self._versions[name])

    async def _copy(self, place: Place, name: str, sources: Sequence[Drive], target: Drive) -> bool:
        cluster = self._cluster
        copied = await copy_version(cluster, place, self._versions[name], sources, target, cluster.pace)
        self._outcome.copied += copied
        return copied

    async def _rebuild(self, name: str, held: Group, missing: Mapping[int, Drive]) -> bool:
        await self._cluster.pace.turn()
        try:
            head = await self._head(name, held)
            await rebuild_archives(self._cluster, self._part, name, head, self._where(held), missing)
        except (OSError, Unavailable):
            return False
        self._outcome.copied += len(missing)
        return True

    async def _claim(self, name: str, held: Group) -> Claim:
        try:
            return await claim_on(self._cluster, await self._head(name, held), self._part)
        except OSError:
            return Claim.LIVE

    async def _head(self, name: str, held: Group) -> Head:
        """What any of the archives says.  Raise OSError."""
        for index, drive in self._where(held):
            try:
                head = await drive.copies.head(Place(self._part, f"{name}{index:02x}"))
            except OSError as error:
                self._cluster.trouble(drive, self._part, error)
                continue
            if head is not None and head.coded is not None:
                return head
        raise CorruptCopy("no archive of this version can be read")

    def _where(self, held: Group) -> list[tuple[int, Drive]]:
        drives = self._cluster.drives
        return [(index, drives[name]) for index in sorted(held) for name in held[index] if name in drives]


async def rebuild_archives(
    cluster: Cluster,
    part: int,
    group: str,
    head: Head,
    where: Sequence[tuple[int, Drive]],
    missing: Mapping[int, Drive],
) -> None:
    """Make these archives from k others and put each on its drive.  Raise OSError, Unavailable."""
    coded = head.coded
    assert coded is not None
    archives = Archives(cluster, part, group, coded, where)
    places = {index: Place(part, f"{group}{index:02x}") for index in missing}
    sums = {index: Checksums() for index in missing}
    made: dict[int, list[bytes]] = {index: [] for index in missing}
    code, size = archives.code, archives.code.archive_bytes(coded.size_bytes)
    async with AsyncExitStack() as stack:
        writers: dict[int, CopyWriter] = {}
        for window in windows(coded, 0, coded.size_bytes):
            await cluster.pace.spend(code.data * window.length)
            pieces = await archives.pieces(window.offset, window.length)
            for index, drive in missing.items():
                piece = codec.rebuild(code, pieces, index)
                sums[index].add(piece)
                if size <= STRIDE_BYTES:
                    made[index].append(piece)
                    continue
                if index not in writers:
                    writers[index] = await drive.copies.begin(places[index])
                    stack.push_async_callback(writers[index].abort)
                await writers[index].write(piece)
        for index, drive in missing.items():
            own = msgspec.structs.replace(
                head,
                size_bytes=size,
                checksums=sums[index].value(),
                coded=msgspec.structs.replace(coded, index=index),
            )
            if index in writers:
                await writers[index].commit(own)
            else:
                await drive.copies.store(places[index], own, b"".join(made[index]))
            cluster.pace.made(size)


async def drop_archive(drive: Drive, place: Place, version: Version) -> bool:
    try:
        await drive.copies.drop(place, version)
    except OSError:
        return False
    return True

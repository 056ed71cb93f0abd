"""Linearizable reads: hear so many copies that every acknowledged write is among them, and have the newest on a quorum
before it is shown, so that nobody reads anything older afterwards.  Where that cannot be, refuse."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

from apus.kernel.errors import Unavailable
from apus.services.object.cluster import Cluster
from apus.services.object.drivers.drive import Drive
from apus.services.object.logic.certainty import is_certain
from apus.services.object.model import Head, Place
from apus.services.object.repair import copy_version

ASK_TIMEOUT_S: Final = 5.0
HEDGE_S: Final = 0.1
"""How long an answer that is certain waits for the next drive: one that is only busy need not be doubted."""
TRIES: Final = 5
"""Of a read that finds something newer whenever it looks again."""


async def newest_of_quorum(cluster: Cluster, place: Place) -> tuple[Head, Drive, bytes | None] | None:
    """The newest version (a tombstone too), where it is, and its bytes if they are few; None when there is none.

    Raise Unavailable when too few copies answer to say so.
    """
    for _ in range(TRIES):
        heads = await _heads(cluster, place)
        found = {name: head for name, head in heads.items() if head is not None}
        if not found:
            return None
        newest = max(head.version for head in found.values())
        cluster.saw(newest)
        holders = [cluster.drives[name] for name, head in found.items() if head.version == newest]
        await _have_on_quorum(cluster, place, newest, holders, heads)
        for drive in holders:
            try:
                got = await drive.copies.fetch(place)
            except OSError as error:
                cluster.trouble(drive, place.part, error)
                continue
            if got is not None and got[0].version == newest:
                return got[0], drive, got[1]
    raise Unavailable("object.no_strong_read", "It changes faster than a strong read can follow; ask again.")


async def outrank(cluster: Cluster, place: Place) -> None:
    """See to it that the next stamp is newer than every acknowledged version here.  Raise Unavailable."""
    heads = await _heads(cluster, place)
    for head in heads.values():
        if head is not None:
            cluster.saw(head.version)


async def _heads(cluster: Cluster, place: Place) -> Mapping[str, Head | None]:
    """What each drive that answers has.  Raise Unavailable when they are too few."""
    votes = _Votes(cluster, place)
    await votes.hear()
    if not votes.are_enough():
        raise Unavailable("object.no_strong_read", f"A strong read is not possible now: {votes.lacking()}.")
    return votes.heads


class _Votes:
    """What was heard of the drives that may have something of one object."""

    def __init__(self, cluster: Cluster, place: Place) -> None:
        self.heads: dict[str, Head | None] = {}
        self._cluster, self._place = cluster, place
        self._drives = cluster.everywhere("objects", place.part)
        self._waiting = list(self._drives)
        self._patience = asyncio.timeout(None)
        self._primaries, self._quorum = cluster.ring.primaries(place.part), cluster.quorum(place.part)
        self._loose = cluster.is_loose("objects", place.part)

    async def hear(self) -> None:
        """Until all have answered; or enough have, and the rest is away or late."""
        with contextlib.suppress(TimeoutError):
            async with self._patience:
                await asyncio.gather(*(self._ask(drive) for drive in self._drives))

    def are_enough(self) -> bool:
        """Every acknowledged version is among them: who was not heard might as well be away."""
        cluster, voted = self._cluster, self._voted()
        asked = [drive.id for drive in self._drives]
        silent_hosts = {cluster.host_of(name) for name in asked if name not in voted}
        few_hosts = cluster.shared and not cluster.former and len(silent_hosts) < cluster.hosts_needed(self._place.part)
        loose = self._loose and not few_hosts
        return is_certain(voted, asked=asked, primaries=self._primaries, quorum=self._quorum, loose=loose)

    def lacking(self) -> str:
        """Why they are not enough."""
        voted = self._voted()
        heard = sum(name in voted for name in self._primaries)
        if heard < self._quorum:
            return f"{heard} of {len(self._primaries)} copies can be relied upon, and {self._quorum} are needed"
        silent = sum(drive.id not in voted for drive in self._drives)
        return f"what was written while drives were away or moving may be on {silent} drives that do not answer"

    def _voted(self) -> set[str]:
        return {name for name in self.heads if self._cluster.remembers(name, self._place.part)}

    async def _ask(self, drive: Drive) -> None:
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                self.heads[drive.id] = await drive.copies.head(self._place)
        except OSError as error:
            self._cluster.trouble(drive, self._place.part, error)
        self._waiting.remove(drive)
        if self._waiting and len(self.heads) >= self._quorum and self.are_enough():
            late = any(not self._cluster.is_away(other) for other in self._waiting)
            self._patience.reschedule(asyncio.get_running_loop().time() + (HEDGE_S if late else 0.0))


async def _have_on_quorum(
    cluster: Cluster, place: Place, newest: tuple[str, str], holders: list[Drive], heads: Mapping[str, Head | None]
) -> None:
    primaries, quorum = cluster.ring.primaries(place.part), cluster.quorum(place.part)
    held = sum(drive.id in primaries for drive in holders)
    if held < len(primaries):
        cluster.repairs.add("objects", place.part)
    for name in primaries:
        if held >= quorum:
            return
        drive = cluster.drives.get(name)
        if drive is None or name not in heads or drive in holders:
            continue
        held += await copy_version(cluster, place, newest, holders, drive)
    if held < quorum:
        shown = f"the newest version could be written to {held} copies, and {quorum} are needed"
        raise Unavailable("object.no_strong_read", f"A strong read is not possible now: {shown}.")

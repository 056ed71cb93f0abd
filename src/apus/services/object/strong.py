"""Linearizable reads: hear so many copies that every acknowledged write is among them, and have the newest on a quorum
before it is shown, so that nobody reads anything older afterwards.  Where that cannot be, refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from apus.kernel.errors import Unavailable
from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.drivers.drive import Drive
from apus.services.object.logic.certainty import is_certain
from apus.services.object.model import Head, Place
from apus.services.object.repair import copy_version

ASK_TIMEOUT_S: Final = 5.0
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
    drives = cluster.everywhere("objects", place.part)
    primaries = cluster.ring.primaries(place.part)
    quorum = cluster.quorum(place.part)
    loose = cluster.is_loose("objects", place.part)
    answers = await ask_each(drives, lambda drive: drive.copies.head(place), ASK_TIMEOUT_S)
    heads: dict[str, Head | None] = {}
    for drive, answer in zip(drives, answers, strict=True):
        if isinstance(answer, OSError):
            cluster.trouble(drive, place.part, answer)
        else:
            heads[drive.id] = answer
    voted = {name for name in heads if cluster.remembers(name, place.part)}
    asked = [drive.id for drive in drives]
    silent_hosts = {cluster.host_of(name) for name in asked if name not in voted}
    few_hosts = cluster.shared and not cluster.former and len(silent_hosts) < cluster.hosts_needed(place.part)
    if not is_certain(voted, asked=asked, primaries=primaries, quorum=quorum, loose=loose and not few_hosts):
        heard = sum(name in voted for name in primaries)
        shown = f"{heard} of {len(primaries)} copies can be relied upon, and {quorum} are needed"
        if heard >= quorum:
            silent = sum(name not in voted for name in asked)
            shown = f"what was written while drives were away or moving may be on {silent} drives that do not answer"
        raise Unavailable("object.no_strong_read", f"A strong read is not possible now: {shown}.")
    return heads


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

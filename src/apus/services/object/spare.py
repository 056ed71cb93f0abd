"""Whether a drive may go: nothing that is only on it may be lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from apus.kernel.errors import Conflict
from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.drivers.drive import Drive
from apus.services.object.logic.progress import work_left
from apus.services.object.logic.rings import Rings
from apus.services.object.model import IndexKind

ASK_S: Final = 30.0

INDEXES: Final[tuple[IndexKind, ...]] = ("accounts", "containers")


async def check_spare(cluster: Cluster, ring: Rings, drives: Mapping[str, Drive], drive_id: str) -> None:
    """Raise Conflict while others lack something that they should hold without this drive."""
    others = [one for one in ring.drives if one.id != drive_id and one.weight > 0]
    copies = max(one.copies for one in ring.every_ring())
    if len(others) < copies:
        raise Conflict(
            "object.too_few_drives",
            f"{copies} copies need {copies} drives, and {len(others)} would be left;"
            " possible once another was added (`apus object drive add`).",
        )
    drive = drives[drive_id]
    rest = [one for name, one in drives.items() if name != drive_id]
    away = cluster.is_away(drive)
    held = None if away else await _held_by(cluster, drive)
    if held is None:
        held = await _short(cluster, ring, rest)
    if held:
        shown = f"{drive_id} is away, and {held:,} copies that it should hold are nowhere else"
        drained = f"{drive_id} still holds {held:,} versions and indexes"
        how = (
            "possible when repair has made them (`apus object repair status`), or the drive is back"
            if away
            else f"possible when they have moved: `apus object drive drain {drive_id}`, then"
            " `apus object repair status` says how long it takes"
        )
        raise Conflict("object.copies_needed", f"{shown if away else drained}; {how}.", details={"copies": held})


async def _held_by(cluster: Cluster, drive: Drive) -> int | None:
    """How much is on it; None when it does not say."""
    try:
        held = sum(count for count, _ in (await drive.copies.census()).values())
    except OSError as error:
        cluster.failed(drive, error)
        return None
    return held + sum([len(await _index_copies(kind, [drive])) for kind in INDEXES])


async def _short(cluster: Cluster, ring: Rings, drives: Sequence[Drive]) -> int:
    """Copies of what is known that are missing while there are only these drives."""
    answers = await ask_each(drives, lambda drive: drive.copies.census(), ASK_S)
    held = {one.id: answer for one, answer in zip(drives, answers, strict=True) if not isinstance(answer, OSError)}
    short = work_left(held, ring.ring_of, lambda part: (), ring.every_part()).at_risk
    for kind in INDEXES:
        short += sum(max(0, ring.copies - count) for count in (await _index_copies(kind, drives)).values())
    return short


async def _index_copies(kind: IndexKind, drives: Sequence[Drive]) -> Counter[str]:
    """On how many of these drives each index is."""
    found = Counter[str]()
    for drive in drives:
        try:
            for part in await drive.indexes.parts(kind):
                found.update(place.hash for place in await drive.indexes.places(kind, part))
        except OSError:
            continue
    return found

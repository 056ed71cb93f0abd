"""What repair has to do, does and did: for the command, the metrics and the events."""

from __future__ import annotations

import msgspec

from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.engine import READ_TIMEOUT_S
from apus.services.object.logic.progress import seconds_left, work_left


class RepairStatus(msgspec.Struct, frozen=True, kw_only=True):
    """As `GET /apus/v1/object/repair` shows it.  Copies are of versions of objects."""

    state: str
    """idle | repairing | waiting (for a drive) | paused."""
    copies_at_risk: int
    """Missing: fewer copies of something are left than there should be."""
    versions_alone: int
    """Versions that the next loss would end: one copy is left, or no fragment too many."""
    copies_to_make: int
    """At risk, or not yet on the drive where they belong."""
    copies_per_s: float
    bytes_per_s: float
    """Of all proxies, as are the copies to make; what is queued and in doubt is what this one knows of."""
    seconds_left: float | None
    """None: nobody can say yet, or repair is paused."""
    cap_bytes_s: int
    """0: none."""
    partitions_in_doubt: int
    partitions_queued: int
    """Of these in doubt, those that can be looked at now."""
    drives_away: tuple[str, ...]
    hosts_away: tuple[str, ...]
    """None of their drives answers."""
    copies_made: int
    bytes_copied: int
    """Since the process began."""


async def repair_status(cluster: Cluster) -> RepairStatus:
    drives = [drive for drive in cluster.drives.values() if not cluster.is_away(drive)]
    answers = await ask_each(drives, lambda drive: drive.copies.census(), READ_TIMEOUT_S)
    counted = {
        drive.id: answer for drive, answer in zip(drives, answers, strict=True) if not isinstance(answer, OSError)
    }
    doubted = [part for room, part in cluster.repairs.waiting() if room == "objects"]
    work = work_left(counted, cluster.ring.ring_of, lambda part: [one.id for one in cluster.wished(part)], doubted)
    copies_per_s, bytes_per_s = cluster.pace.rate_of_all()
    wish = cluster.pace.wish
    return RepairStatus(
        state=_state(cluster),
        copies_at_risk=work.at_risk,
        versions_alone=work.alone,
        copies_to_make=work.to_make,
        copies_per_s=round(copies_per_s, 2),
        bytes_per_s=round(bytes_per_s, 1),
        seconds_left=None if wish.paused and work.to_make else seconds_left(work.to_make, copies_per_s),
        cap_bytes_s=wish.cap_bytes_s,
        partitions_in_doubt=cluster.repairs.count(),
        partitions_queued=cluster.repairs.queued,
        drives_away=tuple(name for name, drive in cluster.drives.items() if cluster.is_away(drive)),
        hosts_away=tuple(host for host, share in sorted(cluster.hosts_away().items()) if share == 1.0),
        copies_made=cluster.pace.copied,
        bytes_copied=cluster.pace.copied_bytes,
    )


def _state(cluster: Cluster) -> str:
    if not cluster.repairs.count():
        return "repairing" if any(other.works for other in cluster.pace.others().values()) else "idle"
    if cluster.pace.wish.paused:
        return "paused"
    return "repairing" if cluster.repairs.queued else "waiting"

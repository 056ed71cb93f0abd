"""Which archives are still somebody's: those that the newest head of their object names.

Archives are written before the head, and are not replaced, so two kinds are left behind: *spent* ones, of a version
that a newer one or a delete has taken the place of, and *orphans*, of a write that ended before its head was anywhere.
"""

from __future__ import annotations

import enum
from typing import Final

from apus.kernel.errors import Unavailable
from apus.services.object.cluster import Cluster, ask_each
from apus.services.object.logic.rings import policy_of
from apus.services.object.model import Head, Place
from apus.services.object.strong import newest_of_quorum

ASK_TIMEOUT_S: Final = 5.0


class Claim(enum.Enum):
    LIVE = "live"
    """Of the newest version; or nobody can say now."""
    SPENT = "spent"
    """A quorum has a newer version."""
    ORPHAN = "orphan"
    """No drive has a head as new, and each of them was asked: one may still be on its way."""


async def claim_on(cluster: Cluster, archive: Head, part: int) -> Claim:
    """`archive`: what one of them says of itself; `part`: theirs."""
    place = cluster.place(archive.account, archive.container, archive.name, policy=policy_of(part))
    try:
        sure = await newest_of_quorum(cluster, place)
    except Unavailable:
        return Claim.LIVE
    if sure is not None and sure[0].stamp >= archive.stamp:
        return Claim.SPENT if sure[0].stamp > archive.stamp else Claim.LIVE
    return Claim.ORPHAN if await _nobody_has(cluster, place, archive.stamp) else Claim.LIVE


async def _nobody_has(cluster: Cluster, place: Place, stamp: str) -> bool:
    """A head that nobody was told of may be on a drive that is away, and be the newest when that returns."""
    if cluster.former or any(cluster.is_away(drive) for drive in cluster.drives.values()):
        return False
    drives = cluster.everywhere("objects", place.part)
    answers = await ask_each(drives, lambda drive: drive.copies.head(place), ASK_TIMEOUT_S)
    return not any(isinstance(one, OSError) or (one is not None and one.stamp >= stamp) for one in answers)

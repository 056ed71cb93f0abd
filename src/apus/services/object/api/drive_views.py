"""A drive as its operator sees it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from apus.services.object.assembly import ObjectStore


async def drive_views(store: ObjectStore) -> list[dict[str, Any]]:
    """Each drive of the ring: where it stands, what it shall hold and what it holds, and what is wrong with it."""
    ring = store.cluster.ring
    share = Counter(place for one in ring.every_ring() for place in one.places)
    views: list[dict[str, Any]] = []
    for place, spec in enumerate(ring.drives):
        drive = store.membership.drives[spec.id]
        free: int | None = None
        versions: int | None = None
        trouble: str | None = None
        try:
            free = await drive.free_bytes()
            versions = sum(count for count, _ in (await drive.copies.census()).values())
        except OSError as error:
            trouble = error.strerror or str(error)
        views.append(
            {
                "id": spec.id,
                "path": str(drive.root),
                "region": spec.region,
                "zone": spec.zone,
                "host": spec.host,
                "weight": spec.weight,
                "partitions": share[place],
                "versions": versions,
                "free_bytes": free,
                "state": _state(trouble, spec.weight, versions),
                "trouble": trouble,
            }
        )
    return views


def _state(trouble: str | None, weight: float, versions: int | None) -> str:
    if trouble is not None:
        return "away"
    if weight > 0:
        return "in use"
    return "draining" if versions else "empty"

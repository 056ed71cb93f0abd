"""A drive as its operator sees it."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from apus.services.object.assembly import ObjectStore
from apus.services.object.cluster import ask_each
from apus.services.object.drivers.drive import KeptDrive
from apus.services.object.logic.ring import DriveSpec

ASK_S: Final = 10.0


async def drive_views(store: ObjectStore) -> list[dict[str, Any]]:
    """Each drive of the ring: where it stands, what it shall hold and what it holds, and what is wrong with it."""
    layout, drives = store.membership.layout, store.membership.drives
    share = Counter(place for one in layout.ring.every_ring() for place in one.places)
    specs = layout.ring.drives
    found = await ask_each([drives[spec.id] for spec in specs], _look, ASK_S)
    return [
        _view(spec, layout.paths[spec.id], share[place], seen)
        for place, (spec, seen) in enumerate(zip(specs, found, strict=True))
    ]


async def _look(drive: KeptDrive) -> tuple[int, int]:
    """Free bytes, and versions of objects."""
    free_bytes = await drive.free_bytes()
    return free_bytes, sum(count for count, _ in (await drive.copies.census()).values())


def _view(spec: DriveSpec, path: str, partitions: int, seen: tuple[int, int] | OSError) -> dict[str, Any]:
    if isinstance(seen, OSError):
        free_bytes, versions, trouble = None, None, seen.strerror or str(seen) or "no answer"
    else:
        free_bytes, versions, trouble = *seen, None
    return {
        "id": spec.id,
        "path": path,
        "region": spec.region,
        "zone": spec.zone,
        "host": spec.host,
        "weight": spec.weight,
        "partitions": partitions,
        "versions": versions,
        "free_bytes": free_bytes,
        "state": _state(trouble, spec.weight, versions),
        "trouble": trouble,
    }


def _state(trouble: str | None, weight: float, versions: int | None) -> str:
    if trouble is not None:
        return "away"
    if weight > 0:
        return "in use"
    return "draining" if versions else "empty"

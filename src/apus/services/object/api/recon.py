"""`/recon/…`: what Swift's storage servers say of themselves, for an operator.  `/apus/v1/object` says more."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from apus.kernel.errors import NotFound
from apus.services.object.repair_status import repair_status
from apus.services.object.service import Objects
from apus.wire.route import ApiRequest, Reply


async def _version(service: Objects) -> Any:
    return {"version": VERSION}


async def _time(service: Objects) -> Any:
    return service.cluster.world.clock.now_s()


async def _ring(service: Objects) -> Any:
    ring = msgspec.json.encode(service.cluster.ring)
    return {"object.ring": hashlib.md5(ring, usedforsecurity=False).hexdigest()}


async def _devices(service: Objects) -> Any:
    return {"drives": sorted(service.cluster.drives)}


async def _unmounted(service: Objects) -> Any:
    away = []
    for drive in service.cluster.drives.values():
        try:
            await drive.pending.names()
        except OSError:
            away.append({"device": drive.id, "mounted": False})
    return away


async def _async(service: Objects) -> Any:
    """Changes to listings that are still to be made."""
    count = 0
    for drive in service.cluster.drives.values():
        try:
            count += len(await drive.pending.names())
        except OSError:
            continue
    return {"async_pending": count}


async def _replication(service: Objects) -> Any:
    """As `swift-recon --replication` reads it: the last pass, and what is left to do."""
    cluster = service.cluster
    status = await repair_status(cluster)
    doubted = sum(room == "objects" for room, _ in cluster.repairs.waiting())
    ended_s, took_s = cluster.passed or (0.0, 0.0)
    stats = {
        "attempted": cluster.ring.parts,
        "success": cluster.ring.parts - doubted,
        "failure": doubted,
        "failure_nodes": {name: {} for name in status.drives_away},
        "rsync": status.copies_made,
        "copies_at_risk": status.copies_at_risk,
        "copies_to_make": status.copies_to_make,
        "copies_per_s": status.copies_per_s,
        "seconds_left": status.seconds_left,
    }
    return {
        "object_replication_last": ended_s,
        "object_replication_time": took_s / 60,
        "replication_last": ended_s,
        "replication_time": took_s,
        "replication_stats": stats,
    }


VERSION: Final = "2.36.0"
"""The Swift whose API this is."""

_TOLD: Final[Mapping[str, Callable[[Objects], Awaitable[Any]]]] = {
    "version": _version,
    "time": _time,
    "ringmd5": _ring,
    "devices": _devices,
    "unmounted": _unmounted,
    "async": _async,
    "replication": _replication,
    "replication/object": _replication,
}


async def show(request: ApiRequest) -> Reply:
    told = _TOLD.get(request.params["what"])
    if told is None:
        raise NotFound("object.recon", f"Invalid path: /recon/{request.params['what']}")
    return Reply(await told(request.service), 200)

"""What Prometheus hears of the object store."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final

from apus.services.object.assembly import ObjectStore
from apus.services.object.repair_status import RepairStatus, repair_status
from apus.wire.metrics import Metrics

KEPT_S: Final = 0.5

REPAIR: Final = {
    "copies_at_risk": ("copies_at_risk", "Copies of versions that are missing: nobody holds them."),
    "copies_to_make": ("copies_to_make", "Copies that are missing, or not yet on the drive where they belong."),
    "versions_alone": ("versions_alone", "Versions of which one copy is left."),
    "repair_copies_per_second": ("copies_per_s", "Copies that repair made in a second, of late."),
    "repair_bytes_per_second": ("bytes_per_s", "Bytes that repair copied in a second, of late."),
    "repair_seconds_left": ("seconds_left", "What repair still takes by its rate of late; absent: nobody can say."),
    "repair_cap_bytes_per_second": ("cap_bytes_s", "What repair may copy in a second; 0 is any number."),
    "repair_copies_made": ("copies_made", "Copies that repair has made since the process began."),
    "partitions_in_doubt": ("partitions_in_doubt", "Partitions whose copies are not known to be equal."),
}
"""Metric -> the field of the status, and what it is."""


def watch_store(store: ObjectStore, metrics: Metrics) -> None:
    metrics.watch(
        "apus_object_drive_away", "Drives that failed and have not worked since.", "drive", store.cluster.away
    )

    async def hosts() -> Mapping[str, float]:
        return store.cluster.hosts_away()

    metrics.watch(
        "apus_object_host_away", "Share of a host's drives that failed and have not worked since.", "host", hosts
    )

    async def windows() -> Mapping[str, float]:
        return store.cluster.freshness.seconds()

    async def writes() -> Mapping[str, float]:
        freshness = store.cluster.freshness
        return {"all": float(freshness.writes), "short": float(freshness.short)}

    metrics.watch(
        "apus_object_stale_window_seconds",
        "For how long copies of a partition may have differed: of the last 1,000 such windows, and of the oldest open.",
        "window",
        windows,
    )
    metrics.watch(
        "apus_object_writes",
        "Writes of objects and indexes; short: not every copy had it before the answer.",
        "kind",
        writes,
    )
    shards = store.service.directory.shards

    async def in_shards() -> Mapping[str, float]:
        return {"/".join(owner): float(len(one.bounds)) for owner, one in shards.known().items()}

    async def cuts() -> Mapping[str, float]:
        return {"cut": float(shards.cuts), "joined": float(shards.joins)}

    async def waiting() -> Mapping[str, float]:
        changing = sum(not one.is_settled for one in shards.known().values())
        return {"changing": float(changing), "to_look_at": float(len(shards.wanted))}

    metrics.watch(
        "apus_object_shards", "Shards of an account or container in use whose index is cut.", "index", in_shards
    )
    metrics.watch("apus_object_shards_changed", "Shards made and given up since the process began.", "kind", cuts)
    metrics.watch(
        "apus_object_sharding", "Indexes that are being cut or joined, and that are to be looked at.", "kind", waiting
    )
    seen = _Seen(store)
    for name, (field, about) in REPAIR.items():
        metrics.watch(f"apus_object_{name}", about, "room", partial(seen.figure, field))


class _Seen:
    """The status of repair, once for all the figures of a scrape."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._at_s = -KEPT_S
        self._status: RepairStatus | None = None

    async def figure(self, name: str) -> Mapping[str, float]:
        now_s = self._store.world.clock.monotonic_s()
        if self._status is None or now_s - self._at_s >= KEPT_S:
            self._at_s, self._status = now_s, await repair_status(self._store.cluster)
        value = getattr(self._status, name)
        return {} if value is None else {"objects": float(value)}

"""What Swift's answers look like: headers of accounts, containers and objects."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from apus.services.object.logic.account_access import ACCESS, DOMAIN
from apus.services.object.logic.conditions import http_date
from apus.services.object.logic.hidden import shown
from apus.services.object.logic.history import archive_of
from apus.services.object.logic.listed import MANIFEST, own_etag
from apus.services.object.logic.merge import seconds_of, swift_time
from apus.services.object.logic.quota import account_quotas
from apus.services.object.logic.symlink import target_of
from apus.services.object.logic.versions import state_of
from apus.services.object.model import Head, IndexHead
from apus.services.object.policy_totals import Totals

OWNERS: Final = (
    "x-container-read", "x-container-write", "x-container-sync-key", "x-container-sync-to",
    "x-container-meta-temp-url-key", "x-container-meta-temp-url-key-2",
    "x-account-meta-temp-url-key", "x-account-meta-temp-url-key-2",
)  # fmt: skip
"""What only the owner of a container or account sees of it."""


def object_headers(head: Head) -> dict[str, str]:
    headers = {
        "content-length": str(head.shown_size_bytes),
        "accept-ranges": "bytes",
        "last-modified": last_modified(head.changed),
        "etag": head.shown_etag,
        "x-timestamp": swift_time(head.changed),
        **shown(head.shown_headers),
    }
    if MANIFEST in head.headers:
        headers |= {"x-static-large-object": "True", "x-manifest-etag": own_etag(head)}
    target = target_of(head)
    if target is not None:
        headers["x-symlink-target"] = quote(f"{target.container}/{target.name}")
        if target.account != head.account:
            headers["x-symlink-target-account"] = quote(target.account)
        if target.etag:
            headers |= {"x-symlink-target-etag": target.etag, "x-symlink-target-bytes": str(target.size_bytes)}
    return headers


def path_of(head: Head) -> str:
    return quote(f"/v1/{head.account}/{head.container}/{head.name}")


@functools.lru_cache(4096)
def last_modified(stamp: str) -> str:
    return http_date(last_modified_s(stamp))


def last_modified_s(stamp: str) -> int:
    """Rounded up, so that `If-Modified-Since` with this date is not older than the object."""
    return math.ceil(seconds_of(stamp))


def container_headers(head: IndexHead, policy: str, *, to_owner: bool) -> dict[str, str]:
    hidden = () if to_owner else OWNERS
    headers = {
        "accept-ranges": "bytes",
        "x-container-object-count": str(head.rows),
        "x-container-bytes-used": str(head.size_bytes),
        "x-timestamp": swift_time(head.made),
        "last-modified": last_modified(max([head.made, *(stamp for _, stamp in head.fields.values())])),
        "x-storage-policy": policy,
        **{name: value for name, value in shown(head.metadata).items() if name not in hidden},
    }
    state, archive = state_of(head.metadata), archive_of(head.metadata)
    if state:
        headers["x-versions-enabled"] = str(state == "enabled")
    if archive is not None:
        name = "x-history-location" if archive.mode == "history" else "x-versions-location"
        headers[name] = quote(archive.container)
    return headers


def account_headers(
    head: IndexHead | None, now_s: float, totals: Mapping[str, Totals], *, to_owner: bool
) -> dict[str, str]:
    metadata = shown(head.metadata) if head else {}
    for name, kept in account_quotas(list(totals)).items():
        if head is not None and kept in head.metadata:
            metadata[name] = head.metadata[kept]
    if head is not None and to_owner and ACCESS in head.metadata:
        metadata["x-account-access-control"] = head.metadata[ACCESS]
    if head is not None and head.metadata.get(DOMAIN):
        metadata["x-account-project-domain-id"] = head.metadata[DOMAIN]
    by_policy: dict[str, str] = {}
    for policy, total in totals.items():
        prefix = f"x-account-storage-policy-{policy.lower()}"
        by_policy[f"{prefix}-container-count"] = str(total.containers)
        by_policy[f"{prefix}-object-count"] = str(total.objects)
        by_policy[f"{prefix}-bytes-used"] = str(total.size_bytes)
    rows, objects, size = (head.rows, head.objects, head.size_bytes) if head else (0, 0, 0)
    return {
        "accept-ranges": "bytes",
        "x-account-container-count": str(rows),
        "x-account-object-count": str(objects),
        "x-account-bytes-used": str(size),
        **by_policy,
        "x-timestamp": swift_time(head.made) if head and head.made else f"{now_s:.5f}",
        **{name: value for name, value in metadata.items() if to_owner or name not in OWNERS},
    }

"""What Swift's answers look like: headers of accounts, containers and objects, and listings in three formats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import msgspec

from apus.services.object.logic.account_access import ACCESS
from apus.services.object.logic.conditions import http_date
from apus.services.object.logic.hidden import shown
from apus.services.object.logic.history import archive_of
from apus.services.object.logic.listed import MANIFEST, listed, own_etag
from apus.services.object.logic.merge import iso_time, seconds_of, swift_time
from apus.services.object.logic.quota import account_quotas
from apus.services.object.logic.symlink import target_of
from apus.services.object.logic.versions import VersionRow, state_of
from apus.services.object.model import Head, IndexHead, Row, Subdir
from apus.services.object.policy_totals import Totals
from apus.wire.route import Reply

OWNERS: Final = (
    "x-container-read", "x-container-write", "x-container-sync-key", "x-container-sync-to",
    "x-container-meta-temp-url-key", "x-container-meta-temp-url-key-2",
    "x-account-meta-temp-url-key", "x-account-meta-temp-url-key-2",
)  # fmt: skip
"""What only the owner of a container or account sees of it."""

_TYPES: Final = {
    "plain": "text/plain; charset=utf-8",
    "json": "application/json; charset=utf-8",
    "xml": "application/xml; charset=utf-8",
}
Listable = Row | Subdir | VersionRow
Listing = Sequence[Row | Subdir] | Sequence[VersionRow | Subdir]
_encode = msgspec.json.Encoder().encode


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


def listing(
    kind: str,
    owner: str,
    rows: Listing,
    form: str,
    headers: dict[str, str],
    *,
    body: bool,
    policies: Sequence[str] = (),
) -> Reply:
    """A page of an `account`, with the names of storage policies, or a `container`; an empty plain one is 204.

    `body` is False for HEAD.
    """
    if not body:
        return Reply(b"", 204, {**headers, "content-length": "0"}, content_type=_TYPES[form])
    if form == "plain":
        data = "".join(f"{row.name}\n" for row in rows).encode()
        if not data:
            return Reply(b"", 204, {**headers, "content-length": "0"}, content_type=_TYPES[form])
    elif form == "json":
        data = _encode([_json(kind, row, policies) for row in rows])
    else:
        inside = "".join(_xml(kind, row, policies) for row in rows)
        data = f'<?xml version="1.0" encoding="UTF-8"?>\n<{kind} name={_attr(owner)}>{inside}</{kind}>'.encode()
    return Reply(data, 200, headers, content_type=_TYPES[form])


class _Plain(msgspec.Struct, gc=False):
    """An object of which a listing has nothing special to say: nearly every one, and quicker than a dictionary."""

    name: str
    hash: str
    bytes: int
    content_type: str
    last_modified: str


def _json(kind: str, row: Listable, policies: Sequence[str]) -> dict[str, Any] | _Plain:
    if isinstance(row, Subdir):
        return {"subdir": row.name}
    if isinstance(row, VersionRow):
        return _json_version(row)
    if kind == "account":
        return {
            "name": row.name, "count": row.count, "bytes": row.size_bytes, "last_modified": iso_time(row.stamp),
            "storage_policy": policies[int(row.content_type or 0)],
        }  # fmt: skip
    if "; " not in row.etag:
        return _Plain(row.name, row.etag, row.size_bytes, row.content_type, iso_time(max(row.stamp, row.told)))
    what = listed(row)
    view: dict[str, Any] = {
        "name": row.name,
        "hash": what.etag,
        "bytes": what.size_bytes,
        "content_type": row.content_type,
        "last_modified": iso_time(max(row.stamp, row.told)),
    }
    if what.manifest_etag:
        view["slo_etag"] = f'"{what.manifest_etag}"'
    if what.link:
        view["symlink_path"] = quote(f"/v1/{what.link}")
        if what.link_etag:
            view |= {"symlink_etag": what.link_etag, "symlink_bytes": what.link_bytes}
    return view


def _json_version(row: VersionRow) -> dict[str, Any]:
    view: dict[str, Any] = {
        "name": row.name,
        "hash": row.etag,
        "bytes": row.size_bytes,
        "content_type": row.content_type,
        "last_modified": iso_time(row.changed),
        "version_id": row.version_id,
        "is_latest": row.is_latest,
    }
    if row.manifest_etag:
        view["slo_etag"] = f'"{row.manifest_etag}"'
    return view


def _xml(kind: str, row: Listable, policies: Sequence[str]) -> str:
    if isinstance(row, Subdir):
        return f"<subdir name={_attr(row.name)}><name>{_text(row.name)}</name></subdir>"
    element = "container" if kind == "account" else "object"
    shown = _json(kind, row, policies)
    fields = msgspec.structs.asdict(shown) if isinstance(shown, _Plain) else shown
    inside = "".join(f"<{key}>{_text(str(value))}</{key}>" for key, value in fields.items())
    return f"<{element}>{inside}</{element}>"


def _text(text: str) -> str:
    """XML has no way to write most control characters; a question mark stands for them."""
    return escape("".join(c if c >= " " or c in "\t\n\r" else "?" for c in text))


def _attr(text: str) -> str:
    return quoteattr("".join(c if c >= " " or c in "\t\n\r" else "?" for c in text))

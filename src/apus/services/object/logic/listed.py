"""What a listing shows of an object whose stored bytes are not what a client reads: a manifest, a link.

Rows have no room of their own for it; it stands behind the row's ETag as parameters: `ETAG; bytes=12; slo_etag=…`.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from apus.services.object.model import Head, Row

LISTED: Final = "x-object-sysmeta-listed"
"""Parameters for the row of an object that cannot be told from the object itself."""

MANIFEST: Final = "x-object-sysmeta-manifest"
"""The object is a list of segments: the ETag of that list as clients see it."""


class Listed(NamedTuple):
    etag: str
    size_bytes: int
    manifest_etag: str
    """Of a segmented object what reading it gives, else empty."""
    link: str
    """Of a symbolic link its target as `ACCOUNT/CONTAINER/OBJECT`, else empty."""
    link_etag: str
    """Of a static one what the target has to be, and how large it is."""
    link_bytes: int
    version: str
    """The version that the row points to, else empty."""
    null: bool
    """Of a version: it was written while there was no versioning."""
    marker: bool
    """Of a version: it says that the object was deleted."""
    checksum: str
    """Of a part of an upload `ALGORITHM VALUE`, else empty."""
    storage_class: str
    """As S3 names it; empty for the usual one."""


def own_etag(head: Head) -> str:
    """Of a manifest that of the list, else what reading gives: what the `hash` of a listing is."""
    etag = head.headers.get(MANIFEST, head.shown_etag)
    return head.etag if etag == "static" else etag  # what releases before 2026-12 wrote


def listed_text(head: Head) -> str:
    """The ETag of an object's row, with its parameters."""
    text = own_etag(head)
    if MANIFEST in head.headers:
        text = with_parameters(text, bytes=str(head.shown_size_bytes), slo_etag=head.shown_etag)
    more = head.headers.get(LISTED)
    return f"{text}; {more}" if more else text


def with_parameters(text: str, **parameters: str) -> str:
    return "; ".join([text, parameters_text(**parameters)])


def parameters_text(**parameters: str) -> str:
    return "; ".join(f"{name}={quote(value)}" for name, value in parameters.items())


def listed(row: Row) -> Listed:
    etag, *rest = row.etag.split("; ")
    found = {name: unquote(value) for name, _, value in (part.partition("=") for part in rest)}
    return Listed(
        found.get("etag", etag),
        int(found.get("bytes", row.size_bytes)),
        found.get("slo_etag", ""),
        found.get("symlink", ""),
        found.get("symlink_etag", ""),
        int(found.get("symlink_bytes", "0")),
        found.get("version", ""),
        "null" in found,
        "marker" in found,
        found.get("checksum", ""),
        found.get("storage_class", ""),
    )


def lasting_parameters(row: Listed) -> dict[str, str]:
    """What holds for another row of the same object: that it is a symbolic link, and its storage class."""
    kept = {"storage_class": row.storage_class} if row.storage_class else {}
    if not row.link:
        return kept
    static = {"symlink_etag": row.link_etag, "symlink_bytes": str(row.link_bytes)} if row.link_etag else {}
    return {**kept, "symlink": row.link, **static}

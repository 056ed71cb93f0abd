"""What a listing shows of an object whose stored bytes are not what a client reads: a manifest, a link.

Rows have no room of their own for it; it stands behind the row's ETag as parameters: `ETAG; bytes=12; slo_etag=…`.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from apus.services.object.model import Head, Row

LISTED: Final = "x-object-sysmeta-listed"
"""The whole text for the row of an object, when it cannot be told from the object itself."""

MANIFEST: Final = "x-object-sysmeta-manifest"
"""The object is a list of segments."""


class Listed(NamedTuple):
    etag: str
    size_bytes: int
    manifest_etag: str
    """Of a segmented object what reading it gives, else empty."""
    link: str
    """Of a symbolic link its target as `/v1/ACCOUNT/CONTAINER/OBJECT`, else empty."""
    version: str
    """The version that the row points to, else empty."""
    null: bool
    """Of a version: it was written while there was no versioning."""


def listed_text(head: Head) -> str:
    """The ETag of an object's row, with its parameters."""
    if LISTED in head.headers:
        return head.headers[LISTED]
    if MANIFEST in head.headers:
        return with_parameters(head.etag, bytes=str(head.shown_size_bytes), slo_etag=head.shown_etag)
    return head.shown_etag


def with_parameters(text: str, **parameters: str) -> str:
    return "; ".join([text, *(f"{name}={quote(value)}" for name, value in parameters.items())])


def listed(row: Row) -> Listed:
    etag, *rest = row.etag.split("; ")
    found = dict(part.split("=", 1) for part in rest)
    return Listed(
        unquote(found.get("etag", etag)),
        int(found.get("bytes", row.size_bytes)),
        unquote(found.get("slo_etag", "")),
        unquote(found.get("symlink", "")),
        unquote(found.get("version", "")),
        "null" in found,
    )

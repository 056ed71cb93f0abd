"""Pages of an account or a container as Swift shows them, in three formats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

import msgspec

from apus.services.object.logic.listed import listed
from apus.services.object.logic.merge import iso_time
from apus.services.object.logic.versions import VersionRow
from apus.services.object.model import Row, Subdir
from apus.wire.route import Reply

Rows = Sequence[Row | Subdir] | Sequence[VersionRow | Subdir]

_TYPES: Final = {
    "plain": "text/plain; charset=utf-8",
    "json": "application/json; charset=utf-8",
    "xml": "application/xml; charset=utf-8",
}
_encode = msgspec.json.Encoder().encode


class _Plain(msgspec.Struct, gc=False):
    """An object of which a listing has nothing special to say: nearly every one, and quicker than a dictionary."""

    name: str
    hash: str
    bytes: int
    content_type: str
    last_modified: str


_OBJECT_FIELDS: Final = _Plain.__struct_fields__
_CONTAINER_FIELDS: Final = ("name", "count", "bytes", "last_modified", "storage_policy")

_View = dict[str, Any]


def account_page(
    account: str, rows: Rows, form: str, headers: dict[str, str], policies: Sequence[str], *, body: bool
) -> Reply:
    """Its containers; `policies` are the names of all storage policies.  `body` is False for HEAD."""

    def json() -> bytes:
        return _encode([_container(row, policies) for row in rows])

    def xml() -> str:
        inside = "".join(_element("container", _container(row, policies), _CONTAINER_FIELDS) for row in rows)
        return f"<account name={_attr(account)}>{inside}</account>"

    return _page(rows, form, headers, json, xml, body=body)


def container_page(
    account: str, container: str, rows: Rows, form: str, headers: dict[str, str], *, body: bool
) -> Reply:
    """Its objects, or their versions (as JSON alone).  `body` is False for HEAD."""
    path = f"/v1/{account}/{container}"

    def json() -> bytes:
        # A page has ten thousand of them: what is plain is shown without a call for each.
        views: list[_Plain | _View] = [
            _Plain(row.name, row.etag, row.size_bytes, row.content_type, iso_time(max(row.stamp, row.told)))
            if type(row) is Row and "; " not in row.etag
            else _object(row, path)
            for row in rows
        ]
        return _encode(views)

    def xml() -> str:
        inside = "".join(_element("object", _object(row, path), _OBJECT_FIELDS) for row in rows)
        return f"<container name={_attr(container)}>{inside}</container>"

    return _page(rows, form, headers, json, xml, body=body)


def _page(
    rows: Rows, form: str, headers: dict[str, str], json: Callable[[], bytes], xml: Callable[[], str], *, body: bool
) -> Reply:
    """An empty plain one is 204."""
    if not body or (form == "plain" and not rows):
        return Reply(b"", 204, {**headers, "content-length": "0"}, content_type=_TYPES[form])
    if form == "plain":
        data = "".join(f"{row.name}\n" for row in rows).encode()
    elif form == "json":
        data = json()
    else:
        data = f'<?xml version="1.0" encoding="UTF-8"?>\n{xml()}'.encode()
    return Reply(data, 200, headers, content_type=_TYPES[form])


def _container(row: Row | Subdir | VersionRow, policies: Sequence[str]) -> _View:
    if not isinstance(row, Row):
        return {"subdir": row.name}
    return {
        "name": row.name,
        "count": row.count,
        "bytes": row.size_bytes,
        "last_modified": iso_time(row.stamp),
        "storage_policy": policies[int(row.content_type or 0)],
    }


def _object(row: Row | Subdir | VersionRow, path: str) -> _View:
    """`path`: of its container."""
    if isinstance(row, Subdir):
        return {"subdir": row.name}
    if isinstance(row, VersionRow):
        return _version(row)
    what = listed(row)
    view: _View = {
        "name": row.name,
        "hash": what.etag,
        "bytes": what.size_bytes,
        "content_type": row.content_type,
        "last_modified": iso_time(max(row.stamp, row.told)),
    }
    if what.manifest_etag:
        view["slo_etag"] = f'"{what.manifest_etag}"'
    if what.version:
        view |= {"version_symlink": True, "symlink_path": f"{quote(f'{path}/{row.name}')}?version-id={what.version}"}
    elif what.link:
        view["symlink_path"] = quote(f"/v1/{what.link}")
        if what.link_etag:
            view |= {"symlink_etag": what.link_etag, "symlink_bytes": what.link_bytes}
    return view


def _version(row: VersionRow) -> _View:
    view: _View = {
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


def _element(kind: str, view: _View, fields: Sequence[str]) -> str:
    if "subdir" in view:
        name = view["subdir"]
        return f"<subdir name={_attr(name)}><name>{_text(name)}</name></subdir>"
    inside = "".join(f"<{field}>{_text(str(view[field]))}</{field}>" for field in fields)
    return f"<{kind}>{inside}</{kind}>"


def _text(text: str) -> str:
    """XML has no way to write most control characters; a question mark stands for them."""
    return escape(_printable(text))


def _attr(text: str) -> str:
    return quoteattr(_printable(text))


def _printable(text: str) -> str:
    return "".join(c if c >= " " or c in "\t\n\r" else "?" for c in text)

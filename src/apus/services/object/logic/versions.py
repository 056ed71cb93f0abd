"""Versions of objects: how they are named where they are kept, and how they are listed beside what is current.

A version is an object of its own in a hidden container, named so that the versions of one name stand together, the
newest first.  In the client's container stands a link to the one that is current; or, without versioning or while it
is suspended, the object itself, whose version is called `null`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal

from apus.kernel.errors import Invalid
from apus.services.object.logic.hidden import NUL
from apus.services.object.logic.listed import listed
from apus.services.object.model import Head, Row

State = Literal["", "enabled", "suspended"]

STATE: Final = "x-container-sysmeta-versions"
VERSION: Final = "x-object-sysmeta-version"
"""Of a version its id; `entry` is the same when the version is shown as `null`."""
LINK: Final = "x-object-sysmeta-version-link"
"""Of the object in the client's container: the entry that is current."""
NULL_ENTRY: Final = "x-object-sysmeta-version-null"
MARKER: Final = "x-object-sysmeta-version-marker"
"""The version says that the object was deleted."""

NULL: Final = "null"
_ID: Final = re.compile(r"[0-9]{16}-[A-Za-z0-9._-]{1,255}|[0-9]{1,10}\.[0-9]{1,5}(_[0-9a-f]{1,16})?")
"""Or Swift's, a time: none of ours is one, so there is no such version."""
_COMPLEMENT: Final = str.maketrans("0123456789", "9876543210")


def state_of(metadata: Mapping[str, str]) -> State:
    text = metadata.get(STATE, "")
    return "enabled" if text == "enabled" else "suspended" if text == "suspended" else ""


def check_id(version_id: str) -> str:
    """Raise Invalid for what was never an id of ours."""
    if version_id != NULL and not _ID.fullmatch(version_id):
        raise Invalid("object.version_id", "Invalid version parameter", field="version-id")
    return version_id


def entry_name(name: str, version_id: str) -> str:
    return f"{name}{NUL}{_turned(version_id)}"


def name_and_id(entry: str) -> tuple[str, str]:
    name, _, turned = entry.rpartition(NUL)
    return name, _turned(turned)


def _turned(version_id: str) -> str:
    """Its own inverse: with every digit of the time replaced by what is missing to nine, later ids sort first."""
    return version_id[:16].translate(_COMPLEMENT) + version_id[16:]


def version_of(head: Head) -> str:
    return NULL if NULL_ENTRY in head.headers else head.headers.get(VERSION, NULL)


def is_marker(head: Head) -> bool:
    return MARKER in head.headers


@dataclasses.dataclass(frozen=True, slots=True)
class VersionRow:
    """One version in a listing of versions."""

    name: str
    version_id: str
    is_latest: bool
    is_marker: bool
    size_bytes: int
    etag: str
    manifest_etag: str
    content_type: str
    stamp: str
    told: str = ""
    """The stamp of its metadata, when they were set later."""
    storage_class: str = ""

    @property
    def changed(self) -> str:
        """The stamp of its last change."""
        return max(self.stamp, self.told)


def version_rows(
    name: str, current: Row | None, entries: Iterable[Row], *, from_newest: bool = True
) -> Iterator[VersionRow]:
    """All versions of one name, the newest first: its row in the client's container, and those of its versions.

    `from_newest` is False when the entries begin after the newest.
    """
    linked = listed(current).version if current is not None else ""
    if current is not None and not linked:
        yield _version_row(name, current, NULL, is_latest=True)
    for entry in entries:
        _, entry_id = name_and_id(entry.name)
        latest = entry_id == linked or (current is None and from_newest and listed(entry).marker)
        yield _version_row(name, entry, NULL if listed(entry).null else entry_id, is_latest=latest)
        from_newest = False


def _version_row(name: str, row: Row, version_id: str, *, is_latest: bool) -> VersionRow:
    what = listed(row)
    return VersionRow(
        name,
        version_id,
        is_latest,
        what.marker,
        what.size_bytes,
        what.etag,
        what.manifest_etag,
        row.content_type,
        row.stamp,
        row.told,
        what.storage_class,
    )

"""Uploads in parts: how they and their parts are named where they are kept, and what a finished one is made of.

An upload is an object of its own in a hidden container, and so is each part.  A part that is sent again has a new name:
what a finished object is made of is never written over.  Names sort by key, then by when the upload began.
Beside the parts stands a record of the stamps under which the upload was finished: by these, and by no listing, it is
told whether an object or a version of it still needs them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Final

from apus.services.object.logic.hidden import NUL, hidden_container
from apus.services.object.logic.listed import listed
from apus.services.object.logic.manifest import Segment
from apus.services.object.model import Row

UPLOAD: Final = "x-object-sysmeta-upload"
"""Of a finished object the upload whose parts it is made of, and owns."""

STAMPS: Final = "x-object-sysmeta-upload-stamps"
"""Of the record of an upload: when it was finished, with spaces between."""

USED: Final = "x-container-sysmeta-uploads"
"""There were uploads in parts in this container: what goes from it may leave parts behind."""

BEHIND: Final = "\1"
"""Sorts behind the NUL that ends a key, and before whatever key comes next."""

PART_NUMBER_MAX: Final = 10_000
_ID: Final = re.compile(r"[0-9]{16}-[A-Za-z0-9._-]{1,255}")


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    number: int
    name: str
    """Of the object that holds its bytes."""
    etag: str
    size_bytes: int
    checksum: str
    """`ALGORITHM VALUE` of its bytes, or empty."""
    stamp: str
    """When it was whole."""


def uploads_container(container: str) -> str:
    return hidden_container("uploads", container)


def parts_container(container: str) -> str:
    return hidden_container("parts", container)


def is_upload_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def upload_name(key: str, upload_id: str) -> str:
    return f"{key}{NUL}{upload_id}"


def part_prefix(key: str, upload_id: str) -> str:
    return f"{upload_name(key, upload_id)}{NUL}"


def part_name(key: str, upload_id: str, number: int, mark: str) -> str:
    """`mark` tells apart those of the same number."""
    return f"{part_prefix(key, upload_id)}{number:05d}{NUL}{mark}"


def key_and_id(name: str) -> tuple[str, str]:
    """Of an upload, or of a part of it."""
    key, upload_id = name.split(NUL)[:2]
    return key, upload_id


def is_part(row: Row) -> bool:
    """Not the record of an upload."""
    return row.name.count(NUL) > 1


def part_of(row: Row) -> Part:
    shown = listed(row)
    return Part(int(row.name.split(NUL)[2]), row.name, shown.etag, shown.size_bytes, shown.checksum, row.stamp)


def newest_parts(rows: Iterable[Row]) -> dict[int, Part]:
    """By number, in order; of a part that was sent more than once what was whole last."""
    newest: dict[int, Part] = {}
    for part in map(part_of, rows):
        known = newest.get(part.number)
        if known is None or part.stamp > known.stamp:
            newest[part.number] = part
    return dict(sorted(newest.items()))


def etag_of_parts(etags: Sequence[str]) -> str:
    """The MD5 of the parts' MD5s, and how many they are: `…-3`."""
    joined = b"".join(bytes.fromhex(etag) for etag in etags)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(etags)}"


def segments_of(account: str, container: str, parts: Iterable[Part]) -> list[Segment]:
    kept = parts_container(container)
    return [
        Segment(account, kept, part.name, part.etag, part.size_bytes, changed=part.stamp, checksum=part.checksum)
        for part in parts
    ]

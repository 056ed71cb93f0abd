"""Large objects as lists of segments: what they add up to, and which bytes of which segment make a range."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from apus.kernel.errors import Conflict, Invalid
from apus.services.object.logic.hidden import is_hidden
from apus.services.object.logic.merge import iso_time
from apus.services.object.logic.ranges import parse_ranges

SEGMENTS_MAX: Final = 10_000
"""Of one manifest: what S3 allows; nested manifests multiply it."""

DEPTH_MAX: Final = 10
"""Manifests within manifests."""


class Segment(msgspec.Struct, frozen=True, omit_defaults=True):
    """Bytes of another object, or (`data`) of the manifest itself."""

    account: str = ""
    container: str = ""
    name: str = ""
    etag: str = ""
    """What the segment has to be still, when it is read; empty: whatever it is."""
    size_bytes: int = 0
    """Of the whole object."""
    offset: int = 0
    length: int | None = None
    """Of what is used of it; None: to its end."""
    data: bytes = b""
    nested: bool = False
    """It is a manifest itself."""
    content_type: str = ""
    changed: str = ""
    """Its stamp, as it was found when the manifest was made."""
    checksum: str = ""
    """`ALGORITHM VALUE` of its bytes, when it was sent with one."""

    @property
    def used_bytes(self) -> int:
        if self.data:
            return len(self.data)
        return self.size_bytes - self.offset if self.length is None else self.length

    @property
    def whole(self) -> bool:
        return self.used_bytes == self.size_bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Wish:
    """A segment as a client asks for it; what he does not say is not checked."""

    account: str
    container: str
    name: str
    etag: str | None = None
    size_bytes: int | None = None
    range: str | None = None
    """`0-99`, `100-` or `-100`: one range of bytes."""
    data: bytes = b""
    said: str = ""
    """The path as the client wrote it."""

    @property
    def path(self) -> str:
        return self.said or f"/{self.container}/{self.name}"


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """The object that a wish names, as it was found."""

    etag: str
    size_bytes: int
    content_type: str
    changed: str
    nested: bool


def wish_of(segment: Segment, account: str) -> Wish:
    """The same segment of another account's objects."""
    text = None if segment.whole else _range(segment)
    return Wish(account, segment.container, segment.name, segment.etag, segment.size_bytes, text, segment.data)


class Part(NamedTuple):
    offset: int
    length: int
    of: int
    """How many there are."""


def part_of(segments: Sequence[Segment], number: int) -> Part:
    """The bytes of one segment, counted from 1; of one that there is not, none."""
    sizes = [segment.used_bytes for segment in segments]
    return Part(sum(sizes[: number - 1]), sizes[number - 1] if number <= len(sizes) else 0, len(sizes))


def segment_of(wish: Wish, seen: Seen) -> Segment | str:
    """The segment, or what is wrong with it in Swift's words."""
    if wish.etag is not None and wish.etag != seen.etag:
        return "Etag Mismatch"
    if wish.size_bytes is not None and wish.size_bytes != seen.size_bytes:
        return "Size Mismatch"
    if not seen.size_bytes:
        return "Too Small; each segment must be at least 1 byte."
    offset, length = 0, seen.size_bytes
    if wish.range is not None:
        found = parse_ranges(f"bytes={wish.range}", seen.size_bytes)
        if not found:
            return "Unsatisfiable Range"
        offset, length = found[0]
    return Segment(
        wish.account, wish.container, wish.name, seen.etag, seen.size_bytes, offset, length,
        nested=seen.nested, content_type=seen.content_type, changed=seen.changed,
    )  # fmt: skip


class _Manifest(msgspec.Struct, frozen=True):
    segments: tuple[Segment, ...]


_decoder = msgspec.json.Decoder(_Manifest)


def encode_manifest(segments: Sequence[Segment]) -> bytes:
    return msgspec.json.encode(_Manifest(tuple(segments)))


def decode_manifest(data: bytes) -> tuple[Segment, ...]:
    try:
        return _decoder.decode(data).segments
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Conflict("object.manifest", "The manifest of this object cannot be read.", hidden=str(error)) from error


def manifest_text(segments: Sequence[Segment], *, raw: bool = False) -> bytes:
    """The list as clients see it; `raw`: as it could be sent again."""
    return msgspec.json.encode([(_raw if raw else _view)(segment) for segment in segments])


def total_bytes(segments: Sequence[Segment]) -> int:
    return sum(segment.used_bytes for segment in segments)


def etag_of(segments: Sequence[Segment]) -> str:
    """Swift's: the MD5 of the segments' ETags, each with its range where it is not used whole."""
    md5 = hashlib.md5(usedforsecurity=False)
    for segment in segments:
        if segment.data:
            md5.update(hashlib.md5(segment.data, usedforsecurity=False).hexdigest().encode())
        elif segment.whole:
            md5.update(segment.etag.encode())
        else:
            end = segment.offset + segment.used_bytes - 1
            md5.update(f"{segment.etag}:{segment.offset}-{end};".encode())
    return md5.hexdigest()


def check_manifest(segments: Sequence[Segment]) -> None:
    if len(segments) > SEGMENTS_MAX:
        raise Invalid("object.segments_max", f"A manifest has {SEGMENTS_MAX} segments at most, not {len(segments)}.")
    for segment in segments:
        length = segment.size_bytes if segment.length is None else segment.length
        assert segment.data or 0 <= segment.offset <= segment.offset + length
        assert segment.data or segment.length is None or segment.offset + length <= segment.size_bytes


def pieces(segments: Sequence[Segment], offset: int, length: int) -> Iterator[tuple[Segment, int, int]]:
    """(segment, offset within the object or the data, length) of each run of bytes that makes the range, in order."""
    end, at = offset + length, 0
    for segment in segments:
        size = segment.used_bytes
        first, last = max(offset, at), min(end, at + size)
        if first < last:
            yield segment, segment.offset + first - at, last - first
        at += size
        if at >= end:
            return


def _view(segment: Segment) -> dict[str, Any]:
    if segment.data:
        return {"data": base64.b64encode(segment.data).decode()}
    view: dict[str, Any] = {
        "hash": segment.etag,
        "bytes": segment.size_bytes,
        "content_type": segment.content_type,
        "last_modified": iso_time(segment.changed),
    }
    if not is_hidden(segment.account, segment.container):
        view["name"] = f"/{segment.container}/{segment.name}"
    if not segment.whole:
        view["range"] = _range(segment)
    if segment.nested:
        view["sub_slo"] = True
    return view


def _raw(segment: Segment) -> dict[str, Any]:
    if segment.data:
        return {"data": base64.b64encode(segment.data).decode()}
    view: dict[str, Any] = {"etag": segment.etag, "size_bytes": segment.size_bytes}
    if not is_hidden(segment.account, segment.container):
        view["path"] = f"/{segment.container}/{segment.name}"
    return view if segment.whole else {**view, "range": _range(segment)}


def _range(segment: Segment) -> str:
    return f"{segment.offset}-{segment.offset + segment.used_bytes - 1}"

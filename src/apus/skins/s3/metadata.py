"""What is said about an object: S3's headers, and how the store keeps them where Swift sees them as its own."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, urlencode

from apus.services.object.logic.conditions import http_date
from apus.services.object.logic.listed import LISTED, parameters_text
from apus.services.object.logic.merge import seconds_of
from apus.services.object.logic.tags import TAGS, tags_of
from apus.services.object.model import Head
from apus.skins.s3 import checksums
from apus.skins.s3.errors import S3Error
from apus.skins.s3.request import S3Request

META: Final = "x-amz-meta-"
STORED_META: Final = "x-object-meta-"
META_BYTES_MAX: Final = 2048
TYPE_DEFAULT: Final = "binary/octet-stream"
KEPT: Final = ("cache-control", "content-disposition", "content-encoding", "content-language", "expires")

CHECKSUM: Final = "x-object-sysmeta-s3-checksum"
"""`CRC32 VALUE FULL_OBJECT`."""
CLASS: Final = "x-object-sysmeta-s3-storage-class"
REDIRECT: Final = "x-object-sysmeta-s3-redirect"
OWNER: Final = "x-object-sysmeta-s3-owner"

STANDARD: Final = "STANDARD"
CLASSES: Final = (
    STANDARD, "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR",
)  # fmt: skip
"""Kept and shown; all are stored alike, so those that must be fetched before they are read are not among them."""

TAGS_MAX: Final = 10
TAG_KEY_MAX: Final = 128
TAG_VALUE_MAX: Final = 256


def said_of_object(request: S3Request) -> dict[str, str]:
    """All headers of an upload that are kept with the object, but its type, ACL, lock, encryption and checksum.

    Raise S3Error.
    """
    headers = request.headers
    kept: dict[str, str] = {}
    size = 0
    for name in headers:
        if name.startswith(META):
            text = request.text(name)
            size += len(name) - len(META) + len(text.encode())
            kept[STORED_META + name[len(META) :]] = text
    if size > META_BYTES_MAX:
        raise S3Error("MetadataTooLarge", fields={"Size": str(size), "MaxSizeAllowed": str(META_BYTES_MAX)})
    for name in KEPT:
        if name in headers:
            text = request.text(name)
            if name == "content-encoding":
                text = ", ".join(part.strip() for part in text.split(",") if part.strip() != "aws-chunked")
            if text:
                kept[name] = text
    kept.update(storage_class(headers))
    redirect = headers.get("x-amz-website-redirect-location")
    if redirect:
        if not redirect.startswith(("/", "http://", "https://")):
            raise S3Error("InvalidArgument", "The website redirect location must start with /, http:// or https://.")
        kept[REDIRECT] = request.text("x-amz-website-redirect-location")
    tags = headers.get("x-amz-tagging")
    if tags:
        kept[TAGS] = stored_tags(tags_of_query(tags))
    return kept


def storage_class(headers: Mapping[str, str]) -> dict[str, str]:
    name = headers.get("x-amz-storage-class", STANDARD)
    if name not in CLASSES:
        raise S3Error("InvalidStorageClass", fields={"StorageClassRequested": name})
    return {CLASS: name, LISTED: parameters_text(storage_class=name)} if name != STANDARD else {}


def content_type_of(request: S3Request) -> str:
    return request.text("content-type") or TYPE_DEFAULT


def tags_of_query(text: str) -> list[tuple[str, str]]:
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")  # a tag may stand there without a value
    except (ValueError, UnicodeDecodeError):
        raise S3Error("InvalidArgument", "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL "
                      "query parameters without tag name duplicates.") from None  # fmt: skip
    return pairs


def stored_tags(pairs: list[tuple[str, str]], most: int = TAGS_MAX) -> str:
    """Raise S3Error for too many, too long, or twice the same."""
    if len(pairs) > most:
        raise S3Error("InvalidTag", f"There cannot be more than {most} tags.")
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key")
    for name, value in pairs:
        if not name or len(name) > TAG_KEY_MAX:
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid", fields={"TagKey": name})
        if len(value) > TAG_VALUE_MAX:
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid", fields={"TagValue": value})
    return urlencode(pairs)


def shown_headers(head: Head, *, etag: str, size_bytes: int) -> dict[str, str]:
    """What S3 says of an object in the headers of GET and HEAD."""
    said = head.shown_headers
    headers = {
        "content-length": str(size_bytes),
        "etag": f'"{etag}"',
        "last-modified": last_modified(head.stamp),
        "accept-ranges": "bytes",
    }
    for name, value in said.items():
        if name.startswith(STORED_META):
            headers[META + name[len(STORED_META) :]] = value
        elif name in KEPT:
            headers[name] = value
    if CLASS in said:
        headers["x-amz-storage-class"] = said[CLASS]
    if REDIRECT in said:
        headers["x-amz-website-redirect-location"] = said[REDIRECT]
    tags = tags_of(said)
    if tags:
        headers["x-amz-tagging-count"] = str(len(tags))
    return headers


def last_modified(stamp: str) -> str:
    return http_date(int(seconds_of(stamp)))


def iso_time(stamp: str) -> str:
    """`2026-01-31T23:59:59.123Z`."""
    return iso_of(seconds_of(stamp))


def iso_of(seconds: float) -> str:
    whole = int(seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{int((seconds - whole) * 1000):03d}Z"


def checksum_text(algorithm: str, value: str, kind: str = "FULL_OBJECT") -> str:
    return f"{algorithm} {value} {kind}"


def checksum_of(head: Head) -> tuple[str, str, str] | None:
    """(algorithm, value, FULL_OBJECT or COMPOSITE)."""
    text = head.headers.get(CHECKSUM)
    if text is None:
        return None
    algorithm, value, kind = text.split(" ")
    return algorithm, value, kind


def checksum_headers(head: Head) -> dict[str, str]:
    found = checksum_of(head)
    if found is None:
        return {}
    return {checksums.header_of(found[0]): found[1], "x-amz-checksum-type": found[2]}


def checksum_fields(head: Head) -> list[tuple[str, str]]:
    """The same as elements of a body."""
    found = checksum_of(head)
    return [("Checksum" + found[0], found[1]), ("ChecksumType", found[2])] if found is not None else []

"""Pages of a bucket: ListObjects in both versions."""

from __future__ import annotations

import base64
import binascii
from typing import Final
from urllib.parse import quote

from apus.services.object.logic.listed import listed
from apus.services.object.model import ListingAsk, Row, Subdir
from apus.skins.s3.acls import bucket_owner
from apus.skins.s3.errors import S3Error
from apus.skins.s3.metadata import STANDARD, iso_time
from apus.skins.s3.request import S3Request
from apus.skins.s3.xml import CONTENT_TYPE, Field, document
from apus.wire.route import Reply

PAGE_MAX: Final = 1000


def max_keys(request: S3Request, name: str = "max-keys") -> int:
    text = request.param(name)
    if text is None or text == "":
        return PAGE_MAX
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > 2**31 - 1:
        shown = "Provided max-keys not an integer or within integer range"
        raise S3Error("InvalidArgument", shown, fields={"ArgumentName": name, "ArgumentValue": text})
    return min(int(text), PAGE_MAX)


class Encoding:
    """`encoding-type=url`, for keys that XML cannot hold."""

    def __init__(self, request: S3Request) -> None:
        self.type = request.param("encoding-type")
        if self.type not in (None, "", "url"):
            fields = {"ArgumentName": "encoding-type", "ArgumentValue": self.type or ""}
            raise S3Error("InvalidArgument", "Invalid Encoding Method specified in Request", fields=fields)

    def __call__(self, text: str | None) -> str | None:
        return quote(text, safe="/*-._") if self.type and text is not None else text


async def list_objects(request: S3Request) -> Reply:
    if request.param("list-type") == "2":
        return await _list_v2(request)
    marker = request.param("marker") or ""
    rows, truncated, encode, most = await _page(request, marker)
    delimiter = request.param("delimiter") or None
    following = _last_name(rows) if truncated and delimiter else None
    fields: list[Field] = [
        ("Name", request.bucket),
        ("Prefix", encode(request.param("prefix") or "")),
        ("Marker", encode(marker)),
        ("NextMarker", encode(following)),
        ("MaxKeys", most),
        ("Delimiter", encode(delimiter)),
        ("EncodingType", encode.type or None),
        ("IsTruncated", truncated),
        *_entries(request, rows, encode, with_owner=True),
    ]
    return Reply(document("ListBucketResult", fields), content_type=CONTENT_TYPE)


async def _list_v2(request: S3Request) -> Reply:
    token, start_after = request.param("continuation-token"), request.param("start-after")
    if token == "":
        raise S3Error("InvalidArgument", "The continuation token provided is incorrect")
    after = _token_name(token) if token is not None else start_after or ""
    rows, truncated, encode, most = await _page(request, after)
    following = _token_of(_last_name(rows)) if truncated else None
    fields: list[Field] = [
        ("Name", request.bucket),
        ("Prefix", encode(request.param("prefix") or "")),
        ("MaxKeys", most),
        ("KeyCount", len(rows)),
        ("Delimiter", encode(request.param("delimiter") or None)),
        ("EncodingType", encode.type or None),
        ("ContinuationToken", token),
        ("NextContinuationToken", following),
        ("StartAfter", encode(start_after)),
        ("IsTruncated", truncated),
        *_entries(request, rows, encode, with_owner=request.param("fetch-owner") == "true"),
    ]
    return Reply(document("ListBucketResult", fields), content_type=CONTENT_TYPE)


async def _page(request: S3Request, after: str) -> tuple[list[Row | Subdir], bool, Encoding, int]:
    encode, most = Encoding(request), max_keys(request)
    if not most:
        return [], False, encode, most
    ask = ListingAsk(
        limit=most + 1,
        marker=after,
        prefix=request.param("prefix") or "",
        delimiter=request.param("delimiter") or "",
    )
    rows = list(await request.door.objects.listing(request.account, request.bucket, ask))
    return rows[:most], len(rows) > most, encode, most


def _last_name(rows: list[Row | Subdir]) -> str:
    return rows[-1].name


def _token_of(name: str) -> str:
    return base64.urlsafe_b64encode(name.encode()).decode()


def _token_name(token: str) -> str:
    try:
        return base64.urlsafe_b64decode(token.encode()).decode()
    except (binascii.Error, ValueError):
        raise S3Error("InvalidArgument", "The continuation token provided is incorrect") from None


def _entries(request: S3Request, rows: list[Row | Subdir], encode: Encoding, *, with_owner: bool) -> list[Field]:
    owner = bucket_owner(request)
    owned: list[Field] = [("ID", owner), ("DisplayName", owner)]
    found: list[Field] = []
    for row in rows:
        if isinstance(row, Row):
            shown = listed(row)
            found.append(
                (
                    "Contents",
                    [
                        ("Key", encode(row.name)),
                        ("LastModified", iso_time(row.stamp)),
                        ("ETag", f'"{shown.manifest_etag or shown.link_etag or shown.etag}"'),
                        ("Size", shown.link_bytes or shown.size_bytes),
                        ("Owner", owned if with_owner else None),
                        ("StorageClass", shown.storage_class or STANDARD),
                    ],
                )
            )
    found += [("CommonPrefixes", [("Prefix", encode(row.name))]) for row in rows if isinstance(row, Subdir)]
    return found

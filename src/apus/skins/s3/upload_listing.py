"""ListMultipartUploads and ListParts."""

from __future__ import annotations

import asyncio
from typing import Final

from apus.services.object.logic.uploads import PART_NUMBER_MAX, Part, key_and_id
from apus.services.object.model import Head, ListingAsk, Row
from apus.skins.s3.acls import owner_of
from apus.skins.s3.errors import S3Error
from apus.skins.s3.listing import Encoding, max_keys
from apus.skins.s3.metadata import CLASS, STANDARD, iso_time
from apus.skins.s3.request import S3Request
from apus.skins.s3.uploads import found_upload, promise_of
from apus.skins.s3.xml import CONTENT_TYPE, Field, document
from apus.wire.route import Reply

LOOKUPS_AT_ONCE: Final = 16
_LAST: Final = "\U0010ffff"


async def list_uploads(request: S3Request) -> Reply:
    encode, most = Encoding(request), max_keys(request, "max-uploads")
    key, upload_id = request.param("key-marker") or "", request.param("upload-id-marker") or ""
    prefix, delimiter = request.param("prefix") or "", request.param("delimiter") or ""
    found = await _page(request, prefix, delimiter, (key, upload_id if key else ""), most + 1) if most else []
    truncated, found = len(found) > most, found[:most]
    last = found[-1] if truncated else None
    last_key, last_id = key_and_id(last.name) if isinstance(last, Row) else (last or "", "")
    fields: list[Field] = [
        ("Bucket", request.bucket),
        ("KeyMarker", encode(key)),
        ("UploadIdMarker", upload_id),
        ("NextKeyMarker", encode(last_key) if last else None),
        ("NextUploadIdMarker", last_id or None),
        ("Prefix", encode(prefix)),
        ("Delimiter", encode(delimiter or None)),
        ("EncodingType", encode.type or None),
        ("MaxUploads", most),
        ("IsTruncated", truncated),
        *await _uploads(request, [one for one in found if isinstance(one, Row)], encode),
        *(("CommonPrefixes", [("Prefix", encode(one))]) for one in found if isinstance(one, str)),
    ]
    return Reply(document("ListMultipartUploadsResult", fields), content_type=CONTENT_TYPE)


async def _page(request: S3Request, prefix: str, delimiter: str, after: tuple[str, str], most: int) -> list[Row | str]:
    """Uploads, and the prefixes that stand for many."""
    found: list[Row | str] = []
    ask = ListingAsk(limit=most, prefix=prefix)
    skipped = after[0] if delimiter and after[0].endswith(delimiter) and not after[1] else ""
    if skipped:
        after = skipped + _LAST, ""
    while len(found) < most:
        rows = await request.door.objects.uploads.page(request.account, request.bucket, ask, after)
        for row in rows:
            key, upload_id = key_and_id(row.name)
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut < 0:
                found.append(row)
                after = key, upload_id
                continue
            found.append(key[: cut + len(delimiter)])
            after = key[: cut + len(delimiter)] + _LAST, ""
            break
        else:
            if len(rows) < most:
                break
    return found[:most]


async def _uploads(request: S3Request, rows: list[Row], encode: Encoding) -> list[Field]:
    places = asyncio.Semaphore(LOOKUPS_AT_ONCE)

    async def look(row: Row) -> Head | None:
        async with places:
            return await request.door.objects.uploads.marker(request.account, request.bucket, row)

    heads = await asyncio.gather(*map(look, rows))
    return [("Upload", _upload(request, head, encode)) for head in heads if head is not None]


def _upload(request: S3Request, head: Head, encode: Encoding) -> list[Field]:
    key, upload_id = key_and_id(head.name)
    return [
        ("Key", encode(key)),
        ("UploadId", upload_id),
        *_said(request, head),
        ("Initiated", iso_time(head.stamp)),
    ]


def _said(request: S3Request, upload: Head) -> list[Field]:
    """What both listings say of an upload."""
    owner, promise = owner_of(upload, request.head), promise_of(upload)
    return [
        ("Initiator", [("ID", owner), ("DisplayName", owner)]),
        ("Owner", [("ID", owner), ("DisplayName", owner)]),
        ("StorageClass", upload.headers.get(CLASS, STANDARD)),
        ("ChecksumAlgorithm", promise.algorithm),
        ("ChecksumType", promise.kind or None),
    ]


async def list_parts(request: S3Request) -> Reply:
    encode, most = Encoding(request), max_keys(request, "max-parts")
    after = _marker(request)
    upload = await found_upload(request)
    there = await request.door.objects.uploads.parts(upload, request.bucket)
    parts = [part for number, part in there.items() if number > after]
    truncated, parts = len(parts) > most, parts[:most]
    fields: list[Field] = [
        ("Bucket", request.bucket),
        ("Key", encode(request.key)),
        ("UploadId", request.param("uploadId")),
        ("PartNumberMarker", after),
        ("NextPartNumberMarker", parts[-1].number if parts else 0),
        ("MaxParts", most),
        ("EncodingType", encode.type or None),
        ("IsTruncated", truncated),
        *(("Part", _part(part)) for part in parts),
        *_said(request, upload),
    ]
    return Reply(document("ListPartsResult", fields), content_type=CONTENT_TYPE)


def _marker(request: S3Request) -> int:
    text = request.param("part-number-marker") or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        fields = {"ArgumentName": "part-number-marker", "ArgumentValue": text}
        raise S3Error("InvalidArgument", "part-number-marker is not a number.", fields=fields)
    return min(int(text), PART_NUMBER_MAX)


def _part(part: Part) -> list[Field]:
    algorithm, _, value = part.checksum.partition(" ")
    checksum: list[Field] = [("Checksum" + algorithm, value)] if algorithm else []
    return [
        ("PartNumber", part.number),
        ("LastModified", iso_time(part.stamp)),
        ("ETag", f'"{part.etag}"'),
        ("Size", part.size_bytes),
        *checksum,
    ]

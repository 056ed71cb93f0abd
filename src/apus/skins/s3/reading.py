"""GetObject, HeadObject and GetObjectAttributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, unquote

from apus.kernel.errors import NotFound
from apus.services.object.engine import Found
from apus.services.object.logic.conditions import check
from apus.services.object.logic.listed import MANIFEST
from apus.services.object.logic.manifest import Segment
from apus.services.object.logic.merge import seconds_of
from apus.services.object.logic.ranges import parse_ranges
from apus.services.object.logic.versions import is_marker
from apus.services.object.model import Head
from apus.services.object.opening import MayRead, Opened, bytes_with_head
from apus.skins.s3 import checksums, rights
from apus.skins.s3.encryption import SOURCE, encryption_headers, key_for
from apus.skins.s3.errors import S3Error
from apus.skins.s3.lifecycle import expiration_header
from apus.skins.s3.metadata import (
    CLASS,
    STANDARD,
    checksum_headers,
    checksum_of,
    last_modified,
    shown_headers,
)
from apus.skins.s3.object_lock import lock_headers
from apus.skins.s3.request import S3Request
from apus.skins.s3.versions import acting, found_version, version_headers, wanted_version
from apus.skins.s3.xml import CONTENT_TYPE, Field, document
from apus.wire.route import Reply

_OVERRIDES: Final = {
    "response-content-type": "content-type",
    "response-content-language": "content-language",
    "response-expires": "expires",
    "response-cache-control": "cache-control",
    "response-content-disposition": "content-disposition",
    "response-content-encoding": "content-encoding",
}


async def found_object(request: S3Request) -> Found:
    """The object that the request names, or the version of it; of a link what it leads to.  Raise S3Error."""
    found = await found_version(request, upto_bytes=bytes_with_head(request.method, request.headers))
    return await request.door.objects.follow(found, may_read(request))


def part_number(request: S3Request) -> int | None:
    text = request.param("partNumber")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6] or "0") <= 10_000):
        shown = "Part number must be an integer between 1 and 10000, inclusive"
        raise S3Error("InvalidArgument", shown, fields={"ArgumentName": "partNumber", "ArgumentValue": text})
    return int(text)


async def get_object(request: S3Request) -> Reply:
    found = await found_object(request)
    head = found.head
    await rights.require(request, acting(request, "s3:GetObject"), "READ", existing=head, on_object=True)
    opened = await request.door.objects.open_parts(found, may_read(request), customer_key=key_for(request, head))
    headers = shown_headers(head, etag=opened.etag, size_bytes=opened.size_bytes) | version_headers(request, head)
    headers |= lock_headers(head.shown_headers) | expiration_header(request, head) | encryption_headers(request, head)
    refused = check(_conditions(request.headers), opened.etag, seconds_of(head.stamp), reading=True)
    if refused == 412:
        raise S3Error("PreconditionFailed")
    if refused is not None:
        kept = ("etag", "last-modified", "cache-control", "expires", "x-amz-version-id")
        return Reply(status=refused, headers={name: headers[name] for name in kept if name in headers})
    status, offset, length = await _wanted(request, found, opened, headers)
    if _wants_checksum(request) and status == 200:
        headers.update(checksum_headers(head))
    content_type = _overridden(request, headers) or head.shown_type
    if request.method == "HEAD":
        return Reply(b"", status, headers, content_type=content_type)
    body = opened.body(offset, length)
    if body is not None:
        return Reply(body, status, headers, content_type=content_type)
    return Reply(None, status, headers, stream=opened.stream(offset, length), content_type=content_type)


def _wants_checksum(request: S3Request) -> bool:
    return request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"


def _conditions(headers: Mapping[str, str]) -> dict[str, str]:
    """An ETag that matches outweighs a date."""
    left_out = {"if-unmodified-since"} if "if-match" in headers else set()
    return {name: value for name, value in headers.items() if name.startswith("if-") and name not in left_out}


def may_read(request: S3Request) -> MayRead:
    """Whether a manifest or a link may lead the caller to another object."""

    async def ask(account: str, container: str, name: str) -> None:
        bucket = await request.door.objects.container(account, container)
        action = "s3:GetObject" if name else "s3:ListBucket"
        await rights.require(request, action, "READ", key=name, on_object=bool(name), bucket=bucket)

    return ask


async def _wanted(request: S3Request, found: Found, opened: Opened, headers: dict[str, str]) -> tuple[int, int, int]:
    """Status, offset and length of what is asked for; the headers are told."""
    size, text = opened.size_bytes, request.headers.get("range")
    if text is not None and "partNumber" in request.params_of:
        raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
    number = part_number(request)
    if number is not None:
        offset, length = await _part(request, found, opened, number, headers)
    elif text is None:
        return 200, 0, size
    else:
        if_range = request.headers.get("if-range")
        if if_range is not None and if_range.strip('"') not in (opened.etag, last_modified(found.head.stamp)):
            return 200, 0, size
        ranges = parse_ranges(text, size)
        if ranges is None or len(ranges) > 1:
            return 200, 0, size
        if not ranges:
            fields = {"RangeRequested": text, "ActualObjectSize": str(size)}
            raise S3Error("InvalidRange", fields=fields, headers={"content-range": f"bytes */{size}"})
        offset, length = ranges[0]
    headers["content-length"] = str(length)
    if length:
        headers["content-range"] = f"bytes {offset}-{offset + length - 1}/{size}"
    return 206, offset, length


async def _part(
    request: S3Request, found: Found, opened: Opened, number: int, headers: dict[str, str]
) -> tuple[int, int]:
    if MANIFEST not in found.head.headers:
        if number != 1:
            raise S3Error("InvalidPartNumber")
        return 0, opened.size_bytes
    segments = await request.door.objects.segments(found)
    if number > len(segments):
        raise S3Error("InvalidPartNumber", fields={"ActualPartCount": str(len(segments))})
    headers["x-amz-mp-parts-count"] = str(len(segments))
    algorithm, _, value = segments[number - 1].checksum.partition(" ")
    if algorithm and _wants_checksum(request):
        headers[checksums.header_of(algorithm)] = value
        whole = checksum_of(found.head)
        if whole is not None:
            headers["x-amz-checksum-type"] = whole[2]
    return sum(segment.used_bytes for segment in segments[: number - 1]), segments[number - 1].used_bytes


def _overridden(request: S3Request, headers: dict[str, str]) -> str | None:
    """`response-*` of the query; returns the content type when that is one of them."""
    asked = {header: request.params_of[name] for name, header in _OVERRIDES.items() if name in request.params_of}
    if asked and request.caller is None:
        shown = "Request specific response headers cannot be used for anonymous GET requests."
        raise S3Error("InvalidRequest", shown)
    content_type = asked.pop("content-type", None)
    headers.update(asked)
    return content_type


_ATTRIBUTES: Final = ("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize")


async def get_object_attributes(request: S3Request) -> Reply:
    found = await found_object(request)
    head = found.head
    await rights.require(request, acting(request, "s3:GetObject"), "READ", existing=head, on_object=True)
    asked = {name.strip() for name in request.headers.get("x-amz-object-attributes", "").split(",") if name.strip()}
    if not asked or not asked <= set(_ATTRIBUTES):
        raise S3Error("InvalidArgument", "Invalid attribute name specified.")
    opened = await request.door.objects.open_parts(found, may_read(request), customer_key=key_for(request, head))
    fields: list[Field] = [("ETag", opened.etag)] if "ETag" in asked else []
    checksum = checksum_of(head)
    if "Checksum" in asked and checksum is not None:
        algorithm, value, kind = checksum
        fields.append(("Checksum", [("Checksum" + algorithm, value), ("ChecksumType", kind)]))
    if "ObjectParts" in asked and MANIFEST in head.headers:
        fields.append(("ObjectParts", await _parts_of(request, found, head)))
    if "StorageClass" in asked:
        fields.append(("StorageClass", head.shown_headers.get(CLASS, STANDARD)))
    if "ObjectSize" in asked:
        fields.append(("ObjectSize", opened.size_bytes))
    headers = {"last-modified": last_modified(head.stamp)} | version_headers(request, head)
    return Reply(document("GetObjectAttributesResponse", fields), headers=headers, content_type=CONTENT_TYPE)


async def _parts_of(request: S3Request, found: Found, head: Head) -> list[Field]:
    segments = await request.door.objects.segments(found)
    most = _number(request, "x-amz-max-parts", 1000)
    after = _number(request, "x-amz-part-number-marker", 0)
    page = list(enumerate(segments, 1))[after : after + most]
    fields: list[Field] = [
        ("PartsCount", len(segments)),
        ("PartNumberMarker", after),
        ("NextPartNumberMarker", page[-1][0] if page else 0),
        ("MaxParts", most),
        ("IsTruncated", after + most < len(segments)),
    ]
    if checksum_of(head) is not None:
        fields += [("Part", _part_of(number, segment)) for number, segment in page]
    return fields


def _part_of(number: int, segment: Segment) -> list[Field]:
    algorithm, _, value = segment.checksum.partition(" ")
    checksum: list[Field] = [("Checksum" + algorithm, value)] if algorithm else []
    return [("PartNumber", number), ("Size", segment.used_bytes), *checksum]


def _number(request: S3Request, header: str, default: int) -> int:
    text = request.headers.get(header, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise S3Error("InvalidArgument", f"{header} is not a number.", fields={"ArgumentValue": text})
    return min(int(text), 1000) if header == "x-amz-max-parts" else int(text)


async def readable_source(request: S3Request, header: str = "x-amz-copy-source") -> tuple[Found, Opened]:
    """What `x-amz-copy-source` names, when the caller may read it.  Raise S3Error."""
    account, bucket, key, version_id = await _source_of(request, header)
    objects = request.door.objects
    head = await objects.container(account, bucket)
    found = await objects.find(account, bucket, key, newest=True, version_id=version_id)
    if found is None:
        if not await rights.may(request, "s3:ListBucket", "READ", key="", bucket=head):
            raise S3Error("AccessDenied")
        raise S3Error("NoSuchKey" if version_id is None else "NoSuchVersion", fields={"Key": key})
    action = "s3:GetObject" if version_id is None else "s3:GetObjectVersion"
    await rights.require(request, action, "READ", key=key, existing=found.head, on_object=True, bucket=head)
    if is_marker(found.head):
        raise S3Error("InvalidRequest", "The source of a copy request may not specifically refer to a delete marker.")
    try:
        found = await objects.follow(found, may_read(request))
        key_sent = key_for(request, found.head, SOURCE)
        return found, await objects.open_parts(found, may_read(request), customer_key=key_sent)
    except NotFound:
        raise S3Error("NoSuchKey", fields={"Key": key}) from None


async def _source_of(request: S3Request, header: str) -> tuple[str, str, str, str | None]:
    """Account, bucket, key and version: percent-encoded, with or without a slash before."""
    text, _, query = request.text(header).partition("?")
    version_id = wanted_version(dict(parse_qsl(query, keep_blank_values=True)).get("versionId"))
    bucket, slash, key = unquote(text).lstrip("/").partition("/")
    if not bucket or not slash or not key or "\0" in key:
        shown = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
        raise S3Error("InvalidArgument", shown, fields={"ArgumentName": header, "ArgumentValue": text})
    account = await request.door.names.account_of(bucket, request.caller)
    if account is None:
        raise S3Error("NoSuchBucket", fields={"BucketName": bucket})
    return account, bucket, key, version_id

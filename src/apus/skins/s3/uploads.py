"""Uploads in parts: begun, given parts (sent, or copied from another object), and given up."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncIterator
from typing import Final

from apus.kernel.buffers import Chunk
from apus.services.object.engine import Intent
from apus.services.object.logic.history import archive_of
from apus.services.object.logic.listed import LISTED, parameters_text
from apus.services.object.logic.versions import VERSION, version_of
from apus.services.object.model import Head
from apus.skins.s3 import checksums, encryption
from apus.skins.s3.acls import object_acl
from apus.skins.s3.errors import S3Error
from apus.skins.s3.lifecycle import abort_headers
from apus.skins.s3.metadata import content_type_of, iso_time, said_of_object
from apus.skins.s3.object_lock import said_of_lock
from apus.skins.s3.payload import PUT_BYTES_MAX, Payload, announced_size, content_md5
from apus.skins.s3.reading import part_number, readable_source
from apus.skins.s3.request import S3Request
from apus.skins.s3.writing import check_source
from apus.skins.s3.xml import CONTENT_TYPE, Field, document
from apus.wire.route import Reply

PROMISED: Final = "x-object-sysmeta-s3-upload-checksum"
"""Of an upload `ALGORITHM KIND`: which checksum its parts have, and what is made of them for the whole."""

_PART_TYPE: Final = "application/octet-stream"
_RANGE: Final = re.compile(r"bytes=([0-9]{1,19})-([0-9]{1,19})")


@dataclasses.dataclass(frozen=True, slots=True)
class Promise:
    """The checksums of an upload."""

    algorithm: str | None = None
    kind: str = ""


async def create(request: S3Request) -> Reply:
    if archive_of(request.head.metadata) is not None:
        shown = "This bucket copies what is overwritten to another (X-Versions-Location): it takes no uploads in parts."
        raise S3Error("InvalidRequest", shown)
    promise = _promise(request)
    headers = {**said_of_object(request), **await object_acl(request), **await said_of_lock(request)}
    if promise.algorithm is not None:
        headers[PROMISED] = f"{promise.algorithm} {promise.kind}"
    headers.update(encryption.upload_headers(request, encryption.asked(request)))
    place = request.account, request.bucket, request.key
    upload_id = await request.door.objects.uploads.begin(Intent(*place, content_type_of(request), headers, 0))
    told = _told(promise) | abort_headers(request, request.door.now_s()) | encryption.told_of_upload(request, headers)
    fields: list[Field] = [("Bucket", request.bucket), ("Key", request.key), ("UploadId", upload_id)]
    return Reply(
        document("InitiateMultipartUploadResult", fields),
        headers=told,
        content_type=CONTENT_TYPE,
    )


def _promise(request: S3Request) -> Promise:
    named, kind = request.headers.get("x-amz-checksum-algorithm"), request.headers.get("x-amz-checksum-type")
    if named is None:
        if kind is not None:
            shown = "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."
            raise S3Error("InvalidRequest", shown)
        return Promise()
    algorithm = checksums.algorithm_of(named)
    kind = (kind or checksums.kinds_of(algorithm)[0]).upper()
    if kind not in checksums.kinds_of(algorithm):
        shown = f"The {kind} checksum type cannot be used with the {algorithm.lower()} checksum algorithm."
        raise S3Error("InvalidRequest", shown)
    return Promise(algorithm, kind)


def promise_of(upload: Head) -> Promise:
    algorithm, _, kind = upload.headers.get(PROMISED, "").partition(" ")
    return Promise(algorithm or None, kind)


def _told(promise: Promise) -> dict[str, str]:
    if promise.algorithm is None:
        return {}
    return {"x-amz-checksum-algorithm": promise.algorithm, "x-amz-checksum-type": promise.kind}


async def found_upload(request: S3Request) -> Head:
    """Raise NotFound, which is NoSuchUpload here."""
    upload_id = request.param("uploadId") or ""
    return await request.door.objects.uploads.find(request.account, request.bucket, request.key, upload_id)


async def upload_part(request: S3Request) -> Reply:
    number = part_number(request)
    if number is None:
        raise S3Error("InvalidArgument", "A part has a partNumber.", fields={"ArgumentName": "partNumber"})
    upload = await found_upload(request)
    if "x-amz-copy-source" in request.headers:
        return await _copy_part(request, upload, number)
    payload = Payload(request, algorithm=promise_of(upload).algorithm)
    intent = _intent(request, announced_size(request), content_md5(request))
    headers = dict(intent.headers)

    async def body() -> AsyncIterator[Chunk]:
        async for piece in payload.stream():
            yield piece
        _note(headers, payload.algorithm, payload.checksum)

    whole = dataclasses.replace(intent, headers=headers)
    head = await _put(request, upload, number, whole, body())
    shown = {"etag": f'"{head.shown_etag}"'}
    if payload.algorithm is not None and payload.checksum is not None:
        shown[checksums.header_of(payload.algorithm)] = payload.checksum
    return Reply(headers=shown | encryption.told_of_upload(request, upload.headers))


async def _put(request: S3Request, upload: Head, number: int, intent: Intent, data: AsyncIterator[Chunk]) -> Head:
    wanted = encryption.of_upload(request, upload)
    return await request.door.objects.uploads.put_part(
        upload, number, intent, data, sealed=wanted.sealed, customer_key=wanted.customer_key
    )


def _intent(request: S3Request, size: int | None, etag: str | None = None) -> Intent:
    return Intent(request.account, request.bucket, request.key, _PART_TYPE, {}, size, etag)


def _note(headers: dict[str, str], algorithm: str | None, checksum: str | None) -> None:
    """The checksum goes where a listing of parts sees it."""
    if algorithm is not None and checksum is not None:
        headers[LISTED] = parameters_text(checksum=f"{algorithm} {checksum}")


async def _copy_part(request: S3Request, upload: Head, number: int) -> Reply:
    found, opened = await readable_source(request)
    check_source(request.headers, found, opened.etag)
    offset, length = _range(request, opened.size_bytes)
    if length > PUT_BYTES_MAX:
        shown = f"The specified copy source is larger than the maximum allowable size: {PUT_BYTES_MAX}"
        raise S3Error("InvalidRequest", shown)
    algorithm = promise_of(upload).algorithm
    digest = checksums.ALGORITHMS[algorithm]() if algorithm is not None else None
    intent = _intent(request, length)
    headers = dict(intent.headers)

    async def body() -> AsyncIterator[Chunk]:
        async for piece in opened.stream(offset, length):
            if digest is not None:
                digest.update(piece)
            yield piece
        _note(headers, algorithm, checksums.encoded(digest.digest()) if digest is not None else None)

    whole = dataclasses.replace(intent, headers=headers)
    head = await _put(request, upload, number, whole, body())
    fields: list[Field] = [("LastModified", iso_time(head.stamp)), ("ETag", f'"{head.shown_etag}"')]
    if algorithm is not None and digest is not None:
        fields.append(("Checksum" + algorithm, checksums.encoded(digest.digest())))
    copied = encryption.told_of_upload(request, upload.headers)
    copied |= {"x-amz-copy-source-version-id": version_of(found.head)} if VERSION in found.head.headers else {}
    return Reply(document("CopyPartResult", fields), headers=copied, content_type=CONTENT_TYPE)


def _range(request: S3Request, size: int) -> tuple[int, int]:
    """Offset and length of what is copied."""
    text = request.headers.get("x-amz-copy-source-range")
    if text is None:
        return 0, size
    match = _RANGE.fullmatch(text)
    fields = {"ArgumentName": "x-amz-copy-source-range", "ArgumentValue": text}
    if match is None:
        shown = (
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the "
            "zero-based offsets of the first and last bytes to copy"
        )
        raise S3Error("InvalidArgument", shown, fields=fields)
    first, last = int(match[1]), int(match[2])
    if first > last or last >= size:
        shown = f"Range specified is not valid for source object of size: {size}"
        raise S3Error("InvalidRange", shown, fields=fields)
    return first, last - first + 1


async def abort(request: S3Request) -> Reply:
    await request.door.objects.uploads.give_up(await found_upload(request), request.bucket)
    return Reply(status=204)

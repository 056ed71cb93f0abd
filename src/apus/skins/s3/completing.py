"""CompleteMultipartUpload: the client's list of parts is held against those that are there."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Final

from apus.kernel.errors import NotFound
from apus.services.object.engine import Intent
from apus.services.object.logic.uploads import PART_NUMBER_MAX, UPLOAD, Part, etag_of_parts
from apus.services.object.model import Head
from apus.skins.s3 import checksums
from apus.skins.s3.encryption import SEALED, encryption_headers
from apus.skins.s3.errors import S3Error
from apus.skins.s3.lifecycle import expiration_header
from apus.skins.s3.metadata import CHECKSUM, checksum_fields, checksum_text
from apus.skins.s3.payload import read_document
from apus.skins.s3.request import S3Request
from apus.skins.s3.uploads import PROMISED, Promise, found_upload, promise_of
from apus.skins.s3.versions import version_headers
from apus.skins.s3.writing import condition_of
from apus.skins.s3.xml import CONTENT_TYPE, Field, Node, document, malformed, parse
from apus.wire.route import Reply

PART_BYTES_MIN: Final = 5 << 20
"""Of every part but the last."""


@dataclasses.dataclass(frozen=True, slots=True)
class Named:
    """A part as the client names it."""

    number: int
    etag: str
    checksums: Mapping[str, str]
    """By algorithm."""


async def complete(request: S3Request) -> Reply:
    data = await read_document(request, of_body=False)  # a checksum in the headers is that of the whole object
    named = _named(parse(data, "CompleteMultipartUpload"))
    upload_id = request.param("uploadId") or ""
    async with request.door.key_locks.held(request.account, request.bucket, request.key, upload_id):
        try:
            upload = await found_upload(request)
        except NotFound:
            return await _completed_before(request, upload_id, named)
        parts = _matched(named, await request.door.objects.uploads.parts(upload, request.bucket), promise_of(upload))
        headers = {name: value for name, value in upload.headers.items() if name not in (PROMISED, SEALED)}
        headers.update(_checksum(request, promise_of(upload), parts))
        _check_size(request, parts)
        intent = Intent(request.account, request.bucket, request.key, upload.content_type, headers)
        async with condition_of(request) as condition:
            await condition.settle()
            head = await request.door.objects.uploads.finish(upload, intent, parts, sealed=SEALED in upload.headers)
    return _done(request, head)


async def _completed_before(request: S3Request, upload_id: str, named: list[Named]) -> Reply:
    """The answer to who asks for the same again because the first answer was lost."""
    found = await request.door.objects.find(request.account, request.bucket, request.key, newest=True)
    if found is None or found.head.headers.get(UPLOAD) != upload_id or not _is_of(found.head, named):
        raise S3Error("NoSuchUpload", fields={"UploadId": upload_id})
    return _done(request, found.head)


def _is_of(head: Head, named: list[Named]) -> bool:
    """Whether these are the parts that it was made of."""
    try:
        return head.shown_etag == etag_of_parts([one.etag for one in named])
    except ValueError:
        return False


def _done(request: S3Request, head: Head) -> Reply:
    fields: list[Field] = [
        ("Location", f"http://{request.headers.get('host', '')}{request.raw_path}"),
        ("Bucket", request.bucket),
        ("Key", request.key),
        ("ETag", f'"{head.shown_etag}"'),
        *checksum_fields(head),
    ]
    body = document("CompleteMultipartUploadResult", fields)
    told = version_headers(request, head) | expiration_header(request, head) | encryption_headers(request, head)
    return Reply(body, headers=told, content_type=CONTENT_TYPE)


def _named(root: Node) -> list[Named]:
    found = [_part(node) for node in root.all("Part")]
    if not found or len(found) > PART_NUMBER_MAX:
        raise malformed(f"There are 1 to {PART_NUMBER_MAX} parts.")
    for before, after in itertools.pairwise(found):
        if after.number <= before.number:
            raise S3Error("InvalidPartOrder")
    return found


def _part(node: Node) -> Named:
    text = node.need("PartNumber")
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= PART_NUMBER_MAX):
        shown = f"PartNumber must be an integer between 1 and {PART_NUMBER_MAX}, inclusive"
        raise S3Error("InvalidArgument", shown, fields={"ArgumentName": "PartNumber", "ArgumentValue": text})
    sent = {name: node.get("Checksum" + name) for name in checksums.ALGORITHMS}
    etag = node.need("ETag").strip('"').lower()
    return Named(int(text), etag, {name: value for name, value in sent.items() if value is not None})


def _matched(named: list[Named], there: Mapping[int, Part], promise: Promise) -> list[Part]:
    """The parts that are meant.  Raise S3Error."""
    parts = []
    for one in named:
        part = there.get(one.number)
        algorithm, _, value = part.checksum.partition(" ") if part is not None else ("", "", "")
        wrong = any(name != algorithm or sent != value for name, sent in one.checksums.items())
        if part is None or part.etag != one.etag or (wrong and algorithm):
            raise S3Error("InvalidPart", fields={"PartNumber": str(one.number), "ETag": one.etag})
        if wrong or (promise.algorithm is not None and algorithm != promise.algorithm):
            shown = f"Part {one.number} was not sent with the checksum that is named for it."
            raise S3Error("InvalidRequest", shown)
        parts.append(part)
    for part in parts[:-1]:
        if part.size_bytes < PART_BYTES_MIN:
            fields = {
                "ProposedSize": str(part.size_bytes),
                "MinSizeAllowed": str(PART_BYTES_MIN),
                "PartNumber": str(part.number),
                "ETag": part.etag,
            }
            shown = "Your proposed upload is smaller than the minimum allowed size"
            raise S3Error("EntityTooSmall", shown, fields=fields)
    return parts


def _checksum(request: S3Request, promise: Promise, parts: list[Part]) -> dict[str, str]:
    """The header that keeps the checksum of the whole.  Raise S3Error when the client's is another."""
    sent, kind = checksums.sent_checksum(request.headers, composite=True), request.headers.get("x-amz-checksum-type")
    if promise.algorithm is None:
        if sent is not None or kind is not None:
            raise S3Error("InvalidRequest", "The upload was created without a checksum algorithm.")
        return {}
    if kind is not None and kind.upper() != promise.kind:
        shown = f"The upload was created using the {promise.kind} checksum mode. The complete request must use the same"
        raise S3Error("InvalidRequest", f"{shown} checksum mode.")
    value = checksums.of_parts(
        promise.algorithm, promise.kind, [(part.checksum.partition(" ")[2], part.size_bytes) for part in parts]
    )
    if sent is not None and sent != (promise.algorithm, value):
        raise S3Error("BadDigest", f"The {promise.algorithm} you specified did not match the calculated checksum.")
    return {CHECKSUM: checksum_text(promise.algorithm, value, promise.kind)}


def _check_size(request: S3Request, parts: list[Part]) -> None:
    text, size = request.headers.get("x-amz-mp-object-size"), sum(part.size_bytes for part in parts)
    if text is not None and text != str(size):
        raise S3Error("InvalidRequest", f"The parts are {size} bytes in all, and x-amz-mp-object-size is {text}.")

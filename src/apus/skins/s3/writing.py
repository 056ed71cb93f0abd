"""PutObject, CopyObject, DeleteObject and DeleteObjects.

A condition of a write is looked at twice: before the body, so that a refusal comes early, and when the body is whole,
in its turn, so that of two writers that both ask for the key to be absent only one finds it so (`turns.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Final

from apus.kernel.buffers import Chunk
from apus.kernel.errors import CloudError, NotFound
from apus.services.object.condition import Condition
from apus.services.object.engine import Found, Intent
from apus.services.object.logic import notices
from apus.services.object.logic.conditions import check
from apus.services.object.logic.merge import seconds_of
from apus.services.object.logic.tags import TAGS
from apus.services.object.logic.versions import VERSION, version_of
from apus.services.object.model import Head
from apus.services.object.versions import Deleted
from apus.skins.s3 import checksums, encryption, rights
from apus.skins.s3.acls import object_acl
from apus.skins.s3.encryption import encryption_headers
from apus.skins.s3.errors import S3Error, s3_error
from apus.skins.s3.lifecycle import expiration_header
from apus.skins.s3.metadata import (
    CHECKSUM,
    KEPT,
    STORED_META,
    checksum_fields,
    checksum_headers,
    checksum_of,
    checksum_text,
    content_type_of,
    iso_time,
    said_of_object,
)
from apus.skins.s3.object_lock import bypass, said_of_lock
from apus.skins.s3.payload import PUT_BYTES_MAX, Payload, announced_size, content_md5, read_document
from apus.skins.s3.reading import readable_source
from apus.skins.s3.request import KEY_BYTES_MAX, S3Request
from apus.skins.s3.versions import MARKER_HEADER, VERSION_HEADER, acting, version_headers, wanted_version
from apus.skins.s3.xml import CONTENT_TYPE, Field, Node, document, malformed, parse
from apus.wire.route import Reply

DELETE_MAX: Final = 1000
DELETES_AT_ONCE: Final = 16


async def put_object(request: S3Request) -> Reply:
    if "x-amz-copy-source" in request.headers:
        return await copy_object(request)
    await rights.require(request, "s3:PutObject", "WRITE")
    size = announced_size(request)
    intent = Intent(
        request.account,
        request.bucket,
        request.key,
        content_type_of(request),
        {**said_of_object(request), **await object_acl(request), **await said_of_lock(request)},
        size,
        content_md5(request),
    )
    head = await store(request, intent)
    return Reply(headers=written_headers(request, head))


async def store(
    request: S3Request, intent: Intent, source: AsyncIterator[bytes] | None = None, *, cause: str = notices.PUT
) -> Head:
    """Take the body in under the request's conditions.  Raise S3Error, and keep nothing."""
    headers = dict(intent.headers)
    async with condition_of(request) as condition:
        await condition.look()
        payload = Payload(request, source=source, at_end=condition.settle)

        async def body() -> AsyncIterator[Chunk]:
            async for piece in payload.stream():
                yield piece
            if payload.algorithm is not None and payload.checksum is not None:
                headers[CHECKSUM] = checksum_text(payload.algorithm, payload.checksum)

        whole = Intent(
            intent.account, intent.container, intent.name, intent.content_type, headers, intent.size_bytes, intent.etag
        )
        wanted = encryption.asked(request)
        return await request.door.objects.put(
            whole, body(), sealed=wanted.sealed, customer_key=wanted.customer_key, cause=cause
        )


def condition_of(request: S3Request, *, key: str | None = None, headers: Mapping[str, str] | None = None) -> Condition:
    """`If-Match` and `If-None-Match` of a write: of the request, or of one key among those that its body names."""
    key, sent = request.key if key is None else key, request.headers if headers is None else headers
    asked = {name: sent[name] for name in ("if-match", "if-none-match") if name in sent}
    if asked.get("if-none-match", "*").strip() != "*" and request.method != "DELETE":
        raise S3Error("NotImplemented", "If-None-Match of a write is * alone.")
    place = request.account, request.bucket, key

    def met(found: Found | None) -> None:
        if found is None and "if-match" in asked:
            raise S3Error("NoSuchKey", fields={"Key": key})
        etag, changed_s = (found.head.shown_etag, seconds_of(found.head.stamp)) if found else (None, 0.0)
        if check(asked, etag, changed_s, reading=False) is not None:
            named = "If-Match" if "if-match" in asked else "If-None-Match"
            raise S3Error("PreconditionFailed", fields={"Condition": named})

    return Condition(request.door.objects, place, met if asked else None)


def written_headers(request: S3Request, head: Head) -> dict[str, str]:
    told = {"etag": f'"{head.shown_etag}"', **checksum_headers(head)}
    told |= encryption_headers(request, head)
    return told | version_headers(request, head) | expiration_header(request, head)


async def copy_object(request: S3Request) -> Reply:
    await rights.require(request, "s3:PutObject", "WRITE")
    if "range" in request.headers:
        named = {"ArgumentName": "Range", "ArgumentValue": request.headers["range"]}
        raise S3Error("InvalidArgument", "A copy is of the whole object: it takes no Range.", fields=named)
    found, opened = await readable_source(request)
    check_source(request.headers, found, opened.etag)
    if opened.size_bytes > PUT_BYTES_MAX:
        shown = f"The specified copy source is larger than the maximum allowable size: {PUT_BYTES_MAX}"
        raise S3Error("InvalidRequest", shown)
    content_type, headers = await _copied(request, found)
    checksum = checksum_of(found.head)
    asked = request.headers.get("x-amz-checksum-algorithm")
    algorithm = checksums.algorithm_of(asked) if asked else checksum[0] if checksum else None
    intent = Intent(request.account, request.bucket, request.key, content_type, headers, opened.size_bytes)
    async with condition_of(request) as condition:
        await condition.look()
        stream = hashed(opened.stream(0, opened.size_bytes), algorithm, headers, condition)
        wanted = encryption.asked(request)
        head = await request.door.objects.put(
            intent, stream, sealed=wanted.sealed, customer_key=wanted.customer_key, cause=notices.COPY
        )
    fields: list[Field] = [
        ("LastModified", iso_time(head.stamp)),
        ("ETag", f'"{head.shown_etag}"'),
        *checksum_fields(head),
    ]
    headers = version_headers(request, head) | expiration_header(request, head) | encryption_headers(request, head)
    if VERSION in found.head.headers:
        headers["x-amz-copy-source-version-id"] = version_of(found.head)
    return Reply(document("CopyObjectResult", fields), headers=headers, content_type=CONTENT_TYPE)


async def hashed(
    stream: AsyncIterator[Chunk], algorithm: str | None, headers: dict[str, str], condition: Condition | None = None
) -> AsyncIterator[Chunk]:
    """The same bytes; at their end the checksum is among the headers, and the condition has settled."""
    digest = checksums.ALGORITHMS[algorithm]() if algorithm is not None else None
    async for piece in stream:
        if digest is not None:
            digest.update(piece)
        yield piece
    if digest is not None and algorithm is not None:
        headers[CHECKSUM] = checksum_text(algorithm, checksums.encoded(digest.digest()))
    if condition is not None:
        await condition.settle()


def check_source(headers: Mapping[str, str], found: Found, etag: str) -> None:
    """`x-amz-copy-source-if-*`.  Raise S3Error when they do not hold."""
    prefix = "x-amz-copy-source-"
    asked = {name.removeprefix(prefix): value for name, value in headers.items() if name.startswith(prefix + "if-")}
    if "if-match" in asked:
        asked.pop("if-unmodified-since", None)
    if asked and check(asked, etag, seconds_of(found.head.stamp), reading=True) is not None:
        raise S3Error("PreconditionFailed")


async def _copied(request: S3Request, found: Found) -> tuple[str, dict[str, str]]:
    """Content type and headers of the copy, by the directives for metadata and tags."""
    said = said_of_object(request)
    headers, source = request.headers, found.head
    metadata, tagging = (_directive(headers, f"x-amz-{what}-directive") for what in ("metadata", "tagging"))
    itself = (source.account, source.container, source.name) == (request.account, request.bucket, request.key)
    changes = metadata == "REPLACE" or tagging == "REPLACE" or "x-amz-storage-class" in headers
    if itself and not changes and "versionId=" not in headers["x-amz-copy-source"] and not _more_changes(headers):
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the "
            "object's metadata, storage class, website redirect location or encryption attributes.",
        )
    content_type = content_type_of(request)
    if metadata == "COPY":
        content_type = source.shown_type
        kept = (name for name in source.shown_headers if name.startswith(STORED_META) or name in KEPT)
        said = {name: value for name, value in said.items() if not name.startswith(STORED_META) and name not in KEPT}
        said |= {name: source.shown_headers[name] for name in kept}
    if tagging == "COPY":
        said.pop(TAGS, None)
        if TAGS in source.shown_headers:
            said[TAGS] = source.shown_headers[TAGS]
    return content_type, {**said, **await object_acl(request), **await said_of_lock(request)}


def _more_changes(headers: Mapping[str, str]) -> bool:
    return any(name.startswith(("x-amz-website-redirect-location", encryption.SSE)) for name in headers)


def _directive(headers: Mapping[str, str], name: str) -> str:
    directive = headers.get(name, "COPY").upper()
    if directive not in ("COPY", "REPLACE"):
        raise S3Error("InvalidArgument", f"Unknown {name.removeprefix('x-amz-')}.", fields={"ArgumentValue": directive})
    return directive


async def delete_object(request: S3Request) -> Reply:
    version_id = wanted_version(request.param("versionId"))
    await rights.require(request, acting(request, "s3:DeleteObject"), "WRITE")
    if any(name.startswith("x-amz-if-match-") for name in request.headers):
        raise _of_directory_buckets()
    async with condition_of(request) as condition:
        await condition.settle()
        done = await _delete(request, request.key, version_id)
    return Reply(status=204, headers=_deleted_headers(done, version_id))


def _of_directory_buckets() -> S3Error:
    """A condition that is not looked at would delete what its sender meant to keep."""
    return S3Error("NotImplemented", "A deletion's conditions of time and size are those of directory buckets.")


async def _delete(request: S3Request, key: str, version_id: str | None) -> Deleted | None:
    """None when there was nothing: that is as well.  A version that goes leaves the one before it current."""
    place = request.account, request.bucket, key
    try:
        return await request.door.objects.delete(
            *place, version_id=version_id, restore=version_id is not None, bypass=await bypass(request, key)
        )
    except NotFound:
        return None


def _deleted_headers(done: Deleted | None, version_id: str | None) -> dict[str, str]:
    headers: dict[str, str] = {}
    if done is not None and done.version_id:
        headers[VERSION_HEADER] = done.version_id
        if done.is_marker:
            headers[MARKER_HEADER] = "true"
    elif version_id is not None:
        headers[VERSION_HEADER] = version_id
    return headers


async def delete_objects(request: S3Request) -> Reply:
    root = parse(await read_document(request, needs_digest=True), "Delete")
    nodes = list(root.all("Object"))
    if not nodes or len(nodes) > DELETE_MAX:
        raise malformed(f"A Delete has 1 to {DELETE_MAX} Objects.")
    if not all(_key_of(node) for node in nodes):
        raise malformed("An Object has a Key.")
    quiet = (root.get("Quiet") or "").lower() == "true"
    limit = asyncio.Semaphore(DELETES_AT_ONCE)

    async def one(node: Node) -> Field:
        async with limit:
            return await _delete_one(request, node)

    done = await asyncio.gather(*(one(node) for node in nodes))
    fields = [field for field in done if not (quiet and field[0] == "Deleted")]
    return Reply(document("DeleteResult", fields), content_type=CONTENT_TYPE)


def _key_of(node: Node) -> str:
    """As it stands there: a key may be a space."""
    key = node.find("Key")
    return key.text if key is not None else ""


async def _delete_one(request: S3Request, node: Node) -> Field:
    name = _key_of(node)
    try:
        if "\0" in name or len(name.encode()) > KEY_BYTES_MAX:
            raise S3Error("KeyTooLongError")
        version_id = wanted_version(node.get("VersionId") or None)
        action = "s3:DeleteObject" if version_id is None else "s3:DeleteObjectVersion"
        await rights.require(request, action, "WRITE", key=name)
        if node.find("LastModifiedTime") is not None or node.find("Size") is not None:
            raise _of_directory_buckets()
        etag = node.get("ETag")
        async with condition_of(request, key=name, headers={"if-match": etag} if etag else {}) as condition:
            await condition.settle()
            done = await _delete(request, name, version_id)
    except S3Error as error:
        return _error_of(node, error)
    except CloudError as error:
        return _error_of(node, s3_error(error))
    fields: list[Field] = [("Key", name), ("VersionId", version_id)]
    if done is not None and done.is_marker:
        fields += [("DeleteMarker", True), ("DeleteMarkerVersionId", done.version_id)]
    return "Deleted", fields


def _error_of(node: Node, error: S3Error) -> Field:
    named: list[Field] = [("Key", _key_of(node)), ("VersionId", node.get("VersionId"))]
    return "Error", [*named, ("Code", error.code), ("Message", error.message)]

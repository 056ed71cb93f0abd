"""Versions of objects: whether a bucket keeps them, which one a request means, and the list of all."""

from __future__ import annotations

from typing import Final

from apus.kernel.errors import Invalid
from apus.services.object.engine import Found
from apus.services.object.logic.versions import State, VersionRow, check_id, is_marker, state_of, version_of
from apus.services.object.model import Head, ListingAsk
from apus.skins.s3 import rights
from apus.skins.s3.acls import bucket_owner
from apus.skins.s3.errors import S3Error
from apus.skins.s3.listing import Encoding, max_keys
from apus.skins.s3.metadata import STANDARD, iso_time, last_modified
from apus.skins.s3.payload import read_document
from apus.skins.s3.request import S3Request
from apus.skins.s3.xml import CONTENT_TYPE, Field, document, malformed, parse
from apus.wire.route import Reply

VERSION_HEADER: Final = "x-amz-version-id"
MARKER_HEADER: Final = "x-amz-delete-marker"
_STATES: Final[dict[str, State]] = {"Enabled": "enabled", "Suspended": "suspended"}


def wanted_version(text: str | None) -> str | None:
    """The id of a version as a query says it.  Raise S3Error for what is none."""
    if text is None:
        return None
    try:
        return check_id(text)
    except Invalid:
        fields = {"ArgumentName": "versionId", "ArgumentValue": text}
        raise S3Error("InvalidArgument", "Invalid version id specified", fields=fields) from None


def acting(request: S3Request, action: str) -> str:
    """What a policy calls it when a version is named: `s3:GetObjectAcl` is then `s3:GetObjectVersionAcl`."""
    return action.replace("Object", "ObjectVersion", 1) if "versionId" in request.params_of else action


def version_headers(request: S3Request, head: Head) -> dict[str, str]:
    """Nothing in a bucket that never kept versions."""
    return {VERSION_HEADER: version_of(head)} if state_of(request.head.metadata) else {}


async def found_version(request: S3Request, upto_bytes: int = 0) -> Found:
    """The object, or the version of it, that the request names; with its bytes if they are at hand and no more than
    this with their head.  Raise S3Error when there is none to be read."""
    version_id = wanted_version(request.param("versionId"))
    objects, place = request.door.objects, (request.account, request.bucket, request.key)
    found = await objects.find(*place, version_id=version_id, upto_bytes=upto_bytes)
    if found is None:
        missing = await rights.missing_key(request, version=version_id is not None)
        if version_id is None and state_of(request.head.metadata):
            newest = await objects.versions.newest(*place)
            if newest is not None and is_marker(newest.head):
                missing.headers.update({MARKER_HEADER: "true", VERSION_HEADER: version_of(newest.head)})
        raise missing
    if is_marker(found.head):
        headers = {MARKER_HEADER: "true", VERSION_HEADER: version_of(found.head), "allow": "DELETE"}
        headers["last-modified"] = last_modified(found.head.stamp)
        raise S3Error("MethodNotAllowed", fields={"ResourceType": "DeleteMarker"}, headers=headers)
    return found


async def get_versioning(request: S3Request) -> Reply:
    state = state_of(request.head.metadata)
    fields: list[Field] = [("Status", state.capitalize() or None)]
    return Reply(document("VersioningConfiguration", fields), content_type=CONTENT_TYPE)


async def put_versioning(request: S3Request) -> Reply:
    root = parse(await read_document(request), "VersioningConfiguration")
    if root.get("MfaDelete") == "Enabled":
        raise S3Error("NotImplemented", "Deletes are not guarded by a second factor.")
    status = root.get("Status")
    if status is None:
        raise S3Error("IllegalVersioningConfigurationException")
    if status not in _STATES:
        raise malformed("A Status is Enabled or Suspended.")
    await request.door.objects.set_versioning(request.account, request.bucket, _STATES[status])
    return Reply()


async def list_versions(request: S3Request) -> Reply:
    encode, most = Encoding(request), max_keys(request)
    marker, version_marker = request.param("key-marker") or "", request.param("version-id-marker") or ""
    if version_marker and not marker:
        raise S3Error("InvalidArgument", "A version-id marker cannot be specified without a key marker.")
    ask = ListingAsk(
        limit=most + 1, marker=marker, prefix=request.param("prefix") or "", delimiter=request.param("delimiter") or ""
    )
    rows = []
    if most:
        wanted_version(version_marker or None)
        rows = list(await request.door.objects.list_versions(request.account, request.bucket, ask, version_marker))
    truncated, rows = len(rows) > most, rows[:most]
    last = rows[-1] if truncated else None
    owner = bucket_owner(request)
    fields: list[Field] = [
        ("Name", request.bucket),
        ("Prefix", encode(ask.prefix)),
        ("KeyMarker", encode(marker)),
        ("VersionIdMarker", version_marker),
        ("NextKeyMarker", encode(last.name) if last else None),
        ("NextVersionIdMarker", last.version_id if isinstance(last, VersionRow) else None),
        ("MaxKeys", most),
        ("Delimiter", encode(ask.delimiter or None)),
        ("EncodingType", encode.type or None),
        ("IsTruncated", truncated),
        *(_version(row, owner, encode) for row in rows if isinstance(row, VersionRow)),
        *(("CommonPrefixes", [("Prefix", encode(row.name))]) for row in rows if not isinstance(row, VersionRow)),
    ]
    return Reply(document("ListVersionsResult", fields), content_type=CONTENT_TYPE)


def _version(row: VersionRow, owner: str, encode: Encoding) -> Field:
    fields: list[Field] = [
        ("Key", encode(row.name)),
        ("VersionId", row.version_id),
        ("IsLatest", row.is_latest),
        ("LastModified", iso_time(row.stamp)),
        ("Owner", [("ID", owner), ("DisplayName", owner)]),
    ]
    if row.is_marker:
        return "DeleteMarker", fields
    etag = f'"{row.manifest_etag or row.etag}"'
    return "Version", [
        *fields,
        ("ETag", etag),
        ("Size", row.size_bytes),
        ("StorageClass", row.storage_class or STANDARD),
    ]

"""Tags of objects and of buckets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from apus.services.object.logic.notices import TAGGED, UNTAGGED
from apus.services.object.logic.tags import TAGS
from apus.services.object.model import Head
from apus.skins.s3 import rights
from apus.skins.s3.errors import S3Error
from apus.skins.s3.metadata import TAGS_MAX, stored_tags
from apus.skins.s3.payload import read_document
from apus.skins.s3.request import S3Request
from apus.skins.s3.versions import acting, found_version, version_headers, wanted_version
from apus.skins.s3.xml import CONTENT_TYPE, Field, document, malformed, parse
from apus.wire.route import Reply

BUCKET_TAGS: Final = "x-container-sysmeta-s3-tags"
BUCKET_TAGS_MAX: Final = 50


def tags_of_document(data: bytes) -> list[tuple[str, str]]:
    tag_set = parse(data, "Tagging").find("TagSet")
    if tag_set is None:
        raise malformed("Tagging has a TagSet.")
    return [(tag.need("Key"), tag.need("Value")) for tag in tag_set.all("Tag")]


async def _read_tags(request: S3Request, most: int) -> str:
    return stored_tags(tags_of_document(await read_document(request)), most)


def _shown(text: str, headers: Mapping[str, str] | None = None) -> Reply:
    tags: list[Field] = [
        ("Tag", [("Key", key), ("Value", value)]) for key, value in parse_qsl(text, keep_blank_values=True)
    ]
    return Reply(document("Tagging", [("TagSet", tags)]), headers=headers or {}, content_type=CONTENT_TYPE)


async def get_object_tagging(request: S3Request) -> Reply:
    found = await found_version(request)
    await rights.require(request, acting(request, "s3:GetObjectTagging"), "", existing=found.head, on_object=True)
    return _shown(found.head.shown_headers.get(TAGS, ""), version_headers(request, found.head))


async def put_object_tagging(request: S3Request) -> Reply:
    found = await found_version(request)
    await rights.require(request, acting(request, "s3:PutObjectTagging"), "", existing=found.head, on_object=True)
    await describe(request, found.head, {TAGS: await _read_tags(request, TAGS_MAX)}, TAGGED)
    return Reply(headers=version_headers(request, found.head))


async def delete_object_tagging(request: S3Request) -> Reply:
    found = await found_version(request)
    await rights.require(request, acting(request, "s3:DeleteObjectTagging"), "", existing=found.head, on_object=True)
    await describe(request, found.head, {TAGS: ""}, UNTAGGED)
    return Reply(status=204, headers=version_headers(request, found.head))


async def describe(request: S3Request, head: Head, changes: dict[str, str], cause: str = "") -> None:
    """Change headers of the system's own on an object; the empty are removed, all else stays.  `cause`: the event."""
    shown = {name: value for name, value in head.shown_headers.items() if name not in changes}
    version_id = wanted_version(request.param("versionId"))
    place = request.account, request.bucket, request.key
    await request.door.objects.describe(*place, None, {**shown, **changes}, version_id=version_id, cause=cause)


async def get_bucket_tagging(request: S3Request) -> Reply:
    text = request.head.metadata.get(BUCKET_TAGS)
    if text is None:
        raise S3Error("NoSuchTagSet", fields={"BucketName": request.bucket})
    return _shown(text)


async def put_bucket_tagging(request: S3Request) -> Reply:
    tags = await _read_tags(request, BUCKET_TAGS_MAX)
    await request.door.objects.describe_container(request.account, request.bucket, {BUCKET_TAGS: tags})
    return Reply(status=204)


async def delete_bucket_tagging(request: S3Request) -> Reply:
    await request.door.objects.describe_container(request.account, request.bucket, {BUCKET_TAGS: ""})
    return Reply(status=204)

"""Buckets: list, make, look at, delete, and where they are."""

from __future__ import annotations

import re
from typing import Final

from apus.kernel.errors import Conflict, NotFound
from apus.services.object.logic.access import account_of, owns
from apus.services.object.logic.grants import acl_text, is_shared_acl
from apus.services.object.logic.rights import ACL, ENFORCED, OWNERSHIP
from apus.services.object.model import ListingAsk, Row
from apus.skins.s3.acls import sent_acl
from apus.skins.s3.auth import DEFAULT_REGION
from apus.skins.s3.errors import S3Error
from apus.skins.s3.listing import max_keys
from apus.skins.s3.metadata import iso_time
from apus.skins.s3.payload import read_document
from apus.skins.s3.request import S3Request
from apus.skins.s3.xml import CONTENT_TYPE, Field, document, parse
from apus.wire.route import Reply

BUCKETS_PAGE: Final = 10_000
OWNERSHIPS: Final = (ENFORCED, "BucketOwnerPreferred", "ObjectWriter")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_ADDRESS: Final = re.compile(r"[0-9]+(\.[0-9]+){3}")


def is_bucket_name(name: str) -> bool:
    """The rules for new ones; containers that are there may be called otherwise."""
    return (
        _NAME.fullmatch(name) is not None
        and ".." not in name
        and ".-" not in name
        and "-." not in name
        and not _ADDRESS.fullmatch(name)
        and not name.startswith(("xn--", "sthree-"))
        and not name.endswith(("-s3alias", "--ol-s3"))
    )


async def list_buckets(request: S3Request) -> Reply:
    caller = request.who
    if caller.project_id is None:
        raise S3Error("AccessDenied")
    account, prefix = account_of(caller.project_id), request.param("prefix") or ""
    if not owns(caller, account, to_write=False):
        raise S3Error("AccessDenied")
    most = max_keys(request, "max-buckets") if "max-buckets" in request.params_of else BUCKETS_PAGE - 1
    ask = ListingAsk(limit=most + 1, marker=request.param("continuation-token") or "", prefix=prefix)
    rows = list(await request.door.objects.listing(account, "", ask))
    more = rows[most - 1].name if len(rows) > most > 0 else None
    buckets: list[Field] = [
        ("Bucket", [("Name", row.name), ("CreationDate", iso_time(row.stamp)), ("BucketRegion", request.door.region)])
        for row in rows[:most]
        if isinstance(row, Row)
    ]
    name = caller.project_name or caller.project_id
    fields: list[Field] = [
        ("Owner", [("ID", caller.project_id), ("DisplayName", name)]),
        ("Buckets", buckets),
        ("ContinuationToken", more),
        ("Prefix", prefix or None),
    ]
    return Reply(document("ListAllMyBucketsResult", fields), content_type=CONTENT_TYPE)


async def create_bucket(request: S3Request) -> Reply:
    caller, bucket, objects, names = request.who, request.bucket, request.door.objects, request.door.names
    if not is_bucket_name(bucket):
        raise S3Error("InvalidBucketName", fields={"BucketName": bucket})
    await _check_location(request)
    fields = await _asked_of_new(request)
    if caller.project_id is None or not owns(caller, account_of(caller.project_id), to_write=True):
        raise S3Error("AccessDenied")
    account = account_of(caller.project_id)
    there = await objects.directory.known(account, bucket) is not None
    if there and await names.holds(bucket, account):
        raise S3Error("BucketAlreadyOwnedByYou", fields={"BucketName": bucket})
    await names.take(bucket, account)
    await objects.make_container(account, bucket, fields, caller=caller)
    if request.headers.get("x-amz-bucket-object-lock-enabled", "").lower() == "true":
        await objects.set_versioning(account, bucket, "enabled")
        await objects.set_locking(account, bucket, None)
    await names.hold(bucket, account)
    return Reply(headers={"location": f"/{bucket}"})


async def _check_location(request: S3Request) -> None:
    data = await read_document(request)
    if not data.strip():
        return
    region = parse(data, "CreateBucketConfiguration").get("LocationConstraint")
    if region not in (None, "", request.door.region, DEFAULT_REGION):
        raise S3Error("InvalidLocationConstraint", fields={"LocationConstraint": region or ""})


async def _asked_of_new(request: S3Request) -> dict[str, str]:
    owner = request.who.project_id or ""
    ownership = request.headers.get("x-amz-object-ownership")
    fields = {}
    if ownership is not None:
        if ownership not in OWNERSHIPS:
            raise S3Error(
                "InvalidArgument", "Invalid x-amz-object-ownership header", fields={"ArgumentValue": ownership}
            )
        fields[OWNERSHIP] = ownership
    acl = await sent_acl(request, owner, owner)
    if acl is not None:
        if ownership == ENFORCED and is_shared_acl(acl):
            raise S3Error("InvalidBucketAclWithObjectOwnership")
        fields[ACL] = acl_text(acl)
    return fields


async def head_bucket(request: S3Request) -> Reply:
    return Reply(headers={"x-amz-bucket-region": request.door.region, "content-length": "0"})


async def delete_bucket(request: S3Request) -> Reply:
    try:
        await request.door.objects.delete_container(request.account, request.bucket)
    except Conflict as error:
        raise S3Error("BucketNotEmpty", fields={"BucketName": request.bucket}) from error
    except NotFound as error:
        raise S3Error("NoSuchBucket", fields={"BucketName": request.bucket}) from error
    await request.door.names.drop(request.bucket, request.account)
    return Reply(status=204)


async def get_location(request: S3Request) -> Reply:
    region = request.door.region
    text = "" if region == DEFAULT_REGION else region
    body = document("LocationConstraint", []).replace(b"></Loc", b">" + text.encode() + b"</Loc")
    return Reply(body, content_type=CONTENT_TYPE)

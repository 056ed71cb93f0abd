"""Bucket policies: kept as they were sent, once they were found to mean something."""

from __future__ import annotations

from apus.kernel.errors import Invalid
from apus.services.object.logic.policy import is_public, known_policy, parse_policy
from apus.services.object.logic.rights import BLOCK_POLICY, POLICY, PUBLIC_ACCESS
from apus.skins.s3.errors import S3Error
from apus.skins.s3.payload import read_document
from apus.skins.s3.request import S3Request
from apus.skins.s3.xml import CONTENT_TYPE, document
from apus.wire.route import Reply


async def get_policy(request: S3Request) -> Reply:
    text = request.head.metadata.get(POLICY)
    if text is None:
        raise S3Error("NoSuchBucketPolicy", fields={"BucketName": request.bucket})
    return Reply(text.encode(), content_type="application/json")


async def put_policy(request: S3Request) -> Reply:
    data = await read_document(request)
    try:
        statements = parse_policy(data, request.bucket)
    except Invalid as error:
        raise S3Error("MalformedPolicy", error.shown) from error
    if any(statement.allows and statement.not_principals for statement in statements):
        raise S3Error("MalformedPolicy", "Allow with NotPrincipal would let in all the world but these.")
    if BLOCK_POLICY in request.head.metadata.get(PUBLIC_ACCESS, "") and is_public(statements):
        raise S3Error("AccessDenied")
    await request.door.objects.describe_container(request.account, request.bucket, {POLICY: data.decode()})
    return Reply(status=204)


async def delete_policy(request: S3Request) -> Reply:
    await request.door.objects.describe_container(request.account, request.bucket, {POLICY: ""})
    return Reply(status=204)


async def get_policy_status(request: S3Request) -> Reply:
    text = request.head.metadata.get(POLICY)
    if text is None:
        raise S3Error("NoSuchBucketPolicy", fields={"BucketName": request.bucket})
    public = is_public(known_policy(text, request.bucket))
    return Reply(document("PolicyStatus", [("IsPublic", public)]), content_type=CONTENT_TYPE)

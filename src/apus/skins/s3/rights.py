"""What a request says of itself to a bucket policy, and the question whether it may be done."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from apus.services.object.logic import policy_context
from apus.services.object.logic.policy_conditions import Context
from apus.services.object.logic.policy_context import Circumstances
from apus.services.object.logic.rights import OBJECT_ACL, Answer, Ask
from apus.services.object.model import Head, IndexHead
from apus.skins.s3.errors import S3Error
from apus.skins.s3.request import S3Request

_HEADER_KEYS: Final = (
    "x-amz-acl", "x-amz-copy-source", "x-amz-grant-full-control", "x-amz-grant-read", "x-amz-grant-read-acp",
    "x-amz-grant-write", "x-amz-grant-write-acp", "x-amz-metadata-directive", "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-storage-class", "x-amz-website-redirect-location",
    "x-amz-content-sha256",
)  # fmt: skip
_QUERY_KEYS: Final = {"prefix": "s3:prefix", "delimiter": "s3:delimiter", "max-keys": "s3:max-keys",
                      "versionId": "s3:versionid"}  # fmt: skip
_LOCK_KEYS: Final = {
    "x-amz-object-lock-mode": "s3:object-lock-mode",
    "x-amz-object-lock-retain-until-date": "s3:object-lock-retain-until-date",
    "x-amz-object-lock-legal-hold": "s3:object-lock-legal-hold",
}


def context_of(request: S3Request, existing: Head | None) -> Context:
    """The keys of a request's conditions, in lower case."""
    now_s, caller, proof = request.door.now_s(), request.caller, request.proof
    found = policy_context.context_of(
        Circumstances(
            now_s,
            request.account,
            caller if proof is not None else None,
            request.scope.get("scheme") == "https",
            request.remote_ip,
            request.headers.get("referer", ""),
            request.headers.get("user-agent", ""),
            existing,
        )
    )
    if caller is not None and proof is not None:
        found["s3:signatureversion"] = ["AWS4-HMAC-SHA256"]
        found["s3:authtype"] = [proof.way]
        if proof.signed_at_s is not None:
            found["s3:signatureage"] = [str(int((now_s - proof.signed_at_s) * 1000))]
    for header, key in _LOCK_KEYS.items():
        if header in request.headers:
            found[key] = [request.headers[header]]
    for name in _HEADER_KEYS:
        if name in request.headers:
            found["s3:" + name] = [request.headers[name]]
    for name, key in _QUERY_KEYS.items():
        if name in request.params_of:
            found[key] = [request.params_of[name]]
    asked = parse_qsl(request.headers.get("x-amz-tagging", ""), keep_blank_values=True)
    for name, value in asked:
        found[f"s3:requestobjecttag/{name}".lower()] = [value]
    if asked:
        found["s3:requestobjecttagkeys"] = [name for name, _ in asked]
    return found


async def may(
    request: S3Request,
    action: str,
    permission: str,
    *,
    key: str | None = None,
    existing: Head | None = None,
    on_object: bool = False,
    bucket: IndexHead | None = None,
) -> bool:
    """Whether the caller may do this to the request's bucket and key, or to others that are named."""
    ask = Ask(
        request.caller,
        request.head if bucket is None else bucket,
        action,
        permission,
        key=request.key if key is None else key,
        object_acl=existing.shown_headers.get(OBJECT_ACL) if existing is not None else None,
        on_object=on_object,
        context=lambda: context_of(request, existing),
        referrer=request.headers.get("referer", ""),
    )
    return await request.door.objects.permissions.answer(ask) is Answer.ALLOWED


async def require(
    request: S3Request,
    action: str,
    permission: str,
    *,
    key: str | None = None,
    existing: Head | None = None,
    on_object: bool = False,
    bucket: IndexHead | None = None,
) -> None:
    """Raise S3Error (AccessDenied) unless he may."""
    if not await may(request, action, permission, key=key, existing=existing, on_object=on_object, bucket=bucket):
        raise S3Error("AccessDenied")


async def missing_key(request: S3Request, *, version: bool = False) -> S3Error:
    """Who may not list a bucket does not learn what is not in it."""
    if not await may(request, "s3:ListBucket", "READ", key=""):
        return S3Error("AccessDenied")
    if version:
        return S3Error("NoSuchVersion", fields={"Key": request.key})
    return S3Error("NoSuchKey", fields={"Key": request.key})

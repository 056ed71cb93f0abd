"""Access control lists as S3 says them: canned, in headers, and as documents."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from apus.kernel.errors import Unavailable
from apus.services.object.logic.grants import (
    CANNED,
    GRANTS_MAX,
    GROUPS,
    PERMISSIONS,
    Acl,
    Grant,
    acl_of,
    acl_text,
    canned_acl,
    is_public_acl,
)
from apus.services.object.logic.rights import ACL, BLOCK_ACLS, ENFORCED, OBJECT_ACL, OWNERSHIP, PUBLIC_ACCESS
from apus.services.object.model import Head, IndexHead
from apus.skins.s3.errors import S3Error
from apus.skins.s3.metadata import OWNER
from apus.skins.s3.payload import read_document
from apus.skins.s3.request import S3Request
from apus.skins.s3.xml import CONTENT_TYPE, XSI, Field, Node, document, malformed, parse
from apus.wire.route import Reply

_GRANT_HEADERS: Final = {
    "x-amz-grant-read": "READ",
    "x-amz-grant-write": "WRITE",
    "x-amz-grant-read-acp": "READ_ACP",
    "x-amz-grant-write-acp": "WRITE_ACP",
    "x-amz-grant-full-control": "FULL_CONTROL",
}

ID_MAX: Final = 255
"""No id is longer, and identity is not asked about a book."""


def bucket_owner(request: S3Request) -> str:
    return request.account.removeprefix("AUTH_")


def owner_of(head: Head, bucket: IndexHead) -> str:
    """The project that wrote it, unless all in the bucket is the bucket owner's."""
    mine = bucket.account.removeprefix("AUTH_")
    return mine if bucket.metadata.get(OWNERSHIP) == ENFORCED else head.headers.get(OWNER, mine)


async def sent_acl(request: S3Request, owner: str, bucket_owner_id: str) -> Acl | None:
    """The list that a request's headers ask for; None when they ask for none.  Raise S3Error."""
    canned = request.headers.get("x-amz-acl")
    granted = {name: request.headers[name] for name in _GRANT_HEADERS if name in request.headers}
    if canned is not None and granted:
        raise S3Error("InvalidRequest", "Specifying both Canned ACLs and Header Grants is not allowed")
    if canned is not None:
        if canned not in CANNED:
            fields = {"ArgumentName": "x-amz-acl", "ArgumentValue": canned}
            raise S3Error("InvalidArgument", "The ACL is none of S3's.", fields=fields)
        return canned_acl(canned, owner, bucket_owner_id)
    if not granted:
        return None
    grants = [
        Grant(_grantee(who), permission)
        for name, permission in _GRANT_HEADERS.items()
        for who in (granted[name].split(",") if name in granted else ())
    ]
    return await _checked(request, Acl(owner, tuple(grants)), "id")


def _grantee(text: str) -> str:
    match = re.fullmatch(r'\s*(id|uri|emailAddress)\s*=\s*"?([^"]*)"?\s*', text)
    if match is None:
        raise S3Error("InvalidArgument", f"A grantee is id=…, uri=… or emailAddress=…, not {text.strip()!r}.")
    kind, who = match.groups()
    if kind == "emailAddress":
        raise S3Error("UnresolvableGrantByEmailAddress")
    if kind == "uri" and who not in GROUPS:
        raise S3Error("InvalidArgument", "Invalid group uri", fields={"ArgumentValue": who})
    return who


async def _checked(request: S3Request, acl: Acl, argument: str) -> Acl:
    """The list, if it names whom there is; `argument` is what Amazon calls an id that was sent this way."""
    if len(acl.grants) > GRANTS_MAX:
        raise S3Error("MalformedACLError", f"A list has {GRANTS_MAX} grants at most.")
    ids = {grant.who for grant in acl.grants}.difference(GROUPS, [acl.owner])
    unknown = ids.difference(await _there(request, sorted(ids)) if ids else ()) | (ids & {""})
    if unknown:
        fields = {"ArgumentName": argument, "ArgumentValue": min(unknown)}
        raise S3Error("InvalidArgument", "Invalid id", fields=fields)
    return acl


async def _there(request: S3Request, ids: Sequence[str]) -> Collection[str]:
    """Those of projects and users; all of them while identity is silent: a grant to nobody gives nothing, so this
    guards against slips alone, and no upload is to fail for it."""
    ids = [id for id in ids if len(id) <= ID_MAX]
    try:
        return await request.door.principals.principals_among(ids)
    except Unavailable:
        return ids


def check_settable(request: S3Request, acl: Acl | None) -> None:
    """Raise S3Error where the bucket takes no lists, or no public ones."""
    if acl is None:
        return
    metadata = request.head.metadata
    if metadata.get(OWNERSHIP) == ENFORCED and not _says_nothing_new(request, acl):
        raise S3Error("AccessControlListNotSupported")
    if BLOCK_ACLS in metadata.get(PUBLIC_ACCESS, "") and is_public_acl(acl.grants):
        raise S3Error("AccessDenied")


def _says_nothing_new(request: S3Request, acl: Acl) -> bool:
    """The bucket's owner has everything where lists are off, and nobody else has anything."""
    canned = request.headers.get("x-amz-acl")
    if canned is not None:
        return canned == "bucket-owner-full-control"
    return acl.grants == (Grant(bucket_owner(request), "FULL_CONTROL"),)


async def object_acl(request: S3Request) -> dict[str, str]:
    """The headers that an upload keeps: who wrote it, when not the bucket's owner, and its list when not private."""
    owner = bucket_owner(request)
    metadata = request.head.metadata
    kept: dict[str, str] = {}
    writer = request.caller.project_id if request.caller is not None else None
    if writer is not None and writer != owner and metadata.get(OWNERSHIP) != ENFORCED:
        preferred = metadata.get(OWNERSHIP) == "BucketOwnerPreferred"
        if not (preferred and request.headers.get("x-amz-acl") == "bucket-owner-full-control"):
            kept[OWNER] = writer
    acl = await sent_acl(request, kept.get(OWNER, owner), owner)
    check_settable(request, acl)
    if acl is None and OWNER in kept:
        acl = canned_acl("private", kept[OWNER], owner)
    if acl is not None and metadata.get(OWNERSHIP) != ENFORCED:
        kept[OBJECT_ACL] = acl_text(acl)
    return kept


async def document_acl(request: S3Request, owner: str) -> Acl:
    """From the body, or from headers when there are such.  Raise S3Error."""
    acl = await sent_acl(request, owner, bucket_owner(request))
    data = await read_document(request)
    if acl is not None:
        if data.strip():
            raise S3Error("UnexpectedContent")
        return acl
    if not data.strip():
        raise S3Error("MissingSecurityHeader", fields={"MissingHeaderName": "x-amz-acl"})
    root = parse(data, "AccessControlPolicy")
    listed = root.find("AccessControlList")
    if listed is None:
        raise S3Error("MalformedACLError")
    said_owner = root.find("Owner")
    if said_owner is not None and said_owner.get("ID") not in (None, owner):
        raise S3Error("AccessDenied")
    acl = Acl(owner, tuple(_grant_of(node) for node in listed.all("Grant")))
    return await _checked(request, acl, "CanonicalUser/ID")


def _grant_of(node: Node) -> Grant:
    grantee, permission = node.find("Grantee"), node.need("Permission")
    if grantee is None or permission not in PERMISSIONS:
        raise S3Error("MalformedACLError")
    if grantee.find("EmailAddress") is not None:
        raise S3Error("UnresolvableGrantByEmailAddress")
    uri = grantee.get("URI")
    if uri is not None:
        if uri not in GROUPS:
            raise S3Error("InvalidArgument", "Invalid group uri", fields={"ArgumentValue": uri})
        return Grant(uri, permission)
    id = grantee.get("ID")
    if not id:
        raise malformed("A Grantee has an ID or a URI.")
    return Grant(id, permission)


def shown_acl(acl: Acl) -> Reply:
    grants: list[Field] = []
    for grant in acl.grants:
        group = grant.who in GROUPS
        kind = "Group" if group else "CanonicalUser"
        inside: list[Field] = [("URI", grant.who)] if group else [("ID", grant.who), ("DisplayName", grant.who)]
        grantee = (f'Grantee xmlns:xsi="{XSI}" xsi:type="{kind}"', inside)
        grants.append(("Grant", [grantee, ("Permission", grant.permission)]))
    body = document(
        "AccessControlPolicy",
        [("Owner", [("ID", acl.owner), ("DisplayName", acl.owner)]), ("AccessControlList", grants)],
    )
    return Reply(body, content_type=CONTENT_TYPE)


async def get_bucket_acl(request: S3Request) -> Reply:
    owner, text = bucket_owner(request), request.head.metadata.get(ACL)
    return shown_acl(acl_of(text) if text is not None else canned_acl("private", owner, owner))


async def put_bucket_acl(request: S3Request) -> Reply:
    acl = await document_acl(request, bucket_owner(request))
    check_settable(request, acl)
    await request.door.objects.describe_container(request.account, request.bucket, {ACL: acl_text(acl)})
    return Reply()


def stored_acl(headers: Mapping[str, str], owner: str) -> Acl:
    text = headers.get(OBJECT_ACL)
    return acl_of(text) if text is not None else canned_acl("private", owner, owner)

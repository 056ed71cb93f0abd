"""GetObjectAcl and PutObjectAcl."""

from __future__ import annotations

from apus.services.object.logic.grants import acl_of, acl_text, canned_acl
from apus.services.object.logic.notices import ACL_PUT
from apus.services.object.logic.rights import OBJECT_ACL
from apus.skins.s3 import rights
from apus.skins.s3.acls import check_settable, document_acl, owner_of, shown_acl
from apus.skins.s3.request import S3Request
from apus.skins.s3.tagging import describe
from apus.skins.s3.versions import acting, found_version, version_headers
from apus.wire.route import Reply


async def get_object_acl(request: S3Request) -> Reply:
    found = await found_version(request)
    await rights.require(request, acting(request, "s3:GetObjectAcl"), "READ_ACP", existing=found.head, on_object=True)
    text, owner = found.head.shown_headers.get(OBJECT_ACL), owner_of(found.head, request.head)
    return shown_acl(acl_of(text) if text is not None else canned_acl("private", owner, owner))


async def put_object_acl(request: S3Request) -> Reply:
    found = await found_version(request)
    await rights.require(request, acting(request, "s3:PutObjectAcl"), "WRITE_ACP", existing=found.head, on_object=True)
    acl = await document_acl(request, owner_of(found.head, request.head))
    check_settable(request, acl)
    await describe(request, found.head, {OBJECT_ACL: acl_text(acl)}, ACL_PUT)
    return Reply(headers=version_headers(request, found.head))

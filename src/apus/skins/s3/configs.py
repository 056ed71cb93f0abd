"""Configurations of a bucket: documents that are checked, kept with the container and given back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import NamedTuple

from apus.services.object.logic.grants import acl_of, is_shared_acl
from apus.services.object.logic.rights import (
    ACL,
    BLOCK_ACLS,
    BLOCK_POLICY,
    ENFORCED,
    IGNORE_ACLS,
    OWNERSHIP,
    PUBLIC_ACCESS,
    RESTRICT,
)
from apus.services.object.model import IndexHead
from apus.skins.s3.buckets import OWNERSHIPS
from apus.skins.s3.errors import S3Error
from apus.skins.s3.payload import read_document
from apus.skins.s3.request import S3Request
from apus.skins.s3.xml import CONTENT_TYPE, Node, document, malformed, parse, written
from apus.wire.route import Reply

Handler = Callable[[S3Request], Awaitable[Reply]]
_SWITCHES = (BLOCK_ACLS, IGNORE_ACLS, BLOCK_POLICY, RESTRICT)


class Config(NamedTuple):
    """One kind of document, kept as the text that was sent, cleaned of what it may not hold."""

    root: str
    field: str
    absent: str
    """The error code while there is none."""
    check: Callable[[Node], None]
    """Raise S3Error for what means nothing."""

    def of(self, head: IndexHead) -> Node | None:
        text = head.metadata.get(self.field)
        return _parsed(text, self.root) if text is not None else None

    def getter(self) -> Handler:
        async def get(request: S3Request) -> Reply:
            text = request.head.metadata.get(self.field)
            if text is None:
                raise S3Error(self.absent, fields={"BucketName": request.bucket})
            return Reply(text.encode(), content_type=CONTENT_TYPE)

        return get

    def putter(self) -> Handler:
        async def put(request: S3Request) -> Reply:
            node = parse(await read_document(request), self.root)
            self.check(node)
            await self.keep(request, node)
            return Reply()

        return put

    async def keep(self, request: S3Request, node: Node) -> None:
        text = document(self.root, written(node)).decode()
        await request.door.objects.describe_container(request.account, request.bucket, {self.field: text})

    def remover(self) -> Handler:
        async def remove(request: S3Request) -> Reply:
            await request.door.objects.describe_container(request.account, request.bucket, {self.field: ""})
            return Reply(status=204)

        return remove


@lru_cache(maxsize=512)
def _parsed(text: str, root: str) -> Node:
    return parse(text.encode(), root)


def constant(root: str, *fields: tuple[str, str]) -> Handler:
    """What is so of every bucket."""

    async def get(request: S3Request) -> Reply:
        return Reply(document(root, fields), content_type=CONTENT_TYPE)

    return get


def absent(code: str) -> Handler:
    """What no bucket has."""

    async def get(request: S3Request) -> Reply:
        raise S3Error(code, fields={"BucketName": request.bucket})

    return get


async def get_public_access(request: S3Request) -> Reply:
    text = request.head.metadata.get(PUBLIC_ACCESS)
    if text is None:
        raise S3Error("NoSuchPublicAccessBlockConfiguration", fields={"BucketName": request.bucket})
    fields = [(name, name in text.split()) for name in _SWITCHES]
    return Reply(document("PublicAccessBlockConfiguration", fields), content_type=CONTENT_TYPE)


async def put_public_access(request: S3Request) -> Reply:
    root = parse(await read_document(request), "PublicAccessBlockConfiguration")
    root.only(*_SWITCHES)
    values = {name: (root.get(name) or "false").lower() for name in _SWITCHES}
    if not set(values.values()) <= {"true", "false"}:
        raise malformed("They are true or false.")
    on = " ".join(name for name in _SWITCHES if values[name] == "true")
    await request.door.objects.describe_container(request.account, request.bucket, {PUBLIC_ACCESS: on or "none"})
    return Reply()


async def delete_public_access(request: S3Request) -> Reply:
    await request.door.objects.describe_container(request.account, request.bucket, {PUBLIC_ACCESS: ""})
    return Reply(status=204)


async def get_ownership(request: S3Request) -> Reply:
    ownership = request.head.metadata.get(OWNERSHIP)
    if ownership is None:
        raise S3Error("OwnershipControlsNotFoundError", fields={"BucketName": request.bucket})
    fields = [("Rule", [("ObjectOwnership", ownership)])]
    return Reply(document("OwnershipControls", fields), content_type=CONTENT_TYPE)


async def put_ownership(request: S3Request) -> Reply:
    rules = list(parse(await read_document(request), "OwnershipControls").all("Rule"))
    if len(rules) != 1 or rules[0].need("ObjectOwnership") not in OWNERSHIPS:
        raise malformed("OwnershipControls have one Rule with an ObjectOwnership.")
    ownership = rules[0].need("ObjectOwnership")
    acl = request.head.metadata.get(ACL)
    if ownership == ENFORCED and acl is not None and is_shared_acl(acl_of(acl)):
        shown = "The bucket has an ACL that gives access to others; remove that first."
        raise S3Error("InvalidBucketAclWithObjectOwnership", shown)
    await request.door.objects.describe_container(request.account, request.bucket, {OWNERSHIP: ownership})
    return Reply()


async def delete_ownership(request: S3Request) -> Reply:
    await request.door.objects.describe_container(request.account, request.bucket, {OWNERSHIP: ""})
    return Reply(status=204)

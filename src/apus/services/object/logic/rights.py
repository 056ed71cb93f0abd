"""Who may do what to a container and its objects, whichever door he comes through.

In this order: a denial of the bucket policy; ownership; a permission of the policy; S3's ACLs; Swift's ACLs.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

import msgspec

from apus.kernel.caller import Caller
from apus.services.object.logic.access import ACL_DOMAIN, acl_allows, is_owner, is_reseller
from apus.services.object.logic.grants import acl_of, granted
from apus.services.object.logic.policy import Question, Verdict, decide, is_public, known_policy
from apus.services.object.logic.policy_conditions import Context
from apus.services.object.model import IndexHead

POLICY: Final = "x-container-sysmeta-s3-policy"
ACL: Final = "x-container-sysmeta-s3-acl"
OWNERSHIP: Final = "x-container-sysmeta-s3-ownership"
PUBLIC_ACCESS: Final = "x-container-sysmeta-s3-public-access"
"""Of BLOCK_PUBLIC_ACLS and its like those that are on, with spaces between."""
OBJECT_ACL: Final = "x-object-sysmeta-s3-acl"

BLOCK_ACLS: Final = "BlockPublicAcls"
IGNORE_ACLS: Final = "IgnorePublicAcls"
BLOCK_POLICY: Final = "BlockPublicPolicy"
RESTRICT: Final = "RestrictPublicBuckets"
ENFORCED: Final = "BucketOwnerEnforced"

_OWNERS_ALWAYS: Final = ("s3:GetBucketPolicy", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy")
"""Else an owner could lock himself out for good."""

_NO_SWIFT_ACL: Final = ("s3:GetObjectVersion", "s3:DeleteObjectVersion")
"""Older versions are the owner's alone, unless S3's ways say otherwise."""


class Ask(msgspec.Struct, frozen=True):
    caller: Caller | None
    container: IndexHead
    action: str
    """As policies name it: `s3:GetObject`."""
    permission: str
    """As S3's ACLs name it: READ, WRITE, READ_ACP, WRITE_ACP; empty when no ACL can give it."""
    key: str = ""
    object_acl: str | None = None
    """The stored text, when the permission is one on an object that has such a list."""
    on_object: bool = False
    """The permission is one on the object, not on its bucket."""
    context: Callable[[], Context] = dict
    """Asked only when there is a policy."""
    referrer: str = ""

    @property
    def to_write(self) -> bool:
        return not self.action.startswith(("s3:Get", "s3:List"))


class Answer(enum.Enum):
    DENIED = "denied"
    """By the bucket's policy: nothing else can allow it."""
    ALLOWED = "allowed"
    SILENT = "silent"
    """Nothing speaks for it."""


def allowed(ask: Ask) -> bool:
    return answer(ask) is Answer.ALLOWED


def answer(ask: Ask) -> Answer:
    if is_reseller(ask.caller):
        return Answer.ALLOWED
    head, metadata = ask.container, ask.container.metadata
    mine = ask.caller is not None and is_owner(ask.caller, head.account, to_write=ask.to_write)
    policy = metadata.get(POLICY)
    blocked = metadata.get(PUBLIC_ACCESS, "")
    if policy is not None:
        statements = known_policy(policy, head.container)
        resource = f"{head.container}/{ask.key}" if ask.key else head.container
        verdict = decide(statements, Question(ask.caller, ask.action, resource, ask.context()))
        if verdict is Verdict.DENY and not (mine and ask.action in _OWNERS_ALWAYS):
            return Answer.DENIED
        if verdict is Verdict.ALLOW and not (RESTRICT in blocked and is_public(statements)):
            return Answer.ALLOWED
    public = IGNORE_ACLS not in blocked and RESTRICT not in blocked
    if mine or _acl_gives(ask, public=public) or _swift_gives(ask, public=public):
        return Answer.ALLOWED
    return Answer.SILENT


def _acl_gives(ask: Ask, *, public: bool) -> bool:
    metadata = ask.container.metadata
    if not ask.permission or metadata.get(OWNERSHIP) == ENFORCED:
        return False
    text = ask.object_acl if ask.on_object else metadata.get(ACL)
    return text is not None and granted(acl_of(text), ask.permission, ask.caller, public=public)


def _swift_gives(ask: Ask, *, public: bool) -> bool:
    """`X-Container-Read` and `X-Container-Write`."""
    if ask.permission not in ("READ", "WRITE") or ask.action in _NO_SWIFT_ACL:
        return False
    metadata = ask.container.metadata
    acl = metadata.get("x-container-write" if ask.to_write else "x-container-read", "")
    return bool(acl) and acl_allows(
        acl,
        ask.caller,
        domain=metadata.get(ACL_DOMAIN, ""),
        referrer=ask.referrer,
        listing=not ask.on_object,
        public=public,
    )

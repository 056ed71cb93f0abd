"""Who may do what to a container and its objects, whichever door he comes through.

In this order: a denial of the bucket policy; ownership; a permission of the policy; S3's ACLs; Swift's ACLs.  Names in
policies and Swift's ACLs count in accounts of the default domain (`logic/access.py`); S3's ACLs have ids alone.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from apus.kernel.caller import Caller
from apus.services.object.logic.access import ACL_DOMAIN, DEFAULT_DOMAIN, acl_allows, has_names, is_owner, is_reseller
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
    NAMED = "named"
    """Names alone speak for it, and whether they count the account says: the container does not."""
    SILENT = "silent"
    """Nothing speaks for it."""


def answer(ask: Ask) -> Answer:
    if is_reseller(ask.caller):
        return Answer.ALLOWED
    metadata = ask.container.metadata
    domain = metadata.get(ACL_DOMAIN, "")
    given = _answer(ask, metadata, names=domain == DEFAULT_DOMAIN)
    if given is not Answer.SILENT or domain or not has_names(ask.caller):
        return given
    return Answer.NAMED if _answer(ask, metadata, names=True) is Answer.ALLOWED else given


def _answer(ask: Ask, metadata: Mapping[str, str], *, names: bool) -> Answer:
    head = ask.container
    mine = ask.caller is not None and is_owner(ask.caller, head.account, to_write=ask.to_write)
    policy = metadata.get(POLICY)
    blocked = metadata.get(PUBLIC_ACCESS, "")
    if policy is not None:
        statements = known_policy(policy, head.container)
        resource = f"{head.container}/{ask.key}" if ask.key else head.container
        verdict = decide(statements, Question(ask.caller, ask.action, resource, ask.context(), names))
        if verdict is Verdict.DENY and not (mine and ask.action in _OWNERS_ALWAYS):
            return Answer.DENIED
        if verdict is Verdict.ALLOW and not (RESTRICT in blocked and is_public(statements)):
            return Answer.ALLOWED
    public = IGNORE_ACLS not in blocked and RESTRICT not in blocked
    if mine or _acl_gives(ask, metadata, public=public) or _swift_gives(ask, metadata, names, public=public):
        return Answer.ALLOWED
    return Answer.SILENT


def _acl_gives(ask: Ask, metadata: Mapping[str, str], *, public: bool) -> bool:
    if not ask.permission or metadata.get(OWNERSHIP) == ENFORCED:
        return False
    text = ask.object_acl if ask.on_object else metadata.get(ACL)
    return text is not None and granted(acl_of(text), ask.permission, ask.caller, public=public)


def _swift_gives(ask: Ask, metadata: Mapping[str, str], names: bool, *, public: bool) -> bool:
    """`X-Container-Read` and `X-Container-Write`."""
    if ask.permission not in ("READ", "WRITE") or ask.action in _NO_SWIFT_ACL:
        return False
    acl = metadata.get("x-container-write" if ask.to_write else "x-container-read", "")
    return bool(acl) and acl_allows(
        acl,
        ask.caller,
        ask.container.account,
        names=names,
        referrer=ask.referrer,
        listing=not ask.on_object,
        public=public,
    )

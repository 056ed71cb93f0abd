"""S3's access control lists: grants of permissions to projects, and to the two groups that are everybody."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from apus.kernel.caller import Caller

ALL_USERS: Final = "http://acs.amazonaws.com/groups/global/AllUsers"
AUTHENTICATED: Final = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
LOG_DELIVERY: Final = "http://acs.amazonaws.com/groups/s3/LogDelivery"
GROUPS: Final = (ALL_USERS, AUTHENTICATED, LOG_DELIVERY)
PERMISSIONS: Final = ("FULL_CONTROL", "READ", "WRITE", "READ_ACP", "WRITE_ACP")
GRANTS_MAX: Final = 100

CANNED: Final = (
    "private", "public-read", "public-read-write", "authenticated-read", "bucket-owner-read",
    "bucket-owner-full-control", "aws-exec-read", "log-delivery-write",
)  # fmt: skip


class Grant(msgspec.Struct, frozen=True, array_like=True):
    who: str
    """The id of a project (or a user), or the URI of a group."""
    permission: str


class Acl(msgspec.Struct, frozen=True, array_like=True):
    owner: str
    grants: tuple[Grant, ...]


_decode = msgspec.json.Decoder(Acl).decode


def acl_text(acl: Acl) -> str:
    return msgspec.json.encode(acl).decode()


@lru_cache(maxsize=1024)
def acl_of(text: str) -> Acl:
    """One that was stored."""
    return _decode(text)


def canned_acl(name: str, owner: str, bucket_owner: str) -> Acl:
    """`name` is one of CANNED."""
    grants = [Grant(owner, "FULL_CONTROL")]
    if name in ("public-read", "public-read-write"):
        grants.append(Grant(ALL_USERS, "READ"))
    if name == "public-read-write":
        grants.append(Grant(ALL_USERS, "WRITE"))
    if name == "authenticated-read":
        grants.append(Grant(AUTHENTICATED, "READ"))
    if name == "log-delivery-write":
        grants += [Grant(LOG_DELIVERY, "WRITE"), Grant(LOG_DELIVERY, "READ_ACP")]
    if bucket_owner != owner and name == "bucket-owner-read":
        grants.append(Grant(bucket_owner, "READ"))
    if bucket_owner != owner and name == "bucket-owner-full-control":
        grants.append(Grant(bucket_owner, "FULL_CONTROL"))
    return Acl(owner, tuple(grants))


def granted(acl: Acl, permission: str, caller: Caller | None, *, public: bool = True) -> bool:
    """Whether a grant gives this to the caller.  Without `public`, what everybody has counts as not there."""
    for grant in acl.grants:
        if grant.permission not in (permission, "FULL_CONTROL"):
            continue
        if grant.who == ALL_USERS or (grant.who == AUTHENTICATED and caller is not None):
            if public:
                return True
        elif caller is not None and grant.who in (caller.project_id, caller.user_id):
            return True
    return False


def is_shared_acl(acl: Acl) -> bool:
    """Whether it gives anything to others than the owner."""
    return any(grant.who != acl.owner for grant in acl.grants)


def is_public_acl(grants: Sequence[Grant]) -> bool:
    return any(grant.who in (ALL_USERS, AUTHENTICATED) for grant in grants)

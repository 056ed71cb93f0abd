"""What a token says: everything that its validation needs, packed in MessagePack before it is sealed with Fernet.

A token also carries the epochs of its subjects at the moment it was issued (only those that have one).  It is worth
nothing once one of its subjects has a newer epoch: see store.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from apus.kernel.caller import AccessRule, Caller
from apus.services.identity.model import Scope

VERSION: Final = 1
EC2: Final = "ec2credential"
"""The method of tokens that were given for a request signed with an EC2 key."""


class Named(msgspec.Struct, frozen=True, array_like=True):
    id: str
    name: str


class AppCredentialClaim(msgspec.Struct, frozen=True, array_like=True):
    id: str
    name: str
    unrestricted: bool
    access_rules: tuple[tuple[str, str, str], ...] | None
    """(service type, method, path)."""


class TrustClaim(msgspec.Struct, frozen=True, array_like=True):
    id: str
    trustor_id: str
    trustee_id: str
    impersonation: bool


class Claims(msgspec.Struct, frozen=True, array_like=True):
    """Field order is the wire format: new fields go to the end and have defaults."""

    version: int
    user: Named
    user_domain: Named
    scope: Scope
    target: Named | None
    target_domain: Named | None
    """Of a project; None for a domain, the system and a project that is a domain."""
    roles: tuple[Named, ...]
    methods: tuple[str, ...]
    audit_ids: tuple[str, ...]
    """Its own, and that of the first token of the chain."""
    issued_at_s: float
    expires_at_s: float
    epochs: dict[str, int] = {}
    app_credential: AppCredentialClaim | None = None
    trust: TrustClaim | None = None
    system_user: bool = False
    """The cloud itself: no such user is in the store."""
    access_key_id: str | None = None
    """The EC2 credential that it was given for."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Claims).decode


def pack(claims: Claims) -> bytes:
    return _encode(claims)


def unpack(data: bytes) -> Claims | None:
    """None for what is no token of a version that we know."""
    try:
        claims = _decode(data)
    except msgspec.MsgspecError:
        return None
    return claims if claims.version == VERSION else None


# ---------------------------------------------------------------------- subjects: what a token's worth hangs on
def user_subject(user_id: str) -> str:
    return f"u:{user_id}"


def project_subject(project_id: str) -> str:
    """Of a project or a domain: they share their ids."""
    return f"p:{project_id}"


def grant_subject(user_id: str, target_id: str) -> str:
    """What a user holds on one target; `*` is what he holds by inheritance."""
    return f"g:{user_id}@{target_id}"


def role_subject(role_id: str) -> str:
    return f"r:{role_id}"


def app_credential_subject(id: str) -> str:
    return f"c:{id}"


def trust_subject(id: str) -> str:
    return f"t:{id}"


def audit_subject(audit_id: str) -> str:
    return f"a:{audit_id}"


def access_key_subject(credential_id: str) -> str:
    """Of an EC2 credential: the tokens that were given for it, and what other processes remember of its key."""
    return f"k:{credential_id}"


def subjects(claims: Claims) -> Iterator[str]:
    """Everything whose end is the end of this token."""
    if claims.system_user:
        return
    yield user_subject(claims.user.id)
    yield project_subject(claims.user_domain.id)
    yield audit_subject(claims.audit_ids[0])
    if claims.target is not None:
        yield project_subject(claims.target.id)
        holder = claims.trust.trustor_id if claims.trust is not None else claims.user.id
        yield grant_subject(holder, claims.target.id)
        yield grant_subject(holder, "*")
    if claims.target_domain is not None:
        yield project_subject(claims.target_domain.id)
    for role in claims.roles:
        yield role_subject(role.id)
    if claims.app_credential is not None:
        yield app_credential_subject(claims.app_credential.id)
    if claims.access_key_id is not None:
        yield access_key_subject(claims.access_key_id)
    if claims.trust is not None:
        yield trust_subject(claims.trust.id)
        yield user_subject(claims.trust.trustor_id)
        yield user_subject(claims.trust.trustee_id)


def revoked(claims: Claims, epochs: Mapping[str, int]) -> bool:
    """Whether one of its subjects ended since it was issued."""
    if not epochs:
        return False
    mine = claims.epochs
    return any(epochs.get(subject, 0) > mine.get(subject, 0) for subject in subjects(claims))


def caller_of(claims: Claims) -> Caller:
    """The caller that the services see."""
    target, domain = claims.target, claims.target_domain
    project = claims.scope is Scope.PROJECT and target is not None
    rules = claims.app_credential.access_rules if claims.app_credential is not None else None
    return Caller(
        user_id=claims.user.id,
        user_name=claims.user.name,
        user_domain_id=claims.user_domain.id,
        project_id=target.id if project and target else None,
        project_name=target.name if project and target else None,
        project_domain_id=domain.id if project and domain else None,
        domain_id=target.id if claims.scope is Scope.DOMAIN and target else None,
        system=claims.scope is Scope.SYSTEM,
        roles=frozenset(role.name for role in claims.roles),
        expires_at_s=claims.expires_at_s,
        audit_id=claims.audit_ids[0],
        methods=claims.methods,
        app_credential_id=claims.app_credential.id if claims.app_credential is not None else None,
        trust_id=claims.trust.id if claims.trust is not None else None,
        access_rules=None if rules is None else tuple(AccessRule(*rule) for rule in rules),
    )

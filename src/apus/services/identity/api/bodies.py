"""What clients send.  Names are Keystone's; attributes that are not named here are kept as `extra` where it keeps them.

Bounds are those of Keystone's JSON schemas.  A field that is UNSET was not in the body.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from apus.kernel.errors import Invalid
from apus.wire.route import ApiRequest, convert_body

B = TypeVar("B")

_NO_NUL: Final = r"^[^\x00]*$"
Id = Annotated[str, Meta(min_length=1, max_length=255, pattern=_NO_NUL)]
Text = Annotated[str, Meta(max_length=16_384, pattern=_NO_NUL)]
Name = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^\x00]*[^\x00\s][^\x00]*$")]
ShortName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[^\x00]*[^\x00\s][^\x00]*$")]
Password = Annotated[str, Meta(max_length=4096)]
Tag = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[^,/\x00]+$")]
Tags = Annotated[list[Tag], Meta(max_length=80)]
Url = Annotated[str, Meta(min_length=1, max_length=2048, pattern=r"^[a-zA-Z][a-zA-Z0-9+.-]*:.*$")]
Interface = Literal["public", "internal", "admin"]
Amount = Annotated[int, Meta(ge=-1, le=2**31 - 1)]

EXTRA_MAX_BYTES: Final = 65_536
"""Keystone keeps what it does not know in a text column of this size."""


class NewDomain(Struct):
    name: ShortName
    description: Text | None = ""
    enabled: bool = True
    tags: Tags = []
    options: dict[str, Any] = {}
    explicit_domain_id: Id | None = None


class ChangeDomain(Struct):
    name: ShortName | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    options: dict[str, Any] | UnsetType = UNSET


class NewProject(Struct):
    name: ShortName
    description: Text | None = ""
    enabled: bool = True
    domain_id: Id | None = None
    parent_id: Id | None = None
    is_domain: bool = False
    tags: Tags = []
    options: dict[str, Any] = {}


class ChangeProject(Struct):
    name: ShortName | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET
    options: dict[str, Any] | UnsetType = UNSET
    domain_id: Id | UnsetType | None = UNSET
    parent_id: Id | UnsetType | None = UNSET
    is_domain: bool | UnsetType = UNSET


class NewUser(Struct):
    name: Name
    password: Password | None = None
    domain_id: Id | None = None
    enabled: bool = True
    default_project_id: Id | None = None
    options: dict[str, Any] = {}


class ChangeUser(Struct):
    name: Name | UnsetType = UNSET
    password: Password | UnsetType | None = UNSET
    domain_id: Id | UnsetType = UNSET
    enabled: bool | UnsetType = UNSET
    default_project_id: Id | UnsetType | None = UNSET
    options: dict[str, Any] | UnsetType = UNSET


class ChangePassword(Struct):
    password: Password
    original_password: Password


class NewGroup(Struct):
    name: ShortName
    domain_id: Id | None = None
    description: Text | None = ""


class ChangeGroup(Struct):
    name: ShortName | UnsetType = UNSET
    domain_id: Id | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET


class NewRole(Struct):
    name: Name
    domain_id: Id | None = None
    description: Text | None = None
    options: dict[str, Any] = {}


class ChangeRole(Struct):
    name: Name | UnsetType = UNSET
    domain_id: Id | UnsetType | None = UNSET
    description: Text | UnsetType | None = UNSET
    options: dict[str, Any] | UnsetType = UNSET


class NewRegion(Struct):
    id: Annotated[str, Meta(max_length=255, pattern=_NO_NUL)] | None = None
    description: Text | None = ""
    parent_region_id: Id | None = None


class ChangeRegion(Struct):
    description: Text | UnsetType | None = UNSET
    parent_region_id: Id | UnsetType | None = UNSET


class NewService(Struct):
    type: Name
    name: Annotated[str, Meta(max_length=255, pattern=_NO_NUL)] | None = ""
    description: Text | None = ""
    enabled: bool = True


class ChangeService(Struct):
    type: Name | UnsetType = UNSET
    name: Annotated[str, Meta(max_length=255, pattern=_NO_NUL)] | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


class NewEndpoint(Struct):
    service_id: Id
    interface: Interface
    url: Url
    region_id: Id | None = None
    region: Id | None = None
    enabled: bool = True


class ChangeEndpoint(Struct):
    service_id: Id | UnsetType = UNSET
    interface: Interface | UnsetType = UNSET
    url: Url | UnsetType = UNSET
    region_id: Id | UnsetType | None = UNSET
    region: Id | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET


class NewCredential(Struct):
    blob: Annotated[str, Meta(max_length=65_536)]
    type: Name
    user_id: Id | None = None
    project_id: Id | None = None


class ChangeCredential(Struct):
    blob: Annotated[str, Meta(max_length=65_536)] | UnsetType = UNSET
    type: Name | UnsetType = UNSET
    user_id: Id | UnsetType = UNSET
    project_id: Id | UnsetType | None = UNSET


class Ec2Body(Struct):
    tenant_id: Id


class SignedCredentials(Struct):
    """Of a request that somebody signed with an EC2 key, as the service took it apart that got it."""

    access: Text
    signature: Text
    host: Text | None = None
    verb: Text | None = None
    path: Text | None = None
    params: dict[Text, Text] | None = None
    headers: dict[Text, Text] | None = None
    body_hash: Text | None = None
    token: Text | None = None
    """Of S3: the text that was signed, in Base64."""


class SignedBody(Struct):
    """Keystone takes all three names."""

    credentials: SignedCredentials | None = None
    credential: SignedCredentials | None = None
    ec2_credentials: SignedCredentials | None = field(default=None, name="ec2Credentials")


class RoleRef(Struct):
    id: Id | None = None
    name: Name | None = None


class RuleBody(Struct):
    id: Id | None = None
    service: Name | None = None
    path: Annotated[str, Meta(max_length=255, pattern=r"^/[^\x00]*$")] | None = None
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] | None = None


class AppCredentialBody(Struct):
    name: Name
    description: Text | None = None
    secret: Annotated[str, Meta(min_length=1, max_length=4096)] | None = None
    expires_at: str | None = None
    roles: Annotated[list[RoleRef], Meta(max_length=100)] | None = None
    unrestricted: bool | None = None
    access_rules: Annotated[list[RuleBody], Meta(max_length=100)] | None = None


class TrustBody(Struct):
    trustor_user_id: Id
    trustee_user_id: Id
    impersonation: bool
    project_id: Id | None = None
    roles: Annotated[list[RoleRef], Meta(max_length=100)] = []
    expires_at: str | None = None
    remaining_uses: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None


class NewRegisteredLimit(Struct):
    service_id: Id
    resource_name: Name
    default_limit: Amount
    region_id: Id | None = None
    description: Text | None = None


class ChangeRegisteredLimit(Struct):
    service_id: Id | UnsetType = UNSET
    resource_name: Name | UnsetType = UNSET
    default_limit: Amount | UnsetType = UNSET
    region_id: Id | UnsetType | None = UNSET
    description: Text | UnsetType | None = UNSET


class NewLimit(Struct):
    service_id: Id
    resource_name: Name
    resource_limit: Amount
    region_id: Id | None = None
    description: Text | None = None
    project_id: Id | None = None
    domain_id: Id | None = None


class ChangeLimit(Struct):
    resource_limit: Amount | UnsetType = UNSET
    description: Text | UnsetType | None = UNSET


# ------------------------------------------------------------------------------------------------ POST /auth/tokens
class DomainRef(Struct):
    id: Id | None = None
    name: Name | None = None


class UserRef(Struct):
    id: Id | None = None
    name: Name | None = None
    domain: DomainRef | None = None
    password: Password | None = None


class ProjectRef(Struct):
    id: Id | None = None
    name: Name | None = None
    domain: DomainRef | None = None


class PasswordMethod(Struct):
    user: UserRef


class TokenMethod(Struct):
    id: str


class AppCredentialMethod(Struct):
    secret: Password
    id: Id | None = None
    name: Name | None = None
    user: UserRef | None = None


class IdentityPart(Struct):
    methods: Annotated[list[str], Meta(max_length=8)]
    password: PasswordMethod | None = None
    token: TokenMethod | None = None
    application_credential: AppCredentialMethod | None = None


class TrustRef(Struct):
    id: Id


class ScopePart(Struct):
    project: ProjectRef | None = None
    domain: DomainRef | None = None
    system: dict[str, bool] | None = None
    trust: TrustRef | None = msgspec.field(name="OS-TRUST:trust", default=None)
    unscoped: dict[str, Any] | None = None


class AuthPart(Struct):
    identity: IdentityPart
    scope: ScopePart | Literal["unscoped"] | None = None


class AuthBody(Struct):
    auth: AuthPart


def part(request: ApiRequest, envelope: str, type_: type[B]) -> tuple[B, dict[str, Any]]:
    """The typed content of the envelope, and the attributes that the type does not name."""
    body = request.body
    if not isinstance(body, dict) or envelope not in body:
        raise Invalid("identity.invalid", f"The body has no {envelope}.", field=envelope)
    content = body[envelope]
    if not isinstance(content, dict):
        raise Invalid("identity.invalid", f"{envelope}: an object is expected.", field=envelope)
    named = {field.encode_name for field in msgspec.structs.fields(type_)}  # type: ignore[arg-type]
    extra = {key: value for key, value in content.items() if key not in named and key not in ("id", "links")}
    try:
        size = len(msgspec.json.encode(extra))
        msgspec.json.encode(content)
    except (OverflowError, ValueError, RecursionError) as error:
        raise Invalid("identity.invalid", f"{envelope}: it cannot be kept: {error}.", field=envelope) from error
    if size > EXTRA_MAX_BYTES:
        raise Invalid(
            "identity.invalid", f"{envelope}: its further attributes are larger than {EXTRA_MAX_BYTES} bytes."
        )
    return convert_body(content, type_), extra


def listed(request: ApiRequest, envelope: str, type_: type[B]) -> list[B]:
    """A list in an envelope: limits are made many at once."""
    body = request.body
    if not isinstance(body, dict) or not isinstance(body.get(envelope), list):
        raise Invalid("identity.invalid", f"{envelope}: a list is expected.", field=envelope)
    typed: list[B] = convert_body(body[envelope], list[type_])  # type: ignore[valid-type]
    if not 0 < len(typed) <= 100:
        raise Invalid("identity.invalid", f"{envelope}: 1 to 100 are expected, not {len(typed)}.", field=envelope)
    return typed

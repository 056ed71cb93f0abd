"""What identity keeps.  A domain is a project that others live in (`is_domain`), as in Keystone: one namespace of ids.

`extra` holds attributes that clients add of their own (email, description of a user …): Keystone keeps them, and so
do we.  Nothing here is shown as it is: `api/views.py` chooses what leaves, and never a hash or a secret.
"""

from __future__ import annotations

import enum
from typing import Any, Final

from apus.kernel.record import Record

NO_DOMAIN: Final = ""
"""The domain of a domain, and of a role that belongs to all: a value, because NULL is never unique in SQL."""

ALL_SYSTEM: Final = "system"
"""The id of the one target of system scope."""


class Actor(enum.StrEnum):
    USER = "user"
    GROUP = "group"


class Scope(enum.StrEnum):
    """What a role is held on, and what a token is for; NONE is an unscoped token."""

    PROJECT = "project"
    DOMAIN = "domain"
    SYSTEM = "system"
    NONE = ""


class Project(Record, frozen=True, kw_only=True):
    name: str
    domain_id: str
    parent_id: str | None = None
    is_domain: bool = False
    enabled: bool = True
    description: str | None = ""
    tags: tuple[str, ...] = ()
    options: dict[str, Any] = {}
    extra: dict[str, Any] = {}


class User(Record, frozen=True, kw_only=True):
    name: str
    domain_id: str
    enabled: bool = True
    password_hash: str | None = None
    default_project_id: str | None = None
    options: dict[str, Any] = {}
    extra: dict[str, Any] = {}


class Group(Record, frozen=True, kw_only=True):
    name: str
    domain_id: str
    description: str | None = ""
    extra: dict[str, Any] = {}


class Membership(Record, frozen=True, kw_only=True):
    """A user in a group; its id is made of both."""

    group_id: str
    user_id: str


class Role(Record, frozen=True, kw_only=True):
    name: str
    domain_id: str = NO_DOMAIN
    description: str | None = None
    options: dict[str, Any] = {}
    extra: dict[str, Any] = {}


class Implication(Record, frozen=True, kw_only=True):
    """Who holds the first role holds the second."""

    prior_id: str
    implied_id: str


class Assignment(Record, frozen=True, kw_only=True):
    """An actor holds a role on a target; `inherited`: on the projects below the target, and not on itself."""

    actor: Actor
    actor_id: str
    scope: Scope
    target_id: str
    role_id: str
    inherited: bool = False


class Region(Record, frozen=True, kw_only=True):
    description: str | None = ""
    parent_region_id: str | None = None
    extra: dict[str, Any] = {}


class Service(Record, frozen=True, kw_only=True):
    type: str
    name: str = ""
    description: str | None = ""
    enabled: bool = True
    extra: dict[str, Any] = {}


class Endpoint(Record, frozen=True, kw_only=True):
    service_id: str
    interface: str
    url: str
    region_id: str | None = None
    enabled: bool = True
    extra: dict[str, Any] = {}


class Credential(Record, frozen=True, kw_only=True):
    """A secret that a user keeps with us, sealed.  The id of an EC2 one is the hash of its access key."""

    user_id: str
    type: str
    sealed_blob: str
    project_id: str | None = None
    app_credential_id: str | None = None
    extra: dict[str, Any] = {}
    access_key_id: str | None = None
    """Of EC2 keys whose access key was changed: the hash of the new one.  The id stays that of the first."""


class AccessKey(Record, frozen=True, kw_only=True):
    """Finds the credential of an access key that it was not made with; the id is the key's hash."""

    credential_id: str


class AccessRule(Record, frozen=True, kw_only=True):
    user_id: str
    service: str
    path: str
    method: str


class AppCredential(Record, frozen=True, kw_only=True):
    """A name and a secret that stand for a user on one project, with some of his roles."""

    name: str
    user_id: str
    project_id: str
    secret_hash: str
    role_ids: tuple[str, ...]
    description: str | None = None
    expires_at_s: float | None = None
    unrestricted: bool = False
    access_rule_ids: tuple[str, ...] | None = None
    """None: no rules, everything may be called; empty: nothing may."""


class Trust(Record, frozen=True, kw_only=True):
    """A user lets another act on a project with some of his roles."""

    trustor_id: str
    trustee_id: str
    project_id: str | None
    role_ids: tuple[str, ...]
    impersonation: bool
    expires_at_s: float | None = None
    remaining_uses: int | None = None
    deleted_at_s: float | None = None


class RegisteredLimit(Record, frozen=True, kw_only=True):
    service_id: str
    resource_name: str
    default_limit: int
    region_id: str | None = None
    description: str | None = None


class Limit(Record, frozen=True, kw_only=True):
    service_id: str
    resource_name: str
    resource_limit: int
    region_id: str | None = None
    description: str | None = None
    project_id: str | None = None
    domain_id: str | None = None

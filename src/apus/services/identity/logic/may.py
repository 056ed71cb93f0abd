"""Who may do what in identity: one table, action -> the ways in.

Identity's targets are users, groups, projects and domains, so its rules ask for more than a project: for the domain
of each thing touched, and for the user himself.  `admin` passes everywhere (phase 1 of OpenStack's "Consistent and
Secure Default RBAC") but where only the user himself may.  A thing that is not there belongs to nobody: who may not
see all does not learn whether it exists.  Source of the defaults: Keystone's policy reference.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Final

from apus.kernel.caller import Caller
from apus.kernel.errors import Forbidden
from apus.kernel.policy import Policy, Rule
from apus.services.identity.logic.claims import EC2


class Way(enum.Enum):
    """One way to be allowed."""

    PUBLIC = "anybody, also without a token"
    ANYONE = "anybody with a token"
    ADMIN = "an administrator"
    SYSTEM_READER = "a reader of the system"
    DOMAIN_READER = "a reader of the domain"
    DOMAIN_MANAGER = "a manager of the domain"
    DOMAIN_USER = "anybody with a token of the domain or of one of its projects"
    PROJECT_USER = "anybody with a token of the project"
    OWNER = "the user himself"
    OWNER_ALONE = "only the user himself"
    HOLDER = "the user himself, or his application credential for what it made"
    SERVICE = "another service"
    SOME_DOMAIN_MANAGER = "a manager of some domain"
    MANAGED_ROLE = "a manager of a domain, for the roles that he may give"


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """What is acted on.  All of `domain_ids` must be the caller's for a domain's reader or manager to pass."""

    domain_ids: tuple[str, ...] = ()
    project_id: str | None = None
    user_ids: tuple[str, ...] = ()
    role_name: str | None = None
    app_credential_id: str | None = None
    """Which application credential made it."""


NOTHING: Final = Target()

MANAGED_ROLES: Final = frozenset({"manager", "member", "reader"})
"""What a manager of a domain may give and take."""

_READ: Final = (Way.ADMIN, Way.SYSTEM_READER)
_READ_IN_DOMAIN: Final = (*_READ, Way.DOMAIN_READER)
_READ_OWN: Final = (*_READ, Way.OWNER)
_READ_IN_DOMAIN_OR_OWN: Final = (*_READ_IN_DOMAIN, Way.OWNER)
_WRITE_IN_DOMAIN: Final = (Way.ADMIN, Way.DOMAIN_MANAGER)
_OWN: Final = (Way.ADMIN, Way.OWNER)
_READ_HELD: Final = (*_READ, Way.HOLDER)
_HELD: Final = (Way.ADMIN, Way.HOLDER)
_ADMIN: Final = (Way.ADMIN,)
_ANYONE: Final = (Way.ANYONE,)


def _crud(
    noun: str, plural: str, read: tuple[Way, ...], write: tuple[Way, ...], listing: tuple[Way, ...] | None = None
) -> dict[str, tuple[Way, ...]]:
    actions = {f"identity:{verb}_{noun}": write for verb in ("create", "update", "delete")}
    return {f"identity:get_{noun}": read, f"identity:list_{plural}": listing or read, **actions}


WAYS: Final[Mapping[str, tuple[Way, ...]]] = {
    "identity:get_versions": (Way.PUBLIC,),
    "identity:issue_token": (Way.PUBLIC,),
    "identity:change_password": (Way.PUBLIC,),  # the old password is the proof, also when it has expired
    "identity:validate_token": (*_READ, Way.SERVICE, Way.OWNER),
    "identity:check_token": (*_READ, Way.SERVICE, Way.OWNER),
    "identity:revoke_token": _OWN,
    "identity:get_auth_catalog": _ANYONE,
    "identity:get_auth_projects": _ANYONE,
    "identity:get_auth_domains": _ANYONE,
    "identity:get_auth_system": _ANYONE,
    **_crud("domain", "domains", (*_READ, Way.DOMAIN_USER), _ADMIN, _READ_IN_DOMAIN),
    **_crud("project", "projects", (*_READ_IN_DOMAIN, Way.PROJECT_USER), _WRITE_IN_DOMAIN, _READ_IN_DOMAIN),
    "identity:list_user_projects": _READ_IN_DOMAIN_OR_OWN,
    "identity:list_project_tags": (*_READ_IN_DOMAIN, Way.PROJECT_USER),
    "identity:update_project_tags": _WRITE_IN_DOMAIN,
    **_crud("user", "users", _READ_IN_DOMAIN_OR_OWN, _WRITE_IN_DOMAIN, _READ_IN_DOMAIN),
    **_crud("group", "groups", _READ_IN_DOMAIN, _WRITE_IN_DOMAIN),
    "identity:list_groups_for_user": _READ_IN_DOMAIN_OR_OWN,
    "identity:list_users_in_group": _READ_IN_DOMAIN,
    "identity:check_user_in_group": _READ_IN_DOMAIN,
    "identity:add_user_to_group": _WRITE_IN_DOMAIN,
    "identity:remove_user_from_group": _WRITE_IN_DOMAIN,
    **_crud("role", "roles", (*_READ, Way.MANAGED_ROLE), _ADMIN, (*_READ, Way.SOME_DOMAIN_MANAGER)),
    "identity:list_implied_roles": _READ,
    "identity:get_implied_role": _READ,
    "identity:create_implied_role": _ADMIN,
    "identity:delete_implied_role": _ADMIN,
    "identity:list_role_inferences": _READ,
    "identity:list_grants": _READ_IN_DOMAIN,
    "identity:check_grant": _READ_IN_DOMAIN,
    "identity:create_grant": (Way.ADMIN, Way.MANAGED_ROLE),
    "identity:revoke_grant": (Way.ADMIN, Way.MANAGED_ROLE),
    "identity:list_system_grants": _READ,
    "identity:check_system_grant": _READ,
    "identity:create_system_grant": _ADMIN,
    "identity:revoke_system_grant": _ADMIN,
    "identity:list_role_assignments": _READ_IN_DOMAIN,
    **_crud("region", "regions", _ANYONE, _ADMIN),
    **_crud("service", "services", _READ, _ADMIN),
    **_crud("endpoint", "endpoints", _READ, _ADMIN),
    **_crud("credential", "credentials", _READ_HELD, _HELD, _ANYONE),
    "identity:list_ec2_credentials": _READ_HELD,
    "identity:get_ec2_credential": _READ_HELD,
    "identity:create_ec2_credential": _HELD,
    "identity:delete_ec2_credential": _HELD,
    "identity:issue_ec2_token": (Way.ADMIN, Way.SERVICE),
    "identity:list_app_credentials": _READ_OWN,
    "identity:get_app_credential": _READ_OWN,
    "identity:create_app_credential": (Way.OWNER_ALONE,),
    "identity:delete_app_credential": _OWN,
    "identity:list_access_rules": _READ_OWN,
    "identity:get_access_rule": _READ_OWN,
    "identity:delete_access_rule": _OWN,
    "identity:list_trusts": _READ_OWN,
    "identity:get_trust": _READ_OWN,
    "identity:create_trust": (Way.OWNER_ALONE,),
    "identity:delete_trust": _OWN,
    **_crud("registered_limit", "registered_limits", _ANYONE, _ADMIN),
    **_crud("limit", "limits", (*_READ_IN_DOMAIN, Way.PROJECT_USER), _ADMIN, _ANYONE),
    "identity:get_limit_model": _ANYONE,
}

POLICY: Final[Policy] = {action: Rule.PUBLIC if Way.PUBLIC in ways else Rule.ANYONE for action, ways in WAYS.items()}
"""What the route checks: whether a token is needed.  The rest needs the target, and is asked in the service."""


def allows(way: Way, caller: Caller, target: Target) -> bool:
    """Whether this way is open to the caller."""
    roles, domain_id = caller.roles, caller.domain_id
    whole = domain_id is not None and bool(target.domain_ids) and set(target.domain_ids) == {domain_id}
    match way:
        case Way.PUBLIC | Way.ANYONE:
            return True
        case Way.ADMIN:
            return caller.is_admin
        case Way.SYSTEM_READER:
            return caller.system and "reader" in roles
        case Way.DOMAIN_READER:
            return whole and "reader" in roles
        case Way.DOMAIN_MANAGER:
            return whole and "manager" in roles
        case Way.DOMAIN_USER:
            own = {domain_id, caller.project_domain_id} - {None}
            return bool(own & set(target.domain_ids))
        case Way.PROJECT_USER:
            return caller.project_id is not None and caller.project_id == target.project_id
        case Way.OWNER | Way.OWNER_ALONE:
            return caller.user_id in target.user_ids
        case Way.HOLDER:
            if caller.user_id not in target.user_ids or caller.trust_id is not None or EC2 in caller.methods:
                return False  # what was delegated to them is less than what the user's secrets can do
            return caller.app_credential_id in (None, target.app_credential_id)
        case Way.SERVICE:
            return "service" in roles
        case Way.SOME_DOMAIN_MANAGER:
            return domain_id is not None and "manager" in roles
        case Way.MANAGED_ROLE:
            managed = "manager" in roles and domain_id is not None and target.role_name in MANAGED_ROLES
            return managed and (whole or not target.domain_ids)


def may(caller: Caller, action: str, target: Target = NOTHING) -> bool:
    return any(allows(way, caller, target) for way in WAYS[action])


def require(caller: Caller, action: str, target: Target = NOTHING) -> None:
    """Raise Forbidden unless one of the action's ways is open."""
    if not may(caller, action, target):
        who = ", ".join(way.value for way in WAYS[action])
        raise Forbidden(
            "identity.forbidden",
            f"You are not authorized to perform the requested action: {action} (it is for: {who}).",
        )

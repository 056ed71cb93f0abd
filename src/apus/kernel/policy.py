"""May this caller do this?  One table of rules per service, in the words of OpenStack's secure RBAC.

Roles imply each other (admin ⊃ manager ⊃ member ⊃ reader) and are already expanded in the caller.  A rule is checked
twice: at the route, without a target, for the role; in the service, with the target, for whose it is.
Source: "Consistent and Secure Default RBAC" (OpenStack community goal), phase 1: `admin` is admin everywhere.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from apus.kernel.caller import Caller
from apus.kernel.errors import Forbidden, NotFound


class Rule(enum.Enum):
    """Who may; every rule lets `admin` pass."""

    PUBLIC = "anybody, also without a token"
    ANYONE = "anybody with a token"
    READER = "a reader of the project"
    MEMBER = "a member of the project"
    MANAGER = "a manager of the project"
    OWNER = "the user himself"
    SERVICE = "another service"
    ADMIN = "an administrator"


Policy = Mapping[str, Rule]

_ROLE = {Rule.READER: "reader", Rule.MEMBER: "member", Rule.MANAGER: "manager", Rule.SERVICE: "service"}


def allows(rule: Rule, caller: Caller, *, project_id: str | None = None, user_id: str | None = None) -> bool:
    """Whether the rule lets the caller act on a thing of this project (or of this user), if one is given."""
    if rule in (Rule.PUBLIC, Rule.ANYONE) or caller.is_admin:
        return True
    if rule is Rule.OWNER:
        return user_id is None or caller.user_id == user_id
    role = _ROLE.get(rule)
    if role is None or role not in caller.roles:
        return False
    return rule is Rule.SERVICE or project_id is None or caller.project_id == project_id


def require(
    policy: Policy, action: str, caller: Caller, *, project_id: str | None = None, user_id: str | None = None
) -> None:
    """Raise Forbidden unless the caller may; the message says who may."""
    rule = policy[action]
    if not allows(rule, caller, project_id=project_id, user_id=user_id):
        held = ", ".join(sorted(caller.roles)) or "none"
        raise Forbidden("policy.forbidden", f"{action} is for {rule.value}; the roles of this token are: {held}.")


def require_visible(caller: Caller, project_id: str | None, missing: NotFound) -> None:
    """Another tenant's thing does not exist for the caller: raise `missing` unless it is his or he is admin."""
    if not caller.is_admin and (project_id is None or caller.project_id != project_id):
        raise missing

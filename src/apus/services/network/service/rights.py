"""Who may, and how much: the policy table, whose a new thing is, quotas counted from live rows."""

from __future__ import annotations

from typing import Any

from apus.kernel.caller import Caller
from apus.kernel.errors import Forbidden, OverQuota
from apus.kernel.policy import Policy, Rule
from apus.kernel.table import RecordTable
from apus.kernel.world import Transaction
from apus.services.network.logic.limits import QUOTA_DEFAULTS
from apus.services.network.service.refusals import bad_input
from apus.services.network.store import GROUPS, NETWORKS, PORTS, QUOTAS, RULES, SUBNETS

POLICY: Policy = {
    "network:get": Rule.READER,
    "network:write": Rule.MEMBER,
    "network:admin": Rule.ADMIN,
    "quota:get": Rule.READER,
    "extension:get": Rule.ANYONE,
    "version:get": Rule.PUBLIC,
}

COUNTED: dict[str, RecordTable[Any]] = {
    "network": NETWORKS,
    "subnet": SUBNETS,
    "port": PORTS,
    "security_group": GROUPS,
    "security_group_rule": RULES,
}


def owner_of(caller: Caller, asked: str | None, noun: str) -> str:
    """The project that the new thing is for; another one's only an administrator may name."""
    if asked and asked != caller.project_id and not caller.is_admin:
        shown = f"(rule:create_{noun}:tenant_id) is disallowed by policy"
        raise Forbidden("network.not_yours", shown, details={"type": "PolicyNotAuthorized"})
    project = asked or caller.project_id
    if not project:
        raise bad_input("project_id", "the token has no project, so the request must name one")
    return project


def only_admin(caller: Caller, field: str, noun: str) -> None:
    if not caller.is_admin:
        shown = f"(rule:{noun}:{field}) is disallowed by policy"
        raise Forbidden("network.admin_only", shown, details={"type": "PolicyNotAuthorized"})


def limit_of(tx: Transaction, project_id: str, noun: str) -> int:
    quota = QUOTAS.get(tx, project_id)
    return quota.limits.get(noun, QUOTA_DEFAULTS[noun]) if quota else QUOTA_DEFAULTS[noun]


def check_quota(tx: Transaction, project_id: str, noun: str, adding: int) -> None:
    limit = limit_of(tx, project_id, noun)
    if limit < 0:
        return
    used = COUNTED[noun].count(tx, project_id=project_id)
    if used + adding > limit:
        shown = f"Quota exceeded for resources: ['{noun}']. Limit {limit}, in use {used}, asked for {adding}."
        raise OverQuota("network.over_quota", shown, details={"type": "OverQuota"})

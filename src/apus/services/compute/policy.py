"""Who may do what in compute: the names are ours, the rules those of Nova's secure RBAC defaults."""

from __future__ import annotations

from typing import Final

from apus.kernel.policy import Policy, Rule

POLICY: Final[Policy] = {
    "server:list": Rule.READER,
    "server:show": Rule.READER,
    "server:create": Rule.MEMBER,
    "server:create_on_host": Rule.ADMIN,
    "server:update": Rule.MEMBER,
    "server:delete": Rule.MEMBER,
    "server:act": Rule.MEMBER,
    "server:console_log": Rule.MEMBER,
    "server:unlock_others": Rule.ADMIN,
    "server:reset_state": Rule.ADMIN,
    "server:network_info": Rule.ADMIN,
    "server:all_tenants": Rule.ADMIN,
    "server:host_fields": Rule.ADMIN,
    "flavor:show": Rule.ANYONE,
    "flavor:manage": Rule.ADMIN,
    "keypair:use": Rule.ANYONE,
    "keypair:others": Rule.ADMIN,
    "group:show": Rule.READER,
    "group:manage": Rule.MEMBER,
    "quota:show": Rule.READER,
    "quota:manage": Rule.ADMIN,
    "limits:show": Rule.ANYONE,
    "zone:show": Rule.ANYONE,
    "zone:detail": Rule.ADMIN,
    "aggregate:show": Rule.ADMIN,
    "aggregate:manage": Rule.ADMIN,
    "host:show": Rule.ADMIN,
    "hypervisor:show": Rule.ADMIN,
    "service:show": Rule.ADMIN,
    "service:manage": Rule.ADMIN,
    "usage:show": Rule.READER,
    "usage:all": Rule.ADMIN,
    "versions": Rule.PUBLIC,
}

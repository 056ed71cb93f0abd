"""Who asks, until when, and with which rights.  Made once per request from a token; passed down unchanged."""

from __future__ import annotations

import msgspec


class AccessRule(msgspec.Struct, frozen=True, array_like=True):
    """A call that an application credential may make; `*` is one segment of the path, `**` any number."""

    service: str
    """The type of the service: compute, image, …"""
    method: str
    path: str


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    user_id: str
    user_name: str = ""
    user_domain_id: str = "default"
    project_id: str | None = None
    project_name: str | None = None
    project_domain_id: str | None = None
    domain_id: str | None = None
    """Set when the token is scoped to a domain."""
    system: bool = False
    """True when the token is scoped to the system."""
    roles: frozenset[str] = frozenset()
    """Names of roles, implied ones included."""
    expires_at_s: float = 0.0
    audit_id: str = ""
    methods: tuple[str, ...] = ()
    app_credential_id: str | None = None
    trust_id: str | None = None
    access_rules: tuple[AccessRule, ...] | None = None
    """The only calls that may be made, when the application credential has such rules; enforced at the HTTP edge."""
    request_id: str = ""

    @property
    def is_admin(self) -> bool:
        return "admin" in self.roles


def the_system(request_id: str = "") -> Caller:
    """The cloud itself, in flows and loops that act on nobody's behalf."""
    return Caller(
        user_id="apus",
        user_name="apus",
        system=True,
        roles=frozenset({"admin", "manager", "member", "reader", "service"}),
        request_id=request_id,
    )

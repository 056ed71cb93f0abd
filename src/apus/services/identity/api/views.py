"""What clients see: Keystone's shapes.  Hashes and sealed secrets never pass through here."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Any

import msgspec

from apus.services.identity import model
from apus.services.identity.logic.claims import Claims, Named
from apus.services.identity.service.grants import Found, Names
from apus.services.identity.service.secrets import ShownAppCredential

View = dict[str, Any]


def stamp(at_s: float) -> str:
    moment = datetime.datetime.fromtimestamp(at_s, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _link(base: str, collection: str, id: str) -> View:
    return {"self": f"{base}/{collection}/{id}"}


def project(record: model.Project, base: str) -> View:
    return {
        **record.extra,
        "id": record.id,
        "name": record.name,
        "domain_id": record.domain_id or None,
        "description": record.description,
        "enabled": record.enabled,
        "parent_id": record.parent_id,
        "is_domain": record.is_domain,
        "tags": list(record.tags),
        "options": record.options,
        "links": _link(base, "projects", record.id),
    }


def domain(record: model.Project, base: str) -> View:
    return {
        **record.extra,
        "id": record.id,
        "name": record.name,
        "description": record.description,
        "enabled": record.enabled,
        "tags": list(record.tags),
        "options": record.options,
        "links": _link(base, "domains", record.id),
    }


def user(record: model.User, base: str) -> View:
    view = {
        **record.extra,
        "id": record.id,
        "name": record.name,
        "domain_id": record.domain_id,
        "enabled": record.enabled,
        "password_expires_at": None,
        "options": record.options,
        "links": _link(base, "users", record.id),
    }
    if record.default_project_id is not None:
        view["default_project_id"] = record.default_project_id
    return view


def group(record: model.Group, base: str) -> View:
    return {
        **record.extra,
        "id": record.id,
        "name": record.name,
        "domain_id": record.domain_id,
        "description": record.description,
        "links": _link(base, "groups", record.id),
    }


def role(record: model.Role, base: str) -> View:
    return {
        **record.extra,
        "id": record.id,
        "name": record.name,
        "domain_id": record.domain_id or None,
        "description": record.description,
        "options": record.options,
        "links": _link(base, "roles", record.id),
    }


def region(record: model.Region, base: str) -> View:
    return {
        **record.extra,
        "id": record.id,
        "description": record.description,
        "parent_region_id": record.parent_region_id,
        "links": _link(base, "regions", record.id),
    }


def service(record: model.Service, base: str) -> View:
    return {
        **record.extra,
        "id": record.id,
        "type": record.type,
        "name": record.name,
        "description": record.description,
        "enabled": record.enabled,
        "links": _link(base, "services", record.id),
    }


def endpoint(record: model.Endpoint, base: str) -> View:
    return {
        **record.extra,
        "id": record.id,
        "service_id": record.service_id,
        "interface": record.interface,
        "url": record.url,
        "region": record.region_id,
        "region_id": record.region_id,
        "enabled": record.enabled,
        "links": _link(base, "endpoints", record.id),
    }


def credential(record: model.Credential, blob: str, base: str) -> View:
    return {
        **record.extra,
        "id": record.id,
        "user_id": record.user_id,
        "project_id": record.project_id,
        "type": record.type,
        "blob": blob,
        "links": _link(base, "credentials", record.id),
    }


def ec2(record: model.Credential, access: str, secret: str, base: str) -> View:
    return {
        "access": access,
        "secret": secret,
        "user_id": record.user_id,
        "tenant_id": record.project_id,
        "trust_id": None,
        "links": {"self": f"{base}/users/{record.user_id}/credentials/OS-EC2/{access}"},
    }


def access_rule(record: model.AccessRule, base: str) -> View:
    return {
        "id": record.id,
        "service": record.service,
        "path": record.path,
        "method": record.method,
        "links": {"self": f"{base}/users/{record.user_id}/access_rules/{record.id}"},
    }


def app_credential(shown: ShownAppCredential, base: str) -> View:
    record = shown.credential
    view: View = {
        "id": record.id,
        "name": record.name,
        "description": record.description,
        "user_id": record.user_id,
        "project_id": record.project_id,
        "system": None,
        "expires_at": None if record.expires_at_s is None else stamp(record.expires_at_s).replace("Z", ""),
        "unrestricted": record.unrestricted,
        "roles": [
            {"id": each.id, "name": each.name, "domain_id": each.domain_id or None, "description": each.description}
            for each in shown.roles
        ],
        "links": {"self": f"{base}/users/{record.user_id}/application_credentials/{record.id}"},
    }
    if shown.rules is not None:
        view["access_rules"] = [
            {"id": rule.id, "service": rule.service, "path": rule.path, "method": rule.method} for rule in shown.rules
        ]
    if shown.secret is not None:
        view["secret"] = shown.secret
    return view


def trust(record: model.Trust, roles: Sequence[model.Role] | None, base: str) -> View:
    view: View = {
        "id": record.id,
        "trustor_user_id": record.trustor_id,
        "trustee_user_id": record.trustee_id,
        "project_id": record.project_id,
        "impersonation": record.impersonation,
        "expires_at": None if record.expires_at_s is None else stamp(record.expires_at_s),
        "deleted_at": None,
        "remaining_uses": record.remaining_uses,
        "redelegation_count": 0,
        "redelegated_trust_id": None,
        "links": {"self": f"{base}/OS-TRUST/trusts/{record.id}"},
    }
    if roles is not None:
        view["roles"] = [role(each, base) for each in roles]
        view["roles_links"] = {
            "self": f"{base}/OS-TRUST/trusts/{record.id}/roles",
            "next": None,
            "previous": None,
        }
    return view


def registered_limit(record: model.RegisteredLimit, base: str) -> View:
    return {
        "id": record.id,
        "service_id": record.service_id,
        "region_id": record.region_id,
        "resource_name": record.resource_name,
        "default_limit": record.default_limit,
        "description": record.description,
        "links": _link(base, "registered_limits", record.id),
    }


def limit(record: model.Limit, base: str) -> View:
    return {
        "id": record.id,
        "service_id": record.service_id,
        "region_id": record.region_id,
        "resource_name": record.resource_name,
        "resource_limit": record.resource_limit,
        "description": record.description,
        "project_id": record.project_id,
        "domain_id": record.domain_id,
        "links": _link(base, "limits", record.id),
    }


def _plain(named: Named) -> View:
    return {"id": named.id, "name": named.name}


def token(claims: Claims, catalogue: msgspec.Raw | None) -> View:
    """The `token` of POST and GET /auth/tokens."""
    view: View = {
        "methods": claims.methods,
        "user": {
            "id": claims.user.id,
            "name": claims.user.name,
            "domain": _plain(claims.user_domain),
            "password_expires_at": None,
        },
        "audit_ids": claims.audit_ids,
        "expires_at": stamp(claims.expires_at_s),
        "issued_at": stamp(claims.issued_at_s),
    }
    if claims.target is not None:
        target = claims.target
        if claims.scope is model.Scope.PROJECT:
            domain = _plain(claims.target_domain) if claims.target_domain is not None else None
            view["project"] = {**_plain(target), "domain": domain}
            view["is_domain"] = False
        elif claims.scope is model.Scope.DOMAIN:
            view["domain"] = _plain(target)
        else:
            view["system"] = {"all": True}
        view["roles"] = [_plain(each) for each in claims.roles]
    if catalogue is not None:
        view["catalog"] = catalogue
    credential = claims.app_credential
    if credential is not None:
        view["application_credential"] = {
            "id": credential.id,
            "name": credential.name,
            "restricted": not credential.unrestricted,
        }
        if credential.access_rules is not None:
            view["application_credential"]["access_rules"] = [
                {"service": service, "method": method, "path": path}
                for service, method, path in credential.access_rules
            ]
    if claims.trust is not None:
        view["OS-TRUST:trust"] = {
            "id": claims.trust.id,
            "trustor_user": {"id": claims.trust.trustor_id},
            "trustee_user": {"id": claims.trust.trustee_id},
            "impersonation": claims.trust.impersonation,
        }
    return view


def assignment(found: Found, names: Names | None, base: str) -> View:
    """One line of GET /role_assignments; with names when they are given."""
    a = found.assignment
    scope_word = {"project": "projects", "domain": "domains"}.get(str(a.scope))
    holder = f"{a.actor}s/{a.actor_id}/roles/{a.role_id}"
    carried = "/inherited_to_projects" if a.inherited else ""
    place = f"{scope_word}/{a.target_id}" if scope_word else "system"
    view: View = {
        "role": _with_names(a.role_id, names.roles if names else None, names),
        "links": {"assignment": f"{base}/{'OS-INHERIT/' if a.inherited else ''}{place}/{holder}{carried}"},
    }
    if found.user_id is not None:
        view["user"] = _with_names(found.user_id, names.users if names else None, names)
        if found.group_id is not None:
            view["links"]["membership"] = f"{base}/groups/{found.group_id}/users/{found.user_id}"
    elif found.group_id is not None:
        view["group"] = _with_names(found.group_id, names.groups if names else None, names)
    if found.via_prior_id is not None:
        view["links"]["prior_role"] = f"{base}/roles/{found.via_prior_id}"
    if a.scope == model.Scope.SYSTEM:
        view["scope"] = {"system": {"all": True}}
    elif found.project_id is not None:
        view["scope"] = {"project": _with_names(found.project_id, names.projects if names else None, names)}
    else:
        view["scope"] = {str(a.scope): _with_names(a.target_id, names.projects if names else None, names)}
    if a.inherited:
        view["scope"]["OS-INHERIT:inherited_to"] = "projects"
    return view


def _with_names(id: str, table: dict[str, Any] | None, names: Names | None) -> View:
    record = table.get(id) if table is not None else None
    if record is None or names is None:
        return {"id": id}
    view: View = {"id": id, "name": record.name}
    home = names.projects.get(record.domain_id)
    if home is not None:
        view["domain"] = {"id": home.id, "name": home.name}
    elif isinstance(record, model.Role):
        view["domain"] = None
    return view


def inference(prior: model.Role, implied: Sequence[model.Role], base: str, *, one: bool = False) -> View:
    shown = [_short_role(each, base) for each in implied]
    return {"prior_role": _short_role(prior, base), "implies": shown[0] if one else shown}


def _short_role(record: model.Role, base: str) -> View:
    return {
        "id": record.id,
        "name": record.name,
        "description": record.description,
        "links": _link(base, "roles", record.id),
    }

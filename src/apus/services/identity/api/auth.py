"""Tokens: POST, GET, HEAD and DELETE /auth/tokens, and what a token may be exchanged for."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from apus.kernel.errors import Invalid, NotFound
from apus.services.identity.agent.verifier import Opened
from apus.services.identity.api import bodies, views
from apus.services.identity.api.crud import base_of, collection, identity_of
from apus.services.identity.model import Scope
from apus.services.identity.service.auth import Ask, Place
from apus.wire.route import ApiRequest, Reply, Route

_VARY: Final = {"Vary": "X-Auth-Token"}

VERSION: Final = "v3.14"
_UPDATED: Final = "2020-04-07T00:00:00Z"


def _place(ref: bodies.UserRef | bodies.ProjectRef | None) -> Place:
    if ref is None:
        return Place()
    domain = ref.domain or bodies.DomainRef()
    return Place(id=ref.id, name=ref.name, domain_id=domain.id, domain_name=domain.name)


def ask_of(body: bodies.AuthBody) -> Ask:
    """Raise Invalid for a method without its part, and for a scope that is several or none."""
    identity, scope = body.auth.identity, body.auth.scope
    ask: dict[str, Any] = {"methods": tuple(identity.methods)}
    for method in identity.methods:
        if getattr(identity, method, None) is None and method in ("password", "token", "application_credential"):
            raise Invalid("identity.invalid", f"auth.identity.{method}: it is missing.", field=f"identity.{method}")
    if identity.password is not None:
        user = identity.password.user
        if user.password is None or (user.id is None and (user.name is None or user.domain is None)):
            raise Invalid(
                "identity.invalid",
                "auth.identity.password.user: id, or name and domain, and the password are expected.",
                field="identity.password.user",
            )
        ask |= {"user": _place(user), "password": user.password}
    if identity.token is not None:
        ask["token"] = identity.token.id
    credential = identity.application_credential
    if credential is not None:
        if credential.id is None and (credential.name is None or credential.user is None):
            raise Invalid(
                "identity.invalid",
                "auth.identity.application_credential: id, or name and user, are expected.",
                field="identity.application_credential",
            )
        ask |= {"app_credential": Place(id=credential.id, name=credential.name), "secret": credential.secret}
        if credential.user is not None and identity.password is None:
            ask["user"] = _place(credential.user)
    return Ask(**ask, **_scope(scope))


def _scope(scope: bodies.ScopePart | str | None) -> dict[str, Any]:
    if scope is None:
        return {}
    if isinstance(scope, str) or scope.unscoped is not None:
        return {"scope": Scope.NONE}
    given = [part for part in (scope.project, scope.domain, scope.system, scope.trust) if part is not None]
    if len(given) != 1:
        raise Invalid("identity.invalid", "auth.scope: exactly one of project, domain, system, OS-TRUST:trust.")
    if scope.project is not None:
        project = scope.project
        if project.id is None and (project.name is None or project.domain is None):
            raise Invalid("identity.invalid", "auth.scope.project: id, or name and domain, are expected.")
        return {"scope": Scope.PROJECT, "target": _place(project)}
    if scope.domain is not None:
        if scope.domain.id is None and scope.domain.name is None:
            raise Invalid("identity.invalid", "auth.scope.domain: id or name is expected.")
        return {"scope": Scope.DOMAIN, "target": Place(id=scope.domain.id, name=scope.domain.name)}
    if scope.system is not None:
        if scope.system != {"all": True}:
            raise Invalid("identity.invalid", 'auth.scope.system: {"all": true} is expected.')
        return {"scope": Scope.SYSTEM}
    assert scope.trust is not None
    return {"trust_id": scope.trust.id}


async def shown(request: ApiRequest, opened: Opened) -> bytes:
    """The body; kept beside the opened token for as long as the catalogue is the same."""
    claims, core = opened.claims, identity_of(request).core
    catalogue: msgspec.Raw | None = None
    if claims.scope is not Scope.NONE and "nocatalog" not in request.raw_query:
        project_id = claims.target.id if claims.scope is Scope.PROJECT and claims.target is not None else None
        catalogue = await core.catalogue(project_id, claims.user.id)
    kept = opened.shown.get("token")
    if kept is not None and kept[0] is catalogue:
        body: bytes = kept[1]
        return body
    body = msgspec.json.encode({"token": views.token(claims, catalogue)})
    opened.shown["token"] = (catalogue, body)
    return body


async def issue_token(request: ApiRequest) -> Reply:
    token, opened = await identity_of(request).auth.issue(ask_of(request.body))
    body = await shown(request, opened)
    return Reply(body, headers={"X-Subject-Token": token, **_VARY}, content_type="application/json")


def _subject_token(request: ApiRequest) -> str:
    token = request.headers.get("x-subject-token")
    if not token:
        raise NotFound("identity.token_not_found", "Could not find token: there is no X-Subject-Token.")
    return token


async def validate_token(request: ApiRequest) -> Reply:
    token = _subject_token(request)
    opened = identity_of(request).auth.subject(request.who, token, "identity:validate_token")
    body = await shown(request, opened)
    return Reply(body, headers={"X-Subject-Token": token, **_VARY}, content_type="application/json")


async def revoke_token(request: ApiRequest) -> Reply:
    await identity_of(request).auth.revoke(request.who, _subject_token(request))
    return Reply()


async def own_projects(request: ApiRequest) -> Reply:
    records = await identity_of(request).people.own_projects(request.who)
    return collection(request, "projects", [views.project(record, base_of(request)) for record in records])


async def own_domains(request: ApiRequest) -> Reply:
    records = await identity_of(request).people.own_domains(request.who)
    return collection(request, "domains", [views.domain(record, base_of(request)) for record in records])


async def own_system(request: ApiRequest) -> Reply:
    has = await identity_of(request).people.has_system(request.who)
    return collection(request, "system", [{"all": True}] if has else [])


async def own_catalog(request: ApiRequest) -> Reply:
    who = request.who
    catalogue = await identity_of(request).core.catalogue(who.project_id, who.user_id)
    return Reply({"catalog": catalogue, "links": {"self": f"{base_of(request)}/auth/catalog", "next": None}})


def _version(request: ApiRequest) -> dict[str, Any]:
    return {
        "id": VERSION,
        "status": "stable",
        "updated": _UPDATED,
        "links": [{"rel": "self", "href": f"{base_of(request)}/"}],
        "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
    }


async def versions(request: ApiRequest) -> Reply:
    return Reply({"versions": {"values": [_version(request)]}}, headers={"Location": f"{base_of(request)}/"})


async def version(request: ApiRequest) -> Reply:
    return Reply({"version": _version(request)})


ROUTES: Final = (
    Route("GET", "", versions, "identity:get_versions", status=300, name="list_versions"),
    Route("GET", "/", versions, "identity:get_versions", status=300, name="list_versions"),
    Route("GET", "/v3", version, "identity:get_versions", name="get_version"),
    Route("GET", "/v3/", version, "identity:get_versions", name="get_version"),
    Route("POST", "/v3/auth/tokens", issue_token, "identity:issue_token", bodies.AuthBody, 201),
    Route("GET", "/v3/auth/tokens", validate_token, "identity:validate_token"),
    Route("DELETE", "/v3/auth/tokens", revoke_token, "identity:revoke_token", status=204),
    Route("GET", "/v3/auth/projects", own_projects, "identity:get_auth_projects"),
    Route("GET", "/v3/auth/domains", own_domains, "identity:get_auth_domains"),
    Route("GET", "/v3/auth/system", own_system, "identity:get_auth_system"),
    Route("GET", "/v3/auth/catalog", own_catalog, "identity:get_auth_catalog"),
)

"""Roles held: on projects, domains and the system, by users and groups, directly or carried to projects below."""

from __future__ import annotations

from typing import Any, Final

from apus.services.identity.api import views
from apus.services.identity.api.crud import base_of, collection, identity_of
from apus.services.identity.model import ALL_SYSTEM, Actor, Scope
from apus.services.identity.service.grants import AssignmentQuery, Held
from apus.wire.listing import boolean
from apus.wire.route import ApiRequest, Reply, Route


def _grant_routes(path: str, actor: Actor, scope: Scope, inherited: bool) -> list[Route]:
    """`path` ends before the role; carried grants end in /inherited_to_projects."""
    end = "/inherited_to_projects" if inherited else ""

    def held(request: ApiRequest) -> Held:
        target_id = request.params.get("target_id", ALL_SYSTEM)
        return Held(actor, request.params["actor_id"], scope, target_id, inherited)

    async def give(request: ApiRequest) -> Reply:
        await identity_of(request).grants.grant(request.who, held(request), request.params["role_id"])
        return Reply()

    async def check(request: ApiRequest) -> Reply:
        await identity_of(request).grants.check(request.who, held(request), request.params["role_id"])
        return Reply()

    async def take(request: ApiRequest) -> Reply:
        await identity_of(request).grants.revoke(request.who, held(request), request.params["role_id"])
        return Reply()

    async def list_all(request: ApiRequest) -> Reply:
        roles = await identity_of(request).grants.roles_of(request.who, held(request))
        return collection(request, "roles", [views.role(role, base_of(request)) for role in roles])

    system = "system_" if scope is Scope.SYSTEM else ""
    one = f"{path}/roles/{{role_id}}{end}"
    word = f"{system}grant_{actor}_{scope}" + ("_inherited" if inherited else "")
    return [
        Route("GET", f"{path}/roles{end}", list_all, f"identity:list_{system}grants", name=f"list_{word}"),
        Route("PUT", one, give, f"identity:create_{system}grant", status=204, name=f"create_{word}"),
        Route("GET", one, check, f"identity:check_{system}grant", status=204, name=f"check_{word}"),
        Route("DELETE", one, take, f"identity:revoke_{system}grant", status=204, name=f"revoke_{word}"),
    ]


def _all_grant_routes() -> list[Route]:
    routes = []
    for actor in Actor:
        for scope in (Scope.PROJECT, Scope.DOMAIN):
            path = f"{scope}s/{{target_id}}/{actor}s/{{actor_id}}"
            routes += _grant_routes(f"/v3/{path}", actor, scope, False)
            routes += _grant_routes(f"/v3/OS-INHERIT/{path}", actor, scope, True)
        routes += _grant_routes(f"/v3/system/{actor}s/{{actor_id}}", actor, Scope.SYSTEM, False)
    return routes


def _flag(request: ApiRequest, name: str) -> bool:
    """`?effective` alone is yes."""
    value = request.query(name)
    return value is not None and (value == "" or boolean(name, value))


async def list_role_assignments(request: ApiRequest) -> Reply:
    inherited = request.query("scope.OS-INHERIT:inherited_to")
    query = AssignmentQuery(
        user_id=request.query("user.id"),
        group_id=request.query("group.id"),
        role_id=request.query("role.id"),
        project_id=request.query("scope.project.id"),
        domain_id=request.query("scope.domain.id"),
        system=request.query("scope.system") is not None,
        inherited=None if inherited is None else inherited == "projects",
        effective=_flag(request, "effective"),
        subtree=_flag(request, "include_subtree"),
    )
    found, names = await identity_of(request).grants.assignments(request.who, query)
    shown, base = names if _flag(request, "include_names") else None, base_of(request)
    return collection(request, "role_assignments", [views.assignment(each, shown, base) for each in found])


# ------------------------------------------------------------------------------------------------ implied roles
async def list_implied(request: ApiRequest) -> Reply:
    prior, implied = await identity_of(request).grants.implied(request.who, request.params["prior_id"])
    return _inference(request, views.inference(prior, implied, base_of(request)))


async def get_implied(request: ApiRequest) -> Reply:
    prior_id, implied_id = request.params["prior_id"], request.params["implied_id"]
    prior, implied = await identity_of(request).grants.implied(request.who, prior_id, implied_id)
    return _inference(request, views.inference(prior, implied, base_of(request), one=True))


async def check_implied(request: ApiRequest) -> Reply:
    await get_implied(request)
    return Reply()


async def imply(request: ApiRequest) -> Reply:
    prior_id, implied_id = request.params["prior_id"], request.params["implied_id"]
    prior, implied = await identity_of(request).grants.imply(request.who, prior_id, implied_id)
    return _inference(request, views.inference(prior, [implied], base_of(request), one=True))


async def unimply(request: ApiRequest) -> Reply:
    grants = identity_of(request).grants
    await grants.unimply(request.who, request.params["prior_id"], request.params["implied_id"])
    return Reply()


async def list_inferences(request: ApiRequest) -> Reply:
    base = base_of(request)
    found = await identity_of(request).grants.inferences(request.who)
    shown = [views.inference(prior, implied, base) for prior, implied in found]
    return collection(request, "role_inferences", shown)


def _inference(request: ApiRequest, view: dict[str, Any]) -> Reply:
    return Reply({"role_inference": view, "links": {"self": f"{request.base_url}{request.raw_path}"}})


_IMPLIED: Final = "/v3/roles/{prior_id}/implies/{implied_id}"

ROUTES: Final = (
    *_all_grant_routes(),
    Route("GET", "/v3/role_assignments", list_role_assignments, "identity:list_role_assignments"),
    Route("GET", "/v3/role_inferences", list_inferences, "identity:list_role_inferences"),
    Route("GET", "/v3/roles/{prior_id}/implies", list_implied, "identity:list_implied_roles"),
    Route("GET", _IMPLIED, get_implied, "identity:get_implied_role"),
    Route("HEAD", _IMPLIED, check_implied, "identity:get_implied_role", status=204),
    Route("PUT", _IMPLIED, imply, "identity:create_implied_role", status=201),
    Route("DELETE", _IMPLIED, unimply, "identity:delete_implied_role", status=204),
)

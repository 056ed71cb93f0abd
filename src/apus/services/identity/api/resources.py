"""The collections with nothing but the five calls, and how each is made from its body."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import UNSET

from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict
from apus.kernel.record import changed
from apus.kernel.table import Query
from apus.services.identity import model
from apus.services.identity.api import bodies, views
from apus.services.identity.api.crud import Resource, all_of, identity_of, merged
from apus.services.identity.contract import DEFAULT_DOMAIN_ID
from apus.services.identity.service import kinds
from apus.services.identity.service.keeper import invalid
from apus.services.identity.service.secrets import ec2_parts, forbid_delegated, id_of_access
from apus.wire.listing import boolean
from apus.wire.route import ApiRequest


def home_of(caller: Caller) -> str:
    """The domain of what the caller makes without naming one."""
    return caller.domain_id or caller.project_domain_id or DEFAULT_DOMAIN_ID


def _given(body: Any, *without: str) -> dict[str, Any]:
    fields = {field: value for field, value in msgspec.structs.asdict(body).items() if field not in without}
    return {field: tuple(value) if isinstance(value, list) else value for field, value in fields.items()}


def _options(given: dict[str, Any]) -> dict[str, Any]:
    options = {key: value for key, value in given.pop("options").items() if value is not None}
    return {**given, "options": options}


# ------------------------------------------------------------------------------------------ domains and projects
async def new_domain(request: ApiRequest, body: bodies.NewDomain, extra: dict[str, Any]) -> model.Project:
    identity = identity_of(request)
    record = model.Project(
        id=(body.explicit_domain_id or identity.core.new_id()),
        domain_id=model.NO_DOMAIN,
        is_domain=True,
        extra=extra,
        **_options(_given(body, "explicit_domain_id")),
    )
    return await identity.keeper.create(kinds.DOMAIN, request.who, record)


async def new_project(request: ApiRequest, body: bodies.NewProject, extra: dict[str, Any]) -> model.Project:
    identity = identity_of(request)
    given = _options(_given(body, "domain_id", "parent_id"))
    id = identity.core.new_id()
    if body.is_domain:
        record = model.Project(id=id, domain_id=model.NO_DOMAIN, extra=extra, **given)
        return await identity.keeper.create(kinds.DOMAIN, request.who, record)
    domain_id = body.domain_id
    if domain_id is None and body.parent_id is not None:
        domain_id = await identity.people.domain_of_parent(body.parent_id)
    domain_id = domain_id or home_of(request.who)
    record = model.Project(id=id, domain_id=domain_id, parent_id=body.parent_id or domain_id, extra=extra, **given)
    return await identity.keeper.create(kinds.PROJECT, request.who, record)


_TAG_TESTS: Final[Mapping[str, Callable[[frozenset[str], frozenset[str]], bool]]] = {
    "tags": lambda wanted, tags: wanted <= tags,
    "tags-any": lambda wanted, tags: bool(wanted & tags),
    "not-tags": lambda wanted, tags: not wanted <= tags,
    "not-tags-any": lambda wanted, tags: not wanted & tags,
}


def _tagged(test: Callable[[frozenset[str], frozenset[str]], bool], wanted: frozenset[str]) -> Callable[[Any], bool]:
    return lambda record: test(wanted, frozenset(record.tags))


def narrow_projects(request: ApiRequest, query: Query) -> Query:
    """Domains only when asked for; tags in their four ways."""
    where: dict[str, Any] = {**query.where, "is_domain": False}
    tests = [query.matches] if query.matches is not None else []
    for key, value in request.queries:
        if key == "is_domain":
            where["is_domain"] = boolean("is_domain", value or "true")
        elif key in _TAG_TESTS:
            tests.append(_tagged(_TAG_TESTS[key], frozenset(value.split(","))))
    return msgspec.structs.replace(query, where=where, matches=all_of(tests))


def _only_domains(request: ApiRequest, query: Query) -> Query:
    return msgspec.structs.replace(query, where={**query.where, "is_domain": True})


# ---------------------------------------------------------------------------------------------- users and groups
async def new_user(request: ApiRequest, body: bodies.NewUser, extra: dict[str, Any]) -> model.User:
    identity = identity_of(request)
    given = _options(_given(body, "password", "domain_id"))
    domain_id = body.domain_id or home_of(request.who)
    record = model.User(id=identity.core.new_id(), domain_id=domain_id, extra=extra, **given)
    return await identity.people.new_user(request.who, record, body.password)


async def change_user(request: ApiRequest, id: str, body: bodies.ChangeUser, extra: dict[str, Any]) -> model.User:
    password = body.password if body.password is not UNSET else None
    return await identity_of(request).people.change_user(
        request.who, id, lambda user: merged(user, body, extra), password
    )


async def new_group(request: ApiRequest, body: bodies.NewGroup, extra: dict[str, Any]) -> model.Group:
    identity = identity_of(request)
    domain_id = body.domain_id or home_of(request.who)
    record = model.Group(id=identity.core.new_id(), domain_id=domain_id, extra=extra, **_given(body, "domain_id"))
    return await identity.keeper.create(kinds.GROUP, request.who, record)


# --------------------------------------------------------------------------------------------- roles, catalogue
async def new_role(request: ApiRequest, body: bodies.NewRole, extra: dict[str, Any]) -> model.Role:
    identity = identity_of(request)
    given = _options(_given(body, "domain_id"))
    record = model.Role(id=identity.core.new_id(), domain_id=body.domain_id or model.NO_DOMAIN, extra=extra, **given)
    return await identity.keeper.create(kinds.ROLE, request.who, record)


def narrow_roles(request: ApiRequest, query: Query) -> Query:
    """Roles of a domain only when that domain is named."""
    return msgspec.structs.replace(query, where={"domain_id": model.NO_DOMAIN, **query.where})


async def new_region(request: ApiRequest, body: bodies.NewRegion, extra: dict[str, Any]) -> model.Region:
    identity = identity_of(request)
    id = request.params.get("id") or body.id or identity.core.new_id()
    if body.id is not None and body.id != id and body.id:
        raise invalid("id", f"the path says {id}")
    record = model.Region(id=id, extra=extra, **_given(body, "id"))
    return await identity.keeper.create(kinds.REGION, request.who, record)


async def new_service(request: ApiRequest, body: bodies.NewService, extra: dict[str, Any]) -> model.Service:
    identity = identity_of(request)
    given = {**_given(body), "name": body.name or ""}
    record = model.Service(id=identity.core.new_id(), extra=extra, **given)
    return await identity.keeper.create(kinds.SERVICE, request.who, record)


async def new_endpoint(request: ApiRequest, body: bodies.NewEndpoint, extra: dict[str, Any]) -> model.Endpoint:
    identity = identity_of(request)
    if body.region_id is None and body.region is not None:
        await _ensure_region(request, body.region)
    given = {**_given(body, "region"), "region_id": body.region_id or body.region}
    record = model.Endpoint(id=identity.core.new_id(), extra=extra, **given)
    return await identity.keeper.create(kinds.ENDPOINT, request.who, record)


async def _ensure_region(request: ApiRequest, id: str) -> None:
    """As Keystone: `region`, the name that v2.0 had for it, makes a region that is missing; `region_id` does not."""
    with contextlib.suppress(Conflict):
        await identity_of(request).keeper.create(kinds.REGION, request.who, model.Region(id=id))


async def change_endpoint(
    request: ApiRequest, id: str, body: bodies.ChangeEndpoint, extra: dict[str, Any]
) -> model.Endpoint:
    if body.region_id is UNSET and body.region is not UNSET:
        body.region_id = body.region
        if body.region is not None:
            await _ensure_region(request, body.region)
    return await identity_of(request).keeper.update(
        kinds.ENDPOINT, request.who, id, lambda record: merged(record, body, extra)
    )


# --------------------------------------------------------------------------------------- credentials and limits
async def new_credential(request: ApiRequest, body: bodies.NewCredential, extra: dict[str, Any]) -> model.Credential:
    identity = identity_of(request)
    forbid_delegated(identity.verifier.opened(request.headers["x-auth-token"]).claims)
    id = id_of_access(ec2_parts(body.blob)[0]) if body.type == "ec2" else identity.core.new_id()
    record = model.Credential(
        id=id,
        user_id=body.user_id or request.who.user_id,
        project_id=body.project_id,
        type=body.type,
        sealed_blob=identity.secrets.seal(body.blob),
        app_credential_id=request.who.app_credential_id,
        extra=extra,
    )
    return await identity.keeper.create(kinds.CREDENTIAL, request.who, record)


async def change_credential(
    request: ApiRequest, id: str, body: bodies.ChangeCredential, extra: dict[str, Any]
) -> model.Credential:
    identity = identity_of(request)

    def change(record: model.Credential) -> model.Credential:
        after = merged(record, body, extra)
        if body.blob is not UNSET:
            after = changed(after, sealed_blob=identity.secrets.seal(body.blob))
        if after.type == "ec2":
            blob = body.blob if body.blob is not UNSET else identity.secrets.unseal(record)
            key_id = id_of_access(ec2_parts(blob)[0])
            after = changed(after, access_key_id=None if key_id == record.id else key_id)
        return after

    return await identity.keeper.update(kinds.CREDENTIAL, request.who, id, change)


LIMITS: Final[Any] = Resource(
    kinds.LIMIT,
    "/v3/limits",
    "limit",
    "limits",
    bodies.NewLimit,
    bodies.ChangeLimit,
    create=None,  # type: ignore[arg-type]  # made many at once: see limits.py
    view=views.limit,
    filters=("service_id", "region_id", "resource_name", "project_id", "domain_id"),
)

REGISTERED_LIMITS: Final[Any] = Resource(
    kinds.REGISTERED_LIMIT,
    "/v3/registered_limits",
    "registered_limit",
    "registered_limits",
    bodies.NewRegisteredLimit,
    bodies.ChangeRegisteredLimit,
    create=None,  # type: ignore[arg-type]
    view=views.registered_limit,
    filters=("service_id", "region_id", "resource_name"),
)

RESOURCES: Final[tuple[Resource[Any], ...]] = (
    Resource(
        kinds.DOMAIN,
        "/v3/domains",
        "domain",
        "domains",
        bodies.NewDomain,
        bodies.ChangeDomain,
        new_domain,
        views.domain,
        narrow=_only_domains,
    ),
    Resource(
        kinds.PROJECT,
        "/v3/projects",
        "project",
        "projects",
        bodies.NewProject,
        bodies.ChangeProject,
        new_project,
        views.project,
        filters=("name", "domain_id", "parent_id"),
        narrow=narrow_projects,
    ),
    Resource(
        kinds.USER,
        "/v3/users",
        "user",
        "users",
        bodies.NewUser,
        bodies.ChangeUser,
        new_user,
        views.user,
        update=change_user,
        filters=("name", "domain_id", "default_project_id"),
    ),
    Resource(
        kinds.GROUP,
        "/v3/groups",
        "group",
        "groups",
        bodies.NewGroup,
        bodies.ChangeGroup,
        new_group,
        views.group,
        filters=("name", "domain_id"),
    ),
    Resource(
        kinds.ROLE,
        "/v3/roles",
        "role",
        "roles",
        bodies.NewRole,
        bodies.ChangeRole,
        new_role,
        views.role,
        filters=("name", "domain_id"),
        narrow=narrow_roles,
    ),
    Resource(
        kinds.REGION,
        "/v3/regions",
        "region",
        "regions",
        bodies.NewRegion,
        bodies.ChangeRegion,
        new_region,
        views.region,
        filters=("parent_region_id",),
    ),
    Resource(
        kinds.SERVICE,
        "/v3/services",
        "service",
        "services",
        bodies.NewService,
        bodies.ChangeService,
        new_service,
        views.service,
        filters=("name", "type"),
    ),
    Resource(
        kinds.ENDPOINT,
        "/v3/endpoints",
        "endpoint",
        "endpoints",
        bodies.NewEndpoint,
        bodies.ChangeEndpoint,
        new_endpoint,
        views.endpoint,
        update=change_endpoint,
        filters=("interface", "service_id", "region_id"),
    ),
)

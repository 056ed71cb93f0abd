"""What users, groups and projects have beside the five calls: passwords, members, family trees and tags."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

from apus.kernel.errors import Invalid, NotFound
from apus.services.identity.api import bodies, views
from apus.services.identity.api.crud import base_of, collection, identity_of
from apus.services.identity.model import Project
from apus.wire.route import ApiRequest, Reply, Route, convert_body


async def change_password(request: ApiRequest) -> Reply:
    body, _ = bodies.part(request, "user", bodies.ChangePassword)
    people = identity_of(request).people
    await people.change_password(request.params["user_id"], body.original_password, body.password)
    return Reply()


async def list_user_projects(request: ApiRequest) -> Reply:
    records = await identity_of(request).people.projects_of(request.who, request.params["user_id"])
    return collection(request, "projects", [views.project(record, base_of(request)) for record in records])


async def list_user_groups(request: ApiRequest) -> Reply:
    records = await identity_of(request).grants.groups_of(request.who, request.params["user_id"])
    name = request.query("name")
    shown = [views.group(record, base_of(request)) for record in records if name in (None, record.name)]
    return collection(request, "groups", shown)


async def list_members(request: ApiRequest) -> Reply:
    records = await identity_of(request).grants.members(request.who, request.params["group_id"])
    return collection(request, "users", [views.user(record, base_of(request)) for record in records])


async def add_member(request: ApiRequest) -> Reply:
    await identity_of(request).grants.join(request.who, request.params["group_id"], request.params["user_id"])
    return Reply()


async def check_member(request: ApiRequest) -> Reply:
    await identity_of(request).grants.is_member(request.who, request.params["group_id"], request.params["user_id"])
    return Reply()


async def remove_member(request: ApiRequest) -> Reply:
    await identity_of(request).grants.leave(request.who, request.params["group_id"], request.params["user_id"])
    return Reply()


# ---------------------------------------------------------------------------------------------------- projects
async def get_project(request: ApiRequest) -> Reply:
    """With its family when asked for: as a list of projects, or as a tree of ids."""
    asked = {key for key, value in request.queries if key.startswith(("parents_as_", "subtree_as_"))}
    if {"parents_as_list", "parents_as_ids"} <= asked or {"subtree_as_list", "subtree_as_ids"} <= asked:
        raise Invalid("identity.invalid", "Choose one of *_as_list and *_as_ids.")
    project, above, below = await identity_of(request).people.family(request.who, request.params["id"])
    base = base_of(request)
    view: dict[str, Any] = views.project(project, base)
    if "parents_as_list" in asked:
        view["parents"] = [{"project": views.project(each, base)} for each in above]
    if "subtree_as_list" in asked:
        view["subtree"] = [{"project": views.project(each, base)} for each in below]
    if "parents_as_ids" in asked:
        view["parents"] = _chain(above)
    if "subtree_as_ids" in asked:
        view["subtree"] = _tree(project.id, below)
    return Reply({"project": view})


def _chain(above: list[Project]) -> dict[str, Any] | None:
    tree: dict[str, Any] | None = None
    for each in reversed(above):
        tree = {each.id: tree}
    return tree


def _tree(id: str, below: list[Project]) -> dict[str, Any] | None:
    children = {each.id: _tree(each.id, below) for each in below if each.parent_id == id}
    return children or None


_Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[^,/\x00]+$")]


def _tag(request: ApiRequest) -> str:
    tag: str = convert_body(request.params["tag"], _Tag)
    return tag


async def list_tags(request: ApiRequest) -> Reply:
    tags = await identity_of(request).people.tags(request.who, request.params["project_id"])
    return Reply({"tags": tags, "links": {"self": f"{request.base_url}{request.raw_path}"}})


async def set_tags(request: ApiRequest) -> Reply:
    raw = request.body.get("tags")
    wanted: list[str] = convert_body(raw, bodies.Tags)
    unique = tuple(dict.fromkeys(wanted))
    tags = await identity_of(request).people.retag(request.who, request.params["project_id"], lambda _: unique)
    return Reply({"tags": tags, "links": {"self": f"{request.base_url}{request.raw_path}"}})


async def clear_tags(request: ApiRequest) -> Reply:
    await identity_of(request).people.retag(request.who, request.params["project_id"], lambda _: ())
    return Reply()


async def check_tag(request: ApiRequest) -> Reply:
    tags = await identity_of(request).people.tags(request.who, request.params["project_id"])
    if request.params["tag"] not in tags:
        raise NotFound("identity.tag_not_found", f"Could not find tag: {request.params['tag']}.")
    return Reply()


async def add_tag(request: ApiRequest) -> Reply:
    tag = _tag(request)
    await identity_of(request).people.retag(
        request.who, request.params["project_id"], lambda tags: tuple(dict.fromkeys((*tags, tag)))
    )
    return Reply(headers={"Location": f"{request.base_url}{request.raw_path}"})


async def remove_tag(request: ApiRequest) -> Reply:
    await identity_of(request).people.untag(request.who, request.params["project_id"], request.params["tag"])
    return Reply()


_BODY: Final = dict[str, Any]
_TAGS: Final = "/v3/projects/{project_id}/tags"
_MEMBER: Final = "/v3/groups/{group_id}/users/{user_id}"

ROUTES: Final = (
    Route("POST", "/v3/users/{user_id}/password", change_password, "identity:change_password", _BODY, 204),
    Route("GET", "/v3/users/{user_id}/projects", list_user_projects, "identity:list_user_projects"),
    Route("GET", "/v3/users/{user_id}/groups", list_user_groups, "identity:list_groups_for_user"),
    Route("GET", "/v3/groups/{group_id}/users", list_members, "identity:list_users_in_group"),
    Route("PUT", _MEMBER, add_member, "identity:add_user_to_group", status=204),
    Route("GET", _MEMBER, check_member, "identity:check_user_in_group", status=204),
    Route("DELETE", _MEMBER, remove_member, "identity:remove_user_from_group", status=204),
    Route("GET", _TAGS, list_tags, "identity:list_project_tags"),
    Route("PUT", _TAGS, set_tags, "identity:update_project_tags", _BODY),
    Route("DELETE", _TAGS, clear_tags, "identity:update_project_tags", status=204),
    Route("GET", f"{_TAGS}/{{tag}}", check_tag, "identity:list_project_tags", status=204),
    Route("PUT", f"{_TAGS}/{{tag}}", add_tag, "identity:update_project_tags", status=201),
    Route("DELETE", f"{_TAGS}/{{tag}}", remove_tag, "identity:update_project_tags", status=204),
)

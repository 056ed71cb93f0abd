"""Who holds which role where: assignments, memberships of groups, and roles that imply others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from apus.kernel import events
from apus.kernel.caller import Caller
from apus.kernel.errors import Forbidden, Invalid
from apus.kernel.ids import child_id
from apus.kernel.world import Transaction
from apus.services.identity import store as tables
from apus.services.identity.logic import claims
from apus.services.identity.logic.may import Target, require
from apus.services.identity.logic.roles import closure, implied_by
from apus.services.identity.model import (
    ALL_SYSTEM,
    NO_DOMAIN,
    Actor,
    Assignment,
    Group,
    Implication,
    Membership,
    Project,
    Role,
    Scope,
    User,
)
from apus.services.identity.service import rights
from apus.services.identity.service.core import Core, missing
from apus.services.identity.service.keeper import invalid

PROHIBITED_IMPLIED: Final = frozenset({"admin"})
"""A role that makes one an administrator is only ever given outright (Keystone's prohibited_implied_role)."""


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """Who holds something on what: the part of a grant's path before the role."""

    actor: Actor
    actor_id: str
    scope: Scope
    target_id: str = ALL_SYSTEM
    inherited: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """An assignment as it is listed; with `effective` the group and the prior role that it came by are known."""

    assignment: Assignment
    user_id: str | None
    group_id: str | None
    project_id: str | None
    """The project that an inherited assignment was carried to."""
    via_prior_id: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    """Names of everything that a list of assignments mentions."""

    users: dict[str, User]
    groups: dict[str, Group]
    projects: dict[str, Project]
    roles: dict[str, Role]


@dataclasses.dataclass(frozen=True, slots=True)
class AssignmentQuery:
    user_id: str | None = None
    group_id: str | None = None
    role_id: str | None = None
    project_id: str | None = None
    domain_id: str | None = None
    system: bool = False
    inherited: bool | None = None
    effective: bool = False
    subtree: bool = False


class Grants:
    def __init__(self, core: Core) -> None:
        self._core = core

    # ------------------------------------------------------------------------------------------- assignments
    async def grant(self, caller: Caller, held: Held, role_id: str) -> None:
        def work(tx: Transaction) -> None:
            role = self._checked(tx, caller, "create", held, role_id)
            assignment = assignment_of(held, role.id)
            if tables.assignments.get(tx, assignment.id) is None:
                tables.assignments.insert(tx, assignment)
                self._emit(tx, caller, "created", held, role.id)

        await self._core.write(work)

    async def check(self, caller: Caller, held: Held, role_id: str) -> None:
        """Raise NotFound when it is not held."""

        def work(tx: Transaction) -> None:
            self._checked(tx, caller, "check", held, role_id)
            self._held(tx, held, role_id)

        await self._core.read(work)

    async def revoke(self, caller: Caller, held: Held, role_id: str) -> None:
        def work(tx: Transaction) -> None:
            self._checked(tx, caller, "revoke", held, role_id)
            assignment = self._held(tx, held, role_id)
            tables.assignments.delete(tx, assignment.id)
            users = [held.actor_id] if held.actor is Actor.USER else _members(tx, held.actor_id)
            self._core.end(tx, rights.grants_lost(users, [assignment]))
            self._emit(tx, caller, "deleted", held, role_id)

        await self._core.write(work)

    async def roles_of(self, caller: Caller, held: Held) -> Sequence[Role]:
        """The roles assigned exactly so: nothing implied, nothing by way of groups."""

        def work(tx: Transaction) -> Sequence[Role]:
            self._checked(tx, caller, "list", held, None)
            found = tables.assignments.find(
                tx, actor_id=held.actor_id, scope=held.scope, target_id=held.target_id, inherited=held.inherited
            )
            ids = sorted({assignment.role_id for assignment in found})
            return tables.roles.find(tx, id=ids) if ids else []

        return await self._core.read(work)

    def _checked(self, tx: Transaction, caller: Caller, verb: str, held: Held, role_id: str | None) -> Role:
        """All that the path names, if the caller may.  Raise Forbidden before NotFound."""
        role = tables.roles.get(tx, role_id) if role_id is not None else None
        actor: User | Group | None = (
            tables.users.get(tx, held.actor_id) if held.actor is Actor.USER else tables.groups.get(tx, held.actor_id)
        )
        noun = "grants" if verb == "list" else "grant"
        if held.scope is Scope.SYSTEM:
            require(caller, f"identity:{verb}_system_{noun}")
            target = None
        else:
            target = tables.projects.get(tx, held.target_id)
            if target is not None and target.is_domain != (held.scope is Scope.DOMAIN):
                # Keystone lets a domain be named as the project that it is, not the other way round
                target = target if held.scope is Scope.PROJECT else None
            domain_ids = [actor.domain_id if actor is not None else "?"]
            domain_ids.append((target.id if target.is_domain else target.domain_id) if target is not None else "?")
            role_name = role.name if role is not None and role.domain_id == NO_DOMAIN else None
            require(caller, f"identity:{verb}_{noun}", Target(domain_ids=tuple(domain_ids), role_name=role_name))
        if actor is None and verb != "revoke":
            raise missing(str(held.actor), held.actor_id)
        if target is None and held.scope is not Scope.SYSTEM:
            raise missing(str(held.scope), held.target_id)
        if role is None and role_id is not None:
            raise missing("role", role_id)
        return role or _NO_ROLE

    def _held(self, tx: Transaction, held: Held, role_id: str) -> Assignment:
        assignment = tables.assignments.get(tx, assignment_of(held, role_id).id)
        if assignment is None:
            raise missing(
                "role assignment",
                f"role {role_id} of {held.actor} {held.actor_id} on {held.scope} {held.target_id}",
            )
        return assignment

    def _emit(self, tx: Transaction, caller: Caller, verb: str, held: Held, role_id: str) -> None:
        project_id = held.target_id if held.scope is Scope.PROJECT else None
        events.emit(
            tx,
            f"identity.role_assignment.{verb}",
            held.actor_id,
            project_id,
            caller=caller,
            role_id=role_id,
            target_id=held.target_id,
        )

    # --------------------------------------------------------------------------------------- all assignments
    async def assignments(self, caller: Caller, query: AssignmentQuery) -> tuple[Sequence[Found], Names]:
        """What is assigned; with `effective`, what each user has of it in the end."""
        if query.effective and query.group_id is not None:
            raise Invalid("identity.invalid", "group.id cannot be combined with effective: groups become users.")
        if sum((query.project_id is not None, query.domain_id is not None, query.system)) > 1:
            raise Invalid("identity.invalid", "Specify only one of scope.project.id, scope.domain.id, scope.system.")
        if query.user_id is not None and query.group_id is not None:
            raise Invalid("identity.invalid", "Specify only one of user.id and group.id.")
        require(
            caller,
            "identity:list_role_assignments",
            Target(domain_ids=(caller.domain_id,) if caller.domain_id else ()),
        )

        def work(tx: Transaction) -> tuple[Sequence[Found], Names]:
            found = _effective(tx, query) if query.effective else _direct(tx, query)
            names = _names(tx, found)
            if caller.domain_id is not None:
                found = [each for each in found if _in_domain(each, names, caller.domain_id)]
            return found, names

        return await self._core.read(work)

    # ------------------------------------------------------------------------------------------- memberships
    async def join(self, caller: Caller, group_id: str, user_id: str) -> None:
        def work(tx: Transaction) -> None:
            self._both(tx, caller, "identity:add_user_to_group", group_id, user_id)
            id = child_id("membership", group_id, user_id)
            if tables.memberships.get(tx, id) is None:
                tables.memberships.insert(tx, Membership(id=id, group_id=group_id, user_id=user_id))
                events.emit(tx, "identity.group.joined", group_id, None, caller=caller, user=user_id)

        await self._core.write(work)

    async def is_member(self, caller: Caller, group_id: str, user_id: str) -> None:
        """Raise NotFound when he is not."""

        def work(tx: Transaction) -> None:
            self._both(tx, caller, "identity:check_user_in_group", group_id, user_id)
            if tables.memberships.get(tx, child_id("membership", group_id, user_id)) is None:
                raise missing("user in group", f"{user_id} in {group_id}")

        await self._core.read(work)

    async def leave(self, caller: Caller, group_id: str, user_id: str) -> None:
        def work(tx: Transaction) -> None:
            self._both(tx, caller, "identity:remove_user_from_group", group_id, user_id)
            if not tables.memberships.delete(tx, child_id("membership", group_id, user_id)):
                raise missing("user in group", f"{user_id} in {group_id}")
            self._core.end(tx, rights.grants_lost([user_id], tables.assignments.find(tx, actor_id=group_id)))
            events.emit(tx, "identity.group.left", group_id, None, caller=caller, user=user_id)

        await self._core.write(work)

    def _both(self, tx: Transaction, caller: Caller, action: str, group_id: str, user_id: str) -> None:
        group, user = tables.groups.get(tx, group_id), tables.users.get(tx, user_id)
        domain_ids = (group.domain_id if group else "?", user.domain_id if user else "?")
        require(caller, action, Target(domain_ids=domain_ids))
        if group is None:
            raise missing("group", group_id)
        if user is None:
            raise missing("user", user_id)

    async def members(self, caller: Caller, group_id: str) -> Sequence[User]:
        def work(tx: Transaction) -> Sequence[User]:
            group = tables.groups.get(tx, group_id)
            require(caller, "identity:list_users_in_group", Target((group.domain_id,) if group else ("?",)))
            if group is None:
                raise missing("group", group_id)
            ids = _members(tx, group_id)
            return tables.users.find(tx, id=ids) if ids else []

        return await self._core.read(work)

    async def groups_of(self, caller: Caller, user_id: str) -> Sequence[Group]:
        def work(tx: Transaction) -> Sequence[Group]:
            user = tables.users.get(tx, user_id)
            target = Target((user.domain_id if user else "?",), user_ids=(user_id,))
            require(caller, "identity:list_groups_for_user", target)
            if user is None:
                raise missing("user", user_id)
            ids = rights.groups_of(tx, user_id)
            return tables.groups.find(tx, id=ids) if ids else []

        return await self._core.read(work)

    # ------------------------------------------------------------------------------------------ implied roles
    async def imply(self, caller: Caller, prior_id: str, implied_id: str) -> tuple[Role, Role]:
        def work(tx: Transaction) -> tuple[Role, Role]:
            require(caller, "identity:create_implied_role")
            prior, implied = _role(tx, prior_id), _role(tx, implied_id)
            if implied.name in PROHIBITED_IMPLIED and implied.domain_id == NO_DOMAIN:
                raise Forbidden("identity.prohibited_implied", f"The role {implied.name} cannot be implied.")
            if prior.id == implied.id:
                raise invalid("implied_role_id", "a role does not imply itself")
            if prior.domain_id == NO_DOMAIN and implied.domain_id != NO_DOMAIN:
                raise Forbidden("identity.implied_domain", "A global role does not imply a role of a domain.")
            id = child_id("implication", prior_id, implied_id)
            if tables.implications.get(tx, id) is None:
                tables.implications.insert(tx, Implication(id=id, prior_id=prior_id, implied_id=implied_id))
                events.emit(tx, "identity.role.implied", prior_id, None, caller=caller, implied=implied_id)
            return prior, implied

        return await self._core.write(work)

    async def unimply(self, caller: Caller, prior_id: str, implied_id: str) -> None:
        def work(tx: Transaction) -> None:
            require(caller, "identity:delete_implied_role")
            _role(tx, prior_id), _role(tx, implied_id)
            if not tables.implications.delete(tx, child_id("implication", prior_id, implied_id)):
                raise missing("implied role", f"{prior_id} implies {implied_id}")
            self._core.end(tx, [claims.role_subject(prior_id)])
            events.emit(tx, "identity.role.unimplied", prior_id, None, caller=caller, implied=implied_id)

        await self._core.write(work)

    async def implied(self, caller: Caller, prior_id: str, implied_id: str | None = None) -> tuple[Role, list[Role]]:
        """The role and what it implies in one step; raise NotFound when it does not imply the one asked for."""

        def work(tx: Transaction) -> tuple[Role, list[Role]]:
            require(caller, "identity:get_implied_role" if implied_id else "identity:list_implied_roles")
            prior = _role(tx, prior_id)
            if implied_id is not None:
                implied = _role(tx, implied_id)
                if tables.implications.get(tx, child_id("implication", prior_id, implied_id)) is None:
                    raise missing("implied role", f"{prior_id} implies {implied_id}")
                return prior, [implied]
            ids = [implication.implied_id for implication in tables.implications.find(tx, prior_id=prior_id)]
            return prior, tables.roles.find(tx, id=ids) if ids else []

        return await self._core.read(work)

    async def inferences(self, caller: Caller) -> list[tuple[Role, list[Role]]]:
        def work(tx: Transaction) -> list[tuple[Role, list[Role]]]:
            require(caller, "identity:list_role_inferences")
            roles = {role.id: role for role in tables.roles.find(tx)}
            implied = implied_by(tables.implications.find(tx))
            return [(roles[prior], [roles[id] for id in sorted(ids)]) for prior, ids in sorted(implied.items())]

        return await self._core.read(work)


_NO_ROLE: Final = Role(id="", name="")


def assignment_of(held: Held, role_id: str) -> Assignment:
    """Its id is made of what it says, so that giving twice is once."""
    parts = (str(held.actor), held.actor_id, str(held.scope), held.target_id, role_id, str(held.inherited))
    return Assignment(
        id=child_id("assignment", *parts),
        actor=held.actor,
        actor_id=held.actor_id,
        scope=held.scope,
        target_id=held.target_id,
        role_id=role_id,
        inherited=held.inherited,
    )


def _members(tx: Transaction, group_id: str) -> list[str]:
    return [membership.user_id for membership in tables.memberships.find(tx, group_id=group_id)]


def _role(tx: Transaction, id: str) -> Role:
    role = tables.roles.get(tx, id)
    if role is None:
        raise missing("role", id)
    return role


def _targets(tx: Transaction, query: AssignmentQuery) -> list[str] | None:
    """Ids of the targets asked for; None for all."""
    if query.system:
        return [ALL_SYSTEM]
    if query.project_id is not None:
        below = [project.id for project in rights.below(tx, query.project_id)] if query.subtree else []
        return [query.project_id, *below]
    return [query.domain_id] if query.domain_id is not None else None


def _direct(tx: Transaction, query: AssignmentQuery) -> list[Found]:
    where: dict[str, object] = {}
    if query.user_id is not None or query.group_id is not None:
        where["actor_id"] = query.user_id or query.group_id
    if query.role_id is not None:
        where["role_id"] = query.role_id
    if query.inherited is not None:
        where["inherited"] = query.inherited
    targets = _targets(tx, query)
    if targets is not None:
        where["target_id"] = targets
    found = []
    for a in sorted(tables.assignments.find(tx, **where), key=lambda a: a.id):
        user = a.actor == Actor.USER
        if (query.user_id is not None and not user) or (query.group_id is not None and user):
            continue
        found.append(Found(a, a.actor_id if user else None, None if user else a.actor_id, None))
    return found


def _effective(tx: Transaction, query: AssignmentQuery) -> list[Found]:
    """Groups become their members, inherited assignments the projects that they reach, roles what they imply."""
    actors = None
    if query.user_id is not None:
        actors = [query.user_id, *rights.groups_of(tx, query.user_id)]
    rows = tables.assignments.find(tx, **({"actor_id": actors} if actors is not None else {}))
    implied, targets = implied_by(tables.implications.find(tx)), _targets(tx, query)
    wanted = set(targets) if targets is not None else None
    local = {role.id for role in tables.roles.find(tx) if role.domain_id != NO_DOMAIN}  # no token shows these
    found: dict[tuple[str, str, str], Found] = {}
    for a in sorted(rows, key=lambda a: a.id):
        users = [a.actor_id] if a.actor == Actor.USER else _members(tx, a.actor_id)
        group_id = a.actor_id if a.actor == Actor.GROUP else None
        if query.inherited is not None and a.inherited != query.inherited:
            continue
        places = [project.id for project in rights.below(tx, a.target_id)] if a.inherited else [a.target_id]
        for user_id in users:
            if query.user_id is not None and user_id != query.user_id:
                continue
            for place in places:
                if wanted is not None and place not in wanted:
                    continue
                for role_id in sorted(closure([a.role_id], implied) - local):
                    if query.role_id is not None and role_id != query.role_id:
                        continue
                    as_role = dataclasses.replace  # keeps the record frozen: only the listing differs
                    shown = Found(a, user_id, group_id, place if a.inherited else None)
                    if role_id != a.role_id:
                        shown = as_role(shown, via_prior_id=a.role_id, assignment=_with_role(a, role_id))
                    found.setdefault((user_id, place, role_id), shown)
    return list(found.values())


def _with_role(assignment: Assignment, role_id: str) -> Assignment:
    held = Held(assignment.actor, assignment.actor_id, assignment.scope, assignment.target_id, assignment.inherited)
    return assignment_of(held, role_id)


def _names(tx: Transaction, found: Sequence[Found]) -> Names:
    users = {each.user_id for each in found if each.user_id}
    groups = {each.group_id for each in found if each.group_id}
    targets = {each.project_id or each.assignment.target_id for each in found}
    targets |= {each.assignment.target_id for each in found}
    roles = {each.assignment.role_id for each in found}
    people = {user.id: user for user in tables.users.find(tx, id=sorted(users))}
    teams = {group.id: group for group in tables.groups.find(tx, id=sorted(groups))}
    projects = {project.id: project for project in tables.projects.find(tx, id=sorted(targets))}
    known = {role.id: role for role in tables.roles.find(tx, id=sorted(roles))}
    domains = {thing.domain_id for table in (people, teams, projects, known) for thing in table.values()}
    projects |= {domain.id: domain for domain in tables.projects.find(tx, id=sorted(domains - {NO_DOMAIN}))}
    return Names(people, teams, projects, known)


def _in_domain(found: Found, names: Names, domain_id: str) -> bool:
    target = names.projects.get(found.project_id or found.assignment.target_id)
    return target is not None and domain_id in (target.id if target.is_domain else "", target.domain_id)

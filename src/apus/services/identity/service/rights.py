"""What the tables say of a user's rights: reads only, inside one snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from apus.kernel.world import Transaction
from apus.services.identity import store as tables
from apus.services.identity.logic import claims
from apus.services.identity.logic.roles import closure, effective, implied_by
from apus.services.identity.model import NO_DOMAIN, Assignment, Project, Role, Scope


def groups_of(tx: Transaction, user_id: str) -> list[str]:
    return [membership.group_id for membership in tables.memberships.find(tx, user_id=user_id)]


def parents(tx: Transaction, project: Project) -> list[Project]:
    """The projects above it, nearest first, its domain last."""
    found: list[Project] = []
    at: Project | None = project
    while at is not None and at.parent_id is not None:
        at = tables.projects.get(tx, at.parent_id)
        if at is not None:
            found.append(at)
    return found


def below(tx: Transaction, project_id: str) -> list[Project]:
    """All projects under it, level by level."""
    found, level = [], [project_id]
    while level:
        children = tables.projects.find(tx, parent_id=level)
        found += children
        level = [child.id for child in children]
    return found


def assignments_of(tx: Transaction, user_id: str) -> list[Assignment]:
    """The user's own and his groups'."""
    return tables.assignments.find(tx, actor_id=[user_id, *groups_of(tx, user_id)])


def roles_on(tx: Transaction, user_id: str, scope: Scope, target: Project | None) -> list[Role]:
    """Effective roles as tokens show them: implied ones included, those of a domain alone left out."""
    target_id = target.id if target is not None else "system"
    above = [project.id for project in parents(tx, target)] if target is not None else []
    ids = effective(assignments_of(tx, user_id), implied_by(tables.implications.find(tx)), scope, target_id, above)
    found = tables.roles.find(tx, id=sorted(ids)) if ids else []
    return sorted((role for role in found if role.domain_id == NO_DOMAIN), key=lambda role: role.name)


def implied_roles(tx: Transaction, role_ids: Iterable[str]) -> set[str]:
    """These and all that they imply."""
    return closure(role_ids, implied_by(tables.implications.find(tx)))


def projects_of(tx: Transaction, user_id: str) -> list[Project]:
    """Projects that the user has some role on."""
    direct, over = set(), set()
    for assignment in assignments_of(tx, user_id):
        if assignment.inherited:
            over.add(assignment.target_id)
        elif assignment.scope == Scope.PROJECT:
            direct.add(assignment.target_id)
    found = {project.id: project for project in tables.projects.find(tx, id=sorted(direct))} if direct else {}
    for target_id in sorted(over):
        found |= {project.id: project for project in below(tx, target_id)}
    return [found[id] for id in sorted(found)]


def domains_of(tx: Transaction, user_id: str) -> list[Project]:
    """Domains that the user has a role on."""
    ids = sorted({a.target_id for a in assignments_of(tx, user_id) if a.scope == Scope.DOMAIN and not a.inherited})
    return tables.projects.find(tx, id=ids, is_domain=True) if ids else []


def has_system(tx: Transaction, user_id: str) -> bool:
    return any(a.scope == Scope.SYSTEM for a in assignments_of(tx, user_id))


def grants_lost(user_ids: Iterable[str], assignments: Sequence[Assignment]) -> list[str]:
    """Subjects that end when these users lose these assignments."""
    targets = {"*" if assignment.inherited else assignment.target_id for assignment in assignments}
    return [claims.grant_subject(user_id, target) for user_id in user_ids for target in sorted(targets)]

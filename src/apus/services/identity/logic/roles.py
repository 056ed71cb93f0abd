"""Which roles a user has on a target: his own and his groups' assignments, inherited ones, and what they imply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set

from apus.services.identity.model import Assignment, Implication, Scope


def implied_by(implications: Iterable[Implication]) -> dict[str, set[str]]:
    """prior -> implied, one step."""
    table: dict[str, set[str]] = {}
    for implication in implications:
        table.setdefault(implication.prior_id, set()).add(implication.implied_id)
    return table


def closure(held: Iterable[str], implied: Mapping[str, Set[str]]) -> set[str]:
    """The roles held and all that follow from them; circles are harmless."""
    seen, todo = set(held), list(held)
    while todo:
        for role_id in implied.get(todo.pop(), ()):
            if role_id not in seen:
                seen.add(role_id)
                todo.append(role_id)
    return seen


def applies(assignment: Assignment, scope: Scope, target_id: str, above: Sequence[str]) -> bool:
    """Whether an assignment holds on this target; `above`: the projects over it, and its domain."""
    if scope is Scope.SYSTEM:
        return assignment.scope == Scope.SYSTEM and not assignment.inherited
    if assignment.scope == Scope.SYSTEM:
        return False
    if not assignment.inherited:
        return assignment.target_id == target_id and assignment.scope == scope
    return scope is Scope.PROJECT and assignment.target_id in above


def effective(
    assignments: Iterable[Assignment],
    implied: Mapping[str, Set[str]],
    scope: Scope,
    target_id: str,
    above: Sequence[str] = (),
) -> set[str]:
    """Role ids that these assignments (of one user and his groups) give on the target."""
    return closure({a.role_id for a in assignments if applies(a, scope, target_id, above)}, implied)

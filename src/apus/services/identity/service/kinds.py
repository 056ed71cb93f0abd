"""The kinds of records, and the rules that each of them keeps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from apus.kernel.errors import Conflict, Forbidden
from apus.kernel.world import Transaction
from apus.services.identity import model
from apus.services.identity import store as tables
from apus.services.identity.contract import DEFAULT_DOMAIN_ID
from apus.services.identity.logic import claims
from apus.services.identity.logic.catalogue import unknown_variables
from apus.services.identity.logic.may import NOTHING, Target
from apus.services.identity.service import rights
from apus.services.identity.service.core import CATALOGUE_SUBJECT, missing
from apus.services.identity.service.keeper import Kind, duplicate, invalid

PROJECT_DEPTH_MAX: Final = 5
TAGS_MAX: Final = 80


# ------------------------------------------------------------------------------------------ domains and projects
def domain_of(tx: Transaction, domain_id: str) -> model.Project:
    """Raise NotFound."""
    domain = tables.projects.get(tx, domain_id)
    if domain is None or not domain.is_domain:
        raise missing("domain", domain_id)
    return domain


def _project_target(tx: Transaction, project: model.Project) -> Target:
    domain_id = project.id if project.is_domain else project.domain_id
    return Target(domain_ids=(domain_id,), project_id=project.id)


def _admit_project(tx: Transaction, before: model.Project | None, after: model.Project) -> None:
    if before is not None and before.parent_id != after.parent_id:
        raise Forbidden("identity.parent_fixed", f"Update of `parent_id` is not allowed: it is {before.parent_id}.")
    if before is not None and (before.domain_id, before.is_domain) != (after.domain_id, after.is_domain):
        raise invalid("domain_id", "a project stays in its domain, and stays what it is")
    if after.is_domain:
        if before is None and tables.projects.get(tx, after.id) is not None:
            raise Conflict("identity.duplicate", f"Conflict occurred attempting to store domain - ID {after.id}.")
        return
    if before is None:
        domain_of(tx, after.domain_id)
        _check_parent(tx, after)
    if len(after.tags) > TAGS_MAX:
        raise invalid("tags", f"a project has at most {TAGS_MAX} tags, not {len(after.tags)}")
    if before is None or before.enabled == after.enabled:
        return
    if not after.enabled and any(project.enabled for project in rights.below(tx, after.id)):
        raise Forbidden(
            "identity.project_in_use",
            f"Cannot disable project {after.id} since its subtree contains enabled projects.",
        )
    if after.enabled and any(not project.enabled for project in rights.parents(tx, after)):
        raise Forbidden("identity.parent_disabled", f"Cannot enable project {after.id} since it has disabled parents.")


def _check_parent(tx: Transaction, project: model.Project) -> None:
    parent = tables.projects.get(tx, project.parent_id or "")
    if parent is None:
        raise missing("project", str(project.parent_id))
    home = parent.id if parent.is_domain else parent.domain_id
    if home != project.domain_id:
        raise invalid("domain_id", f"the parent is in the domain {home}, not in {project.domain_id}")
    if not parent.enabled:
        raise Forbidden("identity.parent_disabled", f"Cannot create project, the parent {parent.id} is disabled.")
    depth = 1 + sum(not above.is_domain for above in (parent, *rights.parents(tx, parent)))
    if depth > PROJECT_DEPTH_MAX:
        raise Forbidden(
            "identity.too_deep", f"Max hierarchy depth reached for {parent.id}: {PROJECT_DEPTH_MAX} projects."
        )


def _project_ends(tx: Transaction, before: model.Project, after: model.Project) -> Iterable[str]:
    if before.enabled and not after.enabled:
        yield claims.project_subject(after.id)


def _drop_project(tx: Transaction, project: model.Project) -> Iterable[str]:
    if project.is_domain:
        return _drop_domain(tx, project)
    if tables.projects.count(tx, parent_id=project.id):
        raise Forbidden(
            "identity.project_has_children",
            f"Cannot delete the project {project.id} since it is not a leaf in the hierarchy: delete its children.",
        )
    return _forget_project(tx, project)


def _forget_project(tx: Transaction, project: model.Project) -> list[str]:
    tables.assignments.delete_where(tx, target_id=project.id)
    tables.app_credentials.delete_where(tx, project_id=project.id)
    tables.credentials.delete_where(tx, project_id=project.id)
    tables.trusts.delete_where(tx, project_id=project.id)
    tables.limits.delete_where(tx, project_id=project.id)
    return [claims.project_subject(project.id)]


def _drop_domain(tx: Transaction, domain: model.Project) -> Iterable[str]:
    if domain.id == DEFAULT_DOMAIN_ID:
        raise Forbidden("identity.default_domain", "The default domain cannot be deleted: everything lives in it.")
    if domain.enabled:
        raise Forbidden("identity.domain_enabled", "Cannot delete a domain that is enabled, please disable it first.")
    subjects = [claims.project_subject(domain.id)]
    for project in tables.projects.find(tx, domain_id=domain.id):
        subjects += _forget_project(tx, project)
        tables.projects.delete(tx, project.id)
    for user in tables.users.find(tx, domain_id=domain.id):
        subjects += drop_user(tx, user)
        tables.users.delete(tx, user.id)
    for group in tables.groups.find(tx, domain_id=domain.id):
        subjects += _drop_group(tx, group)
        tables.groups.delete(tx, group.id)
    for role in tables.roles.find(tx, domain_id=domain.id):
        subjects += _drop_role(tx, role)
        tables.roles.delete(tx, role.id)
    tables.limits.delete_where(tx, domain_id=domain.id)
    return [*subjects, *_forget_project(tx, domain)]


PROJECT: Final = Kind(
    "project",
    "projects",
    tables.projects,
    _project_target,
    admit=_admit_project,
    ends=_project_ends,
    drop=_drop_project,
    in_domain=True,
)
DOMAIN: Final = Kind(
    "domain",
    "domains",
    tables.projects,
    _project_target,
    admit=_admit_project,
    ends=_project_ends,
    drop=_drop_domain,
    fits=lambda project: project.is_domain,
)


# ---------------------------------------------------------------------------------------------- users and groups
def user_target(tx: Transaction, user: model.User) -> Target:
    return Target(domain_ids=(user.domain_id,), user_ids=(user.id,))


def _admit_person(tx: Transaction, before: Any, after: Any) -> None:
    if before is None or before.domain_id != after.domain_id:
        domain_of(tx, after.domain_id)
    if before is not None and before.domain_id != after.domain_id:
        raise invalid("domain_id", "it cannot be changed")


def _user_ends(tx: Transaction, before: model.User, after: model.User) -> Iterable[str]:
    if (before.enabled and not after.enabled) or before.password_hash != after.password_hash:
        yield claims.user_subject(after.id)


def drop_user(tx: Transaction, user: model.User) -> list[str]:
    subjects = [claims.user_subject(user.id)]
    subjects += [claims.trust_subject(trust.id) for trust in tables.trusts.find(tx, trustee_id=user.id)]
    tables.assignments.delete_where(tx, actor_id=user.id)
    tables.memberships.delete_where(tx, user_id=user.id)
    tables.app_credentials.delete_where(tx, user_id=user.id)
    tables.access_rules.delete_where(tx, user_id=user.id)
    tables.credentials.delete_where(tx, user_id=user.id)
    tables.trusts.delete_where(tx, trustor_id=user.id)
    tables.trusts.delete_where(tx, trustee_id=user.id)
    return subjects


def _group_target(tx: Transaction, group: model.Group) -> Target:
    return Target(domain_ids=(group.domain_id,))


def _drop_group(tx: Transaction, group: model.Group) -> list[str]:
    members = [membership.user_id for membership in tables.memberships.find(tx, group_id=group.id)]
    subjects = rights.grants_lost(members, tables.assignments.find(tx, actor_id=group.id))
    tables.assignments.delete_where(tx, actor_id=group.id)
    tables.memberships.delete_where(tx, group_id=group.id)
    return subjects


USER: Final = Kind("user", "users", tables.users, user_target, _admit_person, _user_ends, drop_user, in_domain=True)
GROUP: Final = Kind(
    "group", "groups", tables.groups, _group_target, admit=_admit_person, drop=_drop_group, in_domain=True
)


# --------------------------------------------------------------------------------------------------------- roles
def _role_target(tx: Transaction, role: model.Role) -> Target:
    return Target(role_name=role.name if role.domain_id == model.NO_DOMAIN else None)


def _admit_role(tx: Transaction, before: model.Role | None, after: model.Role) -> None:
    if before is None and after.domain_id != model.NO_DOMAIN:
        domain_of(tx, after.domain_id)
    if before is not None and before.domain_id != after.domain_id:
        raise invalid("domain_id", "it cannot be changed")


def _role_ends(tx: Transaction, before: model.Role, after: model.Role) -> Iterable[str]:
    if before.name != after.name:
        yield claims.role_subject(after.id)


def _drop_role(tx: Transaction, role: model.Role) -> list[str]:
    tables.assignments.delete_where(tx, role_id=role.id)
    tables.implications.delete_where(tx, prior_id=role.id)
    tables.implications.delete_where(tx, implied_id=role.id)
    return [claims.role_subject(role.id)]


ROLE: Final = Kind("role", "roles", tables.roles, _role_target, _admit_role, _role_ends, _drop_role)


# ----------------------------------------------------------------------------------------------------- catalogue
def _for_all(tx: Transaction, record: Any) -> Target:
    return NOTHING


def _catalogue_ends(tx: Transaction, before: Any, after: Any) -> Iterable[str]:
    return (CATALOGUE_SUBJECT,)


def _admit_region(tx: Transaction, before: model.Region | None, after: model.Region) -> None:
    at: model.Region | None = after
    seen: set[str] = set()
    while at is not None and at.parent_region_id is not None:
        if at.id in seen or at.parent_region_id == after.id:
            raise invalid("parent_region_id", "regions cannot be below themselves")
        seen.add(at.id)
        parent = tables.regions.get(tx, at.parent_region_id)
        if parent is None:
            raise missing("region", at.parent_region_id)
        at = parent


def _drop_region(tx: Transaction, region: model.Region) -> Iterable[str]:
    for each in regions_below(tx, region):
        if tables.endpoints.count(tx, region_id=each.id):
            raise Forbidden(
                "identity.region_in_use",
                f"Unable to delete region {region.id} because it or its child regions have associated endpoints.",
            )
        if each.id != region.id:
            tables.regions.delete(tx, each.id)
    return (CATALOGUE_SUBJECT,)


def regions_below(tx: Transaction, region: model.Region) -> Sequence[model.Region]:
    """Itself and all below it."""
    found, todo = [region], [region]
    while todo:
        for child in tables.regions.find(tx, parent_region_id=todo.pop().id):
            found.append(child)
            todo.append(child)
    return found


def _drop_service(tx: Transaction, service: model.Service) -> Iterable[str]:
    tables.endpoints.delete_where(tx, service_id=service.id)
    tables.registered_limits.delete_where(tx, service_id=service.id)
    tables.limits.delete_where(tx, service_id=service.id)
    return (CATALOGUE_SUBJECT,)


def _admit_endpoint(tx: Transaction, before: model.Endpoint | None, after: model.Endpoint) -> None:
    if tables.services.get(tx, after.service_id) is None:
        raise invalid("service_id", f"there is no service {after.service_id}")
    if after.region_id is not None and tables.regions.get(tx, after.region_id) is None:
        raise invalid("region_id", f"there is no region {after.region_id}")
    unknown = unknown_variables(after.url)
    if unknown:
        raise invalid("url", f"cannot substitute {', '.join(unknown)}; possible: project_id, tenant_id, user_id")


REGION: Final = Kind("region", "regions", tables.regions, _for_all, _admit_region, _catalogue_ends, _drop_region)
SERVICE: Final = Kind("service", "services", tables.services, _for_all, ends=_catalogue_ends, drop=_drop_service)
ENDPOINT: Final = Kind(
    "endpoint",
    "endpoints",
    tables.endpoints,
    _for_all,
    admit=_admit_endpoint,
    ends=_catalogue_ends,
    drop=lambda tx, endpoint: (CATALOGUE_SUBJECT,),
)


# --------------------------------------------------------------------------------- credentials, trusts and limits
def held_by(credential: model.Credential) -> Target:
    return Target(user_ids=(credential.user_id,), app_credential_id=credential.app_credential_id)


def _credential_target(tx: Transaction, credential: model.Credential) -> Target:
    return held_by(credential)


def _admit_credential(tx: Transaction, before: model.Credential | None, after: model.Credential) -> None:
    if after.type == "ec2" and after.project_id is None:
        raise invalid("project_id", "a credential of type ec2 needs a project")
    if after.type != "ec2" or (before is not None and before.access_key_id == after.access_key_id):
        return
    key_id = after.access_key_id or after.id
    holder = tables.credential_of_key(tx, key_id)
    if holder is not None and holder.id != after.id:
        raise duplicate("credential", after)
    tables.access_keys.delete_where(tx, credential_id=after.id)
    tables.access_keys.delete(tx, key_id)
    if after.access_key_id is not None:
        tables.access_keys.insert(tx, model.AccessKey(id=key_id, credential_id=after.id))


def _ends_access_key(tx: Transaction, before: model.Credential, after: model.Credential) -> Iterable[str]:
    return _key_subjects(before) if after is not before else ()


def _key_subjects(credential: model.Credential) -> Iterable[str]:
    return (claims.access_key_subject(credential.id),) if credential.type == "ec2" else ()


def _drop_credential(tx: Transaction, credential: model.Credential) -> Iterable[str]:
    tables.access_keys.delete_where(tx, credential_id=credential.id)
    return _key_subjects(credential)


def _owned(tx: Transaction, record: Any) -> Target:
    return Target(user_ids=(record.user_id,))


def _drop_app_credential(tx: Transaction, credential: model.AppCredential) -> Iterable[str]:
    made = tables.credentials.find(tx, app_credential_id=credential.id)
    ended = [subject for each in made for subject in _drop_credential(tx, each)]
    tables.credentials.delete_where(tx, app_credential_id=credential.id)
    return (claims.app_credential_subject(credential.id), *ended)


def _drop_access_rule(tx: Transaction, rule: model.AccessRule) -> Iterable[str]:
    for credential in tables.app_credentials.find(tx, user_id=rule.user_id):
        if rule.id in (credential.access_rule_ids or ()):
            raise Forbidden(
                "identity.access_rule_in_use",
                f"May not delete access rule {rule.id}: it is in use by the application credential {credential.id}.",
            )
    return ()


def _trust_target(tx: Transaction, trust: model.Trust) -> Target:
    return Target(user_ids=(trust.trustor_id, trust.trustee_id))


def _limit_target(tx: Transaction, limit: model.Limit) -> Target:
    if limit.project_id is None:
        return Target(domain_ids=(limit.domain_id,) if limit.domain_id else ())
    project = tables.projects.get(tx, limit.project_id)
    return Target(domain_ids=(project.domain_id,) if project else (), project_id=limit.project_id)


def _admit_registered(tx: Transaction, before: model.RegisteredLimit | None, after: model.RegisteredLimit) -> None:
    _check_limited(tx, after.service_id, after.region_id)
    same = tables.registered_limits.find(
        tx, service_id=after.service_id, region_id=after.region_id, resource_name=after.resource_name
    )
    if any(other.id != after.id for other in same):
        raise Conflict("identity.duplicate", f"There is a registered limit of {after.resource_name} already.")
    if before is not None and _identity_of(before) != _identity_of(after) and _limits_under(tx, before):
        raise Forbidden("identity.limit_in_use", f"Unable to update the registered limit {after.id}: it is in use.")


def _drop_registered(tx: Transaction, registered: model.RegisteredLimit) -> Iterable[str]:
    if _limits_under(tx, registered):
        raise Forbidden("identity.limit_in_use", f"Unable to delete the registered limit {registered.id}: in use.")
    return ()


def _identity_of(registered: model.RegisteredLimit) -> tuple[str, str | None, str]:
    return registered.service_id, registered.region_id, registered.resource_name


def _limits_under(tx: Transaction, registered: model.RegisteredLimit) -> int:
    return tables.limits.count(
        tx,
        service_id=registered.service_id,
        region_id=registered.region_id,
        resource_name=registered.resource_name,
    )


def _admit_limit(tx: Transaction, before: model.Limit | None, after: model.Limit) -> None:
    _check_limited(tx, after.service_id, after.region_id)
    where = {"service_id": after.service_id, "region_id": after.region_id, "resource_name": after.resource_name}
    if not tables.registered_limits.count(tx, **where):
        raise Forbidden(
            "identity.no_registered_limit",
            f"Unable to set a limit of {after.resource_name}: there is no registered limit of it.",
        )
    owner = tables.projects.get(tx, after.project_id or after.domain_id or "")
    if owner is None or owner.is_domain != (after.project_id is None):
        raise invalid("project_id", f"there is no project or domain {after.project_id or after.domain_id}")
    same = tables.limits.find(tx, project_id=after.project_id, domain_id=after.domain_id, **where)
    if any(other.id != after.id for other in same):
        raise Conflict("identity.duplicate", f"There is a limit of {after.resource_name} for it already.")


def _check_limited(tx: Transaction, service_id: str, region_id: str | None) -> None:
    if tables.services.get(tx, service_id) is None:
        raise invalid("service_id", f"there is no service {service_id}")
    if region_id is not None and tables.regions.get(tx, region_id) is None:
        raise invalid("region_id", f"there is no region {region_id}")


CREDENTIAL: Final = Kind(
    "credential",
    "credentials",
    tables.credentials,
    _credential_target,
    admit=_admit_credential,
    ends=_ends_access_key,
    drop=_drop_credential,
)
APP_CREDENTIAL: Final = Kind(
    "app credential", "app_credentials", tables.app_credentials, _owned, drop=_drop_app_credential
)
ACCESS_RULE: Final = Kind("access rule", "access_rules", tables.access_rules, _owned, drop=_drop_access_rule)
TRUST: Final = Kind("trust", "trusts", tables.trusts, _trust_target)
REGISTERED_LIMIT: Final = Kind(
    "registered limit",
    "registered_limits",
    tables.registered_limits,
    _for_all,
    admit=_admit_registered,
    drop=_drop_registered,
)
LIMIT: Final = Kind("limit", "limits", tables.limits, _limit_target, admit=_admit_limit)

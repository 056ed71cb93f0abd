"""The first rows of a cloud: domain, roles, people, projects, region and catalogue.  Run at every start.

What is there stays as it is (a password that was changed is not put back), but for the endpoints: they move with the
address that the cloud is started on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from apus.kernel.ids import child_id
from apus.kernel.record import changed
from apus.kernel.world import Transaction
from apus.services.identity import store as tables
from apus.services.identity.contract import DEFAULT_DOMAIN_ID, CatalogueEntry
from apus.services.identity.model import (
    NO_DOMAIN,
    Actor,
    Endpoint,
    Implication,
    Project,
    Region,
    Role,
    Scope,
    Service,
    User,
)
from apus.services.identity.service.core import CATALOGUE_SUBJECT, Core
from apus.services.identity.service.grants import Held, assignment_of

ROLES: Final = ("admin", "manager", "member", "reader", "service")
IMPLIED: Final = (("admin", "manager"), ("manager", "member"), ("member", "reader"))


class Bootstrap(msgspec.Struct, frozen=True, kw_only=True):
    admin_password: str
    tenants: Mapping[str, str] = {}
    """Passwords by name: of each a user and a project, in which he is a member."""
    catalogue: Sequence[CatalogueEntry] = ()
    region: str = "RegionOne"
    extra_roles: tuple[str, ...] = ()
    """Roles that other services' policies name: ResellerAdmin, …"""


async def bootstrap(core: Core, wanted: Bootstrap) -> dict[str, str]:
    """Make what is missing; returns the ids of the projects admin, service and the tenants' by name."""
    passwords = {"admin": wanted.admin_password, **wanted.tenants}
    known = await core.read(
        lambda tx: {user.name for user in tables.users.find(tx, domain_id=DEFAULT_DOMAIN_ID, name=list(passwords))}
    )
    new = {name: password for name, password in passwords.items() if name not in known}
    hashes = dict(
        zip(new, await asyncio.gather(*(core.passwords.hash(password) for password in new.values())), strict=True)
    )

    def work(tx: Transaction) -> dict[str, str]:
        if tables.projects.get(tx, DEFAULT_DOMAIN_ID) is None:
            tables.projects.insert(
                tx,
                Project(
                    id=DEFAULT_DOMAIN_ID,
                    name="Default",
                    domain_id=NO_DOMAIN,
                    is_domain=True,
                    description="The default domain",
                ),
            )
        roles = _roles(core, tx, (*ROLES, *wanted.extra_roles))
        projects = {name: _project(core, tx, name) for name in ("admin", "service", *wanted.tenants)}
        admin = _user(core, tx, "admin", hashes)
        if admin is not None:
            _give(tx, Held(Actor.USER, admin, Scope.PROJECT, projects["admin"]), roles["admin"])
            _give(tx, Held(Actor.USER, admin, Scope.SYSTEM), roles["admin"])
        for name in wanted.tenants:
            tenant = _user(core, tx, name, hashes)
            if tenant is not None:
                _give(tx, Held(Actor.USER, tenant, Scope.PROJECT, projects[name]), roles["member"])
        if _catalogue(tx, wanted.region, wanted.catalogue):
            core.end(tx, [CATALOGUE_SUBJECT])
        return projects

    return await core.write(work)


def _roles(core: Core, tx: Transaction, names: Sequence[str]) -> dict[str, str]:
    ids = {role.name: role.id for role in tables.roles.find(tx, domain_id=NO_DOMAIN)}
    fresh = "admin" not in ids  # later, an implication that an operator took away stays away
    for name in names:
        if name not in ids:
            ids[name] = tables.roles.insert(tx, Role(id=core.new_id(), name=name)).id
    if fresh:
        for prior, implied in IMPLIED:
            tables.implications.insert(
                tx,
                Implication(
                    id=child_id("implication", ids[prior], ids[implied]), prior_id=ids[prior], implied_id=ids[implied]
                ),
            )
    return ids


def _project(core: Core, tx: Transaction, name: str) -> str:
    found = tables.projects.first(tx, domain_id=DEFAULT_DOMAIN_ID, name=name)
    if found is None:
        found = tables.projects.insert(
            tx, Project(id=core.new_id(), name=name, domain_id=DEFAULT_DOMAIN_ID, parent_id=DEFAULT_DOMAIN_ID)
        )
    return found.id


def _user(core: Core, tx: Transaction, name: str, hashes: dict[str, str]) -> str | None:
    """The id when it was made now."""
    if name not in hashes or tables.users.first(tx, domain_id=DEFAULT_DOMAIN_ID, name=name) is not None:
        return None
    user = User(id=core.new_id(), name=name, domain_id=DEFAULT_DOMAIN_ID, password_hash=hashes[name])
    return tables.users.insert(tx, user).id


def _give(tx: Transaction, held: Held, role_id: str) -> None:
    tables.assignments.insert(tx, assignment_of(held, role_id))


def _catalogue(tx: Transaction, region: str, entries: Sequence[CatalogueEntry]) -> bool:
    """Whether anything is another than before.  Ids are made of what they name, so a restart finds its own."""
    touched = False
    if tables.regions.get(tx, region) is None:
        tables.regions.insert(tx, Region(id=region))
    for entry in entries:
        service_id = child_id("service", entry.type).replace("-", "")
        service = Service(id=service_id, type=entry.type, name=entry.name, description=entry.description)
        if tables.services.get(tx, service_id) is None:
            tables.services.insert(tx, service)
            touched = True
        for interface in entry.interfaces:
            id = child_id("endpoint", region, entry.type, interface).replace("-", "")
            known = tables.endpoints.get(tx, id)
            if known is None:
                tables.endpoints.insert(
                    tx,
                    Endpoint(id=id, service_id=service_id, interface=interface, url=entry.url, region_id=region),
                )
            elif known.url != entry.url:
                tables.endpoints.put(tx, changed(known, url=entry.url))
            touched = touched or known is None or known.url != entry.url
    return touched

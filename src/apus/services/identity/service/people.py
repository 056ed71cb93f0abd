"""Users' passwords, the projects of a user, the tree of projects and their tags."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from apus.kernel import events
from apus.kernel.caller import Caller
from apus.kernel.errors import NotFound
from apus.kernel.record import changed
from apus.kernel.world import Transaction
from apus.services.identity import store as tables
from apus.services.identity.logic.claims import user_subject
from apus.services.identity.logic.may import NOTHING, Target, require
from apus.services.identity.model import Project, User
from apus.services.identity.service import kinds, rights
from apus.services.identity.service.auth import is_live, refuse
from apus.services.identity.service.core import Core, missing
from apus.services.identity.service.keeper import Keeper


class People:
    def __init__(self, core: Core, keeper: Keeper) -> None:
        self._core, self._keeper = core, keeper

    async def new_user(self, caller: Caller, user: User, password: str | None) -> User:
        if password is not None:
            # asked before the hash is made: nobody spends our time without the right to
            require(caller, "identity:create_user", Target(domain_ids=(user.domain_id,), user_ids=(user.id,)))
            user = changed(user, password_hash=await self._core.passwords.hash(password))
        return await self._keeper.create(kinds.USER, caller, user)

    async def change_user(self, caller: Caller, id: str, change: Callable[[User], User], password: str | None) -> User:
        """By an administrator; a new password ends the user's tokens."""
        hashed: str | None = None
        if password is not None:
            await self._core.read(lambda tx: self._keeper.load(tx, kinds.USER, caller, id, "identity:update_user"))
            hashed = await self._core.passwords.hash(password)
        return await self._keeper.update(
            kinds.USER,
            caller,
            id,
            lambda user: change(user) if hashed is None else changed(change(user), password_hash=hashed),
        )

    async def change_password(self, user_id: str, old: str, new: str) -> None:
        """By the user himself, who proves it with the old one.  Raise Unauthenticated."""
        user = await self._core.read(lambda tx: tables.users.get(tx, user_id))
        right = await self._core.passwords.check(user.password_hash if user else None, old)
        if user is None or not right or not user.enabled:
            raise refuse("no such user, or another password")
        hashed = await self._core.passwords.hash(new)

        def work(tx: Transaction) -> None:
            tables.users.put(tx, changed(user, password_hash=hashed))
            self._core.end(tx, [user_subject(user_id)])
            events.emit(tx, "identity.user.updated", user_id, None)

        await self._core.write(work)

    async def projects_of(self, caller: Caller, user_id: str) -> Sequence[Project]:
        def work(tx: Transaction) -> Sequence[Project]:
            user = tables.users.get(tx, user_id)
            target = kinds.user_target(tx, user) if user is not None else NOTHING
            require(caller, "identity:list_user_projects", target)
            if user is None:
                raise missing("user", user_id)
            return rights.projects_of(tx, user_id)

        return await self._core.read(work)

    async def own_projects(self, caller: Caller) -> Sequence[Project]:
        """Those that the caller could get a token for."""
        return await self._core.read(
            lambda tx: [project for project in rights.projects_of(tx, caller.user_id) if is_live(tx, project)]
        )

    async def own_domains(self, caller: Caller) -> Sequence[Project]:
        return await self._core.read(
            lambda tx: [domain for domain in rights.domains_of(tx, caller.user_id) if domain.enabled]
        )

    async def has_system(self, caller: Caller) -> bool:
        return await self._core.read(lambda tx: rights.has_system(tx, caller.user_id))

    async def family(self, caller: Caller, project_id: str) -> tuple[Project, list[Project], list[Project]]:
        """A project, those above it (nearest first, without the domain) and those below."""

        def work(tx: Transaction) -> tuple[Project, list[Project], list[Project]]:
            project = self._keeper.load(tx, kinds.PROJECT, caller, project_id, "identity:get_project")
            above = [parent for parent in rights.parents(tx, project) if not parent.is_domain]
            return project, above, rights.below(tx, project_id)

        return await self._core.read(work)

    async def domain_of_parent(self, parent_id: str) -> str | None:
        """The domain that a project below this one is in; None when there is no such parent."""
        parent = await self._core.read(lambda tx: tables.projects.get(tx, parent_id))
        if parent is None:
            return None
        return parent.id if parent.is_domain else parent.domain_id

    async def tags(self, caller: Caller, project_id: str) -> tuple[str, ...]:
        def work(tx: Transaction) -> tuple[str, ...]:
            return self._keeper.load(tx, kinds.PROJECT, caller, project_id, "identity:list_project_tags").tags

        return await self._core.read(work)

    async def retag(
        self, caller: Caller, project_id: str, change: Callable[[tuple[str, ...]], tuple[str, ...]]
    ) -> tuple[str, ...]:
        done = await self._keeper.update(
            kinds.PROJECT, caller, project_id, lambda project: changed(project, tags=change(project.tags))
        )
        return done.tags

    async def untag(self, caller: Caller, project_id: str, tag: str) -> None:
        def without(tags: tuple[str, ...]) -> tuple[str, ...]:
            if tag not in tags:
                raise NotFound("identity.tag_not_found", f"Could not find tag: {tag} on project {project_id}.")
            return tuple(each for each in tags if each != tag)

        await self.retag(caller, project_id, without)

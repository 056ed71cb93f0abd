"""Server groups: rules about which hosts their members share.  Members are the live servers that name the group."""

from __future__ import annotations

from collections.abc import Sequence

from apus.kernel.caller import Caller
from apus.kernel.errors import Forbidden, NotFound
from apus.kernel.ids import new_id
from apus.kernel.table import Query
from apus.kernel.world import Transaction, World
from apus.services.compute.model import Group
from apus.services.compute.quotas import Quotas
from apus.services.compute.store import GROUPS, SERVERS

WithMembers = tuple[Group, tuple[str, ...]]


class Groups:
    def __init__(self, world: World, quotas: Quotas) -> None:
        self._world, self._quotas = world, quotas

    async def create(self, caller: Caller, name: str, policy: str, rules: dict[str, int]) -> Group:
        if caller.project_id is None:
            raise Forbidden("compute.no_project", "Server groups belong to a project: ask with a token of one.")
        group = Group(
            id=new_id(self._world.dice),
            project_id=caller.project_id,
            user_id=caller.user_id,
            name=name,
            policy=policy,
            rules=rules,
        )

        def work(tx: Transaction) -> Group:
            self._quotas.check_groups(tx, group.project_id)
            return GROUPS.insert(tx, group)

        return await self._world.store.write(work)

    async def get(self, caller: Caller, id: str) -> WithMembers:
        def work(tx: Transaction) -> WithMembers:
            group = _load(tx, caller, id)
            return group, _members(tx, group.id)

        return await self._world.store.read(work)

    async def page(self, query: Query) -> Sequence[WithMembers]:
        def work(tx: Transaction) -> list[WithMembers]:
            return [(group, _members(tx, group.id)) for group in GROUPS.page(tx, query)]

        return await self._world.store.read(work)

    async def delete(self, caller: Caller, id: str) -> None:
        def work(tx: Transaction) -> None:
            GROUPS.delete(tx, _load(tx, caller, id).id)

        await self._world.store.write(work)


def _load(tx: Transaction, caller: Caller, id: str) -> Group:
    group = GROUPS.get(tx, id)
    if group is None or (group.project_id != caller.project_id and not caller.is_admin):
        raise NotFound("compute.group.not_found", f"Instance group {id} could not be found.")
    return group


def _members(tx: Transaction, id: str) -> tuple[str, ...]:
    return tuple(server.id for server in SERVERS.find(tx, group_id=id, deleted=False))

"""Flavors: sizes that servers come in.  Servers keep a copy of theirs, so deleting one harms nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict, NotFound
from apus.kernel.record import changed
from apus.kernel.table import Query
from apus.kernel.world import Transaction, World
from apus.services.compute.model import Flavor
from apus.services.compute.store import FLAVORS


def usable_flavor(flavor: Flavor, caller: Caller) -> bool:
    return flavor.is_public or caller.is_admin or caller.project_id in flavor.access


class Flavors:
    def __init__(self, world: World) -> None:
        self._world = world

    async def create(self, flavor: Flavor) -> Flavor:
        def work(tx: Transaction) -> Flavor:
            if FLAVORS.get(tx, flavor.id) is not None:
                raise Conflict("compute.flavor.exists", f"Flavor with ID {flavor.id} already exists.")
            if FLAVORS.first(tx, name=flavor.name) is not None:
                raise Conflict("compute.flavor.exists", f"Flavor with name {flavor.name} already exists.")
            return FLAVORS.insert(tx, changed(flavor, created_at_s=tx.now_s))

        return await self._world.store.write(work)

    async def ensure(self, flavor: Flavor) -> None:
        """Make it unless one of this id or name is there: for the first start."""
        try:
            await self.create(flavor)
        except Conflict:
            return

    async def get(self, caller: Caller, id: str) -> Flavor:
        flavor = await self._world.store.read(lambda tx: FLAVORS.get(tx, id))
        if flavor is None or not usable_flavor(flavor, caller):
            raise NotFound("compute.flavor.not_found", f"Flavor {id} could not be found.")
        return flavor

    async def page(self, caller: Caller, query: Query) -> Sequence[Flavor]:
        return await self._world.store.read(lambda tx: FLAVORS.page(tx, query))

    async def delete(self, id: str) -> None:
        if not await self._world.store.write(lambda tx: FLAVORS.delete(tx, id)):
            raise NotFound("compute.flavor.not_found", f"Flavor {id} could not be found.")

    async def change(self, id: str, fields: Callable[[Flavor], Mapping[str, object]]) -> Flavor:
        def work(tx: Transaction) -> Flavor:
            flavor = FLAVORS.get(tx, id)
            if flavor is None:
                raise NotFound("compute.flavor.not_found", f"Flavor {id} could not be found.")
            return FLAVORS.put(tx, changed(flavor, **fields(flavor)))

        return await self._world.store.write(work)

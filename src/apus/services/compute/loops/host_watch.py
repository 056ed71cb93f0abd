"""Notices hosts that fell silent or came back, and says so as an event.  Silence is not death: nothing is moved."""

from __future__ import annotations

from collections.abc import Iterable

from apus.kernel.events import emit
from apus.kernel.world import Transaction, World
from apus.services.compute.hosts import Hosts


class HostWatch:
    name = "compute-host-watch"
    period_s = 15.0

    def __init__(self, world: World, hosts: Hosts) -> None:
        self._world, self._hosts = world, hosts
        self._up: dict[str, bool] = {}

    async def keys(self) -> Iterable[str]:
        return ("all",)

    async def settle(self, key: str) -> None:
        views = await self._hosts.all()
        changed = [view for view in views if self._up.get(view.host.name, view.up) is not view.up]
        self._up = {view.host.name: view.up for view in views}
        self._hosts.silent = frozenset(name for name, up in self._up.items() if not up)

        def tell(tx: Transaction) -> None:
            for view in changed:
                kind = f"compute.host.{'heard' if view.up else 'silent'}"
                emit(tx, kind, view.host.id, None, host=view.host.name)

        if changed:
            await self._world.store.write(tell)

"""Gives back what no living server owns: claims and ports of guests whose host was silent when they were deleted."""

from __future__ import annotations

from collections.abc import Iterable

from apus.kernel.flow import live_flows
from apus.kernel.world import Transaction, World
from apus.services.compute.contract import Power
from apus.services.compute.store import INCARNATIONS, SERVERS
from apus.services.network.contract import NetworkService
from apus.services.placement.contract import PlacementService


class OrphanSweep:
    name = "compute-orphan-sweep"
    period_s = 60.0

    def __init__(self, world: World, network: NetworkService, placement: PlacementService) -> None:
        self._world, self._network, self._placement = world, network, placement
        self.freed = 0
        """How often it found work: after clean runs it stays 0, or an undo is missing."""

    async def keys(self) -> Iterable[str]:
        """Servers that are over, or failed, and still have an incarnation."""

        def work(tx: Transaction) -> list[str]:
            retired = [row for row in INCARNATIONS.find(tx) if row.power is Power.GONE]
            ids = list(dict.fromkeys(row.server_id for row in retired))
            busy = live_flows(tx, ids)
            return [id for id in ids if id not in busy]

        return await self._world.store.read(work)

    async def settle(self, key: str) -> None:
        def look(tx: Transaction) -> bool:
            server = SERVERS.get(tx, key)
            gone = all(row.gone for row in INCARNATIONS.find(tx, server_id=key))
            return gone and not live_flows(tx, [key]) and (server is None or server.deleted or server.error)

        if not await self._world.store.read(look):
            return
        await self._network.release_ports(key)
        await self._placement.release(key)
        await self._world.store.write(lambda tx: INCARNATIONS.delete_where(tx, server_id=key))
        self.freed += 1

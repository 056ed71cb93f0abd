"""Hosts, as compute shows them: hypervisors and services.  What they have is placement's to know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict, NotFound
from apus.kernel.events import emit
from apus.kernel.ids import child_id
from apus.kernel.record import changed
from apus.kernel.world import Transaction, World
from apus.services.compute.model import HostNumber, Server
from apus.services.compute.store import AGGREGATES, HOST_NUMBERS, SERVERS
from apus.services.placement.contract import Host, PlacementService

SILENT_AFTER_S: Final = 60.0


class HostView(msgspec.Struct, frozen=True, kw_only=True):
    host: Host
    number: int
    """For clients that know hypervisors by an integer."""
    service_id: str
    up: bool
    forced_down: bool


class Hosts:
    def __init__(self, world: World, placement: PlacementService) -> None:
        self._world, self._placement = world, placement
        self.silent: frozenset[str] = frozenset()
        """Kept by the loop `host_watch`."""

    async def all(self) -> Sequence[HostView]:
        hosts = await self._placement.hosts()
        numbers = await self._numbers([host.name for host in hosts])
        late_s = self._world.clock.now_s() - SILENT_AFTER_S
        return [
            HostView(
                host=host,
                number=numbers[host.name].number,
                service_id=child_id("service", host.id),
                up=host.heard_at_s >= late_s and not numbers[host.name].forced_down,
                forced_down=numbers[host.name].forced_down,
            )
            for host in hosts
        ]

    async def servers_on(self, host: str) -> Sequence[Server]:
        return await self._world.store.read(lambda tx: SERVERS.find(tx, host=host, deleted=False))

    async def enable(self, host: str, enabled: bool, reason: str | None) -> None:
        await self._placement.enable_host(host, enabled, reason)

    async def force_down(self, host: str, down: bool) -> None:
        def work(tx: Transaction) -> None:
            row = HOST_NUMBERS.first(tx, host=host)
            if row is None:
                raise NotFound("compute.host.not_found", f"There is no compute service on host {host}.")
            HOST_NUMBERS.put(tx, changed(row, forced_down=down))

        await self._world.store.write(work)

    async def remove(self, caller: Caller, host: str) -> None:
        """One that has left for good.  Raise Conflict while servers are on it."""

        def work(tx: Transaction) -> None:
            if SERVERS.count(tx, host=host, deleted=False):
                raise Conflict(
                    "compute.host_has_servers", f"Unable to delete compute service: host {host} is hosting instances."
                )
            for aggregate in AGGREGATES.find(tx):
                if host in aggregate.hosts:
                    rest = tuple(item for item in aggregate.hosts if item != host)
                    AGGREGATES.put(tx, changed(aggregate, hosts=rest))
            HOST_NUMBERS.delete_where(tx, host=host)
            emit(tx, "compute.host.removed", child_id("host-number", host), None, caller=caller, host=host)

        await self._world.store.write(work)
        await self._placement.forget_host(host)

    async def _numbers(self, names: Sequence[str]) -> dict[str, HostNumber]:
        """The number of each host; new ones are given the next."""
        known = {row.host: row for row in await self._world.store.read(HOST_NUMBERS.find)}
        if all(name in known for name in names):
            return known

        def work(tx: Transaction) -> dict[str, HostNumber]:
            rows = {row.host: row for row in HOST_NUMBERS.find(tx)}
            number = max((row.number for row in rows.values()), default=0)
            for name in names:
                if name not in rows:
                    number += 1
                    row = HostNumber(id=child_id("host-number", name), host=name, number=number)
                    rows[name] = HOST_NUMBERS.insert(tx, row)
            return rows

        return await self._world.store.write(work)

"""Host aggregates: hosts put together by an operator, and the availability zones that come of it.

A zone is the metadata `availability_zone` of an aggregate.  What zone each host is in is decided here and told to
placement as a whole: after each change, and again and again by a loop, so that nothing is lost between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict, Invalid, NotFound
from apus.kernel.events import emit
from apus.kernel.ids import new_id
from apus.kernel.record import changed
from apus.kernel.world import Transaction, World
from apus.services.compute.model import Aggregate
from apus.services.compute.store import AGGREGATES, SERVERS
from apus.services.placement.contract import PlacementService

ZONE = "availability_zone"
Decide = Callable[[Transaction, Aggregate], Aggregate]


class Aggregates:
    def __init__(self, world: World, placement: PlacementService) -> None:
        self._world, self._placement = world, placement

    async def all(self) -> Sequence[Aggregate]:
        return await self._world.store.read(
            lambda tx: sorted(AGGREGATES.find(tx), key=lambda aggregate: aggregate.number)
        )

    async def get(self, number: int) -> Aggregate:
        return await self._world.store.read(lambda tx: _load(tx, number))

    async def create(self, caller: Caller, name: str, zone: str | None) -> Aggregate:
        def work(tx: Transaction) -> Aggregate:
            _check_name(tx, name)
            made = Aggregate(
                id=new_id(self._world.dice),
                number=1 + max((known.number for known in AGGREGATES.find(tx)), default=0),
                name=name,
                metadata={ZONE: zone} if zone else {},
                created_at_s=tx.now_s,
            )
            emit(tx, "compute.aggregate.create", made.id, None, caller=caller, name=name)
            return AGGREGATES.insert(tx, made)

        return await self._world.store.write(work)

    async def rename(self, caller: Caller, number: int, name: str | None, zone: str | None) -> Aggregate:
        def decide(tx: Transaction, known: Aggregate) -> Aggregate:
            if name is not None and name != known.name:
                _check_name(tx, name)
            return changed(known, name=name or known.name, metadata=known.metadata | ({ZONE: zone} if zone else {}))

        return await self._change(caller, number, decide)

    async def set_metadata(self, caller: Caller, number: int, new: Mapping[str, str | None]) -> Aggregate:
        """None takes an item away."""

        def decide(tx: Transaction, known: Aggregate) -> Aggregate:
            merged = {**known.metadata, **new}
            return changed(known, metadata={key: value for key, value in merged.items() if value is not None})

        return await self._change(caller, number, decide)

    async def add_host(self, caller: Caller, number: int, host: str) -> Aggregate:
        if all(known.name != host for known in await self._placement.hosts()):
            raise NotFound("compute.no_host", f"Compute host {host} could not be found.")

        def decide(tx: Transaction, known: Aggregate) -> Aggregate:
            if host in known.hosts:
                raise Conflict("compute.aggregate_host", f"Aggregate {number} already has host {host}.")
            return changed(known, hosts=(*known.hosts, host))

        return await self._change(caller, number, decide)

    async def remove_host(self, caller: Caller, number: int, host: str) -> Aggregate:
        def decide(tx: Transaction, known: Aggregate) -> Aggregate:
            if host not in known.hosts:
                raise NotFound("compute.aggregate_host", f"Aggregate {number} has no host {host}.")
            return changed(known, hosts=tuple(item for item in known.hosts if item != host))

        return await self._change(caller, number, decide)

    async def delete(self, caller: Caller, number: int) -> None:
        def work(tx: Transaction) -> None:
            known = _load(tx, number)
            if known.hosts:
                raise Invalid("compute.aggregate_not_empty", f"Aggregate {number} still has hosts: remove them first.")
            AGGREGATES.delete(tx, known.id)
            emit(tx, "compute.aggregate.delete", known.id, None, caller=caller, name=known.name)

        await self._world.store.write(work)

    async def settle_zones(self) -> None:
        zones = await self._world.store.read(lambda tx: zones_of(AGGREGATES.find(tx)))
        await self._placement.zone_hosts(zones)

    async def _change(self, caller: Caller, number: int, decide: Decide) -> Aggregate:
        def work(tx: Transaction) -> Aggregate:
            known = _load(tx, number)
            after = decide(tx, known)
            _check_zones(tx, known, after)
            emit(tx, "compute.aggregate.update", known.id, None, caller=caller, name=after.name)
            return AGGREGATES.put(tx, changed(after, updated_at_s=tx.now_s))

        after = await self._world.store.write(work)
        await self.settle_zones()
        return after


def zones_of(aggregates: Sequence[Aggregate]) -> dict[str, str]:
    """Host -> zone, of those hosts that an aggregate puts into one."""
    return {host: known.zone for known in aggregates if known.zone for host in known.hosts}


def _load(tx: Transaction, number: int) -> Aggregate:
    found = AGGREGATES.first(tx, number=number)
    if found is None:
        raise NotFound("compute.no_aggregate", f"Aggregate {number} could not be found.")
    return found


def _check_name(tx: Transaction, name: str) -> None:
    if AGGREGATES.first(tx, name=name) is not None:
        raise Conflict("compute.aggregate_exists", f"Aggregate {name} already exists.")


def _check_zones(tx: Transaction, before: Aggregate, after: Aggregate) -> None:
    """A host is in one zone only, and stays in it while it has servers: they were promised that zone."""
    others = [item for item in AGGREGATES.find(tx) if item.id != before.id]
    known, new = zones_of([*others, before]), zones_of([*others, after])
    elsewhere = zones_of(others)
    for host in sorted({*before.hosts, *after.hosts}):
        if after.zone and host in after.hosts and elsewhere.get(host, after.zone) != after.zone:
            raise Conflict("compute.two_zones", f"Host {host} is in availability zone {elsewhere[host]} already.")
        if known.get(host) != new.get(host) and SERVERS.count(tx, host=host, deleted=False):
            raise Conflict(
                "compute.zone_in_use",
                f"Host {host} has servers: it cannot change its availability zone now.",
            )

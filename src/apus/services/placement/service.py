"""Placement: the only scheduler.  Chooses on a snapshot in memory, checks at the commit, and says why not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from apus.kernel.errors import Conflict, NoRoom, NotFound, Unavailable
from apus.kernel.events import emit
from apus.kernel.ids import new_id
from apus.kernel.record import changed
from apus.kernel.world import Transaction, World
from apus.services.placement.contract import SILENT_S, Claim, Explanation, Host, HostReport, Need
from apus.services.placement.logic.room import fits
from apus.services.placement.model import Allocation, Decision, Heartbeat, Provider
from apus.services.placement.store import ALLOCATIONS, DECISIONS, HEARTBEATS, PROVIDERS

if TYPE_CHECKING:
    from apus.services.placement.logic.choose import Choice, HostTable

TRIES_MAX: Final = 8
"""Claims that lost the race for a host; each loss is news about that host, so few are ever needed."""
DECISIONS_KEPT_S: Final = 14 * 86400.0
CHANGED: Final = "placement.changed"


class _Full(Exception):
    """The host chosen on the snapshot is fuller than the snapshot says."""

    def __init__(self, host: Provider | None) -> None:
        self.host = host


class _Moved(Exception):
    """A server that this one should be with, or apart from, got a host since the choice."""


class Placement:
    """Implements `PlacementService`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._table: HostTable | None = None
        self._mark = new_id(world.dice).encode()
        """Tells our own word of a change from that of other processes."""

    async def follow(self) -> None:
        """Hear of changes that other processes made."""
        await self._world.bus.listen(CHANGED, self._forget)

    def forget(self) -> None:
        """The snapshot is old: the next claim reads anew."""
        self._table = None

    async def _forget(self, subject: str, body: bytes) -> None:
        if body != self._mark:
            self.forget()

    # ------------------------------------------------------------------ claims
    async def claim(self, consumer_id: str, need: Need, project_id: str, user_id: str, avoid: Sequence[str]) -> Claim:
        from apus.services.placement.logic.choose import choose

        fresh = False
        for _ in range(TRIES_MAX):
            if self._table is None:
                await self._load()
                fresh = True
            table = self._table
            assert table is not None
            same, different = await self._world.store.read(lambda tx: _hosts_beside(tx, need))
            silent_before_s = self._world.clock.now_s() - SILENT_S
            choice = choose(
                table,
                need,
                self._world.dice,
                silent_before_s=silent_before_s,
                avoid=avoid,
                same=same,
                different=different,
            )
            if choice.host is None and not fresh:
                self._table = None  # the snapshot may be old: look once more before saying no
                continue
            try:
                return await self._commit(consumer_id, need, choice, project_id, user_id, len(table.hosts))
            except _Moved:
                continue
            except _Full as full:
                if full.host is None or not table.note(full.host):
                    self._table = None
        raise Unavailable("placement.busy", "The hosts fill up faster than one could be claimed; try again.")

    async def _commit(
        self, consumer_id: str, need: Need, choice: Choice, project_id: str, user_id: str, hosts_seen: int
    ) -> Claim:
        explanation = Explanation(
            subject_id=consumer_id,
            project_id=project_id,
            at_s=self._world.clock.now_s(),
            need=need,
            hosts_seen=hosts_seen,
            chosen=choice.host.name if choice.host else None,
            refusals=choice.refusals,
            would_fit=choice.would_fit,
        )
        claimed: list[Provider] = []

        def work(tx: Transaction) -> Claim | None:
            claimed.clear()
            known = ALLOCATIONS.first(tx, consumer_id=consumer_id)
            if known is not None:
                return _claim_of(known)
            keep_decision(tx, explanation)
            if choice.host is None:
                return None
            host = PROVIDERS.get(tx, choice.host.id)
            if host is None or not host.enabled or not self._has_room(host, need.resources):
                raise _Full(host)
            same, different = _hosts_beside(tx, need)
            if not need.soft and ((same and host.id not in same) or host.id in different):
                raise _Moved
            claimed.append(PROVIDERS.put(tx, changed(host, used=added(host.used, need.resources))))
            allocation = Allocation(
                id=f"{consumer_id}:{host.id}",
                consumer_id=consumer_id,
                provider_id=host.id,
                provider_name=host.name,
                resources=need.resources,
                project_id=project_id,
                user_id=user_id,
            )
            ALLOCATIONS.insert(tx, allocation)
            return _claim_of(allocation)

        claim = await self._world.store.write(work)
        if claim is None:
            raise refused(explanation)
        for host in claimed:
            await self._note(host)
        return claim

    def _has_room(self, host: Provider, resources: dict[str, int]) -> bool:
        """Asked in the transaction of the claim: the snapshot that the host was chosen on may be old."""
        return fits(host, resources)

    async def release(self, consumer_id: str) -> None:
        def work(tx: Transaction) -> list[Provider]:
            return release_in(tx, consumer_id)

        for host in await self._world.store.write(work):
            await self._note(host)

    async def _note(self, host: Provider) -> None:
        if self._table is not None and not self._table.note(host):
            self._table = None
        await self._world.bus.publish(CHANGED, self._mark)

    async def _load(self) -> None:
        from apus.services.placement.logic.choose import HostTable

        def work(tx: Transaction) -> HostTable:
            hosts = [provider for provider in PROVIDERS.find(tx) if provider.is_host]
            hosts.sort(key=lambda host: host.name)
            return HostTable(hosts, {beat.id: beat.heard_at_s for beat in HEARTBEATS.find(tx)})

        self._table = await self._world.store.read(work)

    # ------------------------------------------------------------------ hosts
    async def report_host(self, report: HostReport) -> None:
        def work(tx: Transaction) -> None:
            known = PROVIDERS.get(tx, report.host_id)
            fields: dict[str, Any] = {
                "name": report.host,
                "inventories": report.inventories,
                "traits": report.traits,
                "availability_zone": report.availability_zone,
                "booted_at_s": report.booted_at_s,
                "is_host": True,
            }
            if known is None:
                PROVIDERS.insert(tx, Provider(id=report.host_id, root_id=report.host_id, **fields))
                emit(tx, "placement.host.joined", report.host_id, None, host=report.host)
            elif any(getattr(known, name) != value for name, value in fields.items()):
                PROVIDERS.put(tx, changed(known, **fields))
            beat(tx, report.host_id)

        await self._world.store.write(work)
        self._table = None
        await self._world.bus.publish(CHANGED, self._mark)

    async def host_heard(self, host: str) -> None:
        def work(tx: Transaction) -> str | None:
            known = PROVIDERS.first(tx, name=host)
            if known is not None:
                beat(tx, known.id)
            return None if known is None else known.id

        heard = await self._world.store.write(work)
        if heard is None:
            raise NotFound("placement.no_host", f"There is no host {host}: it should report itself first.")
        if self._table is not None and heard in self._table.place:
            self._table.heard_at_s[self._table.place[heard]] = self._world.clock.now_s()

    async def hosts(self) -> Sequence[Host]:
        def work(tx: Transaction) -> Sequence[Host]:
            heard = {item.id: item.heard_at_s for item in HEARTBEATS.find(tx)}
            hosts = sorted((item for item in PROVIDERS.find(tx) if item.is_host), key=lambda item: item.name)
            return [
                Host(
                    id=host.id,
                    name=host.name,
                    availability_zone=host.zone,
                    inventories=host.inventories,
                    used=host.used,
                    traits=host.traits,
                    enabled=host.enabled,
                    disabled_reason=host.disabled_reason,
                    booted_at_s=host.booted_at_s,
                    heard_at_s=heard.get(host.id, 0.0),
                )
                for host in hosts
            ]

        return await self._world.store.read(work)

    async def enable_host(self, host: str, enabled: bool, reason: str | None) -> None:
        def work(tx: Transaction) -> None:
            known = PROVIDERS.first(tx, name=host)
            if known is None or not known.is_host:
                raise NotFound("placement.no_host", f"There is no host {host}.")
            PROVIDERS.put(tx, changed(known, enabled=enabled, disabled_reason=None if enabled else reason))
            emit(tx, f"placement.host.{'enabled' if enabled else 'disabled'}", known.id, None, host=host, reason=reason)

        await self._world.store.write(work)
        self._table = None
        await self._world.bus.publish(CHANGED, self._mark)

    async def forget_host(self, host: str) -> None:
        def work(tx: Transaction) -> None:
            known = PROVIDERS.first(tx, name=host)
            if known is None or not known.is_host:
                return
            if ALLOCATIONS.first(tx, provider_id=known.id) is not None:
                raise Conflict("placement.provider.inuse", f"Host {host} has allocations; they must go first.")
            if any(other.parent_id == known.id for other in PROVIDERS.find(tx)):
                raise Conflict("placement.provider.has_children", f"Provider {known.id} has child providers.")
            PROVIDERS.delete(tx, known.id)
            HEARTBEATS.delete(tx, known.id)
            emit(tx, "placement.host.left", known.id, None, host=host)

        await self._world.store.write(work)
        self._table = None
        await self._world.bus.publish(CHANGED, self._mark)

    async def zone_hosts(self, zones: Mapping[str, str]) -> None:
        def work(tx: Transaction) -> bool:
            moved = [host for host in PROVIDERS.find(tx) if host.is_host and host.given_zone != zones.get(host.name)]
            for host in moved:
                zone = zones.get(host.name)
                PROVIDERS.put(tx, changed(host, given_zone=zone))
                emit(tx, "placement.host.zoned", host.id, None, host=host.name, zone=zone or host.availability_zone)
            return bool(moved)

        if await self._world.store.write(work):
            self._table = None
            await self._world.bus.publish(CHANGED, self._mark)

    async def claims(self) -> Sequence[Claim]:
        return [_claim_of(item) for item in await self._world.store.read(lambda tx: ALLOCATIONS.find(tx))]

    async def explain(self, subject_id: str) -> Explanation | None:
        decision = await self._world.store.read(lambda tx: DECISIONS.get(tx, subject_id))
        return None if decision is None else decision.explanation


def _hosts_beside(tx: Transaction, need: Need) -> tuple[frozenset[str], frozenset[str]]:
    """Where the servers are that this one should be with, and the hosts that it should not be on for others' sake."""

    def held(consumers: tuple[str, ...]) -> list[str]:
        return [item.provider_id for item in ALLOCATIONS.find(tx, consumer_id=list(consumers))] if consumers else []

    spread = Counter(held(need.spread_from))
    full = (host for host, count in spread.items() if count >= need.spread_max)
    return frozenset(held(need.same_host_as)), frozenset(held(need.different_host_from)).union(full)


def added(used: dict[str, int], resources: dict[str, int], sign: int = 1) -> dict[str, int]:
    total = {**used}
    for name, amount in resources.items():
        total[name] = total.get(name, 0) + sign * amount
        assert total[name] >= 0, f"more {name} given back than was held"
    return {name: amount for name, amount in total.items() if amount}


def release_in(tx: Transaction, consumer_id: str) -> list[Provider]:
    """Give back all that the consumer holds, in the caller's transaction; returns the providers as they are now."""
    providers = []
    for allocation in ALLOCATIONS.find(tx, consumer_id=consumer_id):
        provider = PROVIDERS.require(tx, allocation.provider_id)
        providers.append(PROVIDERS.put(tx, changed(provider, used=added(provider.used, allocation.resources, -1))))
        ALLOCATIONS.delete(tx, allocation.id)
    return providers


def keep_decision(tx: Transaction, explanation: Explanation) -> None:
    """The newest explanation per consumer; old ones go when new ones come, so the table stays bounded."""
    DECISIONS.delete(tx, explanation.subject_id)
    DECISIONS.insert(tx, Decision(id=explanation.subject_id, made_at_s=tx.now_s, explanation=explanation))
    tx.execute("DELETE FROM placement_decision WHERE made_at_s < :before", {"before": tx.now_s - DECISIONS_KEPT_S})


def beat(tx: Transaction, host_id: str) -> None:
    HEARTBEATS.delete(tx, host_id)
    HEARTBEATS.insert(tx, Heartbeat(id=host_id, heard_at_s=tx.now_s))


def refused(explanation: Explanation) -> NoRoom:
    """`No host fits: of 12 hosts, MEMORY_MB refused 9 (…), …`: the answer to the operator's first question."""
    counts = "; ".join(f"{refusal.filter} refused {refusal.hosts} ({refusal.hint})" for refusal in explanation.refusals)
    fit = f" What would have fitted: {explanation.would_fit}." if explanation.would_fit else ""
    seen = f"of {explanation.hosts_seen} hosts, {counts}" if explanation.hosts_seen else "the cloud has no hosts yet"
    return NoRoom(
        "placement.no_room",
        f"No valid host was found: {seen}.{fit}",
        details={
            "refusals": [
                {"filter": item.filter, "hosts": item.hosts, "hint": item.hint} for item in explanation.refusals
            ],
            "would_fit": explanation.would_fit,
        },
    )


def _claim_of(allocation: Allocation) -> Claim:
    return Claim(
        consumer_id=allocation.consumer_id,
        host=allocation.provider_name,
        host_id=allocation.provider_id,
        resources=allocation.resources,
    )

"""Placement: the only scheduler.  Chooses on a snapshot in memory, checks at the commit, tries again on conflict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

from apus.kernel.errors import Conflict, NoRoom, NotFound
from apus.kernel.record import changed
from apus.kernel.world import Transaction, World
from apus.services.placement import store
from apus.services.placement.contract import Claim, Explanation, Host, HostReport, Need, Refusal
from apus.services.placement.logic.choose import Choice, choose
from apus.services.placement.logic.snapshot import Snapshot
from apus.services.placement.model import ClaimRow, ExplanationRow, HostRow
from apus.services.placement.store import CLAIMS, EXPLANATIONS, HOSTS

T = TypeVar("T")

TRIES_MAX: Final = 10
"""Each lost race means that another claim was committed; ten in a row mean that there is next to no room."""
SILENT_AFTER_S: Final = 60.0
"""Several heartbeats: a host not heard for so long gets no new server."""


class Placement:
    def __init__(self, world: World) -> None:
        self._world = world
        self._snapshot: Snapshot | None = None
        self._heard: dict[str, float] = {}

    # ------------------------------------------------------------------ the contract
    async def claim(self, consumer_id: str, need: Need, project_id: str, user_id: str, avoid: Sequence[str]) -> Claim:
        held = await self._world.store.read(lambda tx: self._held(tx, consumer_id))
        if held is not None:
            return held
        held_by = await self._held_by((*need.same_host_as, *need.different_host_from))
        for _ in range(TRIES_MAX):
            snapshot = await self.snapshot()
            choice = choose(need, snapshot, self._world.dice, avoid=avoid, held_by=held_by, silent=self._silent())
            if choice.host is None:
                await self._refuse(consumer_id, project_id, need, choice)
            host = choice.host
            assert host is not None
            snapshot.reserve(host.id, need.resources)
            try:
                return await self._commit(consumer_id, need, project_id, user_id, choice, host)
            except (Conflict, NotFound):
                await self.refresh([host.id])
        raise NoRoom(
            "placement.contended",
            f"Others were quicker {TRIES_MAX} times in a row: there is next to no room left.",
        )

    async def _commit(
        self, consumer_id: str, need: Need, project_id: str, user_id: str, choice: Choice, host: HostRow
    ) -> Claim:
        row = ClaimRow(
            id=consumer_id,
            host_id=host.id,
            allocations={host.id: need.resources},
            project_id=project_id,
            user_id=user_id,
            consumer_type="INSTANCE",
        )

        def work(tx: Transaction) -> tuple[Claim, dict[str, HostRow]]:
            held = self._held(tx, consumer_id)
            if held is not None:
                return held, {}
            now = HOSTS.require(tx, host.id)
            if not now.enabled or now.traits != host.traits:
                raise Conflict("placement.host_changed", f"The host {host.name} is not as it was when it was chosen.")
            after = store.replace_claim(tx, consumer_id, row)
            store.explain(tx, self._explanation(tx, consumer_id, project_id, need, choice))
            return Claim(consumer_id=consumer_id, host=host.name, host_id=host.id, resources=need.resources), after

        claim, after = await self._world.store.write(work)
        self._take_in(after)
        return claim

    async def _refuse(self, consumer_id: str, project_id: str, need: Need, choice: Choice) -> None:
        """Keep the explanation, and raise NoRoom with it."""

        def work(tx: Transaction) -> None:
            store.explain(tx, self._explanation(tx, consumer_id, project_id, need, choice))
            store.forget_old_explanations(tx)

        await self._world.store.write(work)
        turned = "; ".join(f"{item.filter} turned away {item.hosts} ({item.hint})" for item in choice.refusals)
        fit = f" What would have fitted: {choice.would_fit}." if choice.would_fit else ""
        raise NoRoom(
            "placement.no_room",
            f"No valid host was found. {choice.hosts_seen} hosts were looked at: {turned or 'there is none'}.{fit}",
            details={
                "hosts_seen": choice.hosts_seen,
                "refusals": [{"filter": r.filter, "hosts": r.hosts, "hint": r.hint} for r in choice.refusals],
                "would_fit": choice.would_fit,
            },
        )

    def _explanation(
        self, tx: Transaction, consumer_id: str, project_id: str, need: Need, choice: Choice
    ) -> ExplanationRow:
        return ExplanationRow(
            id=consumer_id,
            project_id=project_id,
            at_s=tx.now_s,
            need=need,
            hosts_seen=choice.hosts_seen,
            chosen=choice.host.name if choice.host else None,
            refusals=choice.refusals,
            would_fit=choice.would_fit,
        )

    async def release(self, consumer_id: str) -> None:
        self._take_in(await self._world.store.write(lambda tx: store.replace_claim(tx, consumer_id, None)))

    async def report_host(self, report: HostReport) -> None:
        def work(tx: Transaction) -> HostRow:
            store.heard(tx, report.host)
            known = HOSTS.get(tx, report.host_id)
            if known is None:
                known = HOSTS.insert(tx, HostRow(id=report.host_id, name=report.host, is_host=True))
            new = changed(
                known,
                name=report.host,
                availability_zone=report.availability_zone,
                inventories=report.inventories,
                traits=tuple(sorted({*report.traits, *(t for t in known.traits if t.startswith("CUSTOM_"))})),
                is_host=True,
            )
            return known if new == known else HOSTS.put(tx, new)

        self._take_in({report.host_id: await self._world.store.write(work)})
        self._heard[report.host] = self._world.clock.now_s()

    async def host_heard(self, host: str) -> None:
        await self._world.store.write(lambda tx: store.heard(tx, host))
        self._heard[host] = self._world.clock.now_s()

    async def hosts(self) -> Sequence[Host]:
        def work(tx: Transaction) -> list[Host]:
            heard = store.heard_at(tx)
            return [
                Host(
                    id=row.id,
                    name=row.name,
                    availability_zone=row.availability_zone,
                    inventories=row.inventories,
                    used=row.used,
                    traits=row.traits,
                    enabled=row.enabled,
                    disabled_reason=row.disabled_reason,
                    heard_at_s=heard.get(row.name, 0.0),
                )
                for row in sorted(HOSTS.find(tx), key=lambda row: row.name)
                if row.is_host
            ]

        return await self._world.store.read(work)

    async def enable_host(self, host: str, enabled: bool, reason: str | None) -> None:
        def work(tx: Transaction) -> HostRow:
            row = HOSTS.first(tx, name=host)
            if row is None:
                raise NotFound("placement.host_not_found", f"There is no host {host}.")
            return HOSTS.put(tx, changed(row, enabled=enabled, disabled_reason=None if enabled else reason))

        row = await self._world.store.write(work)
        self._take_in({row.id: row})

    async def claims(self) -> Sequence[Claim]:
        def work(tx: Transaction) -> list[Claim]:
            names = {row.id: row.name for row in HOSTS.find(tx)}
            return [_claim(row, names.get(row.host_id, "")) for row in CLAIMS.find(tx)]

        return await self._world.store.read(work)

    async def explain(self, subject_id: str) -> Explanation | None:
        row = await self._world.store.read(lambda tx: EXPLANATIONS.get(tx, subject_id))
        if row is None:
            return None
        return Explanation(
            subject_id=row.id,
            project_id=row.project_id,
            at_s=row.at_s,
            need=row.need,
            hosts_seen=row.hosts_seen,
            chosen=row.chosen,
            refusals=row.refusals,
            would_fit=row.would_fit,
        )

    # ------------------------------------------------------------------ for the API room
    async def change(self, work: Callable[[Transaction], tuple[T, dict[str, HostRow]]]) -> T:
        """Run a change of providers; what it returns beside its result is taken into the snapshot."""
        result, after = await self._world.store.write(work)
        self._take_in(after)
        return result

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self._world.store.read(work)

    def dropped(self, host_id: str) -> None:
        if self._snapshot is not None:
            self._snapshot.drop(host_id)

    async def snapshot(self) -> Snapshot:
        """The view in memory.  Other nodes' changes come with `refresh` (a loop calls it, and every conflict)."""
        if self._snapshot is None:
            await self.refresh()
        assert self._snapshot is not None
        return self._snapshot

    async def refresh(self, host_ids: Sequence[str] | None = None) -> None:
        """Read again: these hosts, or all."""

        def work(tx: Transaction) -> tuple[list[HostRow], Mapping[str, float]]:
            where = {} if host_ids is None else {"id": list(host_ids)}
            return HOSTS.find(tx, **where), {} if host_ids is not None else store.heard_at(tx)

        rows, heard = await self._world.store.read(work)
        if host_ids is None or self._snapshot is None:
            self._snapshot = Snapshot(rows)
            self._heard.update(heard)
            return
        found = {row.id: row for row in rows}
        for host_id in host_ids:
            self._snapshot.drop(host_id) if host_id not in found else self._snapshot.put(found[host_id])

    # ------------------------------------------------------------------ inside
    def _take_in(self, rows: Mapping[str, HostRow]) -> None:
        if self._snapshot is not None:
            for row in rows.values():
                self._snapshot.put(row)

    def _silent(self) -> frozenset[str]:
        late_s = self._world.clock.now_s() - SILENT_AFTER_S
        return frozenset(name for name, at_s in self._heard.items() if at_s < late_s)

    def _held(self, tx: Transaction, consumer_id: str) -> Claim | None:
        row = CLAIMS.get(tx, consumer_id)
        if row is None:
            return None
        return _claim(row, HOSTS.require(tx, row.host_id).name)

    async def _held_by(self, consumers: Sequence[str]) -> dict[str, str]:
        if not consumers:
            return {}
        rows = await self._world.store.read(lambda tx: CLAIMS.find(tx, id=list(consumers)))
        return {row.id: row.host_id for row in rows}


class RefreshLoop:
    """Takes in what other nodes changed, and who fell silent."""

    name = "placement-refresh"
    period_s = 10.0

    def __init__(self, placement: Placement) -> None:
        self._placement = placement

    async def keys(self) -> Sequence[str]:
        return ("all",)

    async def settle(self, key: str) -> None:
        await self._placement.refresh()


def _claim(row: ClaimRow, host: str) -> Claim:
    return Claim(consumer_id=row.id, host=host, host_id=row.host_id, resources=row.allocations.get(row.host_id, {}))


__all__ = ["Placement", "Refusal", "RefreshLoop"]

"""The row of a flow: which saga, how far, whose lease.  An operation, as users see it, is this row.

All writes by a runner are conditional on its epoch: a runner that was taken over can change nothing any more.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from apus.kernel import limits
from apus.kernel.errors import Conflict, NotFound
from apus.kernel.record import encode
from apus.kernel.sql import Column, Table, Taken, where
from apus.kernel.table import metadata
from apus.kernel.world import Transaction


class Mark(enum.StrEnum):
    STARTED = "started"
    DONE = "done"
    REFUSED = "refused"
    UNDOING = "undoing"
    UNDONE = "undone"


class FlowState(enum.StrEnum):
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    UNWOUND = "unwound"
    STUCK = "stuck"

    @property
    def live(self) -> bool:
        return self in (FlowState.RUNNING, FlowState.WAITING, FlowState.STUCK)


class LogEntry(msgspec.Struct, frozen=True, omit_defaults=True):
    step: str
    mark: Mark
    at_s: float
    output: Any = None
    reason: str | None = None


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    saga: str
    version: int
    resource_type: str
    resource_id: str
    project_id: str | None = None
    user_id: str | None = None
    request_id: str = ""
    state: FlowState = FlowState.RUNNING
    live_key: str | None = None
    owner: str | None = None
    epoch: int = 1
    lease_until_s: float = 0.0
    wake_key: str | None = None
    wake_at_s: float | None = None
    attempts: int = 0
    created_at_s: float = 0.0
    finished_at_s: float | None = None
    reason: str | None = None
    """Why it unwinds, unwound, or is stuck."""
    input: msgspec.Raw = msgspec.Raw(b"{}")
    log: tuple[LogEntry, ...] = ()
    cancelled: bool = False
    """Asked from outside to unwind; a column that only `cancel` writes."""

    def last_mark(self, step: str) -> Mark | None:
        for entry in reversed(self.log):
            if entry.step == step:
                return entry.mark
        return None

    def output(self, step: str) -> Any:
        for entry in reversed(self.log):
            if entry.step == step and entry.mark is Mark.DONE:
                return entry.output
        return None

    def began_at_s(self, step: str) -> float:
        for entry in self.log:
            if entry.step == step:
                return entry.at_s
        return self.created_at_s

    @property
    def unwinding(self) -> bool:
        return any(entry.mark in (Mark.REFUSED, Mark.UNDOING, Mark.UNDONE) for entry in self.log)


FLOWS: Final = metadata.add(
    Table(
        "flow",
        (
            Column("id", "text"),
            Column("saga", "text"),
            Column("version", "integer"),
            Column("resource_type", "text"),
            Column("resource_id", "text"),
            Column("project_id", "text", nullable=True),
            Column("state", "text"),
            Column("live_key", "text", nullable=True),
            Column("owner", "text", nullable=True),
            Column("epoch", "integer"),
            Column("lease_until_s", "real"),
            Column("wake_key", "text", nullable=True),
            Column("wake_at_s", "real", nullable=True),
            Column("created_at_s", "real"),
            Column("cancelled", "boolean"),
            Column("body", "bytes"),
        ),
        unique=(("live_key",),),
        indexes=(("state", "wake_at_s"), ("resource_id",), ("wake_key",)),
    )
)

_COLUMNS: Final = tuple(column.name for column in FLOWS.columns if column.name not in ("body", "cancelled"))
_decode = msgspec.json.Decoder(Flow).decode
_INSERT: Final = FLOWS.insert()
_UPDATE: Final = (
    f"UPDATE flow SET {', '.join(f'{name} = :{name}' for name in _COLUMNS if name != 'id')}, body = :body"  # noqa: S608
    " WHERE id = :id AND epoch = :seen_epoch RETURNING cancelled"
)
_SELECT: Final = "SELECT body, cancelled, epoch, owner, lease_until_s FROM flow"


class Superseded(Exception):
    """Another runner has this flow now: stop, and touch nothing."""


def _flow(row: Any) -> Flow:
    body, cancelled, epoch, owner, lease_until_s = row
    return msgspec.structs.replace(
        _decode(body), cancelled=bool(cancelled), epoch=epoch, owner=owner, lease_until_s=lease_until_s
    )


def _flows(tx: Transaction, rest: str, **parameters: Any) -> list[Flow]:
    return [_flow(row) for row in tx.execute(f"{_SELECT} {rest}", parameters)]


def insert_flow(tx: Transaction, flow: Flow) -> None:
    """Raise Conflict when the resource has a live flow of this kind already."""
    row = {name: getattr(flow, name) for name in _COLUMNS}
    try:
        tx.execute(_INSERT, {**row, "cancelled": False, "body": encode(flow)})
    except Taken as error:
        raise Conflict(
            "flow.busy",
            f"The {flow.resource_type} {flow.resource_id} is busy with another operation; wait until it has ended.",
        ) from error


def save_flow(tx: Transaction, flow: Flow, *, seen_epoch: int) -> Flow:
    """Write the runner's view back; returns it with what the others wrote.  Raise Superseded."""
    row = {name: getattr(flow, name) for name in _COLUMNS}
    cancelled = tx.execute(_UPDATE, {**row, "body": encode(flow), "seen_epoch": seen_epoch}).scalar()
    if cancelled is None:
        raise Superseded(flow.id)
    return msgspec.structs.replace(flow, cancelled=bool(cancelled))


def load_flow(tx: Transaction, id: str) -> Flow:
    """Raise NotFound.  (`id` may be a client's word: PostgreSQL takes no NUL in a text.)"""
    id = id.replace("\0", "?")
    found = _flows(tx, "WHERE id = :id", id=id)
    if not found:
        raise NotFound("operation.not_found", f"There is no operation {id}.")
    return found[0]


def require_epoch(tx: Transaction, id: str, epoch: int) -> None:
    """Raise Superseded unless the flow is still at this epoch."""
    if tx.execute("SELECT epoch FROM flow WHERE id = :id", {"id": id}).scalar() != epoch:
        raise Superseded(id)


def flows_of(tx: Transaction, resource_id: str) -> Sequence[Flow]:
    """All flows of a resource, oldest first."""
    return _flows(tx, "WHERE resource_id = :resource_id ORDER BY created_at_s", resource_id=resource_id)


def live_flow(tx: Transaction, live_key: str) -> Flow | None:
    found = _flows(tx, "WHERE live_key = :live_key", live_key=live_key)
    return found[0] if found else None


def live_flows(tx: Transaction, resource_ids: Sequence[str]) -> dict[str, list[Flow]]:
    """Live flows by resource id, oldest first, for those that have any."""
    text, parameters = where({"resource_id": resource_ids})
    found: dict[str, list[Flow]] = {}
    for flow in _flows(tx, f"{text} AND live_key IS NOT NULL ORDER BY created_at_s", **parameters):
        found.setdefault(flow.resource_id, []).append(flow)
    return found


def cancel_flow(tx: Transaction, live_key: str) -> Flow | None:
    """Ask the live flow with this key to unwind (past its pivot it will finish).  None if there is none."""
    flow = live_flow(tx, live_key)
    if flow is not None:
        tx.execute("UPDATE flow SET cancelled = :yes, wake_at_s = 0.0 WHERE id = :id", {"yes": True, "id": flow.id})
    return flow


def due_flows(tx: Transaction, now_s: float, limit: int) -> Sequence[Flow]:
    """Flows that want a runner: parked ones whose time has come, and running ones whose lease is over.

    Nothing is parked or leased for as long as `FLOW_AHEAD_S`: a time beyond that is from before the clock went back.
    """
    return _flows(
        tx,
        "WHERE (state = 'waiting' AND (wake_at_s <= :now_s OR wake_at_s > :never_s))"
        " OR (state = 'running' AND (lease_until_s < :now_s OR lease_until_s > :never_s))"
        f" ORDER BY created_at_s LIMIT {int(limit)}",
        now_s=now_s,
        never_s=now_s + limits.FLOW_AHEAD_S,
    )


def parked_on(tx: Transaction, wake_key: str) -> Sequence[Flow]:
    return _flows(tx, "WHERE wake_key = :wake_key AND state = 'waiting'", wake_key=wake_key)


def waiting_flow(tx: Transaction, id: str) -> Sequence[Flow]:
    """The flow, if it is parked: none or one."""
    return _flows(tx, "WHERE id = :id AND state = 'waiting'", id=id)


def take_flow(tx: Transaction, flow: Flow, owner: str, lease_until_s: float) -> Flow | None:
    """Lease a flow, raising its epoch; None when another runner was quicker.

    Nothing in it began later than now: a clock that went back does not make a wait longer.
    """
    log = tuple(msgspec.structs.replace(entry, at_s=min(entry.at_s, tx.now_s)) for entry in flow.log)
    taken = msgspec.structs.replace(
        flow,
        log=log,
        owner=owner,
        epoch=flow.epoch + 1,
        lease_until_s=lease_until_s,
        state=FlowState.RUNNING,
        wake_key=None,
        wake_at_s=None,
    )
    try:
        return save_flow(tx, taken, seen_epoch=flow.epoch)
    except Superseded:
        return None


def renew_leases(tx: Transaction, owner: str, ids: Sequence[str], lease_until_s: float) -> None:
    """Keep these: not one that its runner has put down, which somebody shall take up."""
    text, parameters = where({"owner": owner, "state": "running", "id": ids})
    tx.execute(f"UPDATE flow SET lease_until_s = :until{text}", {**parameters, "until": lease_until_s})  # noqa: S608


def owned_flows(tx: Transaction, owner: str, ids: Collection[str]) -> Sequence[Flow]:
    """Those of these flows that are still this runner's."""
    text, parameters = where({"owner": owner, "state": "running", "id": sorted(ids)})
    return _flows(tx, text, **parameters)


def orphan_leases(tx: Transaction, node: str, owner: str) -> None:
    """At the start of a node: its former process is dead, so what that one leased is free now."""
    tx.execute(
        "UPDATE flow SET lease_until_s = 0.0"
        " WHERE substr(owner, 1, :length) = :former AND owner <> :owner AND state = 'running'",
        {"length": len(node) + 1, "former": f"{node}:", "owner": owner},
    )


def count_flows(tx: Transaction, state: FlowState) -> int:
    return int(tx.execute("SELECT count(*) FROM flow WHERE state = :state", {"state": state.value}).scalar())


def page_flows(
    tx: Transaction, *, project_id: str | None, state: FlowState | None, resource_id: str | None, limit: int
) -> Sequence[Flow]:
    """Newest first."""
    asked = {"project_id": project_id, "state": state and state.value, "resource_id": resource_id}
    text, parameters = where({name: value for name, value in asked.items() if value is not None})
    return _flows(tx, f"{text} ORDER BY created_at_s DESC, id LIMIT {int(limit)}", **parameters)


def purge_flows(tx: Transaction, finished_before_s: float) -> int:
    """Forget flows that ended before then; returns how many."""
    done = tx.execute(
        "DELETE FROM flow WHERE state IN ('succeeded', 'unwound') AND created_at_s < :before",
        {"before": finished_before_s},
    )
    return int(done.rowcount)

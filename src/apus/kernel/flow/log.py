"""The row of a flow: which saga, how far, whose lease.  An operation, as users see it, is this row.

All writes by a runner are conditional on its epoch: a runner that was taken over can change nothing any more.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from apus.kernel.errors import Conflict, NotFound
from apus.kernel.record import encode
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


FLOWS: Final = sa.Table(
    "flow",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("saga", sa.String, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("resource_type", sa.String, nullable=False),
    sa.Column("resource_id", sa.String, nullable=False),
    sa.Column("project_id", sa.String),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("live_key", sa.String, unique=True),
    sa.Column("owner", sa.String),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("lease_until_s", sa.Double, nullable=False),
    sa.Column("wake_key", sa.String),
    sa.Column("wake_at_s", sa.Double),
    sa.Column("created_at_s", sa.Double, nullable=False),
    sa.Column("cancelled", sa.Boolean, nullable=False, default=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Index("ix_flow_state_wake_at_s", "state", "wake_at_s"),
    sa.Index("ix_flow_resource_id", "resource_id"),
    sa.Index("ix_flow_wake_key", "wake_key"),
)

_COLUMNS: Final = tuple(column.name for column in FLOWS.columns if column.name not in ("body", "cancelled"))
_decode = msgspec.json.Decoder(Flow).decode
_c = FLOWS.c
_insert = FLOWS.insert()
_update = (
    FLOWS.update().where(_c.id == sa.bindparam("id_"), _c.epoch == sa.bindparam("seen_epoch")).returning(_c.cancelled)
)
_select = sa.select(_c.body, _c.cancelled, _c.epoch, _c.owner, _c.lease_until_s)
_by_id = _select.where(_c.id == sa.bindparam("id_"))
_LIVE: Final = [FlowState.RUNNING.value, FlowState.WAITING.value]


class Superseded(Exception):
    """Another runner has this flow now: stop, and touch nothing."""


def _flow(row: Any) -> Flow:
    flow = _decode(row.body)
    return msgspec.structs.replace(
        flow, cancelled=row.cancelled, epoch=row.epoch, owner=row.owner, lease_until_s=row.lease_until_s
    )


def insert_flow(tx: Transaction, flow: Flow) -> None:
    """Raise Conflict when the resource has a live flow of this kind already."""
    row = {name: getattr(flow, name) for name in _COLUMNS}
    try:
        tx.execute(_insert, {**row, "cancelled": False, "body": encode(flow)})
    except IntegrityError as error:
        raise Conflict(
            "flow.busy",
            f"The {flow.resource_type} {flow.resource_id} is busy with another operation; wait until it has ended.",
        ) from error


def save_flow(tx: Transaction, flow: Flow, *, seen_epoch: int) -> Flow:
    """Write the runner's view back; returns it with what the others wrote.  Raise Superseded."""
    row = {name: getattr(flow, name) for name in _COLUMNS if name != "id"}
    values = {**row, "body": encode(flow), "id_": flow.id, "seen_epoch": seen_epoch}
    cancelled = tx.execute(_update, values).scalar()
    if cancelled is None:
        raise Superseded(flow.id)
    return msgspec.structs.replace(flow, cancelled=bool(cancelled))


def load_flow(tx: Transaction, id: str) -> Flow:
    row = tx.execute(_by_id, {"id_": id}).first()
    if row is None:
        raise NotFound("operation.not_found", f"There is no operation {id}.")
    return _flow(row)


def flows_of(tx: Transaction, resource_id: str) -> Sequence[Flow]:
    """All flows of a resource, oldest first."""
    return [_flow(row) for row in tx.execute(_select.where(_c.resource_id == resource_id).order_by(_c.created_at_s))]


def live_flow(tx: Transaction, live_key: str) -> Flow | None:
    row = tx.execute(_select.where(_c.live_key == live_key)).first()
    return None if row is None else _flow(row)


def live_flows(tx: Transaction, resource_ids: Sequence[str]) -> dict[str, list[Flow]]:
    """Live flows by resource id, oldest first, for those that have any."""
    found: dict[str, list[Flow]] = {}
    statement = _select.where(_c.resource_id.in_(resource_ids), _c.live_key.is_not(None)).order_by(_c.created_at_s)
    for row in tx.execute(statement):
        flow = _flow(row)
        found.setdefault(flow.resource_id, []).append(flow)
    return found


def cancel_flow(tx: Transaction, live_key: str) -> Flow | None:
    """Ask the live flow with this key to unwind (past its pivot it will finish).  None if there is none."""
    flow = live_flow(tx, live_key)
    if flow is not None:
        tx.execute(FLOWS.update().where(_c.id == flow.id).values(cancelled=True, wake_at_s=0.0))
    return flow


def due_flows(tx: Transaction, now_s: float, owner: str, limit: int) -> Sequence[Flow]:
    """Flows that want a runner: parked ones whose time has come, and running ones whose lease is over."""
    statement = (
        _select.where(
            _c.state.in_(_LIVE),
            sa.or_(
                sa.and_(_c.state == FlowState.WAITING.value, _c.wake_at_s <= now_s),
                sa.and_(_c.state == FlowState.RUNNING.value, _c.lease_until_s < now_s),
            ),
        )
        .order_by(_c.created_at_s)
        .limit(limit)
    )
    return [_flow(row) for row in tx.execute(statement)]


def parked_on(tx: Transaction, wake_key: str) -> Sequence[Flow]:
    statement = _select.where(_c.wake_key == wake_key, _c.state == FlowState.WAITING.value)
    return [_flow(row) for row in tx.execute(statement)]


def waiting_flow(tx: Transaction, id: str) -> Sequence[Flow]:
    """The flow, if it is parked: none or one."""
    return [_flow(row) for row in tx.execute(_by_id.where(_c.state == FlowState.WAITING.value), {"id_": id})]


def take_flow(tx: Transaction, flow: Flow, owner: str, lease_until_s: float) -> Flow | None:
    """Lease a flow, raising its epoch; None when another runner was quicker."""
    taken = msgspec.structs.replace(
        flow,
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


def renew_leases(tx: Transaction, owner: str, lease_until_s: float) -> None:
    tx.execute(
        FLOWS.update().where(_c.owner == owner, _c.state == FlowState.RUNNING.value).values(lease_until_s=lease_until_s)
    )


def orphan_leases(tx: Transaction, node: str, owner: str) -> None:
    """At the start of a node: its former process is dead, so what that one leased is free now."""
    tx.execute(
        FLOWS.update()
        .where(_c.owner.like(f"{node}:%"), _c.owner != owner, _c.state == FlowState.RUNNING.value)
        .values(lease_until_s=0.0)
    )


def count_flows(tx: Transaction, state: FlowState) -> int:
    return int(tx.execute(sa.select(sa.func.count()).select_from(FLOWS).where(_c.state == state.value)).scalar())


def page_flows(
    tx: Transaction, *, project_id: str | None, state: FlowState | None, resource_id: str | None, limit: int
) -> Sequence[Flow]:
    """Newest first."""
    statement = _select.order_by(_c.created_at_s.desc(), _c.id).limit(limit)
    for column, value in ((_c.project_id, project_id), (_c.state, state), (_c.resource_id, resource_id)):
        if value is not None:
            statement = statement.where(column == value)
    return [_flow(row) for row in tx.execute(statement)]


def purge_flows(tx: Transaction, finished_before_s: float) -> int:
    """Forget flows that ended before then; returns how many."""
    ended = [FlowState.SUCCEEDED.value, FlowState.UNWOUND.value]
    done = tx.execute(FLOWS.delete().where(_c.state.in_(ended), _c.created_at_s < finished_before_s))
    return int(done.rowcount)

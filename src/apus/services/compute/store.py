"""The tables of compute, and the few changes that several rooms make in the same way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from apus.kernel.record import changed
from apus.kernel.sql import Column, Table
from apus.kernel.table import RecordTable, metadata
from apus.kernel.world import Transaction
from apus.services.compute.contract import Power
from apus.services.compute.model import (
    Action,
    ActionEvent,
    Aggregate,
    Flavor,
    Group,
    HostNumber,
    Incarnation,
    Keypair,
    Quota,
    Server,
)

SERVERS: Final = RecordTable(
    "compute_server",
    Server,
    columns=(
        "project_id", "user_id", "name", "deleted", "host", "vcpus", "memory_mib", "created_at_s", "updated_at_s",
        "reservation_id", "group_id",
    ),
    indexes=(
        ("project_id", "deleted", "vcpus", "memory_mib"),
        ("project_id", "created_at_s"),
        ("host", "deleted"),
        ("group_id", "deleted"),
        ("deleted", "updated_at_s"),
    ),
)  # fmt: skip
INCARNATIONS: Final = RecordTable(
    "compute_incarnation",
    Incarnation,
    columns=("server_id", "host", "seq"),
    indexes=(("server_id",), ("host", "seq")),
)
FLAVORS: Final = RecordTable("compute_flavor", Flavor, columns=("name",), unique=(("name",),))
KEYPAIRS: Final = RecordTable("compute_keypair", Keypair, columns=("user_id", "name"), indexes=(("user_id",),))
GROUPS: Final = RecordTable(
    "compute_group", Group, columns=("project_id", "user_id", "name"), indexes=(("project_id",),)
)
AGGREGATES: Final = RecordTable(
    "compute_aggregate", Aggregate, columns=("number", "name"), unique=(("number",), ("name",))
)
QUOTAS: Final = RecordTable("compute_quota", Quota)
HOST_NUMBERS: Final = RecordTable(
    "compute_host_number", HostNumber, columns=("host", "number"), unique=(("host",), ("number",))
)
ACTIONS: Final = RecordTable(
    "compute_action", Action, columns=("server_id", "request_id", "started_at_s"), indexes=(("server_id",),)
)

SEQS: Final = metadata.add(Table("compute_seq", (Column("host", "text"), Column("seq", "integer")), key=("host",)))
"""The newest number given to a wish of each host.  Never goes back, also when wishes are forgotten."""
_RAISE_SEQ: Final = "UPDATE compute_seq SET seq = seq + 1 WHERE host = :host RETURNING seq"
_USAGE: Final = (
    "SELECT count(*), coalesce(sum(vcpus), 0), coalesce(sum(memory_mib), 0) FROM compute_server"
    " WHERE project_id = :project_id AND deleted = :no"
)
_WANTED_SINCE: Final = "SELECT body FROM compute_incarnation WHERE host = :host AND seq > :since ORDER BY seq"


def next_seq(tx: Transaction, host: str) -> int:
    seq = tx.execute(_RAISE_SEQ, {"host": host}).scalar()
    if seq is None:
        tx.execute(SEQS.insert(), {"host": host, "seq": 1})
        return 1
    return int(seq)


def usage(tx: Transaction, project_id: str) -> tuple[int, int, int]:
    """Servers, vCPUs and MiB of memory of a project: counted from the rows, so it cannot be wrong."""
    row = tx.execute(_USAGE, {"project_id": project_id, "no": False}).first()
    assert row is not None, "an aggregate has a row"
    return int(row[0]), int(row[1]), int(row[2])


def want(tx: Transaction, incarnation: Incarnation, **fields: Any) -> Incarnation:
    """Change what is wanted of an incarnation, under a new number that its host has not seen."""
    return INCARNATIONS.put(tx, changed(incarnation, seq=next_seq(tx, incarnation.host), **fields))


def retire(tx: Transaction, server_id: str) -> list[Incarnation]:
    """Want every incarnation of the server gone; returns those whose host has not said so yet."""
    left = []
    for incarnation in INCARNATIONS.find(tx, server_id=server_id):
        if incarnation.power is not Power.GONE:
            incarnation = want(tx, incarnation, power=Power.GONE, hard=True)
        if not incarnation.gone:
            left.append(incarnation)
    return left


def begin_action(
    tx: Transaction,
    server: Server,
    action: str,
    *,
    user_id: str,
    project_id: str | None,
    request_id: str,
    id: str,
    flow_id: str | None = None,
    seq: int = 0,
    finished: bool = False,
) -> None:
    event = ActionEvent(
        name=f"compute_{action}_server",
        started_at_s=tx.now_s,
        finished_at_s=tx.now_s if finished else None,
        result="Success" if finished else None,
        host=server.host,
    )
    ACTIONS.insert(
        tx,
        Action(
            id=id,
            server_id=server.id,
            request_id=request_id,
            action=action,
            user_id=user_id,
            project_id=project_id,
            started_at_s=tx.now_s,
            updated_at_s=tx.now_s,
            flow_id=flow_id,
            seq=seq,
            finished=finished,
            events=(event,),
        ),
    )


def end_actions(
    tx: Transaction, server: Server, *, seq: int | None = None, action: str | None = None, error: str | None = None
) -> None:
    """Close the open actions of a server: all up to this wish, or those of this name."""
    for open_ in ACTIONS.find(tx, server_id=server.id):
        if open_.finished or (action is not None and open_.action != action):
            continue
        if seq is not None and not 0 < open_.seq <= seq:
            continue
        events = tuple(
            event
            if event.finished_at_s is not None
            else ActionEvent(
                name=event.name,
                started_at_s=event.started_at_s,
                finished_at_s=tx.now_s,
                result="Error" if error else "Success",
                host=server.host,
                details=error,
            )
            for event in open_.events
        )
        message = "Error" if error else None
        ACTIONS.put(tx, changed(open_, finished=True, updated_at_s=tx.now_s, message=message, events=events))


def wanted_since(tx: Transaction, host: str, since: int, limit: int) -> Sequence[Incarnation]:
    """What changed for a host after `since`, oldest first; of everything (0) not what is over."""
    cut = f" LIMIT {int(limit)}" if since else ""
    found = tx.execute(_WANTED_SINCE + cut, {"host": host, "since": since})
    rows = [INCARNATIONS.decode(body) for (body,) in found]
    return rows if since else [row for row in rows if not row.gone][:limit]

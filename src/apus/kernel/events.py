"""Events: what changed, written in the transaction that changed it.

The table is the truth; a hint on the bus (`event.PROJECT`, `subject_of`) only shortens the wait of those who follow it.

Who reads on from a cursor misses nothing.  SQLite has one writer, so that numbers are drawn in the order of commits.
On PostgreSQL an event that was numbered first may be committed last: there the number begins with that of its
transaction, and only what is older than every transaction that still runs is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from apus.kernel.caller import Caller
from apus.kernel.record import encode
from apus.kernel.sql import Column, Table
from apus.kernel.table import metadata
from apus.kernel.world import Transaction


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One change.  `kind` is `service.noun.verb`; `seq` is the cursor, raised by the store."""

    kind: str
    resource_id: str
    project_id: str | None
    at_s: float
    seq: int = 0
    user_id: str | None = None
    request_id: str = ""
    operation_id: str | None = None
    details: dict[str, Any] = {}


EVENTS: Final = metadata.add(
    Table(
        "event",
        (
            Column("seq", "integer", serial=True),
            Column("project_id", "text", nullable=True),
            Column("resource_id", "text"),
            Column("at_s", "real"),
            Column("body", "bytes"),
        ),
        indexes=(("project_id", "seq"), ("resource_id", "seq")),
    )
)

BASE: Final = metadata.add(Table("event_base", (Column("id", "text"), Column("base", "integer"))))
"""Added to PostgreSQL's transaction numbers, which begin again when a dump is restored into a new database."""
_ORDER_BITS: Final = 20
"""Of a number on PostgreSQL: the order within a transaction, from a sequence (which wraps once in a million)."""
_BASE: Final = "coalesce((SELECT base FROM event_base WHERE id = 'base'), 0)"
_HORIZON: Final = f"((pg_snapshot_xmin(pg_current_snapshot())::text::bigint + {_BASE}) << {_ORDER_BITS})"
_NUMBER: Final = (
    f"((pg_current_xact_id()::text::bigint + {_BASE}) << {_ORDER_BITS})"
    f" | (nextval(pg_get_serial_sequence('event', 'seq')) & {(1 << _ORDER_BITS) - 1})"
)
_INSERT: Final = {
    "sqlite": EVENTS.insert(),
    "postgresql": (
        "INSERT INTO event (seq, project_id, resource_id, at_s, body)"  # noqa: S608 - names of ours
        f" VALUES ({_NUMBER}, :project_id, :resource_id, :at_s, :body)"
    ),
}
_decode = msgspec.json.Decoder(Event).decode


def subject_of(project_id: str | None) -> str:
    """What is said on the bus when an event of the project was written; `event.>` hears them all."""
    word = "_" if project_id is None else "".join(one if one.isalnum() or one == "-" else "_" for one in project_id)
    return f"event.{word}"


def emit(
    tx: Transaction,
    kind: str,
    resource_id: str,
    project_id: str | None,
    *,
    caller: Caller | None = None,
    operation_id: str | None = None,
    **details: Any,
) -> None:
    """Write an event in this transaction, and wake those who follow the project's."""
    event = Event(
        kind=kind,
        resource_id=resource_id,
        project_id=project_id,
        at_s=tx.now_s,
        user_id=caller.user_id if caller else None,
        request_id=caller.request_id if caller else "",
        operation_id=operation_id,
        details=details,
    )
    tx.execute(
        _INSERT[tx.dialect],
        {"project_id": project_id, "resource_id": resource_id, "at_s": event.at_s, "body": encode(event)},
    )
    tx.hint(subject_of(project_id))


def events_after(
    tx: Transaction,
    seq: int,
    *,
    project_id: str | None = None,
    resource_id: str | None = None,
    limit: int = 500,
) -> Sequence[Event]:
    """Events past the cursor, oldest first; of one project unless `project_id` is None."""
    statement = "SELECT seq, body FROM event WHERE seq > :seq"
    if tx.dialect == "postgresql":
        statement += f" AND seq < {_HORIZON}"
    parameters: dict[str, Any] = {"seq": seq}
    if project_id is not None:
        statement += " AND project_id = :project_id"
        parameters["project_id"] = project_id
    if resource_id is not None:
        statement += " AND resource_id = :resource_id"
        parameters["resource_id"] = resource_id
    rows = tx.execute(f"{statement} ORDER BY seq LIMIT {int(limit)}", parameters)
    return [msgspec.structs.replace(_decode(body), seq=seq) for seq, body in rows]


def last_seq(tx: Transaction) -> int:
    """The cursor of who wants only what is committed from now on (and, on PostgreSQL, perhaps a little more)."""
    if tx.dialect == "postgresql":
        return int(tx.execute(f"SELECT {_HORIZON} - 1").scalar())
    return int(tx.execute("SELECT max(seq) FROM event").scalar() or 0)


def keep_numbers_rising(tx: Transaction) -> None:
    """At the start of a control node: after a restore, new events still come after the restored ones."""
    if tx.dialect != "postgresql":
        return
    number = f"SELECT pg_current_xact_id()::text::bigint + {_BASE}, max(seq) >> {_ORDER_BITS} FROM event"  # noqa: S608
    row = tx.execute(number).first()
    assert row is not None, "an aggregate has a row"
    now, newest = row[0], row[1]
    if newest is not None and newest >= now:
        base = int(tx.execute(f"SELECT {_BASE}").scalar()) + newest - now + 1
        tx.execute("DELETE FROM event_base")
        tx.execute(BASE.insert(), {"id": "base", "base": base})

"""Events: what changed, written in the transaction that changed it.

The table is the truth; a hint on the bus (`event.PROJECT`) only shortens the wait of those who follow it.
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

_insert = EVENTS.insert()
_decode = msgspec.json.Decoder(Event).decode


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
    """Write an event in this transaction."""
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
        _insert,
        {"project_id": project_id, "resource_id": resource_id, "at_s": event.at_s, "body": encode(event)},
    )


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
    return int(tx.execute("SELECT max(seq) FROM event").scalar() or 0)

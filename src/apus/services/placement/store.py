"""The tables of placement.  A claim and the use of its host change in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa

from apus.kernel.errors import Conflict
from apus.kernel.record import changed
from apus.kernel.table import RecordTable, metadata
from apus.kernel.world import Transaction
from apus.services.placement.logic.fit import misfit
from apus.services.placement.model import ClaimRow, ExplanationRow, HostRow, NameRow

HOSTS: Final = RecordTable("placement_host", HostRow, columns=("name",), unique=(("name",),))
CLAIMS: Final = RecordTable(
    "placement_claim", ClaimRow, columns=("host_id", "project_id"), indexes=(("host_id",), ("project_id",))
)
EXPLANATIONS: Final = RecordTable("placement_explanation", ExplanationRow, columns=("at_s",), indexes=(("at_s",),))
NAMES: Final = RecordTable("placement_name", NameRow, columns=("kind",))

HEARD: Final = sa.Table(
    "placement_heard",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("at_s", sa.Double, nullable=False),
)
"""When each host was last heard: apart from the host's row, so that a heartbeat disturbs no claim."""

EXPLANATIONS_MAX: Final = 20_000
"""A day of a busy cloud; the oldest tenth goes when it is passed."""


def heard(tx: Transaction, name: str) -> None:
    done = tx.execute(HEARD.update().where(HEARD.c.name == name), {"at_s": tx.now_s})
    if done.rowcount != 1:
        tx.execute(HEARD.insert(), {"name": name, "at_s": tx.now_s})


def heard_at(tx: Transaction) -> Mapping[str, float]:
    return {row.name: row.at_s for row in tx.execute(sa.select(HEARD))}


def explain(tx: Transaction, row: ExplanationRow) -> None:
    known = EXPLANATIONS.get(tx, row.id)
    if known is not None:
        EXPLANATIONS.put(tx, changed(row, generation=known.generation))
        return
    EXPLANATIONS.insert(tx, row)


def forget_old_explanations(tx: Transaction) -> None:
    if EXPLANATIONS.count(tx) <= EXPLANATIONS_MAX:
        return
    c = EXPLANATIONS.table.c
    newest = sa.select(c.at_s).order_by(c.at_s).offset(EXPLANATIONS_MAX // 10).limit(1)
    limit_s = tx.execute(newest).scalar()
    tx.execute(EXPLANATIONS.table.delete().where(c.at_s < limit_s))


def replace_claim(tx: Transaction, consumer_id: str, new: ClaimRow | None, *, check: bool = True) -> dict[str, HostRow]:
    """Give back what the consumer holds and take the new instead, all or nothing; returns the hosts as they are then.

    `check`: refuse what exceeds an inventory.  Raise Conflict.
    """
    old = CLAIMS.get(tx, consumer_id)
    hosts: dict[str, HostRow] = {}
    use: dict[str, dict[str, int]] = {}

    def add(allocations: Mapping[str, Mapping[str, int]], sign: int) -> None:
        for host_id, resources in allocations.items():
            host = hosts.get(host_id) or HOSTS.require(tx, host_id)
            hosts[host_id] = host
            used = use.setdefault(host_id, dict(host.used))
            for name, amount in resources.items():
                used[name] = used.get(name, 0) + sign * amount
                assert used[name] >= 0, f"{host.name}: the use of {name} fell below nothing"

    if old is not None:
        add(old.allocations, -1)
    if new is not None:
        if check:
            for host_id, resources in new.allocations.items():
                host = hosts.get(host_id) or HOSTS.require(tx, host_id)
                why = misfit(resources, host.inventories, use.get(host_id, host.used))
                if why is not None:
                    raise Conflict("placement.inventory_exceeded", f"Unable to allocate on {host.name}: {why}.")
        add(new.allocations, 1)
    after = {}
    for host_id, host in hosts.items():
        used = {name: amount for name, amount in use[host_id].items() if amount}
        after[host_id] = HOSTS.put(tx, changed(host, used=used)) if used != host.used else host
    if new is None:
        CLAIMS.delete(tx, consumer_id)
    elif old is None:
        CLAIMS.insert(tx, new)
    else:
        CLAIMS.put(tx, changed(new, generation=old.generation))
    return after

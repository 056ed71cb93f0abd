"""Which of several control nodes makes what a new cloud begins with: one at a time, and each thing once.

A node that dies at it lets go after a while; what was made is never made again, so what an operator deletes stays away.
"""

from __future__ import annotations

from typing import Final

from apus.kernel.sql import Column, Table, Taken
from apus.kernel.table import metadata
from apus.kernel.world import Store, Transaction

HOLD_S: Final = 60.0
"""Longer than the import of the first image takes."""
_FOR_EVER_S: Final = 1e18
MARKS: Final = metadata.add(
    Table("node_first_mark", (Column("id", "text"), Column("node", "text"), Column("held_until_s", "real")))
)


async def claim(store: Store, what: str, node: str) -> bool:
    """Whether this node shall make it, now: nobody does, or it was this node's former process."""

    def work(tx: Transaction) -> bool:
        known = tx.execute("SELECT node, held_until_s FROM node_first_mark WHERE id = :id", {"id": what}).first()
        if known is not None and (known[1] == _FOR_EVER_S or (known[0] != node and known[1] > tx.now_s)):
            return False
        _hold(tx, what, node, tx.now_s + HOLD_S)
        return True

    try:
        return await store.write(work)
    except Taken:
        return False


async def done(store: Store, what: str, node: str) -> None:
    await store.write(lambda tx: _hold(tx, what, node, _FOR_EVER_S))


async def release(store: Store, what: str, node: str) -> None:
    """It could not be made: the next start tries again."""
    await store.write(lambda tx: _hold(tx, what, node, 0.0))


def _hold(tx: Transaction, what: str, node: str, until_s: float) -> None:
    tx.execute("DELETE FROM node_first_mark WHERE id = :id", {"id": what})
    tx.execute(MARKS.insert(), {"id": what, "node": node, "held_until_s": until_s})

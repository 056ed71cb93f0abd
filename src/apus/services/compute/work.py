"""The control plane as a host's agent sees it: what is wanted there, and what it reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from apus.kernel.errors import NotFound
from apus.kernel.events import emit
from apus.kernel.flow import FlowRunner
from apus.kernel.record import changed
from apus.kernel.world import Transaction, World
from apus.services.compute import store
from apus.services.compute.contract import Found, Power, Wish
from apus.services.compute.logic.metadata import config_drive_files
from apus.services.compute.store import INCARNATIONS, SERVERS

WANTED_MAX: Final = 500
"""Wishes in one answer; the agent asks again from the last."""


class Work:
    """Implements `HostWork`."""

    def __init__(self, world: World, runner: FlowRunner) -> None:
        self._world, self._runner = world, runner

    async def wanted(self, host: str, since: int) -> Sequence[Wish]:
        def work(tx: Transaction) -> list[Wish]:
            return [row.wish() for row in store.wanted_since(tx, host, since, WANTED_MAX)]

        return await self._world.store.read(work)

    async def report(self, host: str, found: Sequence[Found], complete: bool) -> None:
        if found:

            def work(tx: Transaction) -> None:
                for item in found:
                    self._take_in(tx, host, item)

            await self._world.store.write(work)

    def _take_in(self, tx: Transaction, host: str, found: Found) -> None:
        incarnation = INCARNATIONS.get(tx, found.id)
        if incarnation is None or incarnation.host != host:
            return
        known = incarnation.found
        if known is not None and found.counter <= known.counter:
            return
        incarnation = INCARNATIONS.put(tx, changed(incarnation, found=found))
        server = SERVERS.get(tx, incarnation.server_id)
        tx.after_commit(lambda: self._runner.wake(f"server:{incarnation.server_id}"))
        if server is None or server.deleted or server.incarnation_id != found.id:
            return
        was = server.seen
        server = SERVERS.put(tx, changed(server, seen=found, updated_at_s=tx.now_s))
        if server.launched_at_s is None or incarnation.power is Power.GONE:
            return
        if server.settled and (was is None or was.seq < found.seq):
            store.end_actions(tx, server, seq=found.seq, error=found.error)
        if was is None or was.power is not found.power:
            emit(tx, f"compute.server.power_{found.power}", server.id, server.project_id, host=host)

    async def drive_files(self, incarnation_id: str) -> Mapping[str, bytes]:
        def work(tx: Transaction) -> Mapping[str, bytes]:
            incarnation = INCARNATIONS.require(tx, incarnation_id)
            server = SERVERS.get(tx, incarnation.server_id)
            if server is None:
                raise NotFound("compute.server.not_found", f"There is no server {incarnation.server_id}.")
            return config_drive_files(server)

        return await self._world.store.read(work)

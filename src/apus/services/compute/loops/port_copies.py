"""Keeps what servers show of their ports (addresses, security groups) as the network has it.

A server's row embeds its ports, so that a list is one query; the network changes them without asking compute.  It
hints at the server then, and now and then all are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from apus.kernel.flow import live_flows
from apus.kernel.loop import Mailbox
from apus.kernel.record import changed
from apus.kernel.table import Query
from apus.kernel.world import Bus, Subscription, Transaction, World
from apus.services.compute.model import Server
from apus.services.compute.store import SERVERS
from apus.services.network.contract import SERVER_HINT, NetworkService, ServerPort

PAGE: Final = 500


class PortCopies:
    name = "compute-port-copies"
    period_s = 600.0

    def __init__(self, world: World, network: NetworkService) -> None:
        self._world, self._network = world, network

    async def keys(self) -> Iterable[str]:
        """Servers whose copies are old."""
        stale: list[str] = []
        marker: str | None = None
        while True:
            servers = await self._page(marker)
            ports = await self._network.ports_of([server.id for server in servers])
            stale += [server.id for server in servers if _is_old(server, ports)]
            if len(servers) < PAGE:
                return stale
            marker = servers[-1].id

    async def _page(self, marker: str | None) -> list[Server]:
        query = Query(where={"deleted": False}, sort=(("id", False),), marker=marker, limit=PAGE)
        return await self._world.store.read(lambda tx: list(SERVERS.page(tx, query)))

    async def settle(self, key: str) -> None:
        seen = await self._world.store.read(lambda tx: _at_rest(tx, key))
        if seen is None:
            return
        ports = await self._network.ports_of([key])
        if not _is_old(seen, ports):
            return

        def copy(tx: Transaction) -> None:
            server = _at_rest(tx, key)
            # of a server that was changed meanwhile it is not known which came first: the next look tells
            if server is not None and server.generation == seen.generation:
                SERVERS.put(tx, changed(server, ports=tuple(ports.get(key, ()))))

        await self._world.store.write(copy)


def _at_rest(tx: Transaction, id: str) -> Server | None:
    """None while a flow makes or deletes it: ports are the flow's then."""
    server = SERVERS.get(tx, id)
    return None if server is None or server.deleted or live_flows(tx, [id]) else server


def _is_old(server: Server, ports: Mapping[str, Sequence[ServerPort]]) -> bool:
    return _shown(server.ports) != _shown(ports.get(server.id, ()))


def _shown(ports: Sequence[ServerPort]) -> list[ServerPort]:
    """Without what the server's own state tells better."""
    return [msgspec.structs.replace(port, active=False) for port in ports]


async def kick_on_hint(bus: Bus, mailbox: Mailbox) -> Subscription:
    """Look at a server at once when one of its ports was changed."""

    async def heard(subject: str, body: bytes) -> None:
        mailbox.kick(subject.removeprefix(SERVER_HINT))

    return await bus.listen(f"{SERVER_HINT}>", heard)

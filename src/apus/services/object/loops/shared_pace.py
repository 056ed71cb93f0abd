"""The proxies of a store repair side by side, and tell each other how fast: so they share the cap, and each knows how
long it takes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Final

import msgspec

from apus.kernel.errors import Unavailable
from apus.services.object.cluster import Cluster
from apus.services.object.pace import Going

TELL_EVERY_S: Final = 0.5
SUBJECT: Final = "object.pace"


class Told(msgspec.Struct, frozen=True):
    node: str
    going: Going


_decode: Final = msgspec.json.Decoder(Told).decode


class SharedPace:
    name = "object.shared-pace"
    period_s = TELL_EVERY_S

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def begin(self) -> None:
        """Hear the others."""
        await self._cluster.world.bus.listen(SUBJECT, self._hear)

    async def keys(self) -> Iterable[str]:
        return ("all",)

    async def settle(self, key: str) -> None:
        cluster = self._cluster
        going = cluster.pace.going(works=cluster.repairs.queued > 0)
        with contextlib.suppress(Unavailable):  # each has the cap for itself then, as if it were alone
            await cluster.world.bus.publish(SUBJECT, msgspec.json.encode(Told(cluster.node, going)))

    async def _hear(self, subject: str, body: bytes) -> None:
        with contextlib.suppress(msgspec.DecodeError):  # empty: messages were lost
            told = _decode(body)
            if told.node != self._cluster.node:
                self._cluster.pace.hear(told.node, told.going)

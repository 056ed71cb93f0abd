"""Events of objects among the cloud's own: written where the events are kept, here or across the bus."""

from __future__ import annotations

from typing import Any, Final

from apus.kernel.events import emit
from apus.kernel.world import Transaction, World
from apus.services.object.contract import ObjectEvent

SUBJECT: Final = "object.events"
_KINDS: Final = {"ObjectCreated": "created", "ObjectRemoved": "deleted", "LifecycleExpiration": "expired"}


class StoredEvents:
    """Implements `ObjectEvents`."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def announce(self, event: ObjectEvent) -> None:
        kind = f"object.object.{_KINDS[event.name.partition(':')[0]]}"

        def work(tx: Transaction) -> None:
            emit(
                tx,
                kind,
                f"{event.bucket}/{event.key}",
                event.account.removeprefix("AUTH_"),
                event=event.name,
                bucket=event.bucket,
                key=event.key,
                size_bytes=event.size_bytes,
                etag=event.etag,
                version_id=event.version_id,
                sequence=event.sequence,
                at_s=event.at_s,
            )

        await self._world.store.write(work)

    async def tell(self, kind: str, resource_id: str, details: dict[str, Any]) -> None:
        await self._world.store.write(lambda tx: emit(tx, kind, resource_id, None, **details))

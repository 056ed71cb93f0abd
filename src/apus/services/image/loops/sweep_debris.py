"""Removes objects that no image is made of any more, and frees images whose writer died."""

from __future__ import annotations

from collections.abc import Iterable

from apus.kernel import events
from apus.kernel.record import changed
from apus.kernel.world import Transaction, World
from apus.services.image.intake import remove
from apus.services.image.model import MOVES, Debris, Event
from apus.services.image.store import DEBRIS, IMAGES, debris_due
from apus.services.object.contract import ObjectService


class SweepDebris:
    name = "image.sweep_debris"
    period_s = 15.0

    def __init__(self, world: World, objects: ObjectService) -> None:
        self._world, self._objects = world, objects

    async def keys(self) -> Iterable[str]:
        return await self._world.store.read(lambda tx: debris_due(tx, tx.now_s))

    async def settle(self, key: str) -> None:
        """Release what still points to the object, remove it, forget it: in this order, each again if need be."""
        debris = await self._world.store.write(lambda tx: _release(tx, key))
        if debris is None:
            return
        await remove(self._objects, key)
        await self._world.store.write(lambda tx: DEBRIS.delete_where(tx, id=key, generation=debris.generation))


def _release(tx: Transaction, name: str) -> Debris | None:
    debris = DEBRIS.get(tx, name)
    if debris is None or debris.after_s > tx.now_s:
        return None
    image = IMAGES.get(tx, debris.image_id)
    if image is None:
        return debris
    if image.data is not None and image.data.object == name:
        raise AssertionError(f"the data of image {image.id} is listed as debris")
    if image.incoming == name or (image.staged is not None and image.staged.object == name):
        why = "The upload was not finished." if image.incoming == name else "The staged data was not imported in time."
        freed = changed(
            image,
            status=MOVES.move(image.status, Event.FAIL),
            incoming=None,
            staged=None,
            failure=why,
            updated_at_s=tx.now_s,
        )
        IMAGES.put(tx, freed)
        events.emit(tx, "image.image.failed", image.id, image.project_id, reason=why)
    return debris

"""Removes parts of uploads that nobody needs: soon after what they belonged to went, and in a scan of all now and then.

What a process that died left behind is found by the scan at the next start.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from apus.kernel.errors import CloudError
from apus.services.object.logic.hidden import owner_of
from apus.services.object.logic.uploads import parts_container
from apus.services.object.service import Objects

PASS_EVERY_S: Final = 1.0
SCAN_EVERY_S: Final = 6 * 3600.0


class Sweeper:
    name = "object.sweeper"
    period_s = PASS_EVERY_S

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._scan_at_s = 0.0
        self.removed = 0

    async def keys(self) -> Iterable[str]:
        """`ACCOUNT/CONTAINER/KEY` of what is in doubt; in a scan `ACCOUNT/CONTAINER` of all."""
        doubts, self._objects.uploads.doubts = self._objects.uploads.doubts, {}
        found = ["/".join(name) for name in doubts]
        now_s = self._objects.cluster.world.clock.monotonic_s()
        if now_s >= self._scan_at_s:
            found += await self._containers()
            self._scan_at_s = now_s + SCAN_EVERY_S
        return found

    async def settle(self, key: str) -> None:
        account, container, *name = key.split("/", 2)
        uploads = self._objects.uploads
        if not name:
            self.removed += await uploads.sweep_all(account, container)
            return
        try:
            self.removed += await uploads.sweep(account, container, name[0])
        except CloudError:
            uploads.doubt(account, container, name[0])
            raise

    async def run_once(self) -> None:
        for key in await self.keys():
            await self.settle(key)

    async def _containers(self) -> list[str]:
        """Containers with parts of uploads, as seen on the drives of this node."""
        return [
            f"{head.account}/{owner_of(head.container)}"
            async for head in self._objects.directory.heads_here("containers")
            if head.exists and head.container == parts_container(owner_of(head.container))
        ]

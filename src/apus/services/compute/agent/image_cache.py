"""Images on this host: fetched once, checked against their hash, shared read-only by all overlays.

One download of an image at a time.  When the cache is over its bound, the images unused for longest go, but never one
that a guest's overlay stands on.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import AsyncIterator, Callable, Collection
from pathlib import Path
from typing import Final

from apus.kernel.buffers import Chunk
from apus.kernel.errors import Unavailable
from apus.kernel.world import World
from apus.services.image.contract import BootImage

CACHE_MAX_BYTES: Final = 40 << 30
"""Of images that no guest stands on; a host's disk is for guests."""

ReadImage = Callable[[str], AsyncIterator[Chunk]]


class ImageCache:
    def __init__(self, world: World, directory: Path, read: ReadImage, *, max_bytes: int = CACHE_MAX_BYTES) -> None:
        self._world, self._directory, self._read, self._max_bytes = world, directory, read, max_bytes
        self._fetching: dict[str, asyncio.Lock] = {}
        self._used_at_s: dict[str, float] = {}

    def path_of(self, image: BootImage) -> Path:
        """By content: an image that is uploaded twice is kept once, and one that changed is another."""
        return self._directory / f"{image.checksum_sha512[:48]}.{image.disk_format}"

    async def ensure(self, image: BootImage, in_use: Collection[str] = ()) -> Path:
        """The image's file, fetched if need be.  Raise Unavailable (not complete, not what its hash says)."""
        path = self.path_of(image)
        self._used_at_s[path.name] = self._world.clock.monotonic_s()
        lock = self._fetching.setdefault(path.name, asyncio.Lock())
        async with lock:
            if await self._world.disk.stat(path) is None:
                await self._make_room(image.size_bytes, in_use)
                await self._fetch(image, path)
        return path

    async def _fetch(self, image: BootImage, path: Path) -> None:
        part = path.with_suffix(".part")
        digest = hashlib.sha512()
        writer = await self._world.disk.create(part)
        try:
            async for chunk in self._read(image.id):
                await self._world.run.in_thread(functools.partial(digest.update, chunk))
                await writer.write(chunk)
            await writer.sync()
        finally:
            await writer.close()
        if digest.hexdigest() != image.checksum_sha512:
            await self._world.disk.remove(part)
            raise Unavailable(
                "compute.image_broken", f"Image {image.id} arrived with another hash than it should have."
            )
        await self._world.disk.rename_synced(part, path)

    async def _make_room(self, wanted_bytes: int, in_use: Collection[str]) -> None:
        sizes = {}
        for name in await self._world.disk.names(self._directory):
            stat = await self._world.disk.stat(self._directory / name)
            if stat is not None:
                sizes[name] = stat.size_bytes
        total = sum(sizes.values()) + wanted_bytes
        for name in sorted(sizes, key=lambda name: self._used_at_s.get(name, 0.0)):
            if total <= self._max_bytes:
                return
            if str(self._directory / name) not in in_use and not self._fetching.get(name, asyncio.Lock()).locked():
                await self._world.disk.remove(self._directory / name)
                total -= sizes[name]

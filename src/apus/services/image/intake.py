"""The way in for bytes: hashed, measured and inspected as they pass, never held in memory beyond a mebibyte or two.

An object is announced as debris before its first byte and put off while its writer lives (see model.Debris).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

from apus.kernel.errors import Conflict, Invalid, TooLarge
from apus.kernel.world import Transaction, World
from apus.services.image import limits
from apus.services.image.logic.inspect import Inspector
from apus.services.image.model import Data
from apus.services.image.store import DEBRIS, put_debris
from apus.services.object.contract import ObjectService

ACCOUNT: Final = "AUTH_image"
CONTAINER: Final = "images"
_THREAD_FROM_BYTES: Final = 64 * 1024
"""Smaller chunks are hashed in place: handing them to a thread costs more than hashing them."""


class Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...


class Intake:
    def __init__(self, world: World, objects: ObjectService, settings: limits.Settings) -> None:
        self._world, self._objects, self._settings = world, objects, settings

    async def keep(
        self, image_id: str, name: str, chunks: AsyncIterator[bytes], *, size_bytes: int | None = None
    ) -> Data:
        """Write the object `name`.  Raise TooLarge, Invalid (not the size that was declared), Conflict (too slow)."""
        if size_bytes is not None and size_bytes > self._settings.image_size_max_bytes:
            raise self._too_large()
        passing = _Passing(self._world, chunks, self._settings.image_size_max_bytes)
        beating = self._beating(image_id, name, passing.chunks())
        await self._objects.put_object(ACCOUNT, CONTAINER, name, beating, {}, size_bytes)
        await passing.hashed()
        finding = passing.inspector.finding()
        if size_bytes is not None and finding.size_bytes != size_bytes:
            raise Invalid(
                "image.size", f"{size_bytes} bytes were declared, {finding.size_bytes} bytes were sent.", field="size"
            )
        return Data(
            object=name,
            checksum_md5=passing.md5.hexdigest(),
            checksum_sha512=passing.sha512.hexdigest(),
            finding=finding,
        )

    async def _beating(self, image_id: str, name: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Puts the debris off as long as bytes come."""
        beat_s = self._world.clock.monotonic_s()
        async for chunk in chunks:
            if self._world.clock.monotonic_s() - beat_s > limits.WRITER_BEAT_S:
                beat_s = self._world.clock.monotonic_s()
                await self._world.store.write(lambda tx: _put_off(tx, image_id, name))
            yield chunk

    def _too_large(self) -> TooLarge:
        return too_large(self._settings.image_size_max_bytes)


def _put_off(tx: Transaction, image_id: str, name: str) -> None:
    """Raise Conflict when the sweep has taken the object for dead already."""
    if DEBRIS.get(tx, name) is None:
        raise Conflict("image.writer_lost", f"The upload to image {image_id} paused too long and was given up.")
    put_debris(tx, name, image_id, tx.now_s + limits.WRITER_LEASE_S)


class _Passing:
    """Chunks of a useful size; each is hashed in threads while it is being written."""

    def __init__(self, world: World, source: AsyncIterator[bytes], size_max: int) -> None:
        self._world, self._source, self._size_max, self._size = world, source, size_max, 0
        self.inspector = Inspector()
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.sha512 = hashlib.sha512()
        self._hashing: asyncio.Future[Any] | None = None

    async def chunks(self) -> AsyncIterator[bytes]:
        """Each chunk is hashed while it is written and the next one is read."""
        try:
            async for chunk in _gathered(self._source):
                self._size += len(chunk)
                if self._size > self._size_max:
                    raise too_large(self._size_max)
                self.inspector.feed(chunk)
                await self.hashed()
                if len(chunk) < _THREAD_FROM_BYTES:
                    self.md5.update(chunk)
                    self.sha512.update(chunk)
                else:
                    self._hashing = asyncio.gather(self._hash(self.md5, chunk), self._hash(self.sha512, chunk))
                yield chunk
        finally:
            await self.hashed()

    async def hashed(self) -> None:
        """Return when the hashes hold all that has passed."""
        hashing, self._hashing = self._hashing, None
        if hashing is not None:
            await hashing

    async def _hash(self, digest: Digest, chunk: bytes) -> None:
        await self._world.run.in_thread(lambda: digest.update(chunk))


async def _gathered(source: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """HTTP bodies come in small pieces; pass them on by the mebibyte."""
    parts, size = [], 0
    async for piece in source:
        for at in range(0, len(piece), limits.CHUNK_BYTES):
            part = piece[at : at + limits.CHUNK_BYTES] if len(piece) > limits.CHUNK_BYTES else piece
            parts.append(part)
            size += len(part)
            if size >= limits.CHUNK_BYTES:
                yield parts[0] if len(parts) == 1 else b"".join(parts)
                parts, size = [], 0
    if parts:
        yield b"".join(parts)


def too_large(size_max: int) -> TooLarge:
    return TooLarge("image.too_large", f"The image is larger than {size_max} bytes, the most that is taken.")

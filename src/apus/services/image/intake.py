"""The way in for bytes: hashed, measured and inspected as they pass, never held in memory beyond a mebibyte or two.

An object is announced as debris before its first byte and put off while its writer lives (see model.Debris).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

from apus.kernel.buffers import Chunk
from apus.kernel.errors import Conflict, Invalid, TooLarge, Unavailable
from apus.kernel.world import Transaction, World
from apus.services.image import limits
from apus.services.image.logic.inspect import Inspector
from apus.services.image.model import Data
from apus.services.image.store import DEBRIS, IMAGES, put_debris
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
            raise too_large(self._settings.image_size_max_bytes)
        passing = _Passing(self._world, chunks, self._settings.image_size_max_bytes)
        pieces = _Pieces(self._beating(image_id, name, passing.chunks()))
        segment_bytes, count = self._settings.segment_bytes, 0
        while count == 0 or (pieces.taken < size_bytes if size_bytes is not None else await pieces.more()):
            left = None if size_bytes is None else min(segment_bytes, size_bytes - pieces.taken)
            data = pieces.take(segment_bytes if left is None else left, exact=left is not None)
            await self._objects.put_object(ACCOUNT, CONTAINER, segment(name, count), data, {}, left)
            count += 1
        if await pieces.more():
            raise _wrong_size("more")
        await passing.hashed()
        if await self._world.store.read(lambda tx: _is_orphan(tx, image_id, name)):
            await self._world.store.write(lambda tx: put_debris(tx, name, image_id, 0.0))
            raise _writer_lost(image_id)
        return Data(
            object=name,
            segment_bytes=segment_bytes,
            checksum_md5=passing.md5.hexdigest(),
            checksum_sha512=passing.sha512.hexdigest(),
            finding=passing.inspector.finding(),
        )

    async def _beating(self, image_id: str, name: str, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Puts the debris off as long as bytes come."""
        beat_s = self._world.clock.monotonic_s()
        async for chunk in chunks:
            if self._world.clock.monotonic_s() - beat_s > limits.WRITER_BEAT_S:
                beat_s = self._world.clock.monotonic_s()
                await self._world.store.write(lambda tx: _put_off(tx, image_id, name))
            yield chunk


def segment(name: str, index: int) -> str:
    return f"{name}/{index:06d}"


async def contents(
    objects: ObjectService, data: Data, *, offset: int = 0, length: int | None = None
) -> AsyncIterator[Chunk]:
    """The bytes that were kept.  Raise NotFound, Unavailable (also when fewer come than were kept)."""
    size = data.finding.size_bytes
    end = size if length is None else min(size, offset + length)
    while offset < end:
        index, at = divmod(offset, data.segment_bytes)
        until = offset + min(end - offset, data.segment_bytes - at)
        name = segment(data.object, index)
        async for chunk in objects.get_object(ACCOUNT, CONTAINER, name, offset=at, length=until - offset):
            offset += len(chunk)
            yield chunk
        if offset != until:
            raise Unavailable("image.short", f"The data of {data.object} ends {until - offset} bytes early.")


async def remove(objects: ObjectService, name: str) -> None:
    """All segments, the last one first: what is left of a removal that died is found again from the first one on."""
    count = 0
    while await objects.head_object(ACCOUNT, CONTAINER, segment(name, count)) is not None:
        count += 1
    for index in reversed(range(count)):
        await objects.delete_object(ACCOUNT, CONTAINER, segment(name, index))


def _put_off(tx: Transaction, image_id: str, name: str) -> None:
    """Raise Conflict when the sweep has taken the object for dead already."""
    if DEBRIS.get(tx, name) is None:
        raise _writer_lost(image_id)
    put_debris(tx, name, image_id, tx.now_s + limits.WRITER_LEASE_S)


def _is_orphan(tx: Transaction, image_id: str, name: str) -> bool:
    """Swept while it was written, by somebody who took its writer for dead: what came after must be swept again."""
    if DEBRIS.get(tx, name) is not None:
        return False
    image = IMAGES.get(tx, image_id)
    return image is None or image.data is None or image.data.object != name


def _writer_lost(image_id: str) -> Conflict:
    return Conflict("image.writer_lost", f"The upload to image {image_id} paused too long and was given up.")


class _Pieces:
    """Cuts the stream at the ends of segments.  A segment's reader never draws a byte of the next one."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source, self._held = source, b""
        self.taken = 0

    async def more(self) -> bool:
        """Whether a byte is left."""
        while not self._held:
            try:
                self._held = await anext(self._source)
            except StopAsyncIteration:
                return False
        return True

    async def take(self, most: int, *, exact: bool) -> AsyncIterator[bytes]:
        left = most
        while left and await self.more():
            chunk, self._held = self._held, b""
            if len(chunk) > left:
                chunk, self._held = chunk[:left], chunk[left:]
            left -= len(chunk)
            self.taken += len(chunk)
            yield chunk
        if exact and left:
            raise _wrong_size("fewer")


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
        """Return when the hashes hold all that has passed.  Two may wait; one's being cancelled is not the other's."""
        hashing = self._hashing
        if hashing is not None:
            await asyncio.wait([hashing])
            hashing.result()

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


def _wrong_size(how: str) -> Invalid:
    return Invalid("image.size", f"There are {how} bytes than were declared.", field="size")


def too_large(size_max: int) -> TooLarge:
    return TooLarge("image.too_large", f"The image is larger than {size_max} bytes, the most that is taken.")

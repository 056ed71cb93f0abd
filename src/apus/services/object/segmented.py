"""Writes and unmakes objects that are lists of segments; `opening.py` reads them."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Final, Protocol

from apus.kernel.buffers import Chunk
from apus.kernel.errors import CloudError, Forbidden, NotFound, Unauthenticated
from apus.services.object.engine import Found, Intent
from apus.services.object.logic.listed import MANIFEST
from apus.services.object.logic.manifest import (
    DEPTH_MAX,
    Seen,
    Segment,
    Wish,
    check_manifest,
    encode_manifest,
    etag_of,
    manifest_text,
    segment_of,
    total_bytes,
)
from apus.services.object.logic.notices import PUT
from apus.services.object.logic.uploads import UPLOAD
from apus.services.object.model import ETAG, SIZE, Head
from apus.services.object.opening import MayRead, Opened

LOOKUPS_AT_ONCE: Final = 16


class Store(Protocol):
    async def find(self, account: str, container: str, name: str, *, newest: bool = False) -> Found | None: ...

    async def put(
        self, intent: Intent, data: AsyncIterator[Chunk], *, sealed: bool = False, cause: str = PUT
    ) -> Head: ...

    async def follow(self, found: Found, may_read: MayRead | None = None) -> Found: ...

    async def open_parts(self, found: Found, may_read: MayRead | None = None) -> Opened: ...

    async def segments(self, found: Found) -> tuple[Segment, ...]: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a wish."""

    wish: Wish
    why: str


class Segmented:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def put(
        self,
        intent: Intent,
        segments: Sequence[Segment],
        etag: str | None = None,
        *,
        sealed: bool = False,
        cause: str = PUT,
    ) -> Head:
        """Keep a manifest, shown with this ETag or Swift's.  The segments are taken as they are said to be."""
        check_manifest(segments)
        data = encode_manifest(segments)
        list_etag = hashlib.md5(manifest_text(segments), usedforsecurity=False).hexdigest()
        shown = {MANIFEST: list_etag, ETAG: etag or etag_of(segments), SIZE: str(total_bytes(segments))}
        whole = dataclasses.replace(
            intent, headers={**intent.headers, **shown}, size_bytes=len(data), etag=None
        )  # fmt: skip
        return await self._store.put(whole, _once(data), sealed=sealed, cause=cause)

    async def resolve(
        self, wishes: Sequence[Wish], may_read: MayRead | None = None
    ) -> tuple[list[Segment], list[Problem]]:
        """Look at what the wishes name: the segments, and what is wrong with the others, each in order."""
        paths = list(dict.fromkeys((w.account, w.container, w.name) for w in wishes if not w.data))
        seen: dict[tuple[str, str, str], Seen | str] = {}
        for at in range(0, len(paths), LOOKUPS_AT_ONCE):
            some = paths[at : at + LOOKUPS_AT_ONCE]
            answers = await asyncio.gather(*(self._seen(path, may_read) for path in some))
            seen.update(zip(some, answers, strict=True))
        segments: list[Segment] = []
        problems: list[Problem] = []
        for wish in wishes:
            if wish.data:
                segments.append(Segment(data=wish.data))
                continue
            found = seen[wish.account, wish.container, wish.name]
            segment = found if isinstance(found, str) else segment_of(wish, found)
            if isinstance(segment, str):
                problems.append(Problem(wish, segment))
            else:
                segments.append(segment)
        return segments, problems

    async def members(self, found: Found, depth: int = 0) -> list[tuple[str, str, str]]:
        """(account, container, name) of all that a manifest is made of, nested ones before themselves, each once.

        The parts of an upload are not among them: they go with their object.
        """
        listed: dict[tuple[str, str, str], None] = {}
        if UPLOAD in found.head.headers:
            return []
        for segment in await self._store.segments(found):
            if segment.data:
                continue
            if segment.nested and depth < DEPTH_MAX:
                inner = await self._store.find(segment.account, segment.container, segment.name)
                if inner is not None and MANIFEST in inner.head.headers:
                    listed.update(dict.fromkeys(await self.members(inner, depth + 1)))
            listed[segment.account, segment.container, segment.name] = None
        return list(listed)

    async def _seen(self, path: tuple[str, str, str], may_read: MayRead | None) -> Seen | str:
        try:
            if may_read is not None:
                await may_read(*path)
            found = await self._store.find(*path)
            if found is None:
                return "404 Not Found"
            found = await self._store.follow(found, may_read)
            opened = await self._store.open_parts(found, may_read)
        except NotFound:
            return "404 Not Found"
        except (Forbidden, Unauthenticated):
            return "403 Forbidden"
        except CloudError as error:
            return error.shown
        head = found.head
        return Seen(opened.etag, opened.size_bytes, head.shown_type, head.changed, MANIFEST in head.headers)


async def _once(data: bytes) -> AsyncIterator[Chunk]:
    yield data

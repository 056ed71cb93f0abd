"""Uploads in parts that are cut off at any step: what was finished is whole, and what was not leaves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apus.kernel.errors import Unavailable
from apus.services.object.engine import Intent
from apus.services.object.logic.uploads import parts_container, uploads_container
from apus.services.object.model import Head, ListingAsk
from apus.services.object.service import Objects
from apus.services.object.shelf import Shelf
from apus.services.object.uploads import Uploads
from tests.object_store import all_of, awaited, chunks
from tests.unit.object.test_segmented import open_objects

BODIES = (b"one " * 100, b"two " * 100)


class Dies(Shelf):
    """Dies before a write, or (`after`) between that write and its answer."""

    def __init__(self, objects: Objects, at: int, *, after: bool) -> None:
        super().__init__(objects.cluster)
        self.engine, self.directory = objects.engine, objects.directory
        self._left, self._after = at, after

    def _step(self, *, after: bool) -> None:
        if after == self._after:
            self._left -= 1
            if self._left == 0:
                raise Unavailable("test.killed", "killed")

    async def put(self, intent: Intent, data: Any) -> Head:
        self._step(after=False)
        head = await super().put(intent, data)
        self._step(after=True)
        return head

    async def discard(self, *args: Any, **more: Any) -> Head:
        self._step(after=False)
        head = await super().discard(*args, **more)
        self._step(after=True)
        return head


async def begun(objects: Objects, name: str = "o") -> Head:
    upload_id = await objects.uploads.begin(Intent("AUTH_a", "c", name, "text/plain", {}, 0))
    upload = await objects.uploads.find("AUTH_a", "c", name, upload_id)
    for number, body in enumerate(BODIES, 1):
        part = Intent("AUTH_a", "c", name, "text/plain", {}, len(body))
        await objects.uploads.put_part(upload, number, part, chunks(body))
    return upload


async def finish(uploads: Uploads, upload: Head, name: str = "o") -> Head:
    parts = await uploads.parts(upload, "c")
    return await uploads.finish(upload, Intent("AUTH_a", "c", name, "text/plain", {}), list(parts.values()))


async def read(objects: Objects, version_id: str | None = None) -> bytes | None:
    found = await objects.find("AUTH_a", "c", "o", version_id=version_id)
    if found is None:
        return None
    opened = await objects.open_parts(found)
    return await all_of(opened.stream(0, opened.size_bytes))


async def kept(objects: Objects) -> list[str]:
    names = list[str]()
    for container in (uploads_container("c"), parts_container("c")):
        names += [row.name for row in await objects.directory.rows("AUTH_a", container, "", 1000) if not row.gone]
    return names


@pytest.mark.parametrize("versioned", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3])
@awaited
async def test_killed_while_it_ends(tmp_path: Path, at: int, after: bool, versioned: bool) -> None:
    objects = await open_objects(tmp_path)
    if versioned:
        await objects.set_versioning("AUTH_a", "c", "enabled")
    upload = await begun(objects)
    dying = Dies(objects, at, after=after)
    uploads = Uploads(objects, dying)
    try:
        await finish(uploads, upload)
    except Unavailable:
        pass
    else:
        assert at > 2
    whole = await read(objects)
    assert whole in (None, b"".join(BODIES))
    await objects.uploads.sweep_all("AUTH_a", "c")
    assert await read(objects) == whole, "the sweep takes nothing that is needed"
    still = await objects.directory.rows("AUTH_a", uploads_container("c"), "", 10)
    if any(not row.gone for row in still):
        first = await objects.find("AUTH_a", "c", "o", newest=True)
        await finish(objects.uploads, upload)
        await objects.uploads.sweep_all("AUTH_a", "c")
        assert await read(objects) == b"".join(BODIES)
        if versioned and first is not None:
            versions = await objects.list_versions("AUTH_a", "c", ListingAsk())
            for version in versions:
                assert await read(objects, version.version_id) == b"".join(BODIES)  # type: ignore[union-attr]
    for row in await objects.list_versions("AUTH_a", "c", ListingAsk()):
        await objects.delete("AUTH_a", "c", "o", version_id=row.version_id)  # type: ignore[union-attr]
    await objects.uploads.sweep_all("AUTH_a", "c")
    assert await kept(objects) == []


@awaited
async def test_a_part_that_comes_too_late(tmp_path: Path) -> None:
    objects = await open_objects(tmp_path)
    upload = await begun(objects)
    await objects.uploads.give_up(upload, "c")
    with pytest.raises(Exception, match="no such upload"):
        await objects.uploads.put_part(upload, 1, Intent("AUTH_a", "c", "o", "a/b", {}, 1), chunks(b"x"))
    assert await objects.uploads.sweep("AUTH_a", "c", "o") == 3
    assert await kept(objects) == []


@awaited
async def test_a_part_that_replaces_one_of_a_finished_object(tmp_path: Path) -> None:
    objects = await open_objects(tmp_path)
    upload = await begun(objects)
    head = await finish(objects.uploads, upload)
    with pytest.raises(Exception, match="no such upload"):
        await objects.uploads.put_part(upload, 1, Intent("AUTH_a", "c", "o", "a/b", {}, 1), chunks(b"x"))
    await objects.uploads.sweep("AUTH_a", "c", "o")
    assert await read(objects) == b"".join(BODIES)
    assert head.shown_etag.endswith("-2")

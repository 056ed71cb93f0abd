"""Large objects in the store itself: written as a list, read as one body, and hidden places for their parts."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from apus.kernel.errors import Conflict, Forbidden
from apus.services.object.assembly import drives_in, open_store
from apus.services.object.engine import Found, Intent
from apus.services.object.logic.hidden import hidden_container
from apus.services.object.logic.manifest import Segment, Wish
from apus.services.object.model import Head, ListingAsk
from apus.services.object.service import Objects
from tests.object_store import all_of, awaited, chunks, drive_paths, make_world

ONE, TWO = bytes(range(256)) * 2_000, b"second" * 1_000


async def open_objects(root: Path) -> Objects:
    store = await open_store(make_world(), drives_in(drive_paths(root, 3)), root / "layout.json")
    await store.service.make_container("AUTH_a", "c", {})
    return store.service


async def put(objects: Objects, name: str, data: bytes, container: str = "c", **headers: str) -> Head:
    given = {key.replace("_", "-"): value for key, value in headers.items()}
    return await objects.put(Intent("AUTH_a", container, name, "text/plain", given), chunks(data))


async def found_of(objects: Objects, name: str, container: str = "c") -> Found:
    found = await objects.find("AUTH_a", container, name)
    assert found is not None
    return found


@awaited
async def test_segments_read_as_one(tmp_path: Path) -> None:
    objects = await open_objects(tmp_path)
    parts = hidden_container("parts", "c")
    await objects.make_container("AUTH_a", parts, {})
    one, two = await put(objects, "1", ONE, parts), await put(objects, "2", TWO, parts)
    segments = [
        Segment("AUTH_a", parts, "1", one.etag, len(ONE)),
        Segment(data=b"between"),
        Segment("AUTH_a", parts, "2", two.etag, len(TWO), 6, 12),
    ]
    whole = ONE + b"between" + TWO[6:18]
    intent = Intent("AUTH_a", "c", "big", "text/x", {"x-object-meta-k": "v"})
    head = await objects.put_manifest(intent, segments, etag="abc-2")
    assert (head.shown_etag, head.shown_size_bytes) == ("abc-2", len(whole))
    found = await found_of(objects, "big")
    opened = await objects.open_parts(found)
    assert (opened.size_bytes, opened.etag, opened.segmented) == (len(whole), "abc-2", True)
    assert await all_of(opened.stream(0, len(whole))) == whole
    at = len(ONE) - 5
    assert await all_of(opened.stream(at, 20)) == whole[at : at + 20]
    assert await all_of(objects.get_object("AUTH_a", "c", "big", offset=len(ONE))) == whole[len(ONE) :]
    info = await objects.head_object("AUTH_a", "c", "big")
    assert info is not None
    assert (info.size_bytes, info.etag) == (len(whole), "abc-2")
    (row,) = await objects.listing("AUTH_a", "c", ListingAsk())
    assert row.name == "big"
    assert [row.name for row in await objects.listing("AUTH_a", "", ListingAsk())] == ["c"]
    account = await objects.account("AUTH_a")
    assert account is not None
    assert (account.rows, account.objects) == (1, 3)
    assert account.size_bytes > len(ONE) + len(TWO)
    assert await objects.segmented.members(found) == [("AUTH_a", parts, "1"), ("AUTH_a", parts, "2")]


@awaited
async def test_nested_manifests_and_rights(tmp_path: Path) -> None:
    objects = await open_objects(tmp_path)
    await objects.make_container("AUTH_a", "private", {})
    await put(objects, "1", ONE, "private")
    inner, problems = await objects.segmented.resolve([Wish("AUTH_a", "private", "1", range="0-9")])
    assert not problems
    await objects.put_manifest(Intent("AUTH_a", "c", "inner", "t/x", {}), inner)
    wishes = [Wish("AUTH_a", "c", "inner"), Wish("AUTH_a", "c", "inner", range="-3"), Wish("AUTH_a", "c", "none")]
    outer, problems = await objects.segmented.resolve(wishes)
    assert [(problem.wish.name, problem.why) for problem in problems] == [("none", "404 Not Found")]
    assert [segment.nested for segment in outer] == [True, True]
    await objects.put_manifest(Intent("AUTH_a", "c", "outer", "t/x", {}), outer)
    found = await found_of(objects, "outer")
    opened = await objects.open_parts(found)
    assert await all_of(opened.stream(0, opened.size_bytes)) == ONE[:10] + ONE[7:10]
    assert await objects.segmented.members(found) == [("AUTH_a", "private", "1"), ("AUTH_a", "c", "inner")]

    async def may_read(account: str, container: str, name: str) -> None:
        if container == "private":
            raise Forbidden("test.no", "no")

    opened = await objects.open_parts(found, may_read)
    with pytest.raises(Conflict):
        await all_of(opened.stream(0, 1))
    _, problems = await objects.segmented.resolve([Wish("AUTH_a", "private", "1")], may_read)
    assert [problem.why for problem in problems] == ["403 Forbidden"]


@awaited
async def test_a_segment_that_changed_ends_the_body(tmp_path: Path) -> None:
    objects = await open_objects(tmp_path)
    head = await put(objects, "1", ONE)
    segments = [Segment("AUTH_a", "c", "1", head.etag, len(ONE))]
    await objects.put_manifest(Intent("AUTH_a", "c", "big", "t/x", {}), segments)
    await put(objects, "1", TWO)
    opened = await objects.open_parts(await found_of(objects, "big"))
    with pytest.raises(Conflict):
        await all_of(opened.stream(0, 10))
    await objects.delete("AUTH_a", "c", "1")
    with pytest.raises(Conflict):
        await all_of(opened.stream(0, 10))


@awaited
async def test_a_manifest_of_itself_ends(tmp_path: Path) -> None:
    objects = await open_objects(tmp_path)
    segments = [Segment("AUTH_a", "c", "big", "e", 10, nested=True)]
    await objects.put_manifest(Intent("AUTH_a", "c", "big", "t/x", {}), segments, etag="e")
    found = await found_of(objects, "big")
    opened = await objects.open_parts(found)
    with pytest.raises(Conflict):
        await all_of(opened.stream(0, 10))
    assert await objects.segmented.members(found) == [("AUTH_a", "c", "big")]


@awaited
async def test_all_objects_of_a_prefix(tmp_path: Path) -> None:
    objects = await open_objects(tmp_path)
    for name in ("p/2", "p/1", "q"):
        await put(objects, name, name.encode())
    await put(objects, "dynamic", b"", x_object_manifest="c/p/")
    opened = await objects.open_parts(await found_of(objects, "dynamic"))
    etags = "".join(hashlib.md5(name.encode()).hexdigest() for name in ("p/1", "p/2"))
    assert (opened.size_bytes, opened.etag) == (6, hashlib.md5(etags.encode()).hexdigest())
    assert await all_of(opened.stream(1, 4)) == b"/1p/"


@awaited
async def test_the_systems_headers_outlive_a_description(tmp_path: Path) -> None:
    objects = await open_objects(tmp_path)
    await put(objects, "o", b"x", x_object_meta_a="1", x_object_sysmeta_tag="t")
    await objects.describe("AUTH_a", "c", "o", None, {"x-object-meta-b": "2"})
    found = await found_of(objects, "o")
    assert found.head.shown_headers == {"x-object-meta-b": "2", "x-object-sysmeta-tag": "t"}
    await objects.describe("AUTH_a", "c", "o", None, {"x-object-sysmeta-tag": ""})
    assert (await found_of(objects, "o")).head.shown_headers == {}

"""Versions against a plain model: a list of versions for each name, with one of them current or none."""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apus.kernel.errors import Conflict, Invalid, NotFound
from apus.services.object.engine import Intent
from apus.services.object.logic.versions import VersionRow, entry_name, name_and_id, version_of
from apus.services.object.model import Head, ListingAsk, Row, Subdir
from apus.services.object.service import Objects
from tests.object_store import all_of, awaited, chunks
from tests.unit.object.test_segmented import open_objects


async def put(objects: Objects, name: str, data: bytes, **headers: str) -> Head:
    given = {key.replace("_", "-"): value for key, value in headers.items()}
    return await objects.put(Intent("AUTH_a", "c", name, "text/plain", given), chunks(data))


async def read(objects: Objects, name: str, version_id: str | None = None) -> bytes | None:
    found = await objects.find("AUTH_a", "c", name, version_id=version_id)
    if found is None:
        return None
    opened = await objects.open_parts(found)
    return await all_of(opened.stream(0, opened.size_bytes))


async def versions(objects: Objects, ask: ListingAsk | None = None, version_marker: str = "") -> list[VersionRow]:
    rows = await objects.list_versions("AUTH_a", "c", ask or ListingAsk(), version_marker)
    assert not any(isinstance(row, Subdir) for row in rows)
    return [row for row in rows if isinstance(row, VersionRow)]


@dataclasses.dataclass
class Kept:
    id: str
    data: bytes
    marker: bool = False


class Model:
    """Amazon's rules: with a version deleted, the newest of the others is current."""

    def __init__(self) -> None:
        self.state = ""
        self.names: dict[str, list[Kept]] = {"a": [], "a/b": [], "b": []}
        """The newest first."""

    def add(self, name: str, kept: Kept) -> None:
        if kept.id == "null":
            self.names[name] = [old for old in self.names[name] if old.id != "null"]
        self.names[name].insert(0, kept)

    def current(self, name: str) -> bytes | None:
        kept = self.names[name]
        return kept[0].data if kept and not kept[0].marker else None


steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "delete", "delete_version", "enable", "suspend"]),
        st.sampled_from(["a", "a/b", "b"]),
        st.integers(0, 5),
    ),
    max_size=14,
)


async def compare(objects: Objects, model: Model) -> None:
    expected = []
    for name, kept in sorted(model.names.items()):
        assert await read(objects, name) == model.current(name)
        for at, one in enumerate(kept):
            if not one.marker:
                assert await read(objects, name, one.id) == one.data
            expected.append((name, one.id, at == 0, one.marker, len(one.data)))
    for limit in (1, 2, 100):
        shown: list[VersionRow] = []
        marker = version_marker = ""
        while page := await versions(objects, ListingAsk(limit=limit, marker=marker), version_marker):
            shown += page
            marker, version_marker = page[-1].name, page[-1].version_id
        got = [(row.name, row.version_id, row.is_latest, row.is_marker, row.size_bytes) for row in shown]
        assert got == expected
    rows = await objects.listing("AUTH_a", "c", ListingAsk())
    assert [row.name for row in rows] == [name for name in sorted(model.names) if model.current(name) is not None]


async def play(root: Path, story: list[tuple[str, str, int]]) -> None:
    objects, model = await open_objects(root), Model()
    for number, (step, name, pick) in enumerate(story):
        data = b"x" * (number + 1)
        if step in ("enable", "suspend"):
            if step == "suspend" and not model.state:
                continue
            model.state = "enabled" if step == "enable" else "suspended"
            await objects.set_versioning("AUTH_a", "c", "enabled" if step == "enable" else "suspended")
        elif step == "put":
            head = await put(objects, name, data)
            assert (version_of(head) == "null") == (model.state != "enabled")
            model.add(name, Kept(version_of(head), data))
        elif step == "delete" and model.state:
            deleted = await objects.delete("AUTH_a", "c", name)
            assert deleted.existed == (model.current(name) is not None)
            model.add(name, Kept(deleted.version_id, b"", marker=True))
        elif step == "delete" and model.names[name]:
            await objects.delete("AUTH_a", "c", name)
            model.names[name] = []
        elif step == "delete_version" and model.names[name]:
            kept = model.names[name].pop(pick % len(model.names[name]))
            deleted = await objects.delete("AUTH_a", "c", name, version_id=kept.id, restore=True)
            assert deleted.is_marker == kept.marker
        await compare(objects, model)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps)
def test_as_the_model_has_it(story: list[tuple[str, str, int]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        asyncio.run(play(Path(root), story))


@awaited
async def test_metadata_sizes_and_promotion(tmp_path: Path) -> None:
    objects = await open_objects(tmp_path)
    plain = await put(objects, "o", b"plain", x_object_meta_k="plain")
    await objects.set_versioning("AUTH_a", "c", "enabled")
    first = await put(objects, "o", b"first", x_object_meta_k="1")
    second = await put(objects, "o", b"second")
    (row,) = await objects.listing("AUTH_a", "c", ListingAsk())
    assert isinstance(row, Row)
    container = await objects.container("AUTH_a", "c", fresh=True)
    assert (container.rows, container.size_bytes) == (1, 5 + 5 + 6)
    shown = await versions(objects)
    assert [row.version_id for row in shown] == [version_of(second), version_of(first), "null"]
    assert [row.etag for row in shown] == [second.etag, first.etag, plain.etag]
    assert shown[2].changed == plain.stamp
    with pytest.raises(Conflict):
        await objects.delete_container("AUTH_a", "c")
    await objects.versions.promote("AUTH_a", "c", "o", version_of(first))
    assert await read(objects, "o") == b"first"
    assert [row.is_latest for row in await versions(objects)] == [False, True, False]
    await objects.describe("AUTH_a", "c", "o", "text/new", {"x-object-meta-k": "new"})
    found = await objects.find("AUTH_a", "c", "o")
    assert found is not None
    assert (found.head.name, found.head.container) == ("o", "c")
    assert (found.head.shown_type, found.head.shown_headers["x-object-meta-k"]) == ("text/new", "new")
    (row,) = await objects.listing("AUTH_a", "c", ListingAsk())
    assert isinstance(row, Row)
    assert row.content_type == "text/new"
    await objects.describe("AUTH_a", "c", "o", None, {"x-object-meta-k": "nil"}, version_id="null")
    null = await objects.find("AUTH_a", "c", "o", version_id="null")
    assert null is not None
    assert null.head.shown_headers["x-object-meta-k"] == "nil"
    await objects.delete("AUTH_a", "c", "o", version_id=version_of(first))
    assert await read(objects, "o") is None  # without `restore` nothing else becomes current
    with pytest.raises(NotFound):
        await objects.delete("AUTH_a", "c", "o", version_id=version_of(first))
    for row in await versions(objects):
        await objects.delete("AUTH_a", "c", "o", version_id=row.version_id)
    await objects.delete_container("AUTH_a", "c")
    account = await objects.account("AUTH_a")
    assert account is not None
    assert account.rows == account.size_bytes == 0


@awaited
async def test_a_listing_with_directories(tmp_path: Path) -> None:
    objects = await open_objects(tmp_path)
    await objects.set_versioning("AUTH_a", "c", "enabled")
    for name in ("a", "d/1", "d/1", "d/2", "e"):
        await put(objects, name, b"x")
    await objects.delete("AUTH_a", "c", "d/2")
    rows = await objects.list_versions("AUTH_a", "c", ListingAsk(delimiter="/"))
    assert [row.name for row in rows] == ["a", "d/", "e"]
    rows = await objects.list_versions("AUTH_a", "c", ListingAsk(delimiter="/", marker="d/"))
    assert [row.name for row in rows] == ["e"]
    rows = await objects.list_versions("AUTH_a", "c", ListingAsk(prefix="d/", delimiter="/"))
    assert [row.name for row in rows] == ["d/1", "d/1", "d/2", "d/2"]
    with pytest.raises(Invalid):
        await objects.list_versions("AUTH_a", "c", ListingAsk(), "0" * 16 + "-n")


@awaited
async def test_what_expires_leaves_its_version(tmp_path: Path) -> None:
    objects = await open_objects(tmp_path)
    await objects.set_versioning("AUTH_a", "c", "enabled")
    now_s = int(objects.cluster.world.clock.now_s())
    head = await put(objects, "o", b"x", x_delete_at=str(now_s - 1))
    assert await objects.find("AUTH_a", "c", "o") is None
    assert await objects.find("AUTH_a", "c", "o", version_id=version_of(head)) is not None


@given(st.text("ab/\u00e9\U0010ffff", min_size=1), st.integers(0, 10**16 - 1), st.integers(0, 10**16 - 1))
def test_later_versions_sort_first(name: str, one: int, two: int) -> None:
    ids = [f"{ticks:016d}-n.1-x" for ticks in (one, two)]
    assert [name_and_id(entry_name(name, id)) for id in ids] == [(name, id) for id in ids]
    assert (entry_name(name, ids[0]) < entry_name(name, ids[1])) == (one > two)


@awaited
async def test_ids_that_never_were(tmp_path: Path) -> None:
    objects = await open_objects(tmp_path)
    for bad in ("", "x", "../x", "0" * 16, "0" * 16 + "-\0", "0" * 16 + "-" + "n" * 300):
        with pytest.raises(Invalid):
            await objects.find("AUTH_a", "c", "o", version_id=bad)
    assert await objects.find("AUTH_a", "c", "o", version_id="0" * 16 + "-n1") is None

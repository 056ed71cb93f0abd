"""Lifecycle rules in virtual time: what goes on which day, what stays, and that a second pass finds nothing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from apus.services.object.assembly import ObjectStore, drives_in, open_store
from apus.services.object.engine import Intent
from apus.services.object.logic.lifecycle import (
    DAY_S,
    LIFECYCLE,
    Rule,
    expiry_of,
    leaving,
    midnight,
    rules_text,
    written_s,
)
from apus.services.object.logic.locks import COMPLIANCE, Retention
from apus.services.object.logic.merge import TICKS_PER_S, make_stamp
from apus.services.object.logic.tags import TAGS
from apus.services.object.logic.uploads import parts_container, uploads_container
from apus.services.object.logic.versions import NULL, VersionRow, version_of
from apus.services.object.loops.lifecycle import Lifecycle
from apus.services.object.model import Head, ListingAsk, Subdir
from tests.object_store import FixedClock, awaited, chunks, drive_paths, make_world

NOON_S = 20_000 * DAY_S + DAY_S / 2


class Days:
    """A store, and a clock in days."""

    def __init__(self, store: ObjectStore, clock: FixedClock) -> None:
        self.store, self.objects, self.clock = store, store.service, clock

    async def say(self, *rules: Rule) -> None:
        await self.objects.describe_container("AUTH_a", "c", {LIFECYCLE: rules_text(rules)})

    async def put(self, name: str, data: bytes = b"x", **headers: str) -> Head:
        said = {key.replace("_", "-"): value for key, value in headers.items()}
        self.clock.at_s += 0.001
        return await self.objects.put(Intent("AUTH_a", "c", name, "text/plain", said), chunks(data))

    async def names(self) -> list[str]:
        return [row.name for row in await self.objects.listing("AUTH_a", "c", ListingAsk())]

    async def versions(self) -> list[tuple[str, str]]:
        rows = await self.objects.list_versions("AUTH_a", "c", ListingAsk())
        return [
            (row.name, "marker" if row.is_marker else row.version_id) for row in rows if not isinstance(row, Subdir)
        ]

    async def at(self, day: float) -> None:
        """The loop runs on that day, twice."""
        self.clock.at_s = NOON_S + day * DAY_S
        await self.store.lifecycle.run_once()
        seen = await self.versions()
        self.store.lifecycle._done.clear()
        await self.store.lifecycle.run_once()
        assert await self.versions() == seen, "the second pass finds nothing to do"


@contextlib.asynccontextmanager
async def days(root: Path, *, versioned: bool = False) -> AsyncIterator[Days]:
    clock = FixedClock(NOON_S)
    store = await open_store(make_world(clock=clock), drives_in(drive_paths(root, 3)), root / "layout.json")
    await store.service.make_container("AUTH_a", "c", {})
    if versioned:
        await store.service.set_versioning("AUTH_a", "c", "enabled")
    yield Days(store, clock)
    await store.close()


@awaited
async def test_days_and_dates(tmp_path: Path) -> None:
    async with days(tmp_path) as it:
        await it.say(
            Rule("logs", prefix="log/", days=1),
            Rule("off", enabled=False, prefix="kept", days=1),
            Rule("at once", prefix="dated/", date_s=midnight(NOON_S + 3 * DAY_S)),
        )
        for name in ("log/a", "log/b", "dated/a", "kept", "other"):
            await it.put(name)
        await it.at(1)
        assert "log/a" in await it.names(), "a day is up at the midnight that follows it"
        await it.put("log/b", b"written again")
        await it.at(2)
        assert await it.names() == ["dated/a", "kept", "log/b", "other"]
        await it.at(4)
        assert await it.names() == ["kept", "other"]
        await it.say()
        await it.at(400)
        assert await it.names() == ["kept", "other"]


@awaited
async def test_tags_and_sizes(tmp_path: Path) -> None:
    async with days(tmp_path) as it:
        await it.say(
            Rule("tags", tags=(("a", "1"), ("b", "2")), days=1),
            Rule("sizes", bytes_over=5, bytes_under=8, days=1),
        )
        await it.put("both", **{TAGS: "a=1&b=2&c=3"})
        await it.put("one", **{TAGS: "a=1"})
        for size in (5, 6, 7, 8):
            await it.put(f"size{size}", bytes(size))
        await it.at(2)
        assert await it.names() == ["one", "size5", "size8"]


@awaited
async def test_versions_and_markers(tmp_path: Path) -> None:
    async with days(tmp_path, versioned=True) as it:
        first = version_of(await it.put("o", b"1"))
        await it.at(5)
        second = version_of(await it.put("o", b"2"))
        third = version_of(await it.put("o", b"3"))
        await it.say(Rule("old", noncurrent_days=2, noncurrent_kept=1))
        await it.at(7)
        assert await it.versions() == [("o", third), ("o", second), ("o", first)]
        await it.at(8)
        assert await it.versions() == [("o", third), ("o", second)]
        await it.say(Rule("all", days=10, noncurrent_days=3))
        await it.at(16)
        versions = await it.versions()
        assert versions == [("o", "marker"), ("o", third)], "what is current is marked, not removed"
        await it.at(30)
        assert await it.versions() == [], "the version went, and then the marker with nothing behind it"


@awaited
async def test_markers_alone(tmp_path: Path) -> None:
    async with days(tmp_path, versioned=True) as it:
        version = version_of(await it.put("o"))
        await it.objects.delete("AUTH_a", "c", "o")
        await it.say(Rule("markers", markers=True))
        await it.at(1)
        assert len(await it.versions()) == 2
        await it.objects.delete("AUTH_a", "c", "o", version_id=version)
        await it.at(2)
        assert await it.versions() == []


@awaited
async def test_locked_versions_stay(tmp_path: Path) -> None:
    async with days(tmp_path, versioned=True) as it:
        await it.objects.set_locking("AUTH_a", "c", None)
        version = version_of(await it.put("o", b"1"))
        await it.objects.retain("AUTH_a", "c", "o", None, Retention(COMPLIANCE, NOON_S + 9 * DAY_S))
        await it.put("o", b"2")
        await it.say(Rule("old", noncurrent_days=1))
        await it.at(5)
        assert ("o", version) in await it.versions()
        await it.at(10)
        assert ("o", version) not in await it.versions()


@awaited
async def test_uploads(tmp_path: Path) -> None:
    async with days(tmp_path) as it:
        await it.say(Rule("uploads", prefix="a/", abort_days=2))

        async def begin(name: str) -> None:
            upload_id = await it.objects.uploads.begin(Intent("AUTH_a", "c", name, "text/plain", {}, 0))
            upload = await it.objects.uploads.find("AUTH_a", "c", name, upload_id)
            await it.objects.uploads.put_part(upload, 1, Intent("AUTH_a", "c", name, "a/b", {}), chunks(b"x"))

        async def there() -> list[str]:
            await it.store.sweeper.run_once()
            found: list[Any] = []
            for container in (uploads_container("c"), parts_container("c")):
                found += await it.objects.directory.listing("AUTH_a", container, ListingAsk())
            return [row.name.split("\0")[0] for row in found]

        await begin("a/old")
        await begin("b/old")
        await it.at(2)
        await begin("a/new")
        assert sorted(await there()) == ["a/new", "a/new", "a/old", "a/old", "b/old", "b/old"]
        await it.at(3)
        assert sorted(await there()) == ["a/new", "a/new", "b/old", "b/old"]


@awaited
async def test_many_names_in_pages(tmp_path: Path) -> None:
    async with days(tmp_path, versioned=True) as it:
        for _ in range(3):
            for number in range(7):
                await it.put(f"o{number}")
        await it.say(Rule("old", noncurrent_days=1))
        it.clock.at_s += 2 * DAY_S
        await Lifecycle(it.objects, page=2).run_once()
        assert len(await it.versions()) == 7


def test_when_it_is_said_to_go() -> None:
    rules = [Rule("late", days=9), Rule("soon", days=2, prefix="a"), Rule("off", days=1, enabled=False)]
    assert expiry_of(rules, "a", 1, {}, NOON_S) == (midnight(NOON_S) + 2 * DAY_S, "soon")
    assert expiry_of(rules, "b", 1, {}, NOON_S) == (midnight(NOON_S) + 9 * DAY_S, "late")
    assert expiry_of(rules[2:], "b", 1, {}, NOON_S) is None
    assert midnight(DAY_S) == DAY_S
    assert midnight(DAY_S + 0.5) == 2 * DAY_S


def test_age_is_counted_from_the_writing() -> None:
    written, told = (make_stamp(int(at_s * TICKS_PER_S), "n1") for at_s in (NOON_S, NOON_S + DAY_S))
    assert written_s(VersionRow("o", NULL, True, False, 1, "", "", "", written, told)) == NOON_S


def row(at_s: float, *, marker: bool, latest: bool) -> VersionRow:
    version_id = make_stamp(int(at_s * TICKS_PER_S), "n1")
    return VersionRow("o", version_id, latest, marker, 1, "", "", "", version_id)


@given(
    st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=1, max_size=8, unique_by=lambda one: one[0]),
    st.lists(
        st.builds(
            Rule, st.just("r"), days=st.none() | st.integers(1, 20), markers=st.booleans(),
            noncurrent_days=st.none() | st.integers(1, 20), noncurrent_kept=st.integers(0, 3),
        ),
        max_size=3,
    ),
    st.integers(40, 80),
)  # fmt: skip
def test_what_leaves(written: list[tuple[int, bool]], rules: list[Rule], now_day: int) -> None:
    rows = [
        row(day * DAY_S, marker=marker, latest=place == 0)
        for place, (day, marker) in enumerate(sorted(written, reverse=True))
    ]
    gone = list(leaving(rules, rows, lambda _: {}, now_day * DAY_S))
    removed = [one.row for one in gone if not one.mark]
    kept = [one for one in rows if one not in removed]
    assert len(set(map(id, removed))) == len(removed)
    if rows[0] in removed:
        assert rows[0].is_marker
        assert kept == []
    assert all(one.row is rows[0] and not one.row.is_marker for one in gone if one.mark)
    if kept and not any(rule.noncurrent_days for rule in rules):
        assert kept == rows
    again = list(leaving(rules, kept, lambda _: {}, now_day * DAY_S)) if kept else []
    assert not [one for one in again if not one.mark and one.row is kept[0] and not one.row.is_marker]

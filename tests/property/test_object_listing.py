"""A page of a container against the plain definition of what it should hold."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from apus.services.object.drivers.sqlite_index import IndexFile
from apus.services.object.logic.listing import successor
from apus.services.object.logic.ranges import parse_ranges
from apus.services.object.model import Change, ListingAsk, Row, Subdir

names = st.text("ab/\u00e9\U0010ffff", min_size=1, max_size=6)
texts = st.text("ab/", max_size=3)
asks = st.builds(
    ListingAsk,
    limit=st.integers(0, 12),
    marker=texts,
    end_marker=texts,
    prefix=texts,
    delimiter=st.sampled_from(["", "/", "a"]),
    reverse=st.booleans(),
)


def plain(ask: ListingAsk, kept: set[str]) -> list[str]:
    low, high = (ask.end_marker, ask.marker) if ask.reverse else (ask.marker, ask.end_marker)
    found: list[str] = []
    for name in sorted(kept, reverse=ask.reverse):
        if not name.startswith(ask.prefix) or name <= low or (high and name >= high):
            continue
        cut = name.find(ask.delimiter, len(ask.prefix)) if ask.delimiter else -1
        shown = name if cut < 0 else name[: cut + len(ask.delimiter)] + "*"
        if shown not in found and not (cut >= 0 and shown[:-1] == ask.marker):
            found.append(shown)
    return found[: ask.limit]


@settings(max_examples=200, deadline=None)
@given(st.sets(names, max_size=14), asks)
def test_a_page_is_what_its_definition_says(kept: set[str], ask: ListingAsk) -> None:
    index = IndexFile(Path(":memory:"))
    index.apply([Change("a", "c", tuple(Row(name, "1") for name in kept), made="1")])
    page = index.listing(ask)
    assert [row.name + "*" * isinstance(row, Subdir) for row in page] == plain(ask, kept)
    index.close()


rows = st.lists(
    st.builds(Row, name=st.sampled_from("abc"), stamp=st.sampled_from("123"), told=st.sampled_from("12"),
              gone=st.booleans(), size_bytes=st.integers(0, 9)),
    max_size=8, unique_by=lambda row: (row.name, row.stamp, row.told),
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(rows, st.randoms())
def test_the_order_in_which_changes_arrive_does_not_matter(changes: list[Row], dice: object) -> None:
    one, two = IndexFile(Path(":memory:")), IndexFile(Path(":memory:"))
    shuffled = list(changes)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    for part in ((), *((row,) for row in changes)):
        one.apply([Change("a", "c", part, made="1")])
    two.apply([Change("a", "c", tuple(shuffled), made="1")])
    for row in shuffled:
        two.apply([Change("a", "c", (row,))])
    assert one.rows("", 100) == two.rows("", 100)
    assert one.head() == two.head()
    assert one.digest() == two.digest()
    assert one.audit()


@given(st.text(max_size=4), st.text(max_size=4))
def test_nothing_that_begins_so_is_behind_the_successor(prefix: str, rest: str) -> None:
    behind = successor(prefix)
    if behind:
        assert prefix + rest < behind
        assert not behind.startswith(prefix) or not prefix


@given(st.text("bytes=0123456789-, ", max_size=20), st.integers(0, 50))
def test_ranges_stay_inside(header: str, size: int) -> None:
    for offset, length in parse_ranges(header, size) or []:
        assert offset >= 0
        assert length > 0
        assert offset + length <= size


def test_ranges() -> None:
    assert parse_ranges("bytes=0-3", 10) == [(0, 4)]
    assert parse_ranges("bytes=-3,5-", 10) == [(7, 3), (5, 5)]
    assert parse_ranges("bytes=10-", 10) == []
    assert parse_ranges("bytes=5-2", 10) is None
    assert parse_ranges("lines=1-2", 10) is None

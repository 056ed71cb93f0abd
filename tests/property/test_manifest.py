"""Segments against the plain joining of their bytes, and hidden names."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from apus.services.object.logic.hidden import described, hidden_container, is_hidden, only_hidden, only_shown, shown
from apus.services.object.logic.listed import listed, with_parameters
from apus.services.object.logic.listing import Window, page
from apus.services.object.logic.manifest import (
    Seen,
    Segment,
    Wish,
    decode_manifest,
    encode_manifest,
    etag_of,
    pieces,
    segment_of,
    total_bytes,
)
from apus.services.object.model import ListingAsk, Row

OBJECTS = {f"o{size}": bytes(range(size)) for size in (1, 2, 7, 50)}


@st.composite
def segments(draw: st.DrawFn) -> Segment:
    if draw(st.booleans()):
        return Segment(data=draw(st.binary(min_size=1, max_size=9)))
    name = draw(st.sampled_from(sorted(OBJECTS)))
    size = len(OBJECTS[name])
    offset = draw(st.integers(0, size - 1))
    length = draw(st.none() | st.integers(1, size - offset))
    return Segment("a", "c", name, "e", size, offset, length)


def bytes_of(segment: Segment) -> bytes:
    if segment.data:
        return segment.data
    return OBJECTS[segment.name][segment.offset :][: segment.length]


@given(st.lists(segments(), max_size=8), st.integers(0, 120), st.integers(0, 120))
def test_pieces_are_the_range(some: list[Segment], offset: int, length: int) -> None:
    joined = b"".join(bytes_of(segment) for segment in some)
    assert total_bytes(some) == len(joined)
    got = b"".join(
        (segment.data or OBJECTS[segment.name])[start : start + size]
        for segment, start, size in pieces(some, offset, length)
    )
    assert got == joined[offset : offset + length]
    assert decode_manifest(encode_manifest(some)) == tuple(some)


def test_the_etag_is_swifts() -> None:
    """The reference: MD5 of the ETags, of a part of a segment with `:FIRST-LAST;`, of data that of its MD5."""
    some = [Segment("a", "c", "x", "aa", 10), Segment("a", "c", "y", "bb", 10, 2, 3), Segment(data=b"d")]
    expected = "aa" + "bb:2-4;" + hashlib.md5(b"d").hexdigest()
    assert etag_of(some) == hashlib.md5(expected.encode()).hexdigest()


def test_what_is_wrong_with_a_wish() -> None:
    seen = Seen("e", 10, "t", "s", False)
    assert segment_of(Wish("a", "c", "n", "f"), seen) == "Etag Mismatch"
    assert segment_of(Wish("a", "c", "n", "e", 9), seen) == "Size Mismatch"
    for text in ("10-", "x", "3-1", "0-1,3-4x", ""):
        assert segment_of(Wish("a", "c", "n", range=text), seen) == "Unsatisfiable Range"
    part = segment_of(Wish("a", "c", "n", "e", 10, "-4"), seen)
    assert isinstance(part, Segment)
    assert (part.offset, part.used_bytes, part.whole) == (6, 4, False)
    assert isinstance(segment_of(Wish("a", "c", "n"), Seen("e", 0, "t", "s", False)), str)


@given(st.lists(st.text("ab\0", min_size=1, max_size=4), max_size=12), st.text("ab", max_size=2), st.booleans())
def test_a_page_has_the_hidden_ones_or_the_others(names: list[str], marker: str, reverse: bool) -> None:
    def scan(window: Window, limit: int) -> list[Row]:
        inside = [
            name
            for name in sorted(set(names))
            if (name > window.low or (window.inclusive and name == window.low))
            and (not window.high or name < window.high)
        ]
        return [Row(name, "s") for name in (inside[::-1] if reverse else inside)[:limit]]

    ask = ListingAsk(**{"end_marker" if reverse else "marker": marker}, reverse=reverse)
    kept = {row.name for row in page(only_shown(ask), scan)}
    assert kept == {name for name in names if not is_hidden("a", name) and name > marker}
    if not reverse:
        assert {row.name for row in page(only_hidden("", 100), scan)} == {n for n in names if is_hidden("a", n)}


def test_hidden_names_and_headers() -> None:
    assert is_hidden("a", hidden_container("parts", "c"))
    assert is_hidden(".expiring")
    assert not is_hidden("AUTH_a", "c")
    headers = {"x-object-meta-a": "1", "x-object-sysmeta-b": "2"}
    assert shown(headers) == {"x-object-meta-a": "1"}
    assert described(headers, {"x-object-meta-c": "", "x-object-sysmeta-d": "4"}) == {
        "x-object-meta-c": "", "x-object-sysmeta-b": "2", "x-object-sysmeta-d": "4",
    }  # fmt: skip
    assert described(headers, {"x-object-sysmeta-b": ""}) == {}


def test_parameters_of_a_row() -> None:
    row = Row("n", "s", size_bytes=3, etag=with_parameters("e", bytes="12", slo_etag="x;y= z", symlink="a/c/\u00e9"))
    found = listed(row)
    assert (found.etag, found.size_bytes, found.manifest_etag, found.link) == ("e", 12, "x;y= z", "a/c/\u00e9")
    assert listed(Row("n", "s", size_bytes=3, etag="e"))[:2] == ("e", 3)

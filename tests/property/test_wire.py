"""Laws of the router, of versions and of the readers of queries."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apus.kernel.errors import Invalid
from apus.kernel.ids import is_uuid, new_id
from apus.wire.listing import boolean, page_of, select_fields, whole_number
from apus.wire.route import ApiRequest, Reply, Route, Router
from apus.wire.versions import Change, VersionChain, parse_version, text_of


async def handler(request: ApiRequest) -> Reply:
    return Reply()


PATHS = ("", "/", "/things", "/things/detail", "/things/{id}", "/things/{id}/parts/{part}", "/{a}/{b}/{rest:path}")
ROUTER = Router([Route(method, path, handler, None) for path in PATHS for method in ("GET", "PUT")])
segments = st.text(alphabet="ab%2F/é \0.{}", max_size=6)


def slow_find(raw: str) -> set[str]:
    """Paths whose pattern fits, by comparing piece by piece."""
    pieces = raw.split("/")[1:]
    fitting = set()
    for path in PATHS:
        wanted = path.split("/")[1:]
        rest = bool(wanted) and wanted[-1].endswith(":path}")
        if rest:
            wanted = wanted[:-1]
        if len(pieces) <= len(wanted) if rest else len(pieces) != len(wanted):
            continue
        pairs = zip(wanted, pieces, strict=False)
        if all(piece == want or (want.startswith("{") and piece) for want, piece in pairs):
            fitting.add(path)
    return fitting


@given(st.lists(segments, max_size=5), st.sampled_from(["GET", "HEAD", "PUT", "PATCH", "get", ""]))
def test_the_router_finds_what_fits(parts: Sequence[str], method: str) -> None:
    raw = "".join("/" + part for part in parts)
    found, methods = ROUTER.find(method, raw)
    fitting = slow_find(raw)
    assert bool(methods) == bool(fitting)
    assert bool(found) == (bool(fitting) and method in ("GET", "HEAD", "PUT"))
    assert all(route.path in fitting for route, _ in found)
    if methods:
        assert sorted(methods) == ["GET", "PUT"]


@given(st.text(min_size=1), st.text(min_size=1))
def test_parameters_come_back_as_they_were_before_encoding(one: str, two: str) -> None:
    ((route, params),), _ = ROUTER.find("GET", f"/things/{quote(one, safe='')}/parts/{quote(two, safe='')}")
    assert route.path == "/things/{id}/parts/{part}"
    assert params == {"id": one, "part": two}


@given(st.integers())
def test_new_ids_are_version_4(seed: int) -> None:
    made = new_id(Random(seed))
    assert made == str(UUID(int=Random(seed).getrandbits(128), version=4))
    assert is_uuid(made)


@given(st.tuples(st.integers(1, 99), st.integers(0, 999)))
def test_versions_read_as_they_are_written(version: tuple[int, int]) -> None:
    assert parse_version(text_of(version)) == version


CHAIN = VersionChain(
    "thing",
    (1, 1),
    (1, 9),
    (
        Change((1, 3), "op", up=lambda body: body | {"three": body["one"]}, down=lambda view: _less(view, "three")),
        Change((1, 5), "op", up=lambda body: body | {"five": 5}, down=lambda view: _less(view, "five")),
        Change((1, 5), "other", down=lambda view: {}),
    ),
)


def _less(view: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in view.items() if key != name}


@given(st.integers(1, 9), st.dictionaries(st.sampled_from(["one", "two"]), st.integers(), min_size=1))
def test_down_after_up_is_what_the_old_client_sent(minor: int, body: dict[str, Any]) -> None:
    sent = {"one": 1, **body}
    lifted = CHAIN.upgrade(sent, "op", (1, minor))
    assert ("five" in lifted) == (minor < 5)
    assert CHAIN.downgrade(lifted, "op", (1, minor)) == sent


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def chains() -> Sequence[Any]:
    """Every service's chain of changes, with the names of fields that its translations look at."""
    source = Path(__file__).parents[2] / "src"
    found = []
    for path in sorted(source.glob("apus/services/*/api/changes.py")):
        module = importlib.import_module(".".join(path.relative_to(source).with_suffix("").parts))
        chain = next(value for value in vars(module).values() if isinstance(value, VersionChain))
        found.append(pytest.param(chain, path.read_text(), id=path.parts[-3]))
    return found


@pytest.mark.parametrize(("chain", "text"), chains())
@given(data=st.data())
def test_no_body_breaks_a_translation(chain: VersionChain, text: str, data: st.DataObject) -> None:
    """`up` sees bodies before they are validated: it may refuse them, and may not fall over them."""
    words = sorted({word for word in text.replace("'", '"').split('"') if word.isidentifier()})
    keys = st.sampled_from(words) | st.text(max_size=3)
    deep = st.recursive(
        json_values, lambda inner: st.dictionaries(keys, inner, max_size=4) | st.lists(inner, max_size=2), max_leaves=8
    )
    changes = [change for change in chain.changes() if change.up is not None]
    if not changes:
        return
    change = data.draw(st.sampled_from(changes))
    assert change.up is not None
    with contextlib.suppress(Invalid):
        change.up(data.draw(st.dictionaries(keys, deep, max_size=5)))


def request_for(query: str) -> ApiRequest:
    scope = {"raw_path": b"/x", "query_string": query.encode("utf-8", "replace"), "method": "GET"}
    return ApiRequest(scope, None, {"host": "h"}, "req-1")  # type: ignore[arg-type]


@given(st.text(alphabet="limtarkesodcy_f=&:,-+%0129 ٣é", max_size=40))
def test_any_query_gives_a_page_or_names_its_field(query: str) -> None:
    limit, field = 1, "limit"
    try:
        limit = page_of(request_for(query), sort_keys={"name": "name"}).limit
    except Invalid as error:
        field = error.field or ""
    assert 0 < limit <= 1000
    assert field in ("limit", "sort_key", "sort_dir", "page_reverse")


@pytest.mark.parametrize("text", ["1_0", " 1", "٣", "", "1.0", "0x1", "9" * 5000, "1e3"])
def test_what_only_looks_like_a_number_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        whole_number("limit", text)
    assert caught.value.field == "limit"
    assert len(caught.value.shown) < 200


def test_numbers_have_bounds() -> None:
    assert whole_number("n", "-5") == -5
    for text in ("0", str(2**63)):
        with pytest.raises(Invalid):
            whole_number("n", text, minimum=1)


def test_pages_are_read() -> None:
    page = page_of(
        request_for(
            "limit=5&marker=m&sort_key=name&sort_key=size&sort_dir=desc&fields=id&fields=name&page_reverse=True"
        ),
        sort_keys={"name": "name", "size": "size_bytes"},
    )
    assert (page.limit, page.marker, page.reverse) == (5, "m", True)
    assert page.sort == [("name", True), ("size_bytes", True)]
    assert select_fields({"id": 1, "name": 2, "size": 3}, page.fields) == {"id": 1, "name": 2}
    assert page_of(request_for("sort=name:desc"), sort_keys={"name": "name"}).sort == [("name", True)]
    with pytest.raises(Invalid, match="possible: name"):
        page_of(request_for("sort_key=secret"), sort_keys={"name": "name"})
    with pytest.raises(Invalid):
        boolean("x", "maybe")

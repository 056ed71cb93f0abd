"""Lists, once for all services: limit and marker, sorting, filters, field selection, links to the next page."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

from apus.kernel.errors import Invalid
from apus.kernel.limits import PAGE_MAX
from apus.wire.route import ApiRequest

INTEGER_MAX: Final = 2**63 - 1
"""What a column of either engine holds."""
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,30}")
_TRUE: Final = frozenset({"1", "t", "true", "on", "y", "yes"})
_FALSE: Final = frozenset({"0", "f", "false", "off", "n", "no"})


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Which page of a list was asked for."""

    limit: int
    limit_given: bool
    marker: str | None
    sort: Sequence[tuple[str, bool]]
    """(key, descending), as the client named the keys."""
    reverse: bool = False
    fields: frozenset[str] = frozenset()


def page_of(request: ApiRequest, *, sort_keys: Mapping[str, str] | None = None, limit_max: int = PAGE_MAX) -> Page:
    """Read limit, marker, sort_key/sort_dir, sort=key:dir, page_reverse and fields.

    `sort_keys` maps the client's names to record fields; others are refused with the list of those that work.
    """
    raw_limit = request.query("limit")
    limit = limit_max
    if raw_limit is not None:
        limit = whole_number("limit", raw_limit, minimum=0)
        limit = limit_max if limit == 0 else min(limit, limit_max)
    fields = frozenset(value for key, value in request.queries if key == "fields" and value)
    return Page(
        limit=limit,
        limit_given=raw_limit is not None,
        marker=request.query("marker") or None,
        sort=_sort_of(request, sort_keys or {}),
        reverse=boolean("page_reverse", request.query("page_reverse") or "false"),
        fields=fields,
    )


def _sort_of(request: ApiRequest, sort_keys: Mapping[str, str]) -> Sequence[tuple[str, bool]]:
    keys = [value for key, value in request.queries if key == "sort_key"]
    directions = [value for key, value in request.queries if key == "sort_dir"]
    pairs = [(key, directions[index] if index < len(directions) else "asc") for index, key in enumerate(keys)]
    if len(keys) > 1 and len(directions) == 1:
        pairs = [(key, directions[0]) for key in keys]
    for item in (request.query("sort") or "").split(","):
        if item:
            key, _, direction = item.partition(":")
            pairs.append((key.strip(), direction.strip() or "asc"))
    sort = []
    for key, direction in pairs:
        if key not in sort_keys:
            known = ", ".join(sorted(sort_keys)) or "none"
            raise Invalid(
                "wire.sort_key", f"sort_key: {key!r} cannot be sorted by; possible: {known}.", field="sort_key"
            )
        if direction.lower() not in ("asc", "desc"):
            raise Invalid("wire.sort_dir", f"sort_dir: {direction!r} is neither 'asc' nor 'desc'.", field="sort_dir")
        sort.append((sort_keys[key], direction.lower() == "desc"))
    return sort


def next_query(request: ApiRequest, marker: str) -> str:
    """The query string of the next page: the same but for the marker."""
    kept = [(key, value) for key, value in request.queries if key != "marker"]
    return urlencode([*kept, ("marker", marker)])


def next_href(request: ApiRequest, marker: str) -> str:
    return f"{request.base_url}{request.raw_path}?{next_query(request, marker)}"


def select_fields(view: Mapping[str, Any], fields: frozenset[str]) -> Mapping[str, Any]:
    return {key: value for key, value in view.items() if key in fields} if fields else view


def whole_number(field: str, text: str, *, minimum: int = -INTEGER_MAX, maximum: int = INTEGER_MAX) -> int:
    if not _WHOLE.fullmatch(text):  # int() also takes blanks, underscores and other scripts' digits
        raise Invalid("wire.not_a_number", f"{field}: {text[:40]!r} is not a whole number.", field=field)
    number = int(text)
    if number < minimum:
        raise Invalid("wire.too_small", f"{field}: {number} is less than {minimum}.", field=field)
    if number > maximum:
        raise Invalid("wire.too_large", f"{field}: {number} is more than {maximum}.", field=field)
    return number


def boolean(field: str, text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise Invalid("wire.not_a_boolean", f"{field}: {text[:40]!r} is neither true nor false.", field=field)


def equals(getter: Callable[[Any], Any], wanted: Sequence[str]) -> Callable[[Any], bool]:
    """A test for `Query.matches`: the field is one of these, compared as text."""
    allowed = frozenset(wanted)
    return lambda record: str(getter(record)) in allowed

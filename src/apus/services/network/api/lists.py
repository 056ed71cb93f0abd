"""Lists of this API: every attribute is a filter and a sort key, on the views themselves.

Repeated filters mean any of the values; `tags` all of the tags, `tags-any` one of them, `not-` the reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from apus.kernel.errors import NotFound
from apus.services.network.service.refusals import bad_input
from apus.wire.listing import Page, next_href, page_of
from apus.wire.route import ApiRequest, Reply

View = dict[str, Any]
_TAG_FILTERS: Final = ("tags", "tags-any", "not-tags", "not-tags-any")
_PAGING: Final = ("limit", "marker", "sort_key", "sort_dir", "sort", "page_reverse", "fields")
_CONTROL: Final = frozenset((*_PAGING, *_TAG_FILTERS))


def listed(request: ApiRequest, plural: str, views: Sequence[View], known: frozenset[str]) -> Reply:
    page = page_of(request, sort_keys={key: key for key in known})
    found = [view for view in views if _matches(request, view, known)]
    found.sort(key=lambda view: str(view["id"]))
    for key, descending in reversed(page.sort):
        found.sort(key=_sort_key(key), reverse=descending)
    cut, more = _cut(found, page)
    body: dict[str, Any] = {plural: [picked(view, page.fields) for view in cut]}
    if page.limit_given:
        links = []
        if more and cut:
            links.append({"rel": "next", "href": next_href(request, str(cut[-1]["id"]))})
        if page.marker and cut:
            links.append({"rel": "previous", "href": next_href(request, str(cut[0]["id"])) + "&page_reverse=True"})
        body[f"{plural}_links"] = links
    return Reply(body)


def _sort_key(key: str) -> Callable[[View], tuple[bool, Any]]:
    def value_of(view: View) -> tuple[bool, Any]:
        value = view.get(key)
        return (value is not None, value if isinstance(value, (int, float, str)) else str(value))

    return value_of


def _cut(views: list[View], page: Page) -> tuple[list[View], bool]:
    if page.reverse:
        views = views[::-1]
    if page.marker is not None:
        place = next((index for index, view in enumerate(views) if view["id"] == page.marker), None)
        if place is None:
            shown = f"marker: there is no {page.marker} in this list."
            raise NotFound("network.no_marker", shown, details={"type": "HTTPNotFound"})
        views = views[place + 1 :]
    cut, more = views[: page.limit], len(views) > page.limit
    return (cut[::-1] if page.reverse else cut), more


def picked(view: View, fields: frozenset[str]) -> Mapping[str, Any]:
    return {key: value for key, value in view.items() if key in fields} if fields else view


def _matches(request: ApiRequest, view: View, known: frozenset[str]) -> bool:
    wanted: dict[str, list[str]] = {}
    for key, value in request.queries:
        if key in _CONTROL:
            if not _tags_match(key, value, view):
                return False
        elif key == "fixed_ips":
            if not _ip_matches(value, view):
                return False
        elif key in known:
            wanted.setdefault(key, []).append(value)
        else:
            raise bad_input(key, f"['{key}'] is invalid attribute for filtering")
    return all(_is_one_of(view.get(key), values) for key, values in wanted.items())


def _tags_match(key: str, value: str, view: View) -> bool:
    if "tags" not in key:
        return True
    asked, has = {tag for tag in value.split(",") if tag}, set(view.get("tags") or ())
    held = bool(asked & has) if key.endswith("any") else asked <= has
    return held != key.startswith("not-")


def _ip_matches(value: str, view: View) -> bool:
    """`fixed_ips=ip_address=10.0.0.5`, `subnet_id=…`, `ip_address_substr=…`."""
    key, _, text = value.partition("=")
    ips: list[dict[str, str]] = view.get("fixed_ips") or []
    if key == "ip_address_substr":
        return any(text in ip["ip_address"] for ip in ips)
    return any(ip.get(key) == text for ip in ips)


def _is_one_of(value: Any, wanted: Sequence[str]) -> bool:
    if isinstance(value, bool):
        return any((text.lower() in ("true", "1", "t", "yes")) == value for text in wanted)
    if isinstance(value, list):
        return any(text in value for text in wanted)
    return any(text == ("" if value is None else str(value)) for text in wanted)

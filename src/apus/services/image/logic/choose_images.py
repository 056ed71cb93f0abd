"""Which images a list shows: who may see what, the filters, the order, the page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from apus.kernel.caller import Caller
from apus.kernel.errors import NotFound
from apus.services.image.model import Image, MemberStatus, Visibility

COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "gt": lambda mine, asked: mine > asked,
    "gte": lambda mine, asked: mine >= asked,
    "lt": lambda mine, asked: mine < asked,
    "lte": lambda mine, asked: mine <= asked,
    "eq": lambda mine, asked: mine == asked,
    "neq": lambda mine, asked: mine != asked,
}


class ImageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """One list as it was asked for."""

    among: Mapping[str, frozenset[str | None]] = {}
    """Field -> the values that are wanted."""
    visibility: Visibility | None = None
    every_visibility: bool = False
    """Community images of others too."""
    member_status: MemberStatus | None = MemberStatus.ACCEPTED
    """Of images shared with the caller; None: whatever he answered."""
    tags: frozenset[str] = frozenset()
    size_min_bytes: int | None = None
    size_max_bytes: int | None = None
    protected: bool | None = None
    hidden: bool = False
    times: Sequence[tuple[str, str, float]] = ()
    """(field, comparison, seconds since the epoch)."""
    properties: Mapping[str, str] = {}
    sort: Sequence[tuple[str, bool]] = ()
    marker: str | None = None
    limit: int


def sees(caller: Caller, image: Image, membership: MemberStatus | None) -> bool:
    """May the caller look at this image when he knows its id?  A project that it is shared with may at once."""
    if caller.is_admin or image.visibility in (Visibility.PUBLIC, Visibility.COMMUNITY):
        return True
    if image.project_id is not None and image.project_id == caller.project_id:
        return True
    return image.visibility is Visibility.SHARED and membership is not None


def lists(caller: Caller, image: Image, membership: MemberStatus | None, query: ImageQuery) -> bool:
    """Is it in the caller's list, before the filters?  Nobody can push an image into another's list unasked."""
    if not sees(caller, image, membership):
        return False
    if query.visibility is not None and image.visibility is not query.visibility:
        return False
    if caller.is_admin or (image.project_id is not None and image.project_id == caller.project_id):
        return True
    if image.visibility is Visibility.COMMUNITY:
        return query.every_visibility or query.visibility is Visibility.COMMUNITY
    if image.visibility is Visibility.SHARED:
        return query.member_status is None or membership is query.member_status
    return True


def choose_images(
    caller: Caller, images: Iterable[Image], memberships: Mapping[str, MemberStatus], query: ImageQuery
) -> list[Image]:
    """One page.  Raise NotFound when the marker is not among them."""
    chosen = [
        image for image in images if lists(caller, image, memberships.get(image.id), query) and _matches(image, query)
    ]
    for field, descending in reversed([*query.sort, ("created_at_s", True), ("id", True)]):
        chosen.sort(key=_by(field), reverse=descending)
    if query.marker is not None:
        places = [index for index, image in enumerate(chosen) if image.id == query.marker]
        if not places:
            raise NotFound("image.no_marker", f"marker: no image {query.marker} could be found in this list.")
        chosen = chosen[places[0] + 1 :]
    return chosen[: query.limit]


def _by(field: str) -> Callable[[Image], tuple[bool, Any]]:
    def key(image: Image) -> tuple[bool, Any]:
        value = getattr(image, field)
        return (value is not None, value)

    return key


def _matches(image: Image, query: ImageQuery) -> bool:
    if image.hidden is not query.hidden:
        return False
    if query.protected is not None and image.protected is not query.protected:
        return False
    if any(getattr(image, field) not in wanted for field, wanted in query.among.items()):
        return False
    size = image.size_bytes or 0
    if query.size_min_bytes is not None and size < query.size_min_bytes:
        return False
    if query.size_max_bytes is not None and size > query.size_max_bytes:
        return False
    if not query.tags <= set(image.tags):
        return False
    if any(not COMPARE[how](float(int(getattr(image, field))), asked_s) for field, how, asked_s in query.times):
        return False
    return all(image.properties.get(name) == value for name, value in query.properties.items())

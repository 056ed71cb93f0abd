"""Pages of an index: from rows in name order to the names and sub-directories that were asked for.

Names that fold into a sub-directory are skipped by one jump to the first name behind it, so a million names in one
directory cost one step.  Names sort by code point, which is also how their UTF-8 sorts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from apus.services.object.model import ListingAsk, Row, Subdir


@dataclasses.dataclass(frozen=True, slots=True)
class Window:
    """Names from `low` (itself only if `inclusive`) to before `high`; an empty `high` is no bound."""

    low: str
    inclusive: bool
    high: str
    reverse: bool


Scan = Callable[[Window, int], Sequence[Row]]
"""Live rows in the window, in order, at most so many."""


def page(ask: ListingAsk, scan: Scan) -> list[Row | Subdir]:
    prefix, delimiter = _folding(ask)
    whole = window_of(ask)
    if not delimiter:
        return list(scan(whole, ask.limit)) if ask.limit else []
    window: Window | None = whole
    found: list[Row | Subdir] = []
    while window is not None and len(found) < ask.limit:
        rows = scan(window, ask.limit - len(found) + 1)
        if not rows:
            break
        for row in rows:
            window = _behind(window, row.name)
            cut = row.name.find(delimiter, len(prefix)) if delimiter else -1
            directory = row.name[: cut + len(delimiter)]
            if cut < 0 or (ask.path is not None and row.name == directory):
                if ask.path is None or row.name != prefix:
                    found.append(row)
            else:
                if ask.path is None and directory != ask.marker:
                    found.append(Subdir(directory))
                window = _behind_all(window, directory)
                break
            if len(found) == ask.limit:
                break
    return found


def successor(prefix: str) -> str:
    """The first name behind all that begin so; empty when there is none."""
    while prefix:
        code = ord(prefix[-1]) + 1
        if code <= 0x10FFFF:
            return prefix[:-1] + chr(0xE000 if code == 0xD800 else code)
        prefix = prefix[:-1]
    return ""


def window_of(ask: ListingAsk) -> Window:
    """Where the names of a page are."""
    prefix, _ = _folding(ask)
    low, high = (ask.end_marker, ask.marker) if ask.reverse else (ask.marker, ask.end_marker)
    behind = successor(prefix)
    if behind:
        high = min(high, behind) if high else behind
    return Window(prefix, True, high, ask.reverse) if low < prefix else Window(low, False, high, ask.reverse)


def _folding(ask: ListingAsk) -> tuple[str, str]:
    """The prefix, and what ends the name of a sub-directory."""
    if ask.path is None:
        return ask.prefix, ask.delimiter
    return f"{ask.path.rstrip('/')}/" if ask.path else "", "/"


def _behind(window: Window, name: str) -> Window:
    if window.reverse:
        return dataclasses.replace(window, high=name)
    return dataclasses.replace(window, low=name, inclusive=False)


def _behind_all(window: Window, directory: str) -> Window | None:
    if window.reverse:
        return dataclasses.replace(window, high=directory)
    behind = successor(directory)
    return dataclasses.replace(window, low=behind, inclusive=True) if behind else None

"""`Range` headers: which bytes of an object are asked for (RFC 9110 §14)."""

from __future__ import annotations

from typing import Final

RANGES_MAX: Final = 50
"""More than this in one header is an attack or a mistake: the whole object is sent instead."""


def parse_ranges(header: str, size: int) -> list[tuple[int, int]] | None:
    """(offset, length) of each that can be satisfied; none of them: empty; not a byte range at all: None."""
    unit, equals, text = header.partition("=")
    if not equals or unit.strip().lower() != "bytes":
        return None
    found: list[tuple[int, int]] = []
    items = text.split(",")
    if len(items) > RANGES_MAX:
        return None
    for item in items:
        first, dash, last = (part.strip() for part in item.partition("-"))
        if not dash or not (first or last) or not all(_digits(part) for part in (first, last) if part):
            return None
        if first and last and int(first) > int(last):
            return None
        start = int(first) if first else max(0, size - int(last))
        end = min(int(last), size - 1) if first and last else size - 1
        if start <= end and not (not first and int(last) == 0):
            found.append((start, end - start + 1))
    return found


def _digits(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 19

"""Conditional requests: may this one go on, given what is there (RFC 9110 §13)."""

from __future__ import annotations

import email.utils
import functools
from collections.abc import Mapping
from typing import Final

CONDITIONS: Final = frozenset(("if-match", "if-none-match", "if-modified-since", "if-unmodified-since"))
"""The headers that make a request a conditional one."""


def check(headers: Mapping[str, str], etag: str | None, modified_s: float, *, reading: bool) -> int | None:
    """None to go on, or the status to answer: 304 or 412.  `etag` is None when there is nothing."""
    if_match = headers.get("if-match")
    if if_match is not None and (etag is None or not _matches(if_match, etag)):
        return 412
    if_none_match = headers.get("if-none-match")
    if if_none_match is not None and etag is not None and _matches(if_none_match, etag):
        return 304 if reading else 412
    if etag is None:
        return None
    unmodified = parse_date(headers.get("if-unmodified-since"))
    if unmodified is not None and int(modified_s) > unmodified:
        return 412
    modified = parse_date(headers.get("if-modified-since"))
    if reading and modified is not None and if_none_match is None and int(modified_s) <= modified:
        return 304
    return None


def parse_date(text: str | None) -> float | None:
    """Seconds since the epoch; None for what is no HTTP date, which is then ignored."""
    if not text:
        return None
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None


@functools.lru_cache(4096)
def http_date(seconds: float) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


def _matches(header: str, etag: str) -> bool:
    tags = {tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")}
    return "*" in tags or etag in tags

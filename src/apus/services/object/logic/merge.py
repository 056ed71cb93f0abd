"""How copies that differ become equal: the newest stamp wins, and a delete is a version like any other.

A stamp is (time, node) as one text that sorts as the pair does, so no two writes tie and a file name, a database
row and a message can all hold it.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol, TypeVar

TICKS_PER_S = 100_000
"""A tick is 10 µs, the resolution that Swift's `X-Timestamp` shows."""

_TICKS_DIGITS: Final = 16
_SECONDS_DIGITS: Final = 11
"""Of the ticks in a stamp."""

NEVER = ""
"""Older than every stamp."""


class Versioned(Protocol):
    @property
    def version(self) -> tuple[str, str]:
        """The stamp of the content, and the stamp of what was said about it since."""
        ...


V = TypeVar("V", bound=Versioned)


def make_stamp(ticks: int, node: str) -> str:
    assert 0 <= ticks < 10**16
    return f"{ticks:016d}-{node}"


def ticks_of(stamp: str) -> int:
    return int(stamp[:16]) if stamp else 0


def seconds_of(stamp: str) -> float:
    return ticks_of(stamp) / TICKS_PER_S


def swift_time(stamp: str) -> str:
    """As `X-Timestamp` shows it."""
    ticks = ticks_of(stamp)
    return f"{ticks // TICKS_PER_S:010d}.{ticks % TICKS_PER_S:05d}"


def next_ticks(now_s: float, last_ticks: int) -> int:
    """Ticks for a new stamp of a node: the clock's, but never twice the same and never back."""
    return max(int(now_s * TICKS_PER_S), last_ticks + 1)


def merge(mine: V | None, theirs: V | None) -> V | None:
    if mine is None or theirs is None:
        return mine or theirs
    return theirs if theirs.version > mine.version else mine


def merge_fields(
    mine: Mapping[str, tuple[str, str]], theirs: Mapping[str, tuple[str, str]]
) -> dict[str, tuple[str, str]]:
    """Metadata as (value, stamp) per name; an empty value is a removal that must be remembered."""
    merged = dict(mine)
    for name, pair in theirs.items():
        if name not in merged or (pair[1], pair[0]) > (merged[name][1], merged[name][0]):
            merged[name] = pair
    return merged


def fingerprint(name: str, version: tuple[str, str]) -> int:
    """One entry's part in a digest.  Digests are the XOR of these, so they can be kept up to date entry by entry."""
    text = f"{name}\0{version[0]}\0{version[1]}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


Fingerprint = Callable[[str, tuple[str, str]], int]


def digest_of(entries: Iterable[tuple[str, tuple[str, str]]], mark: Fingerprint = fingerprint) -> int:
    digest = 0
    for name, version in entries:
        digest ^= mark(name, version)
    return digest


def iso_time(stamp: str) -> str:
    """`2026-01-31T23:59:59.123450`: always six digits, no zone, UTC.

    Of text alone, since a page has ten thousand of them: the last five digits of the ticks are those of the fraction.
    """
    return f"{_whole(stamp[:_SECONDS_DIGITS])}.{stamp[_SECONDS_DIGITS:_TICKS_DIGITS] or '00000'}0"


@functools.lru_cache(4096)
def _whole(seconds: str) -> str:
    return datetime.datetime.fromtimestamp(int(seconds or "0"), datetime.UTC).replace(tzinfo=None).isoformat()

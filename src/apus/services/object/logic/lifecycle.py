"""Lifecycle rules of a container: which objects, versions and uploads are to go, and when.

Times are rounded up to the next midnight (UTC), as in S3: what goes, goes on a day.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from apus.services.object.logic.merge import seconds_of
from apus.services.object.logic.versions import NULL, VersionRow

LIFECYCLE: Final = "x-container-sysmeta-lifecycle"
RULES_MAX: Final = 1_000
DAY_S: Final = 86_400


class Rule(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whom it is about, and what becomes of him."""

    id: str
    enabled: bool = True
    prefix: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    """All of them."""
    bytes_over: int | None = None
    bytes_under: int | None = None
    days: int | None = None
    """What is current expires."""
    date_s: int | None = None
    """The same, from this day on."""
    markers: bool = False
    """Delete markers go that have no version behind them."""
    noncurrent_days: int | None = None
    """Other versions go so long after they were replaced,"""
    noncurrent_kept: int = 0
    """but for the newest so many of them."""
    abort_days: int | None = None
    """Uploads in parts are given up so long after they were begun."""
    filtered: bool = True
    """Said with a Filter, and not with the older Prefix."""


@dataclasses.dataclass(frozen=True, slots=True)
class Leaving:
    """One version that is to go: for good, or (`mark`) behind a delete marker."""

    row: VersionRow
    mark: bool


Tags = Mapping[str, str]
_decoder = msgspec.json.Decoder(tuple[Rule, ...])


def rules_text(rules: Sequence[Rule]) -> str:
    return msgspec.json.encode(rules).decode()


@lru_cache(maxsize=512)
def _rules(text: str) -> tuple[Rule, ...]:
    return _decoder.decode(text)


def rules_of(metadata: Mapping[str, str]) -> tuple[Rule, ...]:
    text = metadata.get(LIFECYCLE)
    return _rules(text) if text else ()


def midnight(seconds: float) -> int:
    """The first one that is not before."""
    return -int(-seconds // DAY_S) * DAY_S


def speaks_of(rule: Rule, name: str, size_bytes: int, tags: Callable[[], Tags]) -> bool:
    """`tags` is asked last, and only if the rule names some."""
    if not rule.enabled or not name.startswith(rule.prefix):
        return False
    if rule.bytes_over is not None and size_bytes <= rule.bytes_over:
        return False
    if rule.bytes_under is not None and size_bytes >= rule.bytes_under:
        return False
    return not rule.tags or set(rule.tags) <= set(tags().items())


def expires_at(rule: Rule, written_s: float) -> int | None:
    """When what was written then goes, while it is current."""
    if rule.date_s is not None:
        return rule.date_s
    return midnight(written_s + rule.days * DAY_S) if rule.days is not None else None


def expiry_of(
    rules: Sequence[Rule], name: str, size_bytes: int, tags: Tags, written_s: float
) -> tuple[int, str] | None:
    """When a current object goes, and the id of the rule that says so: the first of them."""
    found = [
        (at_s, rule.id)
        for rule in rules
        if speaks_of(rule, name, size_bytes, lambda: tags) and (at_s := expires_at(rule, written_s)) is not None
    ]
    return min(found, default=None)


def abort_of(rules: Sequence[Rule], name: str, begun_s: float) -> tuple[int, str] | None:
    """When an upload is given up, and by which rule."""
    found = [
        (midnight(begun_s + rule.abort_days * DAY_S), rule.id)
        for rule in rules
        if rule.enabled and rule.abort_days is not None and name.startswith(rule.prefix)
    ]
    return min(found, default=None)


def written_s(row: VersionRow) -> float:
    """When a version was written; its metadata may have changed since."""
    return seconds_of(row.stamp) if row.version_id == NULL else seconds_of(row.version_id)


def leaving(
    rules: Sequence[Rule], versions: Sequence[VersionRow], tags: Callable[[VersionRow], Tags], now_s: float
) -> Iterator[Leaving]:
    """Of all versions of one name, the newest first, those that are to go now."""
    staying = list(versions)
    for place, row in enumerate(versions[1:], 1):
        replaced_s = written_s(versions[place - 1])
        if any(_drops(rule, row, place, replaced_s, tags, now_s) for rule in rules):
            staying.remove(row)
            yield Leaving(row, mark=False)
    newest = versions[0]
    if newest.is_marker:
        if len(staying) == 1 and any(_drops_marker(rule, newest, now_s) for rule in rules):
            yield Leaving(newest, mark=False)
    elif newest.is_latest and any(_expires(rule, newest, tags, now_s) for rule in rules):
        yield Leaving(newest, mark=True)


def _drops(
    rule: Rule, row: VersionRow, place: int, replaced_s: float, tags: Callable[[VersionRow], Tags], now_s: float
) -> bool:
    """`place` is 1 for the newest of those that are not current."""
    if rule.noncurrent_days is None or place <= rule.noncurrent_kept:
        return False
    if now_s < midnight(replaced_s + rule.noncurrent_days * DAY_S):
        return False
    return speaks_of(rule, row.name, row.size_bytes, lambda: tags(row))


def _drops_marker(rule: Rule, row: VersionRow, now_s: float) -> bool:
    if rule.tags or not speaks_of(rule, row.name, 0, dict):
        return False
    return rule.markers or (rule.days is not None and now_s >= midnight(written_s(row) + rule.days * DAY_S))


def _expires(rule: Rule, row: VersionRow, tags: Callable[[VersionRow], Tags], now_s: float) -> bool:
    at_s = expires_at(rule, written_s(row))
    return at_s is not None and now_s >= at_s and speaks_of(rule, row.name, row.size_bytes, lambda: tags(row))

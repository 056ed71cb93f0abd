"""How fresh an answer has to be, by the caller's choice; how fresh it was, in the answer.

Eventual: from the first copy that answers.  Read-your-writes: nothing older than the token that came with the caller's
last write.  Strong: linearizable, or refused (`strong.py`).  A request carries its `Reading` in its context, since what
it reads is read in many places: links, segments, versions.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, TypeVar

from apus.kernel.errors import Invalid
from apus.services.object.logic.merge import Versioned

WISH: Final = "x-consistency"
TOKEN: Final = "x-consistency-token"  # noqa: S105 - a header's name
AGE: Final = "x-consistency-age"
"""Seconds: what was acknowledged before that is in the answer."""

_TOKEN: Final = re.compile(r"\d{16}-[A-Za-z0-9._-]{0,64}")

V = TypeVar("V", bound=Versioned)


class Level(enum.StrEnum):
    EVENTUAL = "eventual"
    OWN_WRITES = "read-your-writes"
    STRONG = "strong"


@dataclasses.dataclass(slots=True)
class Reading:
    """What a request asked for, and what it got."""

    level: Level = Level.EVENTUAL
    token: str = ""
    """The caller's newest write that he told of, or that this request made."""
    age_s: float = 0.0
    """The worst of all that it read."""

    def is_met_by(self, found: Versioned | None) -> bool:
        """Whether a version from any copy is fresh enough."""
        if self.level is Level.EVENTUAL or not self.token:
            return self.level is not Level.STRONG
        return self.level is Level.OWN_WRITES and found is not None and max(found.version) >= self.token

    def saw(self, age_s: float) -> None:
        self.age_s = max(self.age_s, age_s)

    def wrote(self, one: Versioned) -> None:
        self.token = max(self.token, *one.version)

    def headers(self, *, wrote: bool) -> dict[str, str]:
        told = {WISH: self.level.value, AGE: f"{self.age_s:.3f}" if self.age_s else "0"}
        return {**told, TOKEN: self.token} if wrote and self.token else told


READING: Final[ContextVar[Reading | None]] = ContextVar("reading", default=None)


@contextmanager
def strictly() -> Iterator[None]:
    """What is read in this block is linearizable, or refused, whatever the request asks for."""
    before = READING.set(Reading(Level.STRONG))
    try:
        yield
    finally:
        READING.reset(before)


def asked(headers: Mapping[str, str], *, of_object: bool) -> Reading:
    """What these headers ask for.  Raise Invalid."""
    level = _level(headers.get(WISH))
    token = headers.get(TOKEN, "")
    if token and not _TOKEN.fullmatch(token):
        raise Invalid("object.consistency_token", f"{TOKEN}: {token[:100]!r} is none of ours.", field=TOKEN)
    if level is not Level.EVENTUAL and not of_object:
        raise Invalid("object.consistency", f"{WISH}: listings are eventual; {level} is for objects.", field=WISH)
    return Reading(level, token)


def noted(one: V) -> V:
    """This request wrote it."""
    reading = READING.get()
    if reading is not None:
        reading.wrote(one)
    return one


def _level(text: str | None) -> Level:
    if text is None:
        return Level.EVENTUAL
    try:
        return Level(text.strip().lower())
    except ValueError:
        allowed = ", ".join(Level)
        raise Invalid("object.consistency", f"{WISH} is {text[:100]!r}; allowed: {allowed}.", field=WISH) from None

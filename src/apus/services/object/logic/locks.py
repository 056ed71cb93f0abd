"""Locked versions: kept until a date, or until a hold is lifted, whoever asks and through whichever door.

GOVERNANCE gives way to who may bypass it and says so; COMPLIANCE to nobody.  Only a container that keeps versions can
lock them: a delete then leaves a marker, and what is locked is the version behind it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from apus.kernel.errors import Forbidden, Invalid

LOCK: Final = "x-container-sysmeta-lock"
"""`on`, or `on MODE SECONDS`: how long what is written is kept, unless it says otherwise."""
MODE: Final = "x-object-sysmeta-lock-mode"
UNTIL: Final = "x-object-sysmeta-lock-until"
"""Seconds since the epoch."""
HOLD: Final = "x-object-sysmeta-lock-hold"
ON: Final = "on"

GOVERNANCE: Final = "GOVERNANCE"
COMPLIANCE: Final = "COMPLIANCE"
MODES: Final = (GOVERNANCE, COMPLIANCE)


@dataclasses.dataclass(frozen=True, slots=True)
class Retention:
    mode: str
    until_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Default:
    mode: str
    for_s: int


def lock_text(default: Default | None) -> str:
    return ON if default is None else f"{ON} {default.mode} {default.for_s}"


def default_of(metadata: Mapping[str, str]) -> Default | None:
    words = metadata.get(LOCK, "").split()
    return Default(words[1], int(words[2])) if len(words) == 3 else None


def retention_of(headers: Mapping[str, str]) -> Retention | None:
    mode = headers.get(MODE)
    return Retention(mode, float(headers[UNTIL])) if mode else None


def retention_headers(retention: Retention | None) -> dict[str, str]:
    """Empty ones remove it."""
    if retention is None:
        return {MODE: "", UNTIL: ""}
    return {MODE: retention.mode, UNTIL: f"{retention.until_s:.3f}"}


def is_held(headers: Mapping[str, str]) -> bool:
    return headers.get(HOLD) == ON


def is_locked(headers: Mapping[str, str], now_s: float, *, bypass: bool = False) -> bool:
    """Whether this version has to stay.  `bypass`: who asks may pass over GOVERNANCE, and does."""
    if is_held(headers):
        return True
    retention = retention_of(headers)
    if retention is None or now_s >= retention.until_s:
        return False
    return retention.mode == COMPLIANCE or not bypass


def check_unlocked(headers: Mapping[str, str], now_s: float, *, bypass: bool = False) -> None:
    """Raise Forbidden."""
    if is_locked(headers, now_s, bypass=bypass):
        raise Forbidden("object.locked", "This version is locked, and cannot be deleted.")


def check_change(headers: Mapping[str, str], after: Retention | None, now_s: float, *, bypass: bool) -> None:
    """Raise Forbidden unless the retention may become this: longer always, anything else as a delete might."""
    before = retention_of(headers)
    if before is None or now_s >= before.until_s:
        return
    longer = after is not None and after.mode == before.mode and after.until_s >= before.until_s
    if not longer and (before.mode == COMPLIANCE or not bypass):
        raise Forbidden("object.locked", "This version is locked, and its retention can only be made longer.")


def locked_intent(headers: Mapping[str, str], metadata: Mapping[str, str], now_s: float) -> dict[str, str]:
    """The headers that a container adds to what is written in it.  Raise Invalid for an expiry: no lock allows it."""
    if LOCK not in metadata:
        return {}
    check_no_expiry(headers, metadata)
    default = default_of(metadata)
    if default is None or MODE in headers:
        return {}
    return retention_headers(Retention(default.mode, now_s + default.for_s))


def check_no_expiry(headers: Mapping[str, str], metadata: Mapping[str, str]) -> None:
    if LOCK in metadata and headers.get("x-delete-at"):
        shown = "Objects of a container that locks them do not expire by X-Delete-At."
        raise Invalid("object.lock_expiry", shown, field="X-Delete-At")

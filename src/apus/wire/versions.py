"""Microversions.  Only the newest has code; older ones are pure translations of bodies, composed once at import.

A request is validated as the newest after `up` has lifted it step by step; a reply is `down`graded on its way out.
A *behaviour* that changed becomes an explicit field that `up` sets, so that the core sees a choice, never a number.
Source: the OpenStack API-SIG guideline "Microversion Specification".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from apus.kernel.errors import Invalid

Version = tuple[int, int]
_FORM: Final = re.compile(r"([1-9][0-9]{0,5})\.(0|[1-9][0-9]{0,5})")
Body = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What became different in `since`, for one operation (a route's name)."""

    since: Version
    operation: str
    up: Callable[[Body], Body] | None = None
    """From the body of the version before `since` to that of `since`.  May raise Invalid."""
    down: Callable[[Body], Body] | None = None
    """From the reply of `since` to that of the version before."""


class NotAcceptable(Invalid):
    """The version asked for is not one of ours: 406."""


class VersionChain:
    """The versions of one service, and the translations between them."""

    def __init__(
        self,
        service_type: str,
        minimum: Version,
        maximum: Version,
        changes: Sequence[Change] = (),
        *,
        legacy_header: str | None = None,
        default: Version | None = None,
    ) -> None:
        self.service_type, self.minimum, self.maximum = service_type, minimum, maximum
        self.default = default or minimum
        self.legacy_header = legacy_header
        self._changes: dict[str, list[Change]] = {}
        for change in sorted(changes, key=lambda change: change.since):
            self._changes.setdefault(change.operation, []).append(change)

    def negotiate(self, headers: Mapping[str, str]) -> Version:
        """The version that the request asks for; the default when it asks for none.  Raise Invalid, NotAcceptable."""
        asked = None
        for part in headers.get("openstack-api-version", "").split(","):
            service, _, number = part.strip().partition(" ")
            if service == self.service_type:
                asked = number.strip()
        if asked is None and self.legacy_header is not None:
            asked = headers.get(self.legacy_header)
        if asked is None:
            return self.default
        if asked == "latest":
            return self.maximum
        version = parse_version(asked)
        if not self.minimum <= version <= self.maximum:
            raise NotAcceptable(
                f"{self.service_type}.version",
                f"Version {asked} is not supported by the API. Minimum is {text_of(self.minimum)} and maximum is "
                f"{text_of(self.maximum)}.",
            )
        return version

    def upgrade(self, body: Body, operation: str, asked: Version) -> Body:
        for change in self._changes.get(operation, ()):
            if asked < change.since and change.up is not None:
                body = change.up(body)
        return body

    def downgrade(self, view: Body, operation: str, asked: Version) -> Body:
        for change in reversed(self._changes.get(operation, ())):
            if asked < change.since and change.down is not None:
                view = change.down(view)
        return view

    def changes(self) -> Sequence[Change]:
        return [change for changes in self._changes.values() for change in changes]


def parse_version(text: str) -> Version:
    found = _FORM.fullmatch(text)
    if found is None:
        shown = f"API Version String {text[:40]} is of invalid format. Must be of format MajorNum.MinorNum."
        raise Invalid("wire.version", shown)
    return int(found[1]), int(found[2])


def text_of(version: Version) -> str:
    return f"{version[0]}.{version[1]}"

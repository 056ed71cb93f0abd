"""What clients neither see nor set: headers of the system's own, and containers in which a mechanism keeps its objects.

A name with a NUL, and an account that begins with a dot, cannot come through a door; listings leave them out.  What
is in a hidden container of an account counts as that account's and goes with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from apus.services.object.model import SYSTEM, ListingAsk

NUL: Final = "\0"
_LAST_HIDDEN: Final = "\0\U0010ffff"


def hidden_container(kind: str, container: str) -> str:
    """Where the mechanism `kind` keeps what belongs to a container."""
    return f"{NUL}{kind}{NUL}{container}"


def owner_of(container: str) -> str:
    """The container that a hidden one belongs to; any other itself."""
    return container.rpartition(NUL)[2]


def is_hidden(account: str, container: str = "") -> bool:
    return account.startswith(".") or container.startswith(NUL)


def only_shown(ask: ListingAsk) -> ListingAsk:
    """Of an account: the same page without its hidden containers, which sort before all others."""
    if ask.reverse:
        return msgspec.structs.replace(ask, end_marker=max(ask.end_marker, _LAST_HIDDEN))
    return msgspec.structs.replace(ask, marker=max(ask.marker, _LAST_HIDDEN))


def only_hidden(marker: str, limit: int) -> ListingAsk:
    return ListingAsk(limit=limit, marker=marker, end_marker=_LAST_HIDDEN)


def shown(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if SYSTEM not in name}


def described(before: Mapping[str, str], said: Mapping[str, str]) -> dict[str, str]:
    """The headers after new ones were said: ours stay unless they are among them; an empty one of ours removes."""
    kept = {name: value for name, value in before.items() if SYSTEM in name}
    return {name: value for name, value in {**kept, **said}.items() if value or SYSTEM not in name}

"""`X-Account-Access-Control`: whom an account lets in besides its owner, and how far.

Elements name a user or project by id, or by name in the default domain, `PROJECT:USER`, or a role in its own project.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from apus.kernel.caller import Caller
from apus.kernel.errors import Invalid
from apus.services.object.logic.access import known_as, roles_in

ACCESS: Final = "x-account-sysmeta-access"
DOMAIN: Final = "x-account-sysmeta-project-domain-id"
"""Of the project whose account it is, if whoever set something on the account could tell it."""
Level = Literal["", "read-only", "read-write", "admin"]
_LEVELS: Final[tuple[Level, ...]] = ("admin", "read-write", "read-only")


def clean_access(text: str) -> str:
    """As it is kept, empty when it names nobody; raise Invalid for what is no such document."""
    if not text.strip():
        return ""
    try:
        found = msgspec.json.decode(text, type=dict[str, list[str]])
    except (msgspec.DecodeError, UnicodeError) as error:
        raise _invalid("it is no JSON object of lists of texts") from error
    unknown = sorted(set(found) - set(_LEVELS))
    if unknown:
        raise _invalid(f"unknown key {unknown[0]!r}")
    kept = {level: found[level] for level in _LEVELS if found.get(level)}
    return msgspec.json.encode(kept).decode() if kept else ""


def level_of(text: str, caller: Caller, account: str, *, names: bool) -> Level:
    """The most that this document gives the caller.  `names`: the account is of the default domain."""
    users, projects = known_as(caller, names=names)
    pairs = {f"{project}:{user}" for project in projects for user in users}
    named = users | projects | pairs | roles_in(caller, account)
    found = msgspec.json.decode(text, type=dict[str, list[str]])
    for level in _LEVELS:
        if any(element and element in named for element in found.get(level, ())):
            return level
    return ""


def _invalid(why: str) -> Invalid:
    return Invalid(
        "object.account_access", f"X-Account-Access-Control invalid: {why}", field="X-Account-Access-Control"
    )

"""Storage policies: how many copies a container's objects are kept in, chosen once, when the container is made.

A policy is known outside by its name, and inside by its number: 0 is the store's first, which holds unless said
otherwise.  Numbers never change, since partitions are counted by them (`rings.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from apus.kernel.errors import Invalid

REPLICATED: Final = "replicated"
"""The first policy: as many copies as the setting `replicas` says."""

COPIES_MAX: Final = 16
POLICIES_MAX: Final = 16
"""Each opens a log of its own on every drive."""

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?")
"""It is a part of the names of headers."""


class StoragePolicy(msgspec.Struct, frozen=True):
    name: str
    copies: int


def with_wished(known: Sequence[StoragePolicy], wished: Mapping[str, int]) -> tuple[StoragePolicy, ...]:
    """The policies behind the first: those that are known, then those that are wished for the first time.

    One that is known stays though nobody wishes it: there may be containers of it.  Raise Invalid.
    """
    policies = list(known)
    for name, copies in wished.items():
        _check(name, copies)
        old = next((policy for policy in policies if policy.name.lower() == name.lower()), None)
        if old is None:
            policies.append(StoragePolicy(name, copies))
        elif old != StoragePolicy(name, copies):
            shown = f"storage_policies: {name} = {copies}; it is {old.name} = {old.copies}, which cannot be changed."
            raise Invalid("object.policies", shown, field="storage_policies")
    if len(policies) >= POLICIES_MAX:
        shown = f"storage_policies: {len(policies) + 1} with {REPLICATED!r}; at most {POLICIES_MAX}."
        raise Invalid("object.policies", shown, field="storage_policies")
    return tuple(policies)


def numbered(name: str, names: Sequence[str]) -> int:
    """The number of the policy of this name, in whatever case.  Raise Invalid with the names that there are."""
    for number, known in enumerate(names):
        if known.lower() == name.strip().lower():
            return number
    shown = f"Invalid X-Storage-Policy {name[:100]!r}; allowed: {', '.join(names)}"
    raise Invalid("object.policy", shown, field="X-Storage-Policy")


def _check(name: str, copies: int) -> None:
    if not _NAME.fullmatch(name) or name.lower() == REPLICATED:
        shown = f"storage_policies: {name[:100]!r}; a name is 1 to 64 letters, digits and -, and not {REPLICATED!r}."
        raise Invalid("object.policies", shown, field="storage_policies")
    if not 1 <= copies <= COPIES_MAX:
        shown = f"storage_policies: {name} = {copies}; allowed: 1 to {COPIES_MAX} copies."
        raise Invalid("object.policies", shown, field="storage_policies")

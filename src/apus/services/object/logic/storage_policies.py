"""Storage policies: how a container's objects are kept, in copies or in fragments; chosen once, when it is made.

A policy is known outside by its name, and inside by its number: 0 is the store's first, which holds unless said
otherwise.  Numbers never change, since partitions are counted by them (`rings.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from apus.kernel.errors import Invalid
from apus.services.object.logic.code import ALLOWED, Code, code_of

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
    """With a code: of what is too small for fragments, and of what says where the fragments are."""
    code: Code | None = None

    @property
    def drives(self) -> int:
        """How many drives there have to be.  Copies make do with fewer."""
        return self.code.fragments if self.code is not None else 1

    @property
    def wish(self) -> int | str:
        """As settings have it."""
        return str(self.code) if self.code is not None else self.copies


def with_wished(known: Sequence[StoragePolicy], wished: Mapping[str, int | str]) -> tuple[StoragePolicy, ...]:
    """The policies behind the first: those that are known, then those that are wished for the first time.

    One that is known stays though nobody wishes it: there may be containers of it.  Raise Invalid.
    """
    policies = list(known)
    for name, wish in wished.items():
        new = _policy(name, wish)
        old = next((policy for policy in policies if policy.name.lower() == name.lower()), None)
        if old is None:
            policies.append(new)
        elif old != new:
            shown = f"storage_policies: {name} = {wish}; it is {old.name} = {old.wish}, which cannot be changed."
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


def short_of_drives(policies: Iterable[StoragePolicy], drives: int) -> str | None:
    """Why so many drives with a weight are too few, for whom that matters."""
    for policy in policies:
        if drives < policy.drives:
            return f"{policy.name} = {policy.code} needs {policy.drives} drives, and there would be {drives}"
    return None


def _policy(name: str, wish: int | str) -> StoragePolicy:
    if not _NAME.fullmatch(name) or name.lower() == REPLICATED:
        shown = f"storage_policies: {name[:100]!r}; a name is 1 to 64 letters, digits and -, and not {REPLICATED!r}."
        raise Invalid("object.policies", shown, field="storage_policies")
    code = code_of(wish) if isinstance(wish, str) else None
    if code is not None:
        return StoragePolicy(name, 1 + code.parity, code)
    if isinstance(wish, int) and 1 <= wish <= COPIES_MAX:
        return StoragePolicy(name, wish)
    shown = f"storage_policies: {name} = {str(wish)[:100]}; allowed: 1 to {COPIES_MAX} copies, or a code {ALLOWED}."
    raise Invalid("object.policies", shown, field="storage_policies")

"""Quotas of accounts, of storage policies in them, and of containers: how their metadata keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from apus.kernel.errors import Invalid

ACCOUNT_BYTES: Final = "x-account-meta-quota-bytes"
ACCOUNT_COUNT: Final = "x-account-sysmeta-quota-count"
POLICY_BYTES: Final = "x-account-sysmeta-quota-bytes-policy-"
POLICY_COUNT: Final = "x-account-sysmeta-quota-count-policy-"
"""And the number of a storage policy."""
CONTAINER_BYTES: Final = "x-container-meta-quota-bytes"
CONTAINER_COUNT: Final = "x-container-meta-quota-count"


def account_quotas(policies: Sequence[str]) -> dict[str, str]:
    """The headers of an account's quotas, and where they are kept: of the bytes where an older header keeps them."""
    quotas = {"x-account-quota-bytes": ACCOUNT_BYTES, "x-account-quota-count": ACCOUNT_COUNT}
    for number, name in enumerate(policies):
        quotas[f"x-account-quota-bytes-policy-{name.lower()}"] = f"{POLICY_BYTES}{number}"
        quotas[f"x-account-quota-count-policy-{name.lower()}"] = f"{POLICY_COUNT}{number}"
    return quotas


def is_account_quota(name: str) -> bool:
    return name in (ACCOUNT_BYTES, ACCOUNT_COUNT) or name.startswith((POLICY_BYTES, POLICY_COUNT))


def check_quotas(said: Mapping[str, str]) -> None:
    """Raise Invalid for what is no number.  An empty one removes the quota."""
    for name, text in said.items():
        known = is_account_quota(name) or name in (CONTAINER_BYTES, CONTAINER_COUNT)
        if known and text and not _number(text):
            what = "bytes" if "-quota-bytes" in name else "count"
            raise Invalid("object.quota_value", f"Invalid {what} quota.", field=name)


def limits(metadata: Mapping[str, str], bytes_name: str, count_name: str) -> tuple[int | None, int | None]:
    """(bytes, objects); None is no limit."""
    size, count = metadata.get(bytes_name, ""), metadata.get(count_name, "")
    return int(size) if _number(size) else None, int(count) if _number(count) else None


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19

"""Quotas of accounts and containers, kept as their metadata: how much room they leave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from apus.kernel.errors import Invalid
from apus.services.object.model import IndexHead

ACCOUNT_BYTES: Final = "x-account-meta-quota-bytes"
ACCOUNT_COUNT: Final = "x-account-sysmeta-quota-count"
CONTAINER_BYTES: Final = "x-container-meta-quota-bytes"
CONTAINER_COUNT: Final = "x-container-meta-quota-count"


def check_quotas(said: Mapping[str, str]) -> None:
    """Raise Invalid for what is no number.  An empty one removes the quota."""
    for name, what in (
        (ACCOUNT_BYTES, "bytes"),
        (ACCOUNT_COUNT, "count"),
        (CONTAINER_BYTES, "bytes"),
        (CONTAINER_COUNT, "count"),
    ):
        text = said.get(name, "")
        if text and not _number(text):
            raise Invalid("object.quota_value", f"Invalid {what} quota.", field=name)


def limits(metadata: Mapping[str, str], bytes_name: str, count_name: str = "") -> tuple[int | None, int | None]:
    """(bytes, objects); None is no limit."""
    size, count = metadata.get(bytes_name, ""), metadata.get(count_name, "")
    return int(size) if _number(size) else None, int(count) if _number(count) else None


def room_bytes(head: IndexHead | None, quota_bytes: int | None) -> int | None:
    """How much more may come; None is no limit."""
    if quota_bytes is None:
        return None
    return max(0, quota_bytes - (head.size_bytes if head is not None else 0))


def _number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19

"""Tags of objects: pairs that policies, lifecycle rules and clients read, kept as one header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

TAGS: Final = "x-object-sysmeta-s3-tags"
"""As in a query: `a=1&b=2`."""


def tags_of(headers: Mapping[str, str]) -> dict[str, str]:
    return dict(parse_qsl(headers.get(TAGS, ""), keep_blank_values=True))

"""Ids.  New ones come from the world's dice; a retry of the same step re-makes the same child id."""

from __future__ import annotations

import uuid
from random import Random
from typing import Final

_CHILDREN: Final = uuid.UUID("6f3f2f0a-9d0b-5c57-8d5e-6d2f5a0c4b11")

_RANDOM_BITS: Final = ~((0xF << 76) | (0x3 << 62)) & ((1 << 128) - 1)
_VERSION_4: Final = (4 << 76) | (2 << 62)


def new_id(dice: Random) -> str:
    """A random version-4 UUID, in the form with dashes that every OpenStack client accepts."""
    # the same text as str(uuid.UUID(int=…, version=4)), for a tenth of the time: every request draws one
    text = f"{dice.getrandbits(128) & _RANDOM_BITS | _VERSION_4:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def child_id(*parts: str) -> str:
    """The id that these parts always give: (flow, step, what) makes a step that is run twice make one thing."""
    return str(uuid.uuid5(_CHILDREN, "\0".join(parts)))


def is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower() or uuid.UUID(text).hex == text.lower()
    except ValueError:
        return False

"""Ids.  New ones come from the world's dice; a retry of the same step re-makes the same child id."""

from __future__ import annotations

import uuid
from random import Random
from typing import Final

_CHILDREN: Final = uuid.UUID("6f3f2f0a-9d0b-5c57-8d5e-6d2f5a0c4b11")

_FREE: Final = ~((0xF << 76) | (0xC << 60))
_VERSION_4: Final = (0x4 << 76) | (0x8 << 60)


def new_id(dice: Random) -> str:
    """A random version-4 UUID, in the form with dashes that every OpenStack client accepts."""
    bits = dice.getrandbits(128) & _FREE | _VERSION_4
    text = f"{bits:032x}"  # what uuid.UUID(int=…, version=4) prints, in a fifth of its time: each request has an id
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def child_id(*parts: str) -> str:
    """The id that these parts always give: (flow, step, what) makes a step that is run twice make one thing."""
    return str(uuid.uuid5(_CHILDREN, "\0".join(parts)))


def is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower() or uuid.UUID(text).hex == text.lower()
    except ValueError:
        return False

"""Records: frozen values with an id and a generation, encoded as JSON.

Each record has one owner, and only the owner raises its generation.  A field added later has a default, so that
older rows and messages still decode.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

R = TypeVar("R", bound="Record")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What every stored thing has."""

    id: str
    generation: int = 1


def changed(record: R, **fields: Any) -> R:
    """A copy with these fields replaced."""
    return msgspec.structs.replace(record, **fields)


_encoder = msgspec.json.Encoder()


def encode(value: Any) -> bytes:
    return _encoder.encode(value)

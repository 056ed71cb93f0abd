"""What a proxy may ask the host of a drive, how long it waits, and how arguments, answers and failures travel."""

from __future__ import annotations

import errno
from typing import Any, Final, Literal

import msgspec

from apus.services.object.drivers.fence import DriveIdentity
from apus.services.object.model import (
    Change,
    CorruptCopy,
    DriveFull,
    DriveTrouble,
    Head,
    IndexHead,
    IndexKind,
    ListingAsk,
    Meta,
    Place,
    ReplacedCopy,
    Row,
    RowVersion,
    Totals,
)

LOOK_S: Final = 2.0
SHORT_S: Final = 5.0
SYNC_S: Final = 15.0
"""For what waits for a disk to sync."""
LONG_S: Final = 60.0
"""For what reads much: a whole object, an index, a list of all versions."""
TIDY_S: Final = 3600.0
STREAM_S: Final = 30.0
"""For one piece of a body."""

Mode = Literal["calls", "streams", "site"]
"""Small verbs of a drive, many at once; bodies, one at a time; or what is asked where no drive is open."""


class Hello(msgspec.Struct, frozen=True, array_like=True):
    """Begins a connection: to which drive, and what for."""

    mode: Mode
    path: str
    identity: DriveIdentity
    part_power: int
    policies: int
    """How many storage policies the store has."""
    turn: int = 0
    """How often its ring was changed."""


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """How a drive is, with each of its answers."""

    opened: str = ""
    """Another one whenever its host opened it anew: what was only in memory is lost."""
    returns: int = 0
    """How often it came back since then, with other contents perhaps."""
    comparing: bool = False


class Failure(msgspec.Struct, frozen=True, array_like=True):
    kind: str
    errno: int
    text: str


class Request(msgspec.Struct, frozen=True, array_like=True):
    number: int
    verb: str
    arguments: msgspec.Raw


class Answer(msgspec.Struct, frozen=True, array_like=True):
    number: int
    seen: Seen
    failure: Failure | None
    result: msgspec.Raw


class Verb:
    def __init__(self, arguments: Any, result: Any, deadline_s: float) -> None:
        self.arguments, self.result = msgspec.msgpack.Decoder(arguments), msgspec.msgpack.Decoder(result)
        self.deadline_s = deadline_s


_At = tuple[IndexKind, Place]

VERBS: Final[dict[str, Verb]] = {
    # of the drive
    "start": Verb(tuple[()], None, LONG_S),
    "free_bytes": Verb(tuple[()], int, SHORT_S),
    "look": Verb(tuple[bool], None, LOOK_S),
    "forget": Verb(tuple[()], None, SYNC_S),
    "compared": Verb(tuple[()], None, SYNC_S),
    "repartition": Verb(tuple[int], None, LONG_S),
    "turned": Verb(tuple[int], None, SHORT_S),
    "tidy": Verb(tuple[()], int, TIDY_S),
    # of its copies
    "copies.store": Verb(tuple[Place, Head, bytes], None, SYNC_S),
    "copies.describe": Verb(tuple[Place, Meta], None, SYNC_S),
    "copies.head": Verb(tuple[Place], Head | None, SHORT_S),
    "copies.fetch": Verb(tuple[Place, int], tuple[Head, bytes | None] | None, SHORT_S),
    "copies.audit": Verb(tuple[Place], Head | None, LONG_S),
    "copies.drop": Verb(tuple[Place, tuple[str, str]], None, SYNC_S),
    "copies.unlisted": Verb(tuple[int], dict[str, str], LONG_S),
    "copies.listed": Verb(tuple[list[tuple[Place, str]]], None, SHORT_S),
    "copies.parts": Verb(tuple[()], list[int], SHORT_S),
    "copies.digest": Verb(tuple[int], str, SHORT_S),
    "copies.census": Verb(tuple[()], dict[int, tuple[int, str]], LONG_S),
    "copies.inventory": Verb(tuple[int], dict[str, tuple[str, str]], LONG_S),
    # of its indexes
    "indexes.apply": Verb(tuple[IndexKind, Place, Change], IndexHead, SYNC_S),
    "indexes.note": Verb(tuple[IndexKind, Place, Change], None, SYNC_S),
    "indexes.flush": Verb(tuple[list[str]], None, LONG_S),
    "indexes.head": Verb(_At, IndexHead | None, SHORT_S),
    "indexes.listing": Verb(tuple[IndexKind, Place, ListingAsk], list[Row | str], SYNC_S),
    "indexes.rows": Verb(tuple[IndexKind, Place, str, int], list[Row], SYNC_S),
    "indexes.versions": Verb(tuple[IndexKind, Place, str, int], list[RowVersion], SYNC_S),
    "indexes.totals": Verb(tuple[IndexKind, Place, str, str], Totals, SYNC_S),
    "indexes.expel": Verb(tuple[IndexKind, Place, list[RowVersion]], None, SYNC_S),
    "indexes.digest": Verb(_At, str, SYNC_S),
    "indexes.audit": Verb(_At, bool, LONG_S),
    "indexes.reclaim": Verb(tuple[IndexKind, Place, str], None, LONG_S),
    "indexes.drop": Verb(_At, None, SYNC_S),
    "indexes.parts": Verb(tuple[IndexKind], list[int], SHORT_S),
    "indexes.places": Verb(tuple[IndexKind, int], list[Place], SHORT_S),
    # of its pending changes
    "pending.add": Verb(tuple[str, Change], None, SYNC_S),
    "pending.names": Verb(tuple[()], list[str], SHORT_S),
    "pending.get": Verb(tuple[str], Change | None, SHORT_S),
    "pending.remove": Verb(tuple[str], None, SHORT_S),
    # of its leases
    "leases.take": Verb(tuple[str, str], bool, SHORT_S),
    "leases.release": Verb(tuple[str, str], None, SHORT_S),
    # where no drive is open
    "site.marked_as": Verb(tuple[str], DriveIdentity | None, SHORT_S),
    "site.mark": Verb(tuple[str, DriveIdentity], None, SYNC_S),
    "site.names": Verb(tuple[str], list[str], SHORT_S),
    # with a body behind them
    "copies.begin": Verb(tuple[Place], None, SYNC_S),
    "copies.read": Verb(tuple[Place, Head, int, int], None, STREAM_S),
}
"""Digests travel as hexadecimal digits: they are longer than the integers of msgpack."""

_KINDS: Final[dict[str, type[OSError]]] = {
    kind.__name__: kind for kind in (DriveTrouble, DriveFull, CorruptCopy, ReplacedCopy, FileNotFoundError)
}

encode: Final = msgspec.msgpack.Encoder().encode
decode_hello: Final = msgspec.msgpack.Decoder(Hello).decode
decode_request: Final = msgspec.msgpack.Decoder(Request).decode
decode_answer: Final = msgspec.msgpack.Decoder(Answer).decode
decode_head: Final = msgspec.msgpack.Decoder(Head).decode


def failure_of(error: OSError) -> Failure:
    """The nearest kind that the other end knows."""
    name = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _KINDS), "DriveTrouble")
    return Failure(name, error.errno or errno.EIO, error.strerror or str(error))


def raised(failure: Failure) -> OSError:
    """What the drive raised there."""
    return _KINDS.get(failure.kind, DriveTrouble)(failure.errno, failure.text)


def result_of(answer: Answer, verb: Verb | None) -> Any:
    """Raise what the answer says was raised."""
    if answer.failure is not None:
        raise raised(answer.failure)
    return None if verb is None else verb.result.decode(answer.result)

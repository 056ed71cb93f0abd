"""Writes that a repeated request does not repeat.

A request that carries a key opens `keyed(...)`.  While it is open, each write of its task goes through `OnceStore`:
the write's result is kept under the key in the *same transaction*.  A request that died between its commit and its
answer is simply run again with its key: the writes that were committed give their kept results instead of running, the
others run now, and the answer comes out as it would have.  So nothing is made twice, at whatever point it died.

What follows for handlers: chance and secrets belong into the function that is written, or into its result, so that
the second run answers what the first one stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import io
import pickle
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Any, Final, TypeVar

import msgspec

from apus.kernel.errors import Conflict, Invalid
from apus.kernel.sql import Column, Table, Taken
from apus.kernel.table import metadata
from apus.kernel.world import Store, Transaction

T = TypeVar("T")

KEPT_FOR_S: Final = 24 * 3600.0
WRITES_MAX: Final = 1000
"""Of one request; more is a bulk job that should be a flow."""

REQUESTS: Final = metadata.add(
    Table(
        "keyed_request",
        (
            Column("scope", "text"),
            Column("key", "text"),
            Column("digest", "bytes"),
            Column("made_at_s", "real"),
            Column("writes", "bytes"),
            Column("reply", "bytes", nullable=True),
        ),
        key=("scope", "key"),
        indexes=(("made_at_s",),),
    )
)


@dataclasses.dataclass(slots=True)
class Keyed:
    """A request under way with its key."""

    scope: str
    """Whose key it is."""
    key: str
    digest: bytes
    """Of the request: the same key with another one is refused."""
    task: asyncio.Task[Any] | None
    done_count: int = 0
    """Writes of this run so far."""

    def parameters(self) -> dict[str, Any]:
        return {"scope": self.scope, "key": self.key}


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    digest: bytes
    writes: tuple[bytes, ...]
    reply: bytes | None


_current: Final[contextvars.ContextVar[Keyed | None]] = contextvars.ContextVar("keyed_request", default=None)


@contextlib.contextmanager
def keyed(scope: str, key: str, digest: bytes) -> Iterator[Keyed]:
    """Writes of the current task, until the end of the block, belong to this key."""
    request = Keyed(scope, key, digest, asyncio.current_task())
    token = _current.set(request)
    try:
        yield request
    finally:
        request.task = None  # tasks that copied this context (flows) are not of the request
        _current.reset(token)


def load_kept(tx: Transaction, scope: str, key: str) -> Kept | None:
    row = tx.execute(
        "SELECT digest, writes, reply FROM keyed_request WHERE scope = :scope AND key = :key",
        {"scope": scope, "key": key},
    ).first()
    if row is None:
        return None
    digest, writes, reply = row
    return Kept(digest=digest, writes=msgspec.msgpack.decode(writes, type=tuple[bytes, ...]), reply=reply)


def save_reply(tx: Transaction, request: Keyed, reply: bytes) -> None:
    """The answer, for those who ask again.  Also kept for a request that wrote nothing."""
    kept = load_kept(tx, request.scope, request.key)
    if kept is None:
        _insert(tx, request, (), reply)
    else:
        text = "UPDATE keyed_request SET reply = :reply WHERE scope = :scope AND key = :key"
        tx.execute(text, {**request.parameters(), "reply": reply})


def purge_kept(tx: Transaction, made_before_s: float) -> int:
    text = "DELETE FROM keyed_request WHERE made_at_s < :before_s"
    return int(tx.execute(text, {"before_s": made_before_s}).rowcount)


def _insert(tx: Transaction, request: Keyed, writes: tuple[bytes, ...], reply: bytes | None) -> None:
    values = {
        **request.parameters(),
        "digest": request.digest,
        "made_at_s": tx.now_s,
        "writes": msgspec.msgpack.encode(writes),
        "reply": reply,
    }
    try:
        tx.execute(REQUESTS.insert(), values)
    except Taken as error:
        raise _elsewhere() from error


class OnceStore:
    """A store whose keyed writes happen once.  All else passes through."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def write(self, work: Callable[[Transaction], T]) -> T:
        request = _current.get()
        if request is None or request.task is None or request.task is not asyncio.current_task():
            return await self._store.write(work)
        place = request.done_count
        if place >= WRITES_MAX:
            raise Invalid("once.too_long", f"A request with an Idempotency-Key can do {WRITES_MAX} writes at most.")
        result = await self._store.write(lambda tx: _once(tx, request, place, work))
        request.done_count += 1
        return result

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self._store.read(work)

    async def close(self) -> None:
        await self._store.close()


def _once(tx: Transaction, request: Keyed, place: int, work: Callable[[Transaction], T]) -> T:
    kept = load_kept(tx, request.scope, request.key)
    if kept is not None:
        if kept.digest != request.digest:
            raise _elsewhere()
        if len(kept.writes) > place:
            result: T = _unpack(kept.writes[place])
            return result
        if len(kept.writes) < place:
            raise _elsewhere()
    made = work(tx)
    if kept is None:
        _insert(tx, request, (_pack(made),), None)
        return made
    text = "UPDATE keyed_request SET writes = :writes WHERE scope = :scope AND key = :key"
    tx.execute(text, {**request.parameters(), "writes": msgspec.msgpack.encode((*kept.writes, _pack(made)))})
    return made


def _elsewhere() -> Conflict:
    return Conflict("once.under_way", "A request with this Idempotency-Key is under way; ask again when it has ended.")


_LOST: Final = b"!"
"""A result that cannot be kept: what was written stays written once, but the answer cannot be given again."""


def _pack(value: Any) -> bytes:
    try:
        packed = io.BytesIO()
        _Values(packed, protocol=5).dump(value)
        _unpack(packed.getvalue())
        return packed.getvalue()
    except (pickle.PicklingError, pickle.UnpicklingError, TypeError, AttributeError):
        return _LOST


def _unpack(packed: bytes) -> Any:
    if packed == _LOST:
        raise Conflict(
            "once.answer_lost",
            "The request with this Idempotency-Key was carried out, but its answer was lost: look for what it made.",
        )
    return _OurValues(io.BytesIO(packed)).load()


class _Values(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        """An enumeration's member by its value: Python before 3.11.4 asks for `getattr`, which nobody may load."""
        return (type(value), (value.value,)) if isinstance(value, Enum) else NotImplemented


class _OurValues(pickle.Unpickler):
    """Loads plain values and records of this package, and nothing else: no row of the store can run code."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("apus.") or (module, name) in _PLAIN:
            found = super().find_class(module, name)
            if isinstance(found, type) or (module, name) in _PLAIN:
                return found
        raise pickle.UnpicklingError(f"{module}.{name} is not a value")


_PLAIN: Final = frozenset(
    {("builtins", "set"), ("builtins", "frozenset"), ("msgspec._utils", "rebuild"), ("msgspec", "Raw")}
)
"""What values are put together with, beside the package's own classes."""

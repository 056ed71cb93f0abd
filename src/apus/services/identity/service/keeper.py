"""Create, show, list, change and delete, once for every kind of record; what differs is data (`Kind`).

Each call goes the same way: load → may? → what must hold of it → write, event, and end the tokens that hung on it,
in one transaction.  Who may not see a thing is told 403 whether or not it is there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from apus.kernel import events
from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict, Forbidden, Invalid
from apus.kernel.record import Record
from apus.kernel.table import Query, RecordTable
from apus.kernel.world import Transaction
from apus.services.identity.logic.may import NOTHING, Target, may, require
from apus.services.identity.service.core import Core, missing

R = TypeVar("R", bound=Record)

_replace = msgspec.structs.replace


def _nothing(*_: Any) -> Iterable[str]:
    return ()


def _always(record: Any) -> bool:
    return True


@dataclasses.dataclass(frozen=True, slots=True)
class Kind(Generic[R]):
    """One kind of record, and what is special about it."""

    noun: str
    """As in Keystone's messages and in the names of actions and events: user, application credential."""
    plural: str
    table: RecordTable[R]
    target: Callable[[Transaction, R], Target]
    admit: Callable[[Transaction, R | None, R], None] = _nothing  # type: ignore[assignment]
    """(before, after): raise unless this may be so."""
    ends: Callable[[Transaction, R, R], Iterable[str]] = _nothing
    """(before, after): subjects whose tokens the change ends."""
    drop: Callable[[Transaction, R], Iterable[str]] = _nothing
    """Delete what hangs on it; subjects whose tokens end.  Raise when it may not be deleted."""
    fits: Callable[[R], bool] = _always
    """Whether a record of the table is of this kind: domains share theirs with projects."""
    in_domain: bool = False
    """Lists are cut to the domain of a domain's reader."""

    @property
    def word(self) -> str:
        return self.noun.replace(" ", "_")


class Keeper:
    def __init__(self, core: Core) -> None:
        self.core = core

    def load(self, tx: Transaction, kind: Kind[R], caller: Caller, id: str, action: str, extra: Target = NOTHING) -> R:
        """The record, if the caller may do this to it.  Raise Forbidden, NotFound."""
        record = kind.table.get(tx, id)
        if record is not None and not kind.fits(record):
            record = None
        target = extra if record is None else kind.target(tx, record)
        require(caller, action, target)
        if record is None:
            raise missing(kind.noun, id)
        return record

    async def show(self, kind: Kind[R], caller: Caller, id: str) -> R:
        return await self.core.read(lambda tx: self.load(tx, kind, caller, id, f"identity:get_{kind.word}"))

    async def list(self, kind: Kind[R], caller: Caller, query: Query) -> Sequence[R]:
        """A page.  A caller who may not list all gets those of his domain, or those that he may show."""
        action = f"identity:list_{kind.plural}"
        own = Target(domain_ids=(caller.domain_id,) if caller.domain_id else ())
        require(caller, action, own)
        if kind.in_domain and caller.domain_id is not None:
            asked = query.where.get("domain_id", caller.domain_id)
            if asked != caller.domain_id:
                return []
            query = _replace(query, where={**query.where, "domain_id": caller.domain_id})

        def work(tx: Transaction) -> Sequence[R]:
            narrowed = query
            if not kind.in_domain and not may(caller, f"identity:get_{kind.word}"):
                show, matches = f"identity:get_{kind.word}", query.matches
                narrowed = _replace(
                    query,
                    matches=lambda record: (
                        may(caller, show, kind.target(tx, record)) and (matches is None or matches(record))
                    ),
                )
            return kind.table.page(tx, narrowed)

        return await self.core.read(work)

    async def create(self, kind: Kind[R], caller: Caller, record: R) -> R:
        return (await self.create_many(kind, caller, [record]))[0]

    async def create_many(self, kind: Kind[R], caller: Caller, records: Sequence[R]) -> Sequence[R]:
        """All of them or none."""

        def work(tx: Transaction) -> Sequence[R]:
            for record in records:
                self._create(tx, kind, caller, record)
            return records

        return await self.core.write(work)

    def _create(self, tx: Transaction, kind: Kind[R], caller: Caller, record: R) -> None:
        require(caller, f"identity:create_{kind.word}", kind.target(tx, record))
        kind.admit(tx, None, record)
        try:
            kind.table.insert(tx, record)
        except Conflict as error:
            raise duplicate(kind.noun, record) from error
        self.core.end(tx, kind.ends(tx, record, record))
        self._emit(tx, kind, "created", record, caller)

    async def update(self, kind: Kind[R], caller: Caller, id: str, change: Callable[[R], R]) -> R:
        def work(tx: Transaction) -> R:
            before = self.load(tx, kind, caller, id, f"identity:update_{kind.word}")
            after = change(before)
            check_mutable(kind.noun, before, after)
            target, moved = kind.target(tx, before), kind.target(tx, after)
            if moved != target:
                require(caller, f"identity:update_{kind.word}", moved)
            kind.admit(tx, before, after)
            if after == before:
                return before
            try:
                after = kind.table.put(tx, after)
            except Conflict as error:
                raise (duplicate(kind.noun, after) if error.code.endswith(".exists") else error) from error
            self.core.end(tx, kind.ends(tx, before, after))
            self._emit(tx, kind, "updated", after, caller)
            return after

        return await self.core.write(work)

    async def delete(self, kind: Kind[R], caller: Caller, id: str) -> None:
        def work(tx: Transaction) -> None:
            record = self.load(tx, kind, caller, id, f"identity:delete_{kind.word}")
            check_mutable(kind.noun, record, None)
            self.core.end(tx, list(kind.drop(tx, record)))
            kind.table.delete(tx, record.id)
            self._emit(tx, kind, "deleted", record, caller)

        await self.core.write(work)

    def _emit(self, tx: Transaction, kind: Kind[R], verb: str, record: R, caller: Caller) -> None:
        events.emit(tx, f"identity.{kind.word}.{verb}", record.id, getattr(record, "project_id", None), caller=caller)


_IMMUTABLE: Final = "immutable"


def check_mutable(noun: str, before: Record, after: Record | None) -> None:
    """An immutable thing stays as it is until the option is taken away, in a call of its own."""
    options = getattr(before, "options", {})
    if not options.get(_IMMUTABLE):
        return
    if after is not None and not getattr(after, "options", {}).get(_IMMUTABLE):
        return
    verb = "delete" if after is None else "update"
    raise Forbidden(
        "identity.immutable",
        f"Cannot {verb} immutable {noun} `{before.id}`: set option `immutable` to false first.",
    )


def duplicate(noun: str, record: Record) -> Conflict:
    """In Keystone's words."""
    name = getattr(record, "name", record.id)
    return Conflict(
        "identity.duplicate",
        f"Conflict occurred attempting to store {noun} - Duplicate entry found with name {name}.",
    )


def invalid(field: str, why: str) -> Invalid:
    return Invalid("identity.invalid", f"{field}: {why}", field=field)

"""Tables of records: a few columns to look things up by, and the record itself as JSON beside them.

A field that no query needs is added to the record with a default and wants no migration.  Every `put` is a
compare-and-swap on the generation.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from apus.kernel.errors import Conflict, NotFound
from apus.kernel.record import Record, changed, encode
from apus.kernel.sql import Column, Kind, Schema, Table, Taken, where
from apus.kernel.world import Transaction

R = TypeVar("R", bound=Record)

metadata: Final = Schema()
"""All tables of all services of this package: what migrations compare with."""

_KINDS: Final[Mapping[type, Kind]] = {str: "text", int: "integer", float: "real", bool: "boolean"}


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Which records, in which order, which page of them.

    `where`: column -> value, or a list of values, or None; `matches`: a further test in Python, for what no column
    holds; `sort`: (field, descending) pairs, `id` is always the last; `marker`: the id of the last record seen.
    """

    where: Mapping[str, Any] = {}
    matches: Callable[[Any], bool] | None = None
    sort: Sequence[tuple[str, bool]] = ()
    marker: str | None = None
    limit: int | None = None


class RecordTable(Generic[R]):
    """One kind of record of one service, in a table named `{service}_{noun}`."""

    def __init__(
        self,
        name: str,
        record: type[R],
        *,
        columns: Sequence[str] = (),
        unique: Sequence[Sequence[str]] = (),
        indexes: Sequence[Sequence[str]] = (),
    ) -> None:
        hints = typing.get_type_hints(record)
        self.name, self.record, self.noun = name, record, name.split("_", 1)[-1].replace("_", " ")
        self.columns = ("id", "generation", *columns)
        self.table = metadata.add(
            Table(
                name,
                (*(_column(column, hints[column]) for column in self.columns), Column("body", "bytes")),
                unique=unique,
                indexes=indexes,
            )
        )
        self.decode = self._decode = msgspec.json.Decoder(record).decode
        self._insert = self.table.insert()
        self._select = f"SELECT body FROM {name}"  # noqa: S608 - names of ours
        written = ", ".join(f"{column} = :{column}" for column in (*self.columns, "body") if column != "id")
        self._update = f"UPDATE {name} SET {written} WHERE id = :id AND generation = :seen"  # noqa: S608
        self._by_id = f"{self._select} WHERE id = :id"

    def insert(self, tx: Transaction, record: R) -> R:
        """Raise Conflict when the id or a unique combination is taken."""
        try:
            tx.execute(self._insert, self._row(record))
        except Taken as error:
            raise self._taken(error) from error
        return record

    def insert_many(self, tx: Transaction, records: Sequence[R]) -> None:
        if records:
            try:
                tx.execute(self._insert, [self._row(record) for record in records])
            except Taken as error:
                raise self._taken(error) from error

    def get(self, tx: Transaction, id: str) -> R | None:
        body = tx.execute(self._by_id, {"id": id}).scalar()
        return None if body is None else self._decode(body)

    def require(self, tx: Transaction, id: str) -> R:
        record = self.get(tx, id)
        if record is None:
            raise NotFound(f"{self.name}.not_found", f"There is no {self.noun} {id}.")
        return record

    def put(self, tx: Transaction, record: R) -> R:
        """Replace the record if it is still as it was read; returns it with its new generation.  Raise Conflict."""
        new = changed(record, generation=record.generation + 1)
        try:
            done = tx.execute(self._update, {**self._row(new), "seen": record.generation})
        except Taken as error:
            raise self._taken(error) from error
        if done.rowcount != 1:
            raise Conflict(
                f"{self.name}.changed", f"The {self.noun} {record.id} was changed by somebody else meanwhile."
            )
        return new

    def delete(self, tx: Transaction, id: str) -> bool:
        """Whether there was one."""
        return self.delete_where(tx, id=id) > 0

    def delete_where(self, tx: Transaction, **conditions: Any) -> int:
        text, parameters = where(conditions)
        return int(tx.execute(f"DELETE FROM {self.name}{text}", parameters).rowcount)  # noqa: S608

    def find(self, tx: Transaction, **conditions: Any) -> list[R]:
        """All records with these column values, in no promised order: sort when order matters."""
        text, parameters = where(conditions)
        return [self._decode(body) for (body,) in tx.execute(self._select + text, parameters)]

    def first(self, tx: Transaction, **conditions: Any) -> R | None:
        text, parameters = where(conditions)
        body = tx.execute(f"{self._select}{text} LIMIT 1", parameters).scalar()
        return None if body is None else self._decode(body)

    def count(self, tx: Transaction, **conditions: Any) -> int:
        text, parameters = where(conditions)
        return int(tx.execute(f"SELECT count(*) FROM {self.name}{text}", parameters).scalar())  # noqa: S608

    def page(self, tx: Transaction, query: Query) -> list[R]:
        """One page.  Sorted and cut by the database when columns suffice, else in memory.

        Raise NotFound when the marker is not among the records.
        """
        sort = [*query.sort, ("id", False)] if "id" not in dict(query.sort) else list(query.sort)
        if query.matches is None and all(field in self.columns for field, _ in sort):
            return self._page_in_sql(tx, query, sort)
        records = [record for record in self.find(tx, **query.where) if query.matches is None or query.matches(record)]
        for field, descending in reversed(sort):
            records.sort(key=_by(field), reverse=descending)
        if query.marker is not None:
            places = [index for index, record in enumerate(records) if record.id == query.marker]
            if not places:
                raise self._no_marker(query.marker)
            records = records[places[0] + 1 :]
        return records if query.limit is None else records[: query.limit]

    def _page_in_sql(self, tx: Transaction, query: Query, sort: Sequence[tuple[str, bool]]) -> list[R]:
        text, parameters = where(query.where)
        if query.marker is not None:
            among = f"{self._select}{text}{' AND' if text else ' WHERE'} id = :marker"
            body = tx.execute(among, {**parameters, "marker": query.marker}).scalar()
            if body is None:  # also when it is there and not among these: it may be another tenant's
                raise self._no_marker(query.marker)
            last = self._decode(body)
            after, more = _after(sort, last)
            text += f"{' AND' if text else ' WHERE'} ({after})"
            parameters.update(more)
        # NULL first when ascending on both engines, like None in _by()
        order = [f"{field} {'DESC NULLS LAST' if descending else 'ASC NULLS FIRST'}" for field, descending in sort]
        text += f" ORDER BY {', '.join(order)}"
        if query.limit is not None:
            text += f" LIMIT {int(query.limit)}"
        return [self._decode(body) for (body,) in tx.execute(self._select + text, parameters)]

    def _row(self, record: R) -> dict[str, Any]:
        row = {name: getattr(record, name) for name in self.columns}
        row["body"] = encode(record)
        return row

    def _taken(self, error: Taken) -> Conflict:
        return Conflict(f"{self.name}.exists", f"There is such a {self.noun} already.", hidden=str(error))

    def _no_marker(self, marker: str) -> NotFound:
        return NotFound(f"{self.name}.no_marker", f"marker: there is no {self.noun} {marker}.")


def _column(name: str, hint: Any) -> Column:
    plain, nullable = hint, False
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        assert len(options) == 1, f"{name}: a column has one type, not {hint}"
        plain, nullable = options[0], True
    if isinstance(plain, type) and issubclass(plain, enum.Enum):
        plain = str
    return Column(name, _KINDS[plain], nullable)


def _by(field: str) -> Callable[[Any], tuple[bool, Any]]:
    """Sort by a field; None comes first."""

    def key(record: Any) -> tuple[bool, Any]:
        value = getattr(record, field)
        return (value is not None, value)

    return key


def _after(sort: Sequence[tuple[str, bool]], last: Record) -> tuple[str, dict[str, Any]]:
    """Rows that come after `last` in this order (keyset paging: no row is skipped or shown twice)."""
    parameters: dict[str, Any] = {}
    choices = []
    for index, (field, descending) in enumerate(sort):
        value = getattr(last, field)
        parts = []
        for name, _ in sort[:index]:
            same = getattr(last, name)
            parts.append(f"{name} IS NULL" if same is None else f"{name} = :last_{name}")
        if value is None:
            parts.append("1 = 0" if descending else f"{field} IS NOT NULL")
        else:
            parameters[f"last_{field}"] = value
            further = f"({field} < :last_{field} OR {field} IS NULL)" if descending else f"{field} > :last_{field}"
            parts.append(further)
        choices.append(f"({' AND '.join(parts)})")
    return " OR ".join(choices), parameters

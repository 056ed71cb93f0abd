"""Tables of records: a few columns to look things up by, and the record itself as JSON beside them.

A field that no query needs is added to the record with a default and wants no migration.  Every `put` is a
compare-and-swap on the generation.  The statements are SQLAlchemy Core, the same for SQLite and PostgreSQL.
"""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from apus.kernel.errors import Conflict, NotFound
from apus.kernel.record import Record, changed, encode
from apus.kernel.world import Transaction

R = TypeVar("R", bound=Record)

metadata: Final = sa.MetaData()
"""All tables of all services of this package: what migrations compare with."""

_SQL_TYPES: Final[Mapping[type, Any]] = {
    str: sa.String,
    int: sa.BigInteger,
    float: sa.Double,
    bool: sa.Boolean,
}


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
        self.table = sa.Table(
            name,
            metadata,
            sa.Column("id", sa.String(255), primary_key=True),
            *(_column(column, hints[column]) for column in self.columns[1:]),
            sa.Column("body", sa.LargeBinary, nullable=False),
            *(sa.UniqueConstraint(*names, name=f"uq_{name}_{'_'.join(names)}") for names in unique),
            *(sa.Index(f"ix_{name}_{'_'.join(names)}", *names) for names in indexes),
        )
        self.decode = self._decode = msgspec.json.Decoder(record).decode
        c = self.table.c
        self._insert = self.table.insert()
        self._by_id = sa.select(c.body).where(c.id == sa.bindparam("id_"))
        self._update = self.table.update().where(c.id == sa.bindparam("id_"), c.generation == sa.bindparam("seen"))
        self._delete = self.table.delete().where(c.id == sa.bindparam("id_"))

    def insert(self, tx: Transaction, record: R) -> R:
        """Raise Conflict when the id or a unique combination is taken."""
        try:
            tx.execute(self._insert, self._row(record))
        except IntegrityError as error:
            raise self._taken(error) from error
        return record

    def insert_many(self, tx: Transaction, records: Sequence[R]) -> None:
        if records:
            try:
                tx.execute(self._insert, [self._row(record) for record in records])
            except IntegrityError as error:
                raise self._taken(error) from error

    def get(self, tx: Transaction, id: str) -> R | None:
        body = tx.execute(self._by_id, {"id_": id}).scalar()
        return None if body is None else self._decode(body)

    def require(self, tx: Transaction, id: str) -> R:
        record = self.get(tx, id)
        if record is None:
            raise NotFound(f"{self.name}.not_found", f"There is no {self.noun} {id}.")
        return record

    def put(self, tx: Transaction, record: R) -> R:
        """Replace the record if it is still as it was read; returns it with its new generation.  Raise Conflict."""
        new = changed(record, generation=record.generation + 1)
        values = {**self._row(new), "id_": record.id, "seen": record.generation}
        try:
            done = tx.execute(self._update, values)
        except IntegrityError as error:
            raise self._taken(error) from error
        if done.rowcount != 1:
            raise Conflict(
                f"{self.name}.changed", f"The {self.noun} {record.id} was changed by somebody else meanwhile."
            )
        return new

    def delete(self, tx: Transaction, id: str) -> bool:
        """Whether there was one."""
        return bool(tx.execute(self._delete, {"id_": id}).rowcount)

    def delete_where(self, tx: Transaction, **where: Any) -> int:
        return int(tx.execute(self.table.delete().where(*self._conditions(where))).rowcount)

    def find(self, tx: Transaction, **where: Any) -> list[R]:
        """All records with these column values, oldest id order is not promised: sort when order matters."""
        rows = tx.execute(sa.select(self.table.c.body).where(*self._conditions(where)))
        return [self._decode(body) for (body,) in rows]

    def first(self, tx: Transaction, **where: Any) -> R | None:
        body = tx.execute(sa.select(self.table.c.body).where(*self._conditions(where)).limit(1)).scalar()
        return None if body is None else self._decode(body)

    def count(self, tx: Transaction, **where: Any) -> int:
        statement = sa.select(sa.func.count()).select_from(self.table).where(*self._conditions(where))
        return int(tx.execute(statement).scalar())

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
        c = self.table.c
        statement = sa.select(c.body).where(*self._conditions(query.where))
        if query.marker is not None:
            last = self.get(tx, query.marker)
            if last is None:
                raise self._no_marker(query.marker)
            statement = statement.where(_after(c, sort, last))
        for field, descending in sort:
            # NULL first when ascending on both engines, like None in _by()
            column = c[field]
            statement = statement.order_by(column.desc().nulls_last() if descending else column.asc().nulls_first())
        if query.limit is not None:
            statement = statement.limit(query.limit)
        return [self._decode(body) for (body,) in tx.execute(statement)]

    def _row(self, record: R) -> dict[str, Any]:
        row = {name: getattr(record, name) for name in self.columns}
        row["body"] = encode(record)
        return row

    def _conditions(self, where: Mapping[str, Any]) -> list[Any]:
        conditions = []
        for name, value in where.items():
            column = self.table.c[name]
            if isinstance(value, (list, tuple, set, frozenset)):
                conditions.append(column.in_(list(value)))
            else:
                conditions.append(column.is_(None) if value is None else column == value)
        return conditions

    def _taken(self, error: IntegrityError) -> Conflict:
        return Conflict(f"{self.name}.exists", f"There is such a {self.noun} already.", hidden=str(error.orig))

    def _no_marker(self, marker: str) -> NotFound:
        return NotFound(f"{self.name}.no_marker", f"marker: there is no {self.noun} {marker}.")


def _column(name: str, hint: Any) -> sa.Column[Any]:
    plain, nullable = hint, False
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        options = [option for option in typing.get_args(hint) if option is not type(None)]
        assert len(options) == 1, f"{name}: a column has one type, not {hint}"
        plain, nullable = options[0], True
    if isinstance(plain, type) and issubclass(plain, enum.Enum):
        plain = str
    return sa.Column(name, _SQL_TYPES[plain], nullable=nullable)


def _by(field: str) -> Callable[[Any], tuple[bool, Any]]:
    """Sort by a field; None comes first."""

    def key(record: Any) -> tuple[bool, Any]:
        value = getattr(record, field)
        return (value is not None, value)

    return key


def _after(columns: Any, sort: Sequence[tuple[str, bool]], last: Record) -> Any:
    """Rows that come after `last` in this order (keyset paging: no row is skipped or shown twice)."""
    choices = []
    for index, (field, descending) in enumerate(sort):
        column, value = columns[field], getattr(last, field)
        same = [columns[name].is_not_distinct_from(getattr(last, name)) for name, _ in sort[:index]]
        if descending:
            further = sa.false() if value is None else sa.or_(column < value, column.is_(None))
        else:
            further = column.is_not(None) if value is None else column > value
        choices.append(sa.and_(*same, further))
    return sa.or_(*choices)

"""One index in one SQLite file: a head, its totals and digest, and rows by name.

Everything merges: the newest version of a row or a field wins, whatever the order of arrival, so copies of an index
become equal by exchanging rows.  Totals and digest are kept row by row, in the transaction that changes them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from apus.services.object.logic.listing import Window, page
from apus.services.object.logic.merge import digest_of, fingerprint, merge_fields
from apus.services.object.model import Change, CorruptCopy, IndexHead, ListingAsk, Row, Subdir, Totals

Connect = Callable[[Path], sqlite3.Connection]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS head (
    id INTEGER PRIMARY KEY CHECK (id = 1), account TEXT NOT NULL, container TEXT NOT NULL,
    made TEXT NOT NULL DEFAULT '', gone TEXT NOT NULL DEFAULT '', fields BLOB NOT NULL,
    rows INTEGER NOT NULL DEFAULT 0, size_bytes INTEGER NOT NULL DEFAULT 0, objects INTEGER NOT NULL DEFAULT 0,
    digest TEXT NOT NULL DEFAULT '0');
CREATE TABLE IF NOT EXISTS entry (
    name TEXT PRIMARY KEY, stamp TEXT NOT NULL, told TEXT NOT NULL, gone INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, count INTEGER NOT NULL, etag TEXT NOT NULL, content_type TEXT NOT NULL
) WITHOUT ROWID;
"""
_COLUMNS: Final = "name, stamp, told, gone, size_bytes, count, etag, content_type"
_FIELDS: Final = msgspec.json.Decoder(dict[str, tuple[str, str]])
LOOKUPS_AT_ONCE: Final = 500
"""Below SQLite's bound on variables of one statement."""


def connect_file(path: Path) -> sqlite3.Connection:
    """A file whose commits are on stable storage when they return."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA cache_size=-512")
    return connection


class IndexFile:
    """Blocking; used by one thread at a time."""

    def __init__(self, path: Path, connect: Connect = connect_file) -> None:
        self._db = connect(path)
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        self._db.close()

    def head(self) -> IndexHead | None:
        row = self._db.execute(
            "SELECT account, container, made, gone, fields, rows, size_bytes, objects FROM head"
        ).fetchone()
        if row is None:
            return None
        return IndexHead(row[0], row[1], row[2], row[3], _FIELDS.decode(row[4]), *row[5:])

    def digest(self) -> int:
        found = self._db.execute("SELECT digest FROM head").fetchone()
        head = self.head()
        if found is None or head is None:
            return 0
        said = fingerprint(f"{head.account}/{head.container}", (head.made, head.gone))
        return int(found[0]) ^ said ^ digest_of((name, pair) for name, pair in head.fields.items())

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or nothing.  SQLite rolls back by itself where the drive is full or fails: to do it again would
        be an error that hides the first one."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def apply(self, changes: Sequence[Change]) -> IndexHead:
        """Merge all of these in one transaction."""
        assert changes
        with self._transaction():
            head = self.head() or IndexHead(changes[0].account, changes[0].container)
            made, gone, fields = head.made, head.gone, head.fields
            for change in changes:
                made, gone = max(made, change.made), max(gone, change.gone)
                fields = merge_fields(fields, change.fields) if change.fields else fields
            newest: dict[str, Row] = {}
            for change in changes:
                for row in change.rows:
                    known = newest.get(row.name)
                    if known is None or row.version > known.version:
                        newest[row.name] = row
            head = msgspec.structs.replace(head, made=made, gone=gone, fields=fields)
            head = self._merge_rows(head, newest)
        return head

    def listing(self, ask: ListingAsk) -> list[Row | Subdir]:
        return page(ask, self._scan)

    def rows(self, after: str, limit: int) -> list[Row]:
        found = self._db.execute(f"SELECT {_COLUMNS} FROM entry WHERE name > ? ORDER BY name LIMIT ?", (after, limit))  # noqa: S608  (names of our own columns)
        return [_row(values) for values in found]

    def totals(self, after: str, upto: str) -> Totals:
        bound = " AND name <= ?" if upto else ""
        found = self._db.execute(
            "SELECT count(*), coalesce(sum(gone = 0), 0), coalesce(sum(size_bytes * (gone = 0)), 0),"  # noqa: S608  (names of our own columns)
            f" coalesce(sum(count * (gone = 0)), 0) FROM entry WHERE name > ?{bound}",
            (after, upto) if upto else (after,),
        ).fetchone()
        return Totals(*found)

    def expel(self, versions: Sequence[tuple[str, str, str]]) -> None:
        """Remove these names if they are of these versions still: (name, stamp, told)."""
        named = {name: (stamp, told) for name, stamp, told in versions}
        with self._transaction():
            found = [row for row in self._lookup(list(named)) if row.version == named[row.name]]
            self._db.executemany("DELETE FROM entry WHERE name = ?", [(row.name,) for row in found])
            live = [row for row in found if not row.gone]
            self._db.execute(
                "UPDATE head SET rows = rows - ?, size_bytes = size_bytes - ?, objects = objects - ?",
                (len(live), sum(row.size_bytes for row in live), sum(row.count for row in live)),
            )
            if found:
                self._set_digest(digest_of((row.name, row.version) for row in found))

    def reclaim(self, before: str) -> bool:
        """Forget tombstones older than the stamp; true when nothing worth keeping is left."""
        with self._transaction():
            old = self._db.execute(
                "SELECT name, stamp, told FROM entry WHERE gone = 1 AND stamp < ? AND told < ? LIMIT 10000",
                (before, before),
            ).fetchall()
            digest = digest_of((name, (stamp, told)) for name, stamp, told in old)
            self._db.executemany("DELETE FROM entry WHERE name = ?", [(name,) for name, _, _ in old])
            if old:
                self._set_digest(digest)
        head = self.head()
        left = self._db.execute("SELECT 1 FROM entry LIMIT 1").fetchone()
        return left is None and head is not None and not head.exists and max(head.made, head.gone) < before

    def audit(self) -> None:
        """Raise CorruptCopy unless the file is whole and its totals are those of its rows."""
        found = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found[0] != "ok":
            raise CorruptCopy(f"the index is damaged: {found[0]}")
        kept = self._db.execute("SELECT digest, rows, size_bytes FROM head").fetchone()
        if kept is None:
            return
        digest = rows = size = 0
        for values in self._db.execute(f"SELECT {_COLUMNS} FROM entry"):  # noqa: S608  (names of our own columns)
            row = _row(values)
            digest ^= fingerprint(row.name, row.version)
            if not row.gone:
                rows, size = rows + 1, size + row.size_bytes
        if (str(digest), rows, size) != tuple(kept):
            raise CorruptCopy("the index contradicts its totals")

    def _merge_rows(self, head: IndexHead, newest: dict[str, Row]) -> IndexHead:
        known = {row.name: row for row in self._lookup(list(newest))}
        fresh: list[Row] = []
        digest, rows, size, objects = 0, head.rows, head.size_bytes, head.objects
        for row in newest.values():
            before = known.get(row.name)
            if before is not None and before.version >= row.version:
                continue
            fresh.append(row)
            digest ^= fingerprint(row.name, row.version)
            if before is not None:
                digest ^= fingerprint(before.name, before.version)
                if not before.gone:
                    rows, size, objects = rows - 1, size - before.size_bytes, objects - before.count
            if not row.gone:
                rows, size, objects = rows + 1, size + row.size_bytes, objects + row.count
        self._db.executemany(
            f"INSERT OR REPLACE INTO entry ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  (names of our own columns)
            [(r.name, r.stamp, r.told, int(r.gone), r.size_bytes, r.count, r.etag, r.content_type) for r in fresh],
        )
        head = msgspec.structs.replace(head, rows=rows, size_bytes=size, objects=objects)
        if min(rows, size, objects) < 0:
            raise CorruptCopy("the index contradicts its totals")
        self._db.execute(
            "INSERT INTO head (id, account, container, made, gone, fields, rows, size_bytes, objects, digest)"
            " VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, '0') ON CONFLICT (id) DO UPDATE SET made = excluded.made,"
            " gone = excluded.gone, fields = excluded.fields, rows = excluded.rows,"
            " size_bytes = excluded.size_bytes, objects = excluded.objects",
            (
                head.account, head.container, head.made, head.gone,
                msgspec.json.encode(head.fields), rows, size, objects,
            ),
        )  # fmt: skip
        if digest:
            self._set_digest(digest)
        return head

    def _lookup(self, names: list[str]) -> Iterable[Row]:
        for at in range(0, len(names), LOOKUPS_AT_ONCE):
            some = names[at : at + LOOKUPS_AT_ONCE]
            marks = ", ".join("?" * len(some))
            for values in self._db.execute(f"SELECT {_COLUMNS} FROM entry WHERE name IN ({marks})", some):  # noqa: S608  (names of our own columns)
                yield _row(values)

    def _set_digest(self, change: int) -> None:
        """SQLite's integers are signed and 64 bits wide; the digest is kept as text."""
        (now,) = self._db.execute("SELECT digest FROM head").fetchone()
        self._db.execute("UPDATE head SET digest = ?", (str(int(now) ^ change),))

    def _scan(self, window: Window, limit: int) -> list[Row]:
        above = ">=" if window.inclusive else ">"
        statement = f"SELECT {_COLUMNS} FROM entry WHERE gone = 0 AND name {above} ?"  # noqa: S608  (names of our own columns)
        values: list[str | int] = [window.low]
        if window.high:
            statement += " AND name < ?"
            values.append(window.high)
        statement += f" ORDER BY name {'DESC' if window.reverse else 'ASC'} LIMIT ?"
        return [_row(found) for found in self._db.execute(statement, [*values, limit])]


def _row(values: Sequence[str | int]) -> Row:
    name, stamp, told, gone, size, count, etag, content_type = values
    return Row(str(name), str(stamp), str(told), bool(gone), int(size), int(count), str(etag), str(content_type))

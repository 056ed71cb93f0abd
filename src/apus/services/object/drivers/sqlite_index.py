"""One index in one SQLite file: a head, its totals and digest, and rows by name.

Everything merges: the newest version of a row or a field wins, whatever the order of arrival, so copies of an index
become equal by exchanging rows.  Totals and digest are kept row by row, in the transaction that changes them.

Each row has a checksum of its own, and so has the head: SQLite has none, and of two values of one version it is not
known which one has rotted.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from isal import isal_zlib as zlib  # the same CRC-32 in a fifth of the time

from apus.services.object.logic.listing import Window, page
from apus.services.object.logic.merge import digest_of, fingerprint, merge_fields
from apus.services.object.model import Change, CorruptCopy, IndexHead, ListingAsk, Row, RowVersion, Subdir, Totals

Connect = Callable[[Path], sqlite3.Connection]

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS head (
    id INTEGER PRIMARY KEY CHECK (id = 1), account TEXT NOT NULL, container TEXT NOT NULL,
    made TEXT NOT NULL DEFAULT '', gone TEXT NOT NULL DEFAULT '', fields BLOB NOT NULL,
    rows INTEGER NOT NULL DEFAULT 0, size_bytes INTEGER NOT NULL DEFAULT 0, objects INTEGER NOT NULL DEFAULT 0,
    digest TEXT NOT NULL DEFAULT '0', crc INTEGER);
CREATE TABLE IF NOT EXISTS entry (
    name TEXT PRIMARY KEY, stamp TEXT NOT NULL, told TEXT NOT NULL, gone INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, count INTEGER NOT NULL, etag TEXT NOT NULL, content_type TEXT NOT NULL, crc INTEGER
) WITHOUT ROWID;
"""
_HEAD: Final = "account, container, made, gone, fields, rows, size_bytes, objects, digest, crc"
_COLUMNS: Final = "name, stamp, told, gone, size_bytes, count, etag, content_type, crc"
_packed: Final = msgspec.msgpack.Encoder().encode
_FIELDS: Final = msgspec.json.Decoder(dict[str, tuple[str, str]])
LOOKUPS_AT_ONCE: Final = 500
"""Below SQLite's bound on variables of one statement."""
AUDIT_ROWS: Final = 500
"""Read at once by an audit, in a few milliseconds: whoever wants this index, or the interpreter, waits for it."""


def connect_file(path: Path) -> sqlite3.Connection:
    """A file whose commits are on stable storage when they return."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA cache_size=-512")
    return connection


class Sums:
    """What a head and its digest say of rows."""

    __slots__ = ("digest", "objects", "rows", "size_bytes")

    def __init__(self, digest: int = 0, rows: int = 0, size_bytes: int = 0, objects: int = 0) -> None:
        self.digest, self.rows, self.size_bytes, self.objects = digest, rows, size_bytes, objects

    @classmethod
    def of(cls, head: IndexHead, digest: int) -> Sums:
        return cls(digest, head.rows, head.size_bytes, head.objects)

    def on(self, head: IndexHead) -> IndexHead:
        return msgspec.structs.replace(head, rows=self.rows, size_bytes=self.size_bytes, objects=self.objects)

    def add(self, row: Row) -> None:
        self._count(row, 1)

    def remove(self, row: Row) -> None:
        self._count(row, -1)

    def _count(self, row: Row, sign: int) -> None:
        self.digest ^= fingerprint(row.name, row.version)
        if not row.gone:
            self.rows += sign
            self.size_bytes += sign * row.size_bytes
            self.objects += sign * row.count


class Audit(Sums):
    """Of the rows up to a name, as they are now: what changes there meanwhile is counted too."""

    __slots__ = ("upto",)

    def __init__(self) -> None:
        super().__init__()
        self.upto = ""


class IndexFile:
    """Blocking; used by one thread at a time."""

    def __init__(self, path: Path, connect: Connect = connect_file) -> None:
        self.known: tuple[IndexHead, int] | None = None
        """The head and the digest of the rows, as they were last committed or read."""
        self._coming: tuple[IndexHead, int] | None = None
        """What they will be when the transaction is committed."""
        self.audited: Audit | None = None
        """One that is not through."""
        self._db = connect(path)
        self._db.executescript(_SCHEMA)
        for table in (
            "head",
            "entry",
        ):  # files from before there were checksums: their rows get theirs when they change
            if "crc" not in [column[1] for column in self._db.execute(f"PRAGMA table_info({table})")]:
                self._db.execute(f"ALTER TABLE {table} ADD COLUMN crc INTEGER")

    def close(self) -> None:
        self._db.close()

    def shrink(self) -> None:
        """Give back the memory of what was read."""
        self._db.execute("PRAGMA shrink_memory")

    def head(self) -> IndexHead | None:
        kept = self._kept()
        return None if kept is None else kept[0]

    def digest(self) -> int:
        kept = self._kept()
        if kept is None:
            return 0
        head, digest = kept
        said = fingerprint(f"{head.account}/{head.container}", (head.made, head.gone))
        return digest ^ said ^ digest_of((name, pair) for name, pair in head.fields.items())

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of it or nothing.  SQLite rolls back by itself where the drive is full or fails: to do it again would
        be an error that hides the first one."""
        self._db.execute("BEGIN IMMEDIATE")
        self._coming = None
        try:
            yield
            self._db.execute("COMMIT")
            self.known = self._coming or self.known
        except BaseException:
            self.audited = None  # it may have counted what is not kept
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def apply(self, changes: Sequence[Change]) -> IndexHead:
        """Merge all of these in one transaction."""
        assert changes
        with self._transaction():
            head, digest = self._kept() or (IndexHead(changes[0].account, changes[0].container), 0)
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
            sums = Sums.of(head, digest)
            self._merge_rows(sums, newest)
            head = sums.on(head)
            self._keep(head, sums.digest)
        return head

    def listing(self, ask: ListingAsk) -> list[Row | Subdir]:
        return page(ask, self._scan)

    def rows(self, after: str, limit: int) -> list[Row]:
        found = self._db.execute(f"SELECT {_COLUMNS} FROM entry WHERE name > ? ORDER BY name LIMIT ?", (after, limit))  # noqa: S608  (names of our own columns)
        return [_row(values) for values in found]

    def versions(self, after: str, limit: int) -> list[RowVersion]:
        asked = "SELECT name, stamp, told FROM entry WHERE name > ? ORDER BY name LIMIT ?"
        return self._db.execute(asked, (after, limit)).fetchall()

    def totals(self, after: str, upto: str) -> Totals:
        bound = " AND name <= ?" if upto else ""
        found = self._db.execute(
            "SELECT count(*), coalesce(sum(gone = 0), 0), coalesce(sum(size_bytes * (gone = 0)), 0),"  # noqa: S608  (names of our own columns)
            f" coalesce(sum(count * (gone = 0)), 0) FROM entry WHERE name > ?{bound}",
            (after, upto) if upto else (after,),
        ).fetchone()
        return Totals(*found)

    def expel(self, versions: Sequence[RowVersion]) -> None:
        """Remove these names if they are of these versions still."""
        named = {name: (stamp, told) for name, stamp, told in versions}
        with self._transaction():
            found = [row for row in self._lookup(list(named)) if row.version == named[row.name]]
            kept = self._kept()
            if kept is None or not found:
                return
            self._remove(kept, found)

    def reclaim(self, before: str) -> bool:
        """Forget tombstones older than the stamp; true when nothing worth keeping is left."""
        with self._transaction():
            found = self._db.execute(
                "SELECT name, stamp, told FROM entry WHERE gone = 1 AND stamp < ? AND told < ? LIMIT 10000",
                (before, before),
            )
            old = [Row(name, stamp, told, gone=True) for name, stamp, told in found]
            kept = self._kept()
            if old and kept is not None:
                self._remove(kept, old)
        head = self.head()
        left = self._db.execute("SELECT 1 FROM entry LIMIT 1").fetchone()
        return left is None and head is not None and not head.exists and max(head.made, head.gone) < before

    def audit(self, at_most: int = AUDIT_ROWS) -> bool:
        """Read so many rows more; true when that were all, the file is whole, and its totals are those of its rows.

        Raise CorruptCopy.
        """
        audit = self.audited = self.audited or Audit()
        rows = self.rows(audit.upto, at_most)
        for row in rows:
            audit.add(row)
        if len(rows) == at_most:
            audit.upto = rows[-1].name
            return False
        self.audited = None
        found = self._db.execute("PRAGMA quick_check(1)").fetchone()  # half a second for a million rows just read
        if found[0] != "ok":
            raise CorruptCopy(f"the index is damaged: {found[0]}")
        kept = self._read()
        if kept is not None and (audit.on(kept[0]), audit.digest) != kept:
            raise CorruptCopy("the index contradicts its totals")
        return True

    def _kept(self) -> tuple[IndexHead, int] | None:
        """The head, and the digest of the rows."""
        if self.known is None:
            self.known = self._read()
        return self.known

    def _read(self) -> tuple[IndexHead, int] | None:
        found = self._db.execute(f"SELECT {_HEAD} FROM head").fetchone()  # noqa: S608  (names of our own columns)
        if found is None:
            return None
        account, container, made, gone, fields, rows, size_bytes, objects, digest = _checked(found)
        head = IndexHead(account, container, made, gone, _FIELDS.decode(fields), rows, size_bytes, objects)
        return head, int(digest)

    def _keep(self, head: IndexHead, digest: int) -> None:
        """SQLite's integers are signed and 64 bits wide: the digest is kept as text."""
        self._coming = head, digest
        fields = msgspec.json.encode(head.fields)
        counted = head.rows, head.size_bytes, head.objects
        values = head.account, head.container, head.made, head.gone, fields, *counted, str(digest)
        marks = ", ".join("?" * (len(values) + 1))
        self._db.execute(f"INSERT OR REPLACE INTO head (id, {_HEAD}) VALUES (1, {marks})", _sealed(values))  # noqa: S608  (names of our own columns)

    def _merge_rows(self, sums: Sums, newest: dict[str, Row]) -> None:
        known = {row.name: row for row in self._lookup(list(newest))}
        fresh: list[Row] = []
        for row in newest.values():
            before = known.get(row.name)
            if before is None or before.version < row.version:
                fresh.append(row)
                for each in self._counting(sums, row.name):
                    if before is not None:
                        each.remove(before)
                    each.add(row)
        self._db.executemany(
            f"INSERT OR REPLACE INTO entry ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  (names of our own columns)
            [
                _sealed((r.name, r.stamp, r.told, int(r.gone), r.size_bytes, r.count, r.etag, r.content_type))
                for r in fresh
            ],
        )
        if min(sums.rows, sums.size_bytes, sums.objects) < 0:
            raise CorruptCopy("the index contradicts its totals")

    def _remove(self, kept: tuple[IndexHead, int], rows: Sequence[Row]) -> None:
        """These, which are there."""
        sums = Sums.of(*kept)
        self._db.executemany("DELETE FROM entry WHERE name = ?", [(row.name,) for row in rows])
        for row in rows:
            for each in self._counting(sums, row.name):
                each.remove(row)
        self._keep(sums.on(kept[0]), sums.digest)

    def _counting(self, sums: Sums, name: str) -> tuple[Sums, ...]:
        """Who counts this name: an audit, too, that has been past it."""
        audit = self.audited
        return (sums,) if audit is None or name > audit.upto else (sums, audit)

    def _lookup(self, names: list[str]) -> Iterable[Row]:
        for at in range(0, len(names), LOOKUPS_AT_ONCE):
            some = names[at : at + LOOKUPS_AT_ONCE]
            marks = ", ".join("?" * len(some))
            for values in self._db.execute(f"SELECT {_COLUMNS} FROM entry WHERE name IN ({marks})", some):  # noqa: S608  (names of our own columns)
                yield _row(values)

    def _scan(self, window: Window, limit: int) -> list[Row]:
        above = ">=" if window.inclusive else ">"
        statement = f"SELECT {_COLUMNS} FROM entry WHERE gone = 0 AND name {above} ?"  # noqa: S608  (names of our own columns)
        values: list[str | int] = [window.low]
        if window.high:
            statement += " AND name < ?"
            values.append(window.high)
        statement += f" ORDER BY name {'DESC' if window.reverse else 'ASC'} LIMIT ?"
        return [_row(found) for found in self._db.execute(statement, [*values, limit])]


def _row(values: Sequence[Any]) -> Row:
    name, stamp, told, gone, size, count, etag, content_type = _checked(values)
    return Row(name, stamp, told, bool(gone), size, count, etag, content_type)


def _sealed(values: tuple[Any, ...]) -> tuple[Any, ...]:
    """With their checksum."""
    return (*values, zlib.crc32(_packed(values)))


def _checked(values: Sequence[Any]) -> Sequence[Any]:
    """Without it.  Raise CorruptCopy."""
    said, crc = values[:-1], values[-1]
    if crc is not None and crc != zlib.crc32(_packed(said)):
        raise CorruptCopy(f"what is said of {values[0]!r} does not match its checksum")
    return said

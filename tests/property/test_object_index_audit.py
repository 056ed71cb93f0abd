"""An audit that reads an index piece by piece, while it changes: it finds what is wrong, and nothing else."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apus.services.object.drivers.sqlite_index import IndexFile
from apus.services.object.model import Change, CorruptCopy, Row

names = st.sampled_from("abcdefghij\u00e9\U0010ffff")
changed_rows = st.builds(
    Row, name=names, stamp=st.sampled_from("123456"), gone=st.booleans(), size_bytes=st.integers(0, 9), count=st.just(1)
)
steps = st.one_of(
    st.tuples(st.just("apply"), st.lists(changed_rows, min_size=1, max_size=4)),
    st.tuples(st.just("expel"), st.lists(names, min_size=1, max_size=3)),
    st.tuples(st.just("reclaim"), st.sampled_from("123456")),
    st.tuples(st.just("fail"), changed_rows),
    st.tuples(st.just("audit"), st.integers(1, 4)),
    st.tuples(st.just("audit"), st.integers(1, 4)),
)


def changed(index: IndexFile, step: tuple[str, object]) -> None:
    match step:
        case "apply", list(rows):
            index.apply([Change("a", "c", tuple(rows), made="1")])
        case "expel", list(expelled):
            held = {row.name: row for row in index.rows("", 100)}
            index.expel([(name, *held[name].version) for name in expelled if name in held])
        case "reclaim", str(before):
            index.reclaim(before)
        case "fail", Row() as row:
            with contextlib.suppress(sqlite3.ProgrammingError):  # the second cannot be kept, so neither is the first
                index.apply([Change("a", "c", (row, Row("~", "1", told=[])))])  # type: ignore[arg-type]
        case "audit", int(at_most):
            index.audit(at_most)


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=40))
def test_what_changes_meanwhile_is_counted(story: list[tuple[str, object]]) -> None:
    index = IndexFile(Path(":memory:"))
    for step in story:
        changed(index, step)
    while not index.audit(3):
        pass
    index.close()


def audited_beside_writes(index: IndexFile, dice: Random) -> None:
    while not index.audit(7):
        index.apply([Change("a", "c", (Row(f"{dice.randrange(100):03}", "2"),))])


@pytest.mark.parametrize("said", ["DELETE FROM entry WHERE name = ?", "UPDATE entry SET stamp = '9' WHERE name = ?"])
def test_a_row_that_is_lost_or_rotten_is_found_wherever_it_is(tmp_path: Path, said: str) -> None:
    dice = Random(3)
    for number in range(40):
        path = tmp_path / f"{number}.db"
        with contextlib.closing(IndexFile(path)) as index:
            index.apply([Change("a", "c", tuple(Row(f"{name:02}", "1") for name in range(30)), made="1")])
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.execute(said, (f"{dice.randrange(30):02}",))
        with contextlib.closing(IndexFile(path)) as index, pytest.raises(CorruptCopy):
            audited_beside_writes(index, dice)

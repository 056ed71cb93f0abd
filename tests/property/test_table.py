"""Tables of records against a list: the same pages in SQL and in memory, whatever the order, the marker, the NULLs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from operator import attrgetter
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apus.kernel import events
from apus.kernel.errors import Conflict, NotFound
from apus.kernel.record import Record, changed
from apus.kernel.sql import Schema, where
from apus.kernel.table import Query, RecordTable, metadata
from apus.kernel.world import Transaction
from apus.platform.clock import SystemClock
from apus.platform.store_sqlite import SqliteStore

T = TypeVar("T")


class Fruit(Record, frozen=True, kw_only=True):
    name: str
    colour: str | None = None
    weight: int | None = None
    ripe: bool = False


FRUITS = RecordTable(
    "test_fruit", Fruit, columns=("name", "colour", "weight", "ripe"), unique=(("name", "colour"),)
)  # fmt: skip
SCHEMA = Schema()
SCHEMA.add(metadata.tables.pop("test_fruit"))
SCHEMA.add(events.EVENTS)


def in_store(work: Callable[[Transaction], T]) -> T:
    async def run() -> T:
        store = SqliteStore(None, SystemClock())
        try:
            await store.create_schema(SCHEMA)
            return await store.write(work)
        finally:
            await store.close()

    return asyncio.run(run())


names = st.sampled_from(["apple", "Apple", "zoë", "zz", "é", ""])
fruits = st.lists(
    st.builds(
        Fruit,
        id=st.sampled_from("abcdefgh"),
        name=names,
        colour=st.none() | st.sampled_from(["red", "green"]),
        weight=st.none() | st.integers(-2, 2),
        ripe=st.booleans(),
    ),
    max_size=8,
    unique_by=(lambda fruit: fruit.id, lambda fruit: (fruit.name, fruit.colour)),
)
sorts = st.lists(
    st.tuples(st.sampled_from(["id", "name", "colour", "weight", "ripe"]), st.booleans()),
    max_size=3,
    unique_by=lambda pair: pair[0],
)
wheres = st.fixed_dictionaries(
    {},
    optional={
        "colour": st.none() | st.just("red") | st.just([]) | st.lists(st.none() | st.sampled_from(["red", "green"])),
        "ripe": st.booleans(),
    },
)


@settings(max_examples=200, deadline=None)
@given(fruits, sorts, wheres, st.none() | st.sampled_from("abcdefghx"), st.none() | st.integers(0, 4))
def test_pages_agree(known: list[Fruit], sort: Any, conditions: Any, marker: str | None, limit: int | None) -> None:
    def page(tx: Transaction, matches: Any) -> list[str] | str:
        query = Query(where=conditions, matches=matches, sort=sort, marker=marker, limit=limit)
        try:
            return [fruit.id for fruit in FRUITS.page(tx, query)]
        except NotFound:
            return "no marker"

    def work(tx: Transaction) -> None:
        FRUITS.insert_many(tx, known)
        assert page(tx, None) == page(tx, lambda fruit: True) == modelled(known, sort, conditions, marker, limit)

    in_store(work)


def modelled(known: list[Fruit], sort: Any, conditions: Any, marker: str | None, limit: int | None) -> Any:
    def holds(fruit: Fruit) -> bool:
        for name, wanted in conditions.items():
            allowed = wanted if isinstance(wanted, list) else [wanted]
            if getattr(fruit, name) not in allowed:
                return False
        return True

    left = [fruit for fruit in known if holds(fruit)]
    left.sort(key=lambda fruit: fruit.id)
    for name, descending in reversed(sort):
        empty = [fruit for fruit in left if getattr(fruit, name) is None]
        filled = sorted(
            (fruit for fruit in left if getattr(fruit, name) is not None), key=attrgetter(name), reverse=descending
        )
        left = filled + empty if descending else empty + filled
    if marker is not None:
        ids = [fruit.id for fruit in left]
        if marker not in ids:
            return "no marker"
        left = left[ids.index(marker) + 1 :]
    return [fruit.id for fruit in left][:limit]


@settings(max_examples=50, deadline=None)
@given(fruits, sorts, st.integers(1, 3))
def test_following_markers_shows_each_record_once(known: list[Fruit], sort: Any, limit: int) -> None:
    def work(tx: Transaction) -> None:
        FRUITS.insert_many(tx, known)
        seen: list[str] = []
        while page := FRUITS.page(tx, Query(sort=sort, marker=seen[-1] if seen else None, limit=limit)):
            seen += [fruit.id for fruit in page]
        assert seen == [fruit.id for fruit in FRUITS.page(tx, Query(sort=sort))]

    in_store(work)


def test_put_is_a_compare_and_swap() -> None:
    def work(tx: Transaction) -> None:
        first = FRUITS.insert(tx, Fruit(id="a", name="apple", colour="red"))
        second = FRUITS.put(tx, changed(first, weight=3))
        assert (second.generation, FRUITS.require(tx, "a")) == (2, second)
        with pytest.raises(Conflict):
            FRUITS.put(tx, changed(first, weight=4))
        with pytest.raises(Conflict):
            FRUITS.put(tx, Fruit(id="never", name="x"))
        assert FRUITS.delete(tx, "a")
        assert not FRUITS.delete(tx, "a")
        with pytest.raises(NotFound):
            FRUITS.require(tx, "a")

    in_store(work)


@pytest.mark.parametrize("again", [Fruit(id="a", name="b"), Fruit(id="b", name="apple", colour="red")])
def test_what_is_taken_is_a_conflict(again: Fruit) -> None:
    def known(tx: Transaction) -> Fruit:
        FRUITS.insert(tx, Fruit(id="a", name="apple", colour="red"))
        return FRUITS.insert(tx, Fruit(id="c", name="apple", colour="green"))

    with pytest.raises(Conflict):
        in_store(lambda tx: (known(tx), FRUITS.insert(tx, again)))
    with pytest.raises(Conflict):
        in_store(lambda tx: FRUITS.put(tx, changed(known(tx), colour="red")))


def test_conditions() -> None:
    assert where({}) == ("", {})
    assert where({"a": None, "b": 1}) == (" WHERE a IS NULL AND b = :b", {"b": 1})
    assert where({"a": [1, None]}) == (" WHERE (a IN (:a_0) OR a IS NULL)", {"a_0": 1})
    assert where({"a": []}) == (" WHERE 1 = 0", {})


def test_events_are_followed_by_a_cursor_and_kept_apart() -> None:
    def work(tx: Transaction) -> None:
        for number in range(5):
            project = "mine" if number % 2 else "theirs"
            events.emit(tx, "thing.noun.made", f"r{number}", project, number=number)
        events.emit(tx, "cloud.host.joined", "h", None)
        mine = events.events_after(tx, 0, project_id="mine")
        assert [event.resource_id for event in mine] == ["r1", "r3"]
        assert [event.details for event in mine] == [{"number": 1}, {"number": 3}]
        assert [event.resource_id for event in events.events_after(tx, mine[0].seq, project_id="mine")] == ["r3"]
        everything = events.events_after(tx, 0)
        assert len(everything) == 6
        assert [event.seq for event in everything] == sorted(event.seq for event in everything)
        assert len(events.events_after(tx, 0, limit=2)) == 2
        assert events.last_seq(tx) == everything[-1].seq
        assert [event.kind for event in events.events_after(tx, 0, resource_id="h")] == ["cloud.host.joined"]

    in_store(work)

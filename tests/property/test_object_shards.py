"""An index in shards against a plain dictionary: whatever is cut, joined, cut off in the middle or passed on twice."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from apus.services.object.drivers.sqlite_index import IndexFile
from apus.services.object.logic.shards import WHOLE, ShardMap, Walk, bound_between, joined
from apus.services.object.model import Change, ListingAsk, Row, Subdir
from tests.property.test_object_listing import asks, names, plain

bounds = st.sets(names, max_size=4).map(lambda found: ["", *sorted(found)])


class Shards(RuleBasedStateMachine):
    """One index; steps of the sharder may be left half done, and writers may know an old map."""

    def __init__(self) -> None:
        super().__init__()
        self.map, self.maps = WHOLE, [WHOLE]
        self.indexes: dict[str, IndexFile] = {}
        self.model: dict[str, int] = {}
        self.clock = 0

    def index(self, bound: str) -> IndexFile:
        return self.indexes.setdefault(bound, IndexFile(Path(":memory:")))

    def write(self, row: Row, by: ShardMap) -> None:
        for bound in by.writes(row.name):
            self.index(bound).apply([Change("a", "c", (row,))])

    def turn_to(self, then: ShardMap) -> None:
        self.map = then
        self.maps.append(then)

    @rule(name=names, size=st.integers(1, 9))
    def put(self, name: str, size: int) -> None:
        self.clock += 1
        self.model[name] = size
        self.write(Row(name, f"{self.clock:09d}", size_bytes=size), self.map)

    @rule(name=names)
    def delete(self, name: str) -> None:
        self.clock += 1
        self.model.pop(name, None)
        self.write(Row(name, f"{self.clock:09d}", gone=True), self.map)

    @precondition(lambda self: self.map.is_settled)
    @rule(wanted=bounds)
    def plan(self, wanted: list[str]) -> None:
        self.turn_to(self.map.plan(wanted))

    def copy(self, upto: int) -> bool:
        """So many rows of the plan; whether it is done."""
        for move in self.map.moves():
            for row in self.index(move.source).rows(move.low, 1000):
                if not move.high or row.name <= move.high:
                    if upto == 0:
                        return False
                    self.index(move.target).apply([Change("a", "c", (row,))])
                    upto -= 1
        return True

    def pass_on(self, bound: str, upto: int) -> bool:
        behind = self.map.strays_behind(bound)
        for row in self.index(bound).rows(behind, 1000) if behind is not None else ():
            if upto == 0:
                return False
            self.write(row, self.map)
            self.index(bound).expel([(row.name, *row.version)])
            upto -= 1
        return True

    @precondition(lambda self: self.map.planned)
    @rule(upto=st.integers(0, 20))
    def copy_some(self, upto: int) -> None:
        if self.copy(upto):
            self.turn_to(self.map.turned())

    @precondition(lambda self: self.map.former)
    @rule(upto=st.integers(0, 20))
    def clean_some(self, upto: int) -> None:
        if all(self.pass_on(bound, upto) for bound in self.map.leftovers()):
            self.turn_to(self.map.cleaned())

    @rule(ask=asks)
    def page(self, ask: ListingAsk) -> None:
        walk = Walk(self.map, ask)
        while (turn := walk.ask()) is not None:
            walk.took(self.index(turn[0]).listing(turn[1]))
        assert [row.name + "*" * isinstance(row, Subdir) for row in walk.found] == plain(ask, set(self.model))

    @rule(name=names, at=st.integers(0, 30))
    def late(self, name: str, at: int) -> None:
        """By an old map, which shows when a change is over that was under way; then all shards that there ever were are
        looked at, as repair and the auditor have it done."""
        self.clock += 1
        self.model[name] = 1
        self.write(Row(name, f"{self.clock:09d}", size_bytes=1), self.maps[at % len(self.maps)])
        if self.map.planned:
            assert self.copy(-1)
            self.turn_to(self.map.turned())
        for bound in sorted(self.indexes):
            assert self.pass_on(bound, 1000)

    @invariant()
    def totals_are_those_of_the_names(self) -> None:
        found = [self.index(bound).totals(bound, self.map.upto(bound)) for bound in self.map.bounds]
        assert sum(one.rows for one in found) == len(self.model)
        assert sum(one.size_bytes for one in found) == sum(self.model.values())

    def teardown(self) -> None:
        if self.map.planned:
            assert self.copy(-1)
            self.map = self.map.turned()
        for bound in sorted(self.indexes):
            self.pass_on(bound, -1)
        held = [row.name for bound in self.indexes for row in self.index(bound).rows("", 1000) if not row.gone]
        assert sorted(held) == sorted(self.model)  # none doubled
        for index in self.indexes.values():
            assert index.audit()
            index.close()


TestShards = Shards.TestCase
TestShards.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(names, names)
def test_a_bound_is_between_and_short(one: str, two: str) -> None:
    if one != two:
        left, right = sorted((one, two))
        bound = bound_between(left, right)
        assert left <= bound < right
        assert len(bound) <= max(len(left), len(right))


@given(bounds, st.lists(st.integers(0, 9), min_size=5, max_size=5))
def test_joined_shards_are_smaller_than_the_limit(found: list[str], counts: list[int]) -> None:
    sizes = dict(zip(found, counts, strict=False))
    kept = joined(found, sizes, 8)
    assert kept[0] == ""
    assert set(kept) <= set(found)
    for bound, end in zip(kept, [*kept[1:], None], strict=True):
        inside = [sizes[one] for one in found if one >= bound and (end is None or one < end)]
        assert len(inside) == 1 or sum(inside) < 8

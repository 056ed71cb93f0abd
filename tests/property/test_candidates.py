"""Allocation candidates against a plain reading of the rules: every assignment is tried, and judged as a whole."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from apus.services.placement.contract import Inventory
from apus.services.placement.logic.candidates import SHARES, Ask, Group, candidates
from apus.services.placement.model import Provider

CLASSES, TRAITS, AGGREGATES = ("VCPU", "MEMORY_MB", "CUSTOM_GOLD"), ("T1", "T2", "T3"), ("g1", "g2")

inventories = st.builds(
    Inventory,
    total=st.integers(1, 4),
    min_unit=st.integers(1, 2),
    max_unit=st.integers(1, 4),
    step_size=st.integers(1, 2),
)


@st.composite
def forests(draw: st.DrawFn) -> list[Provider]:
    made: list[Provider] = []
    for number in range(draw(st.integers(1, 5))):
        parent = draw(st.sampled_from([None, *made]))
        id = f"p{number}"
        held = draw(st.dictionaries(st.sampled_from(CLASSES), inventories, max_size=3))
        traits = draw(st.sets(st.sampled_from((*TRAITS, SHARES)), max_size=3))
        made.append(
            Provider(
                id=id, name=id, inventories=held, traits=tuple(sorted(traits)),
                used={name: draw(st.integers(0, 1)) for name in held},
                aggregates=tuple(sorted(draw(st.sets(st.sampled_from(AGGREGATES), max_size=1)))),
                parent_id=None if parent is None else parent.id, root_id=id if parent is None else parent.root_id,
            )
        )  # fmt: skip
    return made


@st.composite
def asked(draw: st.DrawFn) -> Ask:
    groups = []
    for suffix in draw(st.sampled_from((("",), ("", "1"), ("1", "2"), ("", "_A", "_B"), ("_A", "_B")))):
        groups.append(
            Group(
                suffix=suffix,
                resources=draw(st.dictionaries(st.sampled_from(CLASSES), st.integers(1, 2), min_size=1, max_size=2)),
                required=tuple(
                    draw(st.lists(st.frozensets(st.sampled_from(TRAITS), min_size=1, max_size=2), max_size=1))
                ),
                forbidden=draw(st.frozensets(st.sampled_from(TRAITS), max_size=1)),
                member_of=tuple(draw(st.lists(st.frozensets(st.sampled_from(AGGREGATES), min_size=1), max_size=1))),
                not_member_of=draw(st.frozensets(st.sampled_from(AGGREGATES), max_size=1)),
                in_tree=draw(st.sampled_from((None, None, None, "p0", "p1"))),
            )
        )
    suffixes = [group.suffix for group in groups if group.suffix]
    return Ask(
        groups=tuple(groups),
        isolate=draw(st.booleans()),
        subtrees=(frozenset(suffixes),) if len(suffixes) > 1 and draw(st.booleans()) else (),
        root_required=draw(st.frozensets(st.sampled_from(TRAITS), max_size=1)),
        root_forbidden=draw(st.frozensets(st.sampled_from(TRAITS), max_size=1)),
    )


def ancestors(by_id: dict[str, Provider], id: str) -> set[str]:
    """The provider itself among them."""
    found, at = set(), by_id.get(id)
    while at is not None:
        found.add(at.id)
        at = by_id.get(at.parent_id) if at.parent_id else None
    return found


def plainly(ask: Ask, providers: list[Provider]) -> set[Any]:
    """All ways, by trying each provider for each thing that is asked."""
    by_id, found = {item.id: item for item in providers}, set()
    things = [(g, (name,)) for g in ask.groups if not g.suffix for name in sorted(g.resources)]
    things += [(g, tuple(sorted(g.resources))) for g in ask.groups if g.suffix]
    for root in (item for item in providers if item.parent_id is None):
        if not ask.root_required <= set(root.traits) or ask.root_forbidden & set(root.traits):
            continue
        tree = [item for item in providers if item.root_id == root.id]
        shared = {aggregate for item in tree for aggregate in item.aggregates}
        others = [i for i in providers if i not in tree and SHARES in i.traits and shared & set(i.aggregates)]
        for chosen in itertools.product([*tree, *others], repeat=len(things)):
            if any(item in tree for item in chosen) and is_right(ask, by_id, list(zip(things, chosen, strict=True))):
                total: Counter[tuple[str, str]] = Counter()
                for (group, names), item in zip(things, chosen, strict=True):
                    total.update({(item.id, name): group.resources[name] for name in names})
                found.add(frozenset(total.items()))
    return found


def is_right(
    ask: Ask, by_id: dict[str, Provider], choice: list[tuple[tuple[Group, tuple[str, ...]], Provider]]
) -> bool:
    total: Counter[tuple[str, str]] = Counter()
    for (group, names), item in choice:
        root = by_id[item.root_id]
        joined = set(item.aggregates) if group.suffix else {*item.aggregates, *root.aggregates}
        if group.forbidden & set(item.traits) or group.not_member_of & joined:
            return False
        if not all(any_of & joined for any_of in group.member_of):
            return False
        if group.in_tree is not None and (group.in_tree not in by_id or by_id[group.in_tree].root_id != item.root_id):
            return False
        for name in names:
            amount, inventory = group.resources[name], item.inventories.get(name)
            if inventory is None or amount < inventory.min_unit or amount % inventory.step_size:
                return False
            total[item.id, name] += amount
    for (id, name), amount in total.items():
        inventory = by_id[id].inventories[name]
        if amount > inventory.max_unit or by_id[id].used.get(name, 0) + amount > inventory.capacity:
            return False
    for group in ask.groups:
        traits = {trait for (asking, _), item in choice if asking is group for trait in item.traits}
        if not all(any_of & traits for any_of in group.required):
            return False
    of_suffix = {group.suffix: item.id for (group, _), item in choice if group.suffix}
    if ask.isolate and len(set(of_suffix.values())) < len(of_suffix):
        return False
    for subtree in ask.subtrees:
        places = {of_suffix[suffix] for suffix in subtree}
        if not any(all(high in ancestors(by_id, low) for low in places) for high in places):
            return False
    return True


@given(asked(), forests())
def test_all_ways_are_found_and_no_others(ask: Ask, providers: list[Provider]) -> None:
    found = candidates(ask, providers, None)
    shown = [
        frozenset(((id, name), amount) for id, amounts in one.allocations.items() for name, amount in amounts.items())
        for one in found
    ]
    assert len(set(shown)) == len(shown)
    assert set(shown) == plainly(ask, providers)
    for one in found:
        assert {id for ids in one.mappings.values() for id in ids} == set(one.allocations)
    assert candidates(ask, providers, 1) == found[:1]


def test_a_group_without_resources_counts_by_its_place() -> None:
    def node(id: str, parent: str | None, **more: Any) -> Provider:
        return Provider(id=id, name=id, inventories={}, parent_id=parent, root_id="host", **more)

    one = {"VCPU": Inventory(total=4)}
    providers = [
        node("host", None),
        node("near", "host", traits=("T1",)),
        node("far", "host"),
        Provider(id="cpu1", name="cpu1", inventories=one, parent_id="near", root_id="host"),
        Provider(id="cpu2", name="cpu2", inventories=one, parent_id="far", root_id="host"),
    ]
    groups = (
        Group(suffix="_NODE", required=(frozenset(("T1",)),)),
        Group(suffix="_CPU", resources={"VCPU": 1}),
    )
    both = candidates(Ask(groups=groups), providers, None)
    assert [one.allocations for one in both] == [{"cpu1": {"VCPU": 1}}, {"cpu2": {"VCPU": 1}}]
    together = candidates(Ask(groups=groups, subtrees=(frozenset(("_NODE", "_CPU")),)), providers, None)
    assert [one.mappings for one in together] == [{"_NODE": ("near",), "_CPU": ("cpu1",)}]

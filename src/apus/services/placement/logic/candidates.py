"""Allocation candidates: the ways to meet a request of several groups out of trees of providers.

A group with a suffix is met by one provider; the group without one may be met by several of a tree, which then have
its traits together.  Providers that share by aggregate (`MISC_SHARES_VIA_AGGREGATE`) stand beside each tree that has
a member in one of their aggregates.  Source: placement's "Provider Trees" and "Granular Resource Requests".
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from apus.services.placement.logic.room import fits, takes
from apus.services.placement.model import Provider

SHARES: Final = "MISC_SHARES_VIA_AGGREGATE"
TRIES_MAX: Final = 20_000
"""Combinations tried in one tree: a request can be written that has billions."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    suffix: str = ""
    resources: dict[str, int] = {}
    required: tuple[frozenset[str], ...] = ()
    """Of each set one trait."""
    forbidden: frozenset[str] = frozenset()
    member_of: tuple[frozenset[str], ...] = ()
    """Of each set one aggregate."""
    not_member_of: frozenset[str] = frozenset()
    in_tree: str | None = None
    """A provider of the tree."""


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    groups: tuple[Group, ...]
    isolate: bool = False
    """Groups with suffixes and resources are met by providers that all differ."""
    subtrees: tuple[frozenset[str], ...] = ()
    """Suffixes of groups of whose providers one is above all the others."""
    root_required: frozenset[str] = frozenset()
    root_forbidden: frozenset[str] = frozenset()
    nested: bool = True
    """False: roots alone, as before providers had trees."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    allocations: dict[str, dict[str, int]]
    """By provider."""
    mappings: dict[str, tuple[str, ...]]
    """Suffix -> providers that meet the group."""


class Forest:
    """Providers by tree."""

    def __init__(self, providers: Sequence[Provider]) -> None:
        self.by_id = {item.id: item for item in providers}
        self.trees: dict[str, list[Provider]] = {}
        for item in providers:
            self.trees.setdefault(root_of(item), []).append(item)
        self._sharing = [item for item in providers if SHARES in item.traits]

    def beside(self, tree: Sequence[Provider]) -> list[Provider]:
        """Providers of other trees that share with this one."""
        groups = {aggregate for item in tree for aggregate in item.aggregates}
        inside = {item.id for item in tree}
        return [item for item in self._sharing if item.id not in inside and groups & set(item.aggregates)]

    def root(self, item: Provider) -> Provider:
        return self.by_id.get(root_of(item), item)

    def is_above(self, high: str, low: str) -> bool:
        at: str | None = low
        while at is not None and at != high:
            at = self.by_id[at].parent_id if at in self.by_id else None
        return at == high


def root_of(item: Provider) -> str:
    return item.root_id or item.id


def candidates(ask: Ask, providers: Sequence[Provider], limit: int | None) -> list[Candidate]:
    """In the order of the providers; each way once."""
    forest = Forest(providers)
    found: dict[tuple[tuple[str, tuple[tuple[str, int], ...]], ...], Candidate] = {}
    for root_id, tree in forest.trees.items():
        root = forest.by_id.get(root_id)
        if root is None or not ask.root_required <= set(root.traits) or ask.root_forbidden & set(root.traits):
            continue
        for candidate in _of_tree(ask, forest, tree if ask.nested else [root]):
            allocations = candidate.allocations.items()
            key = tuple(sorted((id, tuple(sorted(amounts.items()))) for id, amounts in allocations))
            found.setdefault(key, candidate)
            if limit is not None and len(found) >= limit:
                return list(found.values())
    return list(found.values())


Part = Sequence[tuple[Provider, Mapping[str, int]]]
"""How one group is met: who gives what.  Nothing may be given, where only the provider's place counts."""


def _of_tree(ask: Ask, forest: Forest, tree: Sequence[Provider]) -> Iterator[Candidate]:
    inside, there = {item.id for item in tree}, [*tree, *forest.beside(tree)]
    options = [list(_ways(group, forest, there)) for group in ask.groups]
    for parts in itertools.islice(itertools.product(*options), TRIES_MAX):
        allocations: dict[str, dict[str, int]] = {}
        for part in parts:
            for provider, amounts in part:
                total = allocations.setdefault(provider.id, {}) if amounts else {}
                for name, amount in amounts.items():
                    total[name] = total.get(name, 0) + amount
        mappings = {
            group.suffix: tuple(dict.fromkeys(provider.id for provider, _ in part))
            for group, part in zip(ask.groups, parts, strict=True)
        }
        if (
            not inside.isdisjoint(allocations)
            and all(takes(forest.by_id[id], amounts) for id, amounts in allocations.items())
            and _apart(ask, mappings)
            and all(_in_one_subtree(forest, suffixes, mappings) for suffixes in ask.subtrees)
        ):
            yield Candidate(allocations=allocations, mappings=mappings)


def _ways(group: Group, forest: Forest, there: Sequence[Provider]) -> Iterator[Part]:
    if group.suffix:
        for item in there:
            if meets(group, forest, item):
                yield ((item, group.resources),)
        return
    # the root's aggregates are those of all its tree
    usable = [i for i in there if _usable(group, forest, i, {*i.aggregates, *forest.root(i).aggregates})]
    names = sorted(group.resources)
    each = [[item for item in usable if fits(item, {name: group.resources[name]})] for name in names]
    for chosen in itertools.islice(itertools.product(*each), TRIES_MAX):
        if _has_all(group, {trait for item in chosen for trait in item.traits}):
            yield [(item, {name: group.resources[name]}) for name, item in zip(names, chosen, strict=True)]


def meets(group: Group, forest: Forest, item: Provider) -> bool:
    """Whether one provider alone can meet the group."""
    return (
        _usable(group, forest, item, set(item.aggregates))
        and _has_all(group, set(item.traits))
        and fits(item, group.resources)
    )


def _usable(group: Group, forest: Forest, item: Provider, joined: set[str]) -> bool:
    """`joined`: the aggregates that it counts as a member of."""
    if group.in_tree is not None:
        tree = forest.by_id.get(group.in_tree)
        if tree is None or root_of(tree) != root_of(item):
            return False
    return (
        not group.forbidden & set(item.traits)
        and all(any_of & joined for any_of in group.member_of)
        and not group.not_member_of & joined
    )


def _has_all(group: Group, traits: set[str]) -> bool:
    return all(any_of & traits for any_of in group.required)


def _apart(ask: Ask, mappings: Mapping[str, tuple[str, ...]]) -> bool:
    if not ask.isolate:
        return True
    used = [mappings[group.suffix][0] for group in ask.groups if group.suffix and group.resources]
    return len(set(used)) == len(used)


def _in_one_subtree(forest: Forest, suffixes: frozenset[str], mappings: Mapping[str, tuple[str, ...]]) -> bool:
    places = {id for suffix in suffixes for id in mappings[suffix]}
    return any(all(forest.is_above(high, low) for low in places) for high in places)

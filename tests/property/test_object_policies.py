"""Rings of several policies as one: numbers of partitions say whose they are, before and after a cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apus.kernel.errors import Invalid
from apus.services.object.logic.ring import DriveSpec
from apus.services.object.logic.rings import own_part, part_in, policy_of, split_all
from apus.services.object.logic.storage_policies import StoragePolicy, numbered, with_wished
from apus.services.object.membership import new_rings

DRIVES = [DriveSpec(f"drive{number}") for number in range(1, 7)]


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 4), st.binary(min_size=16, max_size=16))
def test_each_policy_has_its_own_partitions(wishes: list[int], power: int, path_hash: bytes) -> None:
    rings = new_rings(DRIVES, power, wishes)
    parts = list(rings.every_part())
    assert len(set(parts)) == len(wishes) << power
    assert all(rings.has(part) for part in parts)
    for policy, copies in enumerate(wishes):
        part = rings.part_of(path_hash.hex(), policy)
        assert policy_of(part) == policy
        assert own_part(part) == rings.part_of(path_hash.hex(), 0)
        assert len(set(rings.primaries(part))) == copies
        assert not set(rings.primaries(part)) & set(rings.handoffs(part))
        cut = split_all(rings)
        assert cut.primaries(cut.part_of(path_hash.hex(), policy)) == rings.primaries(part)
    unknown = part_in(len(wishes), 0)
    assert not rings.has(unknown)
    assert rings.primaries(unknown) == rings.handoffs(unknown) == ()


def test_policies_stay_and_new_ones_come_behind() -> None:
    two = with_wished((), {"two": 2})
    assert with_wished(two, {}) == two
    assert with_wished(two, {"five": 5, "two": 2}) == (StoragePolicy("two", 2), StoragePolicy("five", 5))
    assert numbered(" TWO ", ["replicated", "two"]) == 1


@pytest.mark.parametrize(
    "wished", [{"two": 3}, {"TWO": 2}, {"replicated": 2}, {"Replicated": 3}, {"": 1}, {"a b": 1}, {"x": 0}, {"x": 17},
               {f"p{number}": 1 for number in range(16)}],
)  # fmt: skip
def test_what_cannot_be_wished_is_refused(wished: dict[str, int]) -> None:
    with pytest.raises(Invalid, match="storage_policies"):
        with_wished((StoragePolicy("two", 2),), wished)

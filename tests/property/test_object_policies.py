"""Rings of several policies as one: numbers of partitions say whose they are, before and after a cut."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apus.kernel.errors import Invalid
from apus.services.object.logic.code import Code
from apus.services.object.logic.ring import DriveSpec
from apus.services.object.logic.rings import (
    Rings,
    archives_part,
    is_of_fragments,
    objects_part,
    own_part,
    part_in,
    policy_of,
    split_all,
)
from apus.services.object.logic.storage_policies import StoragePolicy, numbered, short_of_drives, with_wished
from apus.services.object.membership import new_rings

DRIVES = [DriveSpec(f"drive{number}") for number in range(1, 7)]


WISHES = st.lists(st.integers(1, 6) | st.sampled_from(["2+1", "4+2", "3+3"]), max_size=4)


@given(WISHES, st.integers(0, 4), st.binary(min_size=16, max_size=16))
def test_each_policy_has_its_own_partitions(wishes: list[int | str], power: int, path_hash: bytes) -> None:
    policies = (StoragePolicy("replicated", 3), *with_wished((), {f"p{n}": wish for n, wish in enumerate(wishes)}))
    rings = new_rings(DRIVES, power, policies)
    parts = list(rings.every_part())
    assert len(set(parts)) == (len(policies) + sum(one.code is not None for one in policies)) << power
    assert all(rings.has(part) for part in parts)
    for policy, one in enumerate(policies):
        copies = one.copies
        part = rings.part_of(path_hash.hex(), policy)
        assert policy_of(part) == policy
        assert own_part(part) == rings.part_of(path_hash.hex(), 0)
        assert len(set(rings.primaries(part))) == copies
        assert not set(rings.primaries(part)) & set(rings.handoffs(part))
        cut = split_all(rings)
        assert cut.primaries(cut.part_of(path_hash.hex(), policy)) == rings.primaries(part)
        assert rings.code_of(part) == one.code
        assert (archives_part(part) in parts) == (one.code is not None)
        if one.code is not None:
            archives = archives_part(part)
            assert objects_part(archives) == part
            assert policy_of(archives) == policy
            assert is_of_fragments(archives)
            assert not is_of_fragments(part)
            assert len(set(rings.primaries(archives))) == one.code.fragments == rings.ring_of(archives).copies
            assert rings.ring_of(archives).quorum == one.code.quorum
            assert cut.ring_of(archives_part(cut.part_of(path_hash.hex(), policy))).code == one.code
    for unknown in (part_in(len(policies), 0), archives_part(part_in(len(policies), 0)), archives_part(0)):
        assert not rings.has(unknown)
        assert rings.primaries(unknown) == rings.handoffs(unknown) == ()
    again = new_rings(DRIVES, power, policies, rings)
    assert again == rings
    assert msgspec.json.decode(msgspec.json.encode(rings), type=Rings) == rings


def test_policies_stay_and_new_ones_come_behind() -> None:
    two = with_wished((), {"two": 2})
    assert with_wished(two, {}) == two
    assert with_wished(two, {"five": 5, "two": 2}) == (StoragePolicy("two", 2), StoragePolicy("five", 5))
    coded = with_wished(two, {"coded": "4+2"})
    assert coded[1] == StoragePolicy("coded", 3, Code(4, 2))
    assert with_wished(coded, {"coded": "4+2"}) == coded
    assert short_of_drives(coded, 6) is None
    assert "needs 6 drives, and there would be 5" in str(short_of_drives(coded, 5))
    assert numbered(" TWO ", ["replicated", "two"]) == 1


@pytest.mark.parametrize(
    "wished", [{"two": 3}, {"TWO": 2}, {"replicated": 2}, {"Replicated": 3}, {"": 1}, {"a b": 1}, {"x": 0}, {"x": 17},
               {f"p{number}": 1 for number in range(16)}, {"two": "2+1"}, {"x": "1+1"}, {"x": "4+5"}, {"x": "21+2"},
               {"x": "4+0"}, {"x": "4"}, {"x": "4+2+1"}, {"x": "٤+٢"}, {"x": ""}, {"x": "9" * 5000 + "+1"}],
)  # fmt: skip
def test_what_cannot_be_wished_is_refused(wished: dict[str, int | str]) -> None:
    with pytest.raises(Invalid, match="storage_policies"):
        with_wished((StoragePolicy("two", 2),), wished)

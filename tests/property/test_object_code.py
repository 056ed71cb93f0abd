"""Erasure codes: any k fragments give the bytes back, fewer do not; and repair plans that lose nothing."""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apus.services.object.fragment_reading import windows
from apus.services.object.logic import codec
from apus.services.object.logic.code import (
    DATA_MAX,
    DATA_MIN,
    PARITY_MAX,
    Code,
    archive_fingerprint,
    archive_hash,
    group_of,
    index_of,
    turned_back,
)
from apus.services.object.logic.heal_archives import plan
from apus.services.object.logic.merge import digest_of
from apus.services.object.logic.ring import part_of
from apus.services.object.model import STRIDE_BYTES, Coded

codes = st.integers(DATA_MIN, DATA_MAX).flatmap(
    lambda data: st.builds(Code, st.just(data), st.integers(1, min(data, PARITY_MAX)))
)
names = st.sampled_from([f"d{number}" for number in range(9)])


@given(codes, st.integers(1, 3000), st.randoms(use_true_random=False))
def test_any_k_fragments_are_enough(code: Code, size: int, dice: Random) -> None:
    segment = dice.randbytes(size)
    fragments = dict(enumerate(codec.encode(code, memoryview(segment))))
    assert len(fragments) == code.fragments
    assert {len(fragment) for fragment in fragments.values()} == {code.fragment_bytes(size)}
    chosen = dice.sample(range(code.fragments), code.data)
    some = {index: fragments[index] for index in chosen}
    assert codec.decode(code, some, size) == segment
    for index in range(code.fragments):
        if index not in some:
            assert codec.rebuild(code, some, index) == fragments[index]
    fewer = {index: fragments[index] for index in chosen[1:]}
    if set(chosen[1:]) < set(range(code.data)) or len(fewer) < code.data:
        with pytest.raises(codec.TooFewFragments):
            codec.decode(code, fewer, size)
        with pytest.raises(codec.TooFewFragments):
            codec.rebuild(code, fewer, chosen[0])


@given(codes, st.randoms(use_true_random=False))
def test_fragments_of_several_segments_are_rebuilt_together(code: Code, dice: Random) -> None:
    several = [codec.encode(code, dice.randbytes(code.data * 16)) for _ in range(3)]
    archives = {index: b"".join(one[index] for one in several) for index in range(code.fragments)}
    lost = dice.randrange(code.fragments)
    others = {index: archives[index] for index in dice.sample(sorted(archives.keys() - {lost}), code.data)}
    assert codec.rebuild(code, others, lost) == archives[lost]


@given(codes, st.integers(1, 5 * STRIDE_BYTES))
def test_segments_fit_a_stride_and_quorums_keep_what_they_promise(code: Code, size: int) -> None:
    assert STRIDE_BYTES // 2 < code.segment_bytes <= STRIDE_BYTES
    assert code.segment_bytes % (code.data * 4096) == 0
    assert code.data < code.quorum <= code.fragments
    assert size <= code.archive_bytes(size) * code.data < size + code.data * 16 * 2
    assert str(code) == f"{code.data}+{code.parity}"


@given(codes, st.integers(1, 12 * STRIDE_BYTES), st.data())
def test_windows_have_what_is_asked_for_and_little_more(code: Code, size: int, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, size - 1))
    length = data.draw(st.integers(1, size - offset))
    coded = Coded(code.data, code.parity, code.segment_bytes, size, nonce=1)
    found = list(windows(coded, offset, length))
    first, last = found[0], found[-1]
    assert first.at <= offset < first.at + code.segment_bytes
    end = last.at + sum(last.segments)
    assert offset + length <= end
    assert end - last.segments[-1] < offset + length
    for one, following in pairwise(found):
        assert one.at + sum(one.segments) == following.at
        assert one.offset + one.length == following.offset
    assert last.offset + last.length <= code.archive_bytes(size)
    assert all(one.length == sum(map(code.fragment_bytes, one.segments)) for one in found)


@given(st.binary(min_size=16, max_size=16), st.integers(0, (1 << 56) - 1), st.integers(0, 31), st.integers(0, 22))
def test_archives_are_in_the_partition_of_their_object(path: bytes, nonce: int, index: int, power: int) -> None:
    name = archive_hash(path.hex(), nonce, index)
    assert len(name) == 32
    assert (index_of(name), group_of(name)) == (index, group_of(archive_hash(path.hex(), nonce, 0)))
    assert part_of(name, power) == part_of(path.hex(), power)


@given(st.lists(st.tuples(st.integers(0, 1 << 50), st.text("0123", max_size=3)), max_size=5, unique=True), codes)
def test_digests_turned_back_agree_when_each_has_its_own(groups: list[tuple[int, str]], code: Code) -> None:
    def digest(index: int, held: int) -> int:
        entries = [(archive_hash("0" * 32, nonce, held), (stamp, "")) for nonce, stamp in groups]
        return turned_back(digest_of(entries, archive_fingerprint), index)

    assert len({digest(index, index) for index in range(code.fragments)}) == 1
    if groups:
        assert digest(1, 1) != digest(1, 0)


@given(st.dictionaries(st.integers(0, 5), st.sets(names, min_size=1)), st.sets(names))
def test_a_plan_gives_each_its_archive_and_loses_none(held: dict[int, set[str]], away: set[str]) -> None:
    primaries = [f"d{number}" for number in range(6)]
    here = [name for name in [*primaries, "d6", "d7", "d8"] if name not in away]
    wished = [*(name for name in primaries if name in here), *(name for name in here if name not in primaries)][:6]
    wanted = plan(held, primaries=primaries, wished=wished)
    after = {index: set(found) for index, found in held.items()}
    for index, name in wanted.lacking:
        assert name in wished
        after.setdefault(index, set()).add(name)
    for index, name in wanted.strays:
        after[index].remove(name)
    assert all(after.get(index) for index in held)
    own = {name: index for index in after for name in after[index] if name in wished}
    if len(wished) == 6:
        assert set(after) >= set(range(6))
        assert set(own) == set(wished)
    for index, name in enumerate(primaries):
        if name in wished:
            assert name in after[index]
    if not away & set(primaries):
        assert after == {index: {name} for index, name in enumerate(primaries)}
        assert plan(after, primaries=primaries, wished=wished).is_done

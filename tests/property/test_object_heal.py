"""Laws of healing: the newest version reaches whoever shall have it, and nothing goes before it is at home."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from apus.services.object.logic.heal import plan
from apus.services.object.logic.progress import seconds_left, work_left
from apus.services.object.logic.ring import Ring

NAMES = [f"d{number}" for number in range(6)]
VERSIONS = st.tuples(st.sampled_from(["1", "2", "3"]), st.sampled_from(["", "4"]))


@given(
    st.dictionaries(st.sampled_from(NAMES), VERSIONS, min_size=1),
    st.sets(st.sampled_from(NAMES)),
    st.permutations(NAMES),
)
def test_after_a_plan_the_newest_is_where_it_belongs(
    held: dict[str, tuple[str, str]], away: set[str], order: list[str]
) -> None:
    answering = frozenset(NAMES) - away
    held = {name: version for name, version in held.items() if name in answering}
    if not held:
        return
    primaries = order[:3]
    wished = [name for name in order if name in answering][:3]
    wanted = plan(held, primaries=primaries, wished=wished, answering=answering)
    newest = max(held.values())
    after = held | dict.fromkeys(wanted.lacking, newest)
    assert all(after[name] == newest for name in wished)
    assert all(held[name] == newest for name in wanted.sources)
    if wanted.strays:
        assert all(after.get(name) == newest for name in primaries)
        assert not set(wanted.strays) & set(primaries)
    left = {name: version for name, version in after.items() if name not in wanted.strays}
    assert sum(version == newest for version in left.values()) >= min(3, len(wished))
    again = plan(left, primaries=primaries, wished=wished, answering=answering)
    assert again.is_done


def ring(places: int, data: int = 0) -> Ring:
    return Ring(0, places, (), bytes(2 * places), data)


@given(st.dictionaries(st.sampled_from(NAMES), st.integers(0, 9), max_size=6), st.permutations(NAMES))
def test_copies_at_risk_are_those_that_nobody_holds(counts: dict[str, int], order: list[str]) -> None:
    drives = {name: {0: (count, count)} for name, count in counts.items() if count}
    work = work_left(drives, lambda part: ring(3), lambda part: order[:3], [0])
    most = max(counts.values(), default=0)
    assert 0 <= work.at_risk <= 2 * most
    assert work.alone <= most
    held = sorted(counts.values())
    assert work.at_risk <= work.to_make or any(counts.get(name, 0) < most for name in order[:3])
    if held[-3:] == [most] * 3:
        assert work.at_risk == work.alone == 0
    if all(counts.get(name) == most for name in order[:3]):
        assert work.to_make == 0


def test_fragments_are_alone_when_the_next_loss_ends_them() -> None:
    for lost, alone in ((0, 0), (1, 0), (2, 7), (3, 7)):
        drives = {name: {0: (7, index)} for index, name in enumerate(NAMES[lost:])}
        work = work_left(drives, lambda part: ring(6, 4), lambda part: NAMES, [0])
        assert (work.at_risk, work.to_make, work.alone) == (7 * lost, 7 * lost, alone)


def test_time_left_is_unknown_before_anything_was_copied() -> None:
    assert seconds_left(0, 0.0) == 0.0
    assert seconds_left(10, 0.0) is None
    assert seconds_left(10, 5.0) == 2.0

"""Whoever is certain has heard of every acknowledged write, whichever drives answered it and whichever are silent."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from apus.services.object.logic.certainty import is_certain

NAMES = [f"d{number}" for number in range(6)]
PRIMARIES = NAMES[:3]
QUORUM = 2


@given(st.sets(st.sampled_from(NAMES)), st.booleans())
def test_every_acknowledged_write_is_heard(voted: set[str], loose: bool) -> None:
    if not is_certain(voted, asked=NAMES, primaries=PRIMARIES, quorum=QUORUM, loose=loose):
        return
    for holders in itertools.combinations(NAMES, QUORUM):
        strict = sum(name in PRIMARIES for name in holders) >= QUORUM
        if loose or strict:
            assert voted.intersection(holders), (voted, holders)


@given(st.sets(st.sampled_from(PRIMARIES), min_size=QUORUM))
def test_a_quorum_of_the_primaries_is_enough_where_nothing_is_loose(voted: set[str]) -> None:
    assert is_certain(voted, asked=NAMES, primaries=PRIMARIES, quorum=QUORUM, loose=False)


def test_all_but_one_are_needed_where_something_is() -> None:
    asked = NAMES[:4]
    for silent in asked:
        voted = set(asked) - {silent}
        assert is_certain(voted, asked=asked, primaries=PRIMARIES, quorum=QUORUM, loose=True)
    assert not is_certain(set(PRIMARIES[:2]), asked=asked, primaries=PRIMARIES, quorum=QUORUM, loose=True)

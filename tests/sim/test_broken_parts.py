"""Are the histories worth anything?  Each mistake that is built in on purpose must be found by them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.sim.broken import BROKEN
from tests.sim.cluster import Parts
from tests.sim.history import history, takeover

KEPT: Final = Path(__file__).parent / "seeds" / "broken.txt"
SEEDS_MAX: Final = 60
"""As many histories must be enough for any of them; a commit runs more."""
WRITES_MAX: Final = 12
"""Of a boot, from the request to its end."""
BY_TAKEOVER: Final = (
    "the epoch of a lease is not looked at",
    "what was undone is made again by a runner that wakes up",
)
"""It takes a runner that sleeps at one certain write: told for each write, not drawn."""


def kept() -> dict[str, int]:
    """`SEED  MISTAKE`, a line each: where it was found last, and is looked for first."""
    lines = [line.split(maxsplit=1) for line in KEPT.read_text().splitlines() if line and not line.startswith("#")]
    return {mistake: int(seed) for seed, mistake in lines}


def _found(tell: object) -> bool:
    try:
        tell()  # type: ignore[operator]
    except Exception:  # whatever it is that went wrong: an assertion, a deadlock, an error that nobody expected
        return True
    return False


def _search(mistake: str, parts: Parts) -> Iterator[bool]:
    if mistake in BY_TAKEOVER:
        for at_write in range(1, WRITES_MAX + 1):
            yield _found(lambda at_write=at_write: takeover(at_write, parts))
        return
    for seed in (kept().get(mistake, 0), *range(SEEDS_MAX)):
        yield _found(lambda seed=seed: history(seed, parts))


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_mistake_is_found(mistake: str) -> None:
    assert any(_search(mistake, BROKEN[mistake]))


@pytest.mark.parametrize("deleted_after_s", [8.0, 16.0, 22.0])
@pytest.mark.parametrize("at_write", range(1, WRITES_MAX + 1))
def test_a_runner_that_wakes_up_in_the_middle_of_a_step_changes_nothing(at_write: int, deleted_after_s: float) -> None:
    takeover(at_write, deleted_after_s=deleted_after_s)

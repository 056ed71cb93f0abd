"""A cluster under faults, from seeds: each history ends as it must, and is the same whenever it is told again."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.sim.history import history
from tests.sim.kept_seeds import kept


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(metafunc.config.getoption("--seeds")))


def test_under_faults(seed: int) -> None:
    history(seed)


@pytest.mark.parametrize("seed_kept", kept("cluster"))
def test_what_once_failed(seed_kept: int) -> None:
    history(seed_kept)


def test_one_seed_is_one_trace_in_every_process() -> None:
    """Told twice here, and once more in processes whose sets and dictionaries of strings have other orders."""
    seeds = kept("cluster")[:4]
    here = [history(seed).digest() for seed in seeds]
    assert here == [history(seed).digest() for seed in seeds]
    program = f"from tests.sim.history import history; print([history(seed).digest() for seed in {seeds}])"
    for hashing in ("0", "1"):
        told = subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, text=True,
            env={**os.environ, "PYTHONHASHSEED": hashing, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        assert told.stdout.strip() == str(here), f"PYTHONHASHSEED={hashing}"

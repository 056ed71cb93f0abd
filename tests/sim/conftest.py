"""`--seeds N`: how many histories the cluster is put through."""

from __future__ import annotations

import pytest

SEEDS_A_COMMIT = 200


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seeds", type=int, default=SEEDS_A_COMMIT, help="histories of the simulated cluster")

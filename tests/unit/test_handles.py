"""How many files a process of a node may have open."""

from __future__ import annotations

import subprocess
import sys

import pytest

ASKED = """
import resource
from apus.node.main import allow_handles
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, min(hard, 4096)))
allow_handles({count})
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("count", "then"), [(1000, "1000 4096"), (1 << 16, "4096 4096"), (100, "256 4096")])
def test_the_soft_limit_is_raised_as_far_as_the_hard_one_allows(count: int, then: str) -> None:
    asked = [sys.executable, "-c", ASKED.format(count=count)]
    assert subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split() == then.split()

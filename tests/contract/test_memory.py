"""How much memory there is, as control groups of both kinds say it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from apus.platform.memory import limit_bytes

HAS = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("process", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max", "a/memory.max": "1000000"}, 1_000_000),
        ("0::/a/b\n", {"a/b/memory.max": "500000\n", "a/memory.max": "1000000"}, 500_000),
        ("0::/a\n", {"a/memory.max": "max\n"}, HAS),
        ("0::/\n", {"memory.max": "700000"}, 700_000),
        ("0::/of/another/name/space\n", {"memory.max": "700000"}, 700_000),
        ("4:cpu,memory:/a\n0::/\n", {"memory/a/memory.limit_in_bytes": "600000"}, 600_000),
        ("4:memory:/a\n", {"memory/memory.limit_in_bytes": str(2**63)}, HAS),
        ("1:cpu:/\n", {}, HAS),
    ],
)
def test_the_least_of_what_is_said(tmp_path: Path, process: str, files: dict[str, str], expected: int) -> None:
    groups = tmp_path / "groups"
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    (tmp_path / "cgroup").write_text(process)
    assert limit_bytes(tmp_path / "cgroup", groups) == expected


def test_where_there_are_none_and_here(tmp_path: Path) -> None:
    assert limit_bytes(tmp_path / "missing", tmp_path) == HAS
    assert 1 << 20 < limit_bytes() <= HAS

"""The guest is built the same twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from apus.guest.build import build_micro, sha256
from apus.guest.packages import BuildFailed


@pytest.mark.qemu
def test_two_builds_give_the_same_bytes(tmp_path: Path) -> None:
    def build(name: str) -> list[str]:
        image = build_micro(tmp_path / name, tmp_path / "work", lambda line: None)
        assert image.disk.stat().st_size < 24 << 20
        return [sha256(path) for path in (image.kernel, image.initrd, image.disk)]

    try:
        first = build("first")
    except BuildFailed as failure:
        pytest.fail(f"the micro guest cannot be built here: {failure}")
    assert build("second") == first

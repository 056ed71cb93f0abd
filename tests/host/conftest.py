"""The micro guest, built once and kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from apus.guest.build import MicroImage, build_micro
from apus.guest.packages import BuildFailed


@pytest.fixture(scope="session")
def micro(tmp_path_factory: pytest.TempPathFactory) -> MicroImage:
    cache = Path(os.environ.get("APUS_MICRO_DIR") or Path.home() / ".cache/apus/micro")
    image = MicroImage(cache / "micro-vmlinuz", cache / "micro-initrd", cache / "micro.qcow2")
    if all(path.exists() for path in (image.kernel, image.initrd, image.disk)):
        return image
    try:
        return build_micro(cache, tmp_path_factory.mktemp("guest"), lambda line: None)
    except BuildFailed as failure:
        pytest.fail(f"the micro guest cannot be built here: {failure}")

"""How much memory this process may use at most."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

GROUPS: Final = Path("/sys/fs/cgroup")


def limit_bytes(process: Path = Path("/proc/self/cgroup"), groups: Path = GROUPS) -> int:
    """What the machine has, or less if a control group that we are in may have no more (cgroups(7))."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with contextlib.suppress(OSError):
        for line in process.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                limits += _limits_of(groups, path, "memory.max")
            elif "memory" in controllers.split(","):
                limits += _limits_of(groups / "memory", path, "memory.limit_in_bytes")
    return min(limits)


def _limits_of(root: Path, path: str, name: str) -> Iterator[int]:
    """Of this group and those that it is in."""
    group = root / path.lstrip("/")
    for at in (group, *group.parents):
        with contextlib.suppress(OSError, ValueError):  # not of our name space, or "max"
            yield int((at / name).read_text())
        if at == root:
            return

"""Where the micro guest is kept once it was built."""

from __future__ import annotations

import os
from pathlib import Path


def micro_dir() -> Path:
    """`APUS_MICRO_DIR`, or the user's cache."""
    told = os.environ.get("APUS_MICRO_DIR")
    if told:
        return Path(told)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "apus" / "micro"

"""Directories that more than one role needs to know."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from apus.kernel.settings import Settings


def network_run_dir(settings: Settings) -> Path:
    """What the flat network keeps while the machine runs; readable by dnsmasq's user, gone with a reboot."""
    base = Path("/run/apus") if os.geteuid() == 0 else Path(tempfile.gettempdir()) / f"apus-{os.geteuid()}"
    return base / settings.cloud_id / "network"

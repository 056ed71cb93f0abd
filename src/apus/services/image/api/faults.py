"""How Glance says no."""

from __future__ import annotations

from typing import Final

from apus.kernel.errors import OverQuota
from apus.wire.faults import Faults, html_fault

FAULTS: Final = Faults(
    html_fault,
    statuses={OverQuota: 413},
    codes={"image.range": 416, "image.content_type": 415, "image.gone": 410},
    content_type="text/html; charset=UTF-8",
)

"""How compute says no."""

from __future__ import annotations

from typing import Final

from apus.kernel import errors
from apus.wire.faults import Faults, nova_fault

FAULTS: Final = Faults(
    nova_fault,
    statuses={errors.NoRoom: 409},
    codes={
        "wire.body_too_large": 413,
        "image.not_found": 400,
        "compute.action_unknown": 400,
        "compute.not_supported": 400,
    },
)

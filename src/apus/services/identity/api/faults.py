"""How identity says no: Keystone's `{"error": …}`."""

from __future__ import annotations

from typing import Final

from apus.kernel import errors
from apus.wire.faults import Faults, keystone_fault

FAULTS: Final = Faults(keystone_fault, statuses={errors.NoRoom: 403})

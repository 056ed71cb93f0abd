"""Which power action is possible when, and what it wants: one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from apus.kernel.errors import Conflict
from apus.services.compute.contract import Power
from apus.services.compute.logic.status import project
from apus.services.compute.model import Server

_ANY: Final = ("active", "stopped", "paused", "error")
POSSIBLE: Final[Mapping[str, tuple[tuple[str, ...], Power]]] = {
    "start": (("stopped",), Power.ON),
    "stop": (("active", "error"), Power.OFF),
    "reboot": (("active",), Power.ON),
    "reboot_hard": (_ANY, Power.ON),
    "pause": (("active",), Power.PAUSED),
    "unpause": (("paused",), Power.ON),
}
"""action -> (vm states in which it is possible, the power that it wants)."""
_MAY_INTERRUPT: Final = {"reboot_hard": ("rebooting", "rebooting_hard", "powering-off", "pausing", "powering-on")}


def decide(server: Server, action: str) -> Power:
    """The power to want.  Raise Conflict saying in which state the server is, and in which it would have to be."""
    states, power = POSSIBLE[action]
    now = project(server)
    if now.task_state is not None and now.task_state not in _MAY_INTERRUPT.get(action, ()):
        raise Conflict(
            "compute.busy",
            f"Cannot '{action}' instance {server.id} while it is in task_state {now.task_state}",
        )
    if now.vm_state not in states or server.incarnation_id is None:
        raise Conflict(
            "compute.wrong_state",
            f"Cannot '{action}' instance {server.id} while it is in vm_state {now.vm_state}; "
            f"possible when it is: {', '.join(states)}",
        )
    return power

"""The status of a server, as a projection of what is wanted and what was found.  There is no status column."""

from __future__ import annotations

from typing import NamedTuple

from apus.services.compute.contract import Power
from apus.services.compute.model import Server


class Status(NamedTuple):
    status: str
    vm_state: str
    task_state: str | None
    power_state: int
    """0 none, 1 running, 3 paused, 4 shut down, 6 crashed (Nova's numbers)."""


_POWER_STATE = {Power.ON: 1, Power.PAUSED: 3, Power.OFF: 4, Power.GONE: 0}
_VM_STATE = {Power.ON: "active", Power.PAUSED: "paused", Power.OFF: "stopped", Power.GONE: "stopped"}
_STATUS = {"active": "ACTIVE", "paused": "PAUSED", "stopped": "SHUTOFF"}
_TASK = {
    (Power.ON, Power.OFF): "powering-off",
    (Power.PAUSED, Power.OFF): "powering-off",
    (Power.OFF, Power.ON): "powering-on",
    (Power.GONE, Power.ON): "powering-on",
    (Power.PAUSED, Power.ON): "unpausing",
    (Power.ON, Power.PAUSED): "pausing",
}


def project(server: Server) -> Status:
    seen = server.seen
    power_state = _POWER_STATE[seen.power] if seen is not None else 0
    if server.deleted:
        return Status("DELETED", "deleted", None, 0)
    deleting = "deleting" if server.deleting else None
    if server.error:
        return Status("ERROR", "error", deleting, power_state)
    if server.launched_at_s is None or seen is None:
        task = deleting or ("spawning" if server.incarnation_id else "networking" if server.host else "scheduling")
        return Status("BUILD", "building", task, power_state)
    vm_state = _VM_STATE[seen.power]
    if deleting:
        return Status(_STATUS[vm_state], vm_state, deleting, power_state)
    if server.settled:
        return Status(_STATUS[vm_state], vm_state, None, power_state)
    if server.boots > seen.boots and server.wanted is Power.ON and seen.boots > 0:
        if server.hard:
            return Status("HARD_REBOOT", vm_state, "rebooting_hard", power_state)
        if seen.power is not Power.OFF:
            return Status("REBOOT", vm_state, "rebooting", power_state)
    return Status(_STATUS[vm_state], vm_state, _TASK.get((seen.power, server.wanted)), power_state)


def busy(server: Server) -> bool:
    """Something is under way."""
    return project(server).task_state is not None

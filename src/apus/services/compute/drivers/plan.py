"""Decides what has to be done to a domain.  Pure: the real driver and the simulated one follow the same plan."""

from __future__ import annotations

import dataclasses

from apus.kernel.errors import Conflict, Invalid

from .hypervisor import DiskSpec, DomainSpec, Found, NicSpec, Power


@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    grace_s: float


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    pass


@dataclasses.dataclass(frozen=True, slots=True)
class Pause:
    pass


@dataclasses.dataclass(frozen=True, slots=True)
class Resume:
    pass


@dataclasses.dataclass(frozen=True, slots=True)
class PlugDisk:
    disk: DiskSpec


@dataclasses.dataclass(frozen=True, slots=True)
class PlugNic:
    nic: NicSpec


@dataclasses.dataclass(frozen=True, slots=True)
class UnplugDisk:
    id: str


@dataclasses.dataclass(frozen=True, slots=True)
class UnplugNic:
    port_id: str


Action = Stop | Start | Pause | Resume | PlugDisk | PlugNic | UnplugDisk | UnplugNic


def plan(wanted: DomainSpec, found: Found) -> list[Action]:
    runs = found.power in (Power.ON, Power.PAUSED, Power.STARTING) or found.process is not None
    due = found.boot_count < wanted.boot_count
    if wanted.power == "off":
        return [Stop(wanted.stop_grace_s)] if runs else []
    pause: list[Action] = [Pause()] if wanted.power == "paused" else []
    if due:
        grace_s = wanted.stop_grace_s if wanted.reboot_kind == "soft" else 0.0
        return [Stop(grace_s), Start(), *pause] if runs else [Start(), *pause]
    if not runs or found.power is Power.CRASHED:
        return []  # it ended of itself; starting it again is for others to decide
    actions = plug_plan(wanted, found)
    if wanted.power == "paused" and found.power is not Power.PAUSED:
        actions.append(Pause())
    if wanted.power == "on" and found.power is Power.PAUSED:
        actions.append(Resume())
    return actions


def plug_plan(wanted: DomainSpec, found: Found) -> list[Action]:
    """Away before new: what leaves makes the room."""
    disks = {disk.id: disk for disk in wanted.disks}
    nics = {nic.port_id: nic for nic in wanted.nics}
    actions: list[Action] = [UnplugDisk(id) for id in found.disks if id not in disks]
    actions += [UnplugNic(port_id) for port_id in found.nics if port_id not in nics]
    actions += [PlugDisk(disk) for id, disk in disks.items() if id not in found.disks]
    actions += [PlugNic(nic) for port_id, nic in nics.items() if port_id not in found.nics]
    return actions


def check(wanted: DomainSpec, known: DomainSpec | None) -> None:
    """Refuse what is older than what was accepted, and what cannot be."""
    if known is not None and wanted.generation < known.generation:
        raise Conflict(
            "compute.stale_generation",
            f"domain {wanted.incarnation_id} has generation {known.generation} already, this is {wanted.generation}",
        )
    ids = [disk.id for disk in wanted.disks] + [nic.port_id for nic in wanted.nics]
    if len(set(ids)) != len(ids):
        raise Invalid("compute.device_twice", "two devices of the domain have the same id", field="disks")
    if wanted.vcpus < 1 or wanted.memory_mib < 1:
        raise Invalid("compute.domain_size", "a domain needs at least one vCPU and 1 MiB", field="vcpus")
    for nic in wanted.nics:
        if nic.kind == "tap" and not nic.tap_name:
            raise Invalid("compute.tap_name", f"port {nic.port_id} is a tap without a name", field="tap_name")

"""A hypervisor that runs nothing: for `--sim-hosts`, the simulator and tests.

It follows the same plan as the real one.  A `FakeMachine` holds the "processes", so that a driver made anew on it
finds what survived, as the real one does.  A domain is one small object, and no task: thousands are cheap.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from apus.kernel.errors import NotFound, Unavailable
from apus.kernel.world import Clock

from .hypervisor import CONSOLE_BYTES_MAX, Capabilities, DomainSpec, Found, Power
from .plan import Action, Pause, PlugDisk, PlugNic, Resume, Start, Stop, UnplugDisk, UnplugNic, check, plan


@dataclasses.dataclass(frozen=True, slots=True)
class Mishaps:
    """What goes wrong: `fails(verb, incarnation_id)` gives the reason, or None.  Verbs: start, stop, plug, unplug."""

    fails: Callable[[str, str], str | None] = lambda verb, incarnation_id: None
    boot_s: float = 0.5
    shutdown_s: float = 0.2
    ignores_power_button: Callable[[str], bool] = lambda incarnation_id: False


NONE: Final = Mishaps()


@dataclasses.dataclass(slots=True)
class FakeDomain:
    spec: DomainSpec
    found: Found
    console: str = ""


@dataclasses.dataclass(slots=True)
class FakeMachine:
    """The host that outlives the driver.  `crash` and `power_off` are what a guest does of itself."""

    domains: dict[str, FakeDomain] = dataclasses.field(default_factory=dict)

    def crash(self, incarnation_id: str, reason: str = "the process was killed") -> None:
        self._end(incarnation_id, Power.CRASHED, reason)

    def power_off(self, incarnation_id: str) -> None:
        self._end(incarnation_id, Power.OFF, "")

    def _end(self, incarnation_id: str, power: Power, reason: str) -> None:
        domain = self.domains[incarnation_id]
        domain.found = msgspec.structs.replace(domain.found, power=power, reason=reason, disks=(), nics=())


class FakeHypervisor:
    def __init__(self, clock: Clock, mishaps: Mishaps = NONE, machine: FakeMachine | None = None) -> None:
        self._clock, self._mishaps = clock, mishaps
        self.machine = machine or FakeMachine()

    async def ensure(self, wanted: DomainSpec) -> Found:
        domain = self.machine.domains.get(wanted.incarnation_id)
        check(wanted, domain.spec if domain else None)
        if domain is None:
            domain = FakeDomain(wanted, Found(incarnation_id=wanted.incarnation_id, power=Power.OFF))
            self.machine.domains[wanted.incarnation_id] = domain
        domain.spec = wanted
        domain.found = msgspec.structs.replace(domain.found, generation=wanted.generation)
        for action in plan(wanted, domain.found):
            await self._do(action, domain)
        return self._report(domain)

    async def absent(self, incarnation_id: str, *, graceful_s: float = 0.0) -> None:
        domain = self.machine.domains.get(incarnation_id)
        if domain is None:
            return
        if domain.found.power in (Power.ON, Power.PAUSED, Power.STARTING):
            await self._do(Stop(graceful_s), domain)
        self.machine.domains.pop(incarnation_id, None)

    async def inventory(self) -> Sequence[Found]:
        return [self._report(domain) for _, domain in sorted(self.machine.domains.items())]

    async def console_output(self, incarnation_id: str, *, lines: int | None = None) -> str:
        domain = self.machine.domains.get(incarnation_id)
        if domain is None:
            raise NotFound("compute.no_domain", f"there is no domain {incarnation_id} on this host")
        text = domain.console
        return text if lines is None else "".join(text.splitlines(keepends=True)[-lines:] if lines else [])

    async def capabilities(self) -> Capabilities:
        return Capabilities(hypervisor="fake", version="1", accelerator="none", machines=("pc", "q35"))

    def _report(self, domain: FakeDomain) -> Found:
        return msgspec.structs.replace(domain.found, console_bytes=len(domain.console))

    async def _do(self, action: Action, domain: FakeDomain) -> None:
        id = domain.spec.incarnation_id
        verb = {Start: "start", Stop: "stop", PlugDisk: "plug", PlugNic: "plug"}.get(type(action), "unplug")
        if not isinstance(action, Pause | Resume) and (reason := self._mishaps.fails(verb, id)):
            raise Unavailable("compute.hypervisor_refused", f"the hypervisor could not {verb} {id}: {reason}")
        replace, found = msgspec.structs.replace, domain.found
        match action:
            case Start():
                domain.found = replace(found, power=Power.STARTING, reason="", boot_count=domain.spec.boot_count)
                await self._clock.sleep(self._mishaps.boot_s)
                if domain.found.power is Power.STARTING:
                    self._booted(domain)
            case Stop(grace_s=grace_s):
                patience_s = grace_s if self._mishaps.ignores_power_button(id) else self._mishaps.shutdown_s
                await self._clock.sleep(min(grace_s, patience_s))
                domain.found = replace(domain.found, power=Power.OFF, disks=(), nics=())
            case Pause():
                domain.found = replace(found, power=Power.PAUSED)
            case Resume():
                domain.found = replace(found, power=Power.ON)
            case PlugDisk(disk=disk):
                domain.found = replace(found, disks=tuple(sorted({*found.disks, disk.id})))
            case PlugNic(nic=nic):
                domain.found = replace(found, nics=tuple(sorted({*found.nics, nic.port_id})))
            case UnplugDisk(id=disk_id):
                domain.found = replace(found, disks=tuple(d for d in found.disks if d != disk_id))
            case UnplugNic(port_id=port_id):
                domain.found = replace(found, nics=tuple(n for n in found.nics if n != port_id))

    def _booted(self, domain: FakeDomain) -> None:
        spec = domain.spec
        domain.found = msgspec.structs.replace(
            domain.found,
            power=Power.ON,
            disks=tuple(sorted(disk.id for disk in spec.disks)),
            nics=tuple(sorted(nic.port_id for nic in spec.nics)),
        )
        text = f"simulated kernel, boot {spec.boot_count}\n{spec.name} login: \n"
        domain.console = (domain.console + text)[-CONSOLE_BYTES_MAX:]

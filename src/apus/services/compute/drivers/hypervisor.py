"""The seam to whatever runs servers on a host.

Everything is said by one record, the `DomainSpec`: `ensure` compares it with what is there and does what is missing,
so a lost or repeated call is harmless, and after a crash of ours the same call is also the recovery.  Stop, start,
reboot, pause, attach and detach have no verbs of their own; they are another spec.

A guest that powers itself off stays off: `boot_count` says how many starts are wanted, and a domain is started only
when that is more than it has had.  To start it again, or to reboot it, raise `boot_count`.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Final, Literal, Protocol

import msgspec

from apus.kernel.world import ProcessRef
from apus.services.compute.contract import HostForward
from apus.services.network.contract import UserNetwork

CONSOLE_BYTES_MAX: Final = 1 << 20
"""Kept of a console; older text goes.  A guest that prints without end must not fill the host's disk."""


class Power(enum.StrEnum):
    OFF = "off"
    STARTING = "starting"
    ON = "on"
    PAUSED = "paused"
    CRASHED = "crashed"
    """It ended, or stopped for good, without anyone having asked for it; `Found.reason` says what is known."""
    GONE = "gone"


class DiskSpec(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    """Names the disk for hot plug: the volume's id, or a word like `root`."""
    path: str
    """A path that is not absolute lies in the domain's own directory, and goes when the domain goes."""
    format: Literal["qcow2", "raw"] = "qcow2"
    bus: Literal["virtio", "scsi", "ide"] = "virtio"
    kind: Literal["root", "ephemeral", "swap", "volume", "config_drive", "cdrom"] = "volume"
    serial: str | None = None
    """virtio shows the guest its first 20 characters."""
    read_only: bool = False
    boot_index: int | None = None
    backing_path: str | None = None
    """Made as an overlay on this file when `path` is not there yet."""
    backing_format: Literal["qcow2", "raw"] | None = None
    size_bytes: int | None = None
    """Made with, or grown to, this size.  Never shrunk."""


class NicSpec(msgspec.Struct, frozen=True, kw_only=True):
    port_id: str
    mac: str
    kind: Literal["tap", "user", "none"]
    tap_name: str | None = None
    host_forwards: tuple[HostForward, ...] = ()
    user: UserNetwork | None = None
    """Addresses of a user-mode network; None: QEMU's own."""
    mtu: int | None = None


class DomainSpec(msgspec.Struct, frozen=True, kw_only=True):
    incarnation_id: str
    server_id: str
    name: str
    generation: int
    vcpus: int
    memory_mib: int
    disks: tuple[DiskSpec, ...] = ()
    nics: tuple[NicSpec, ...] = ()
    kernel_path: str | None = None
    initrd_path: str | None = None
    kernel_args: str | None = None
    machine: Literal["q35", "pc"] = "q35"
    cpu: str | None = None
    """None: the host's under KVM, all that the emulator knows without."""
    power: Literal["on", "off", "paused"] = "on"
    boot_count: int = 1
    reboot_kind: Literal["soft", "hard"] = "hard"
    """How a domain that runs gets to a higher `boot_count`."""
    stop_grace_s: float = 60.0
    """How long the guest may take to shut down when it is asked to; then its power is cut."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    incarnation_id: str
    power: Power
    generation: int = 0
    """Of the spec that was last accepted."""
    boot_count: int = 0
    process: ProcessRef | None = None
    reason: str = ""
    disks: tuple[str, ...] = ()
    """Ids of the disks that the running guest has, sorted."""
    nics: tuple[str, ...] = ()
    """Port ids of the network cards that the running guest has, sorted."""
    console_bytes: int = 0


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    hypervisor: str
    version: str
    accelerator: str
    machines: tuple[str, ...]
    hot_plug: bool = True


class Hypervisor(Protocol):
    async def ensure(self, wanted: DomainSpec) -> Found:
        """Make it so, and say what is there then.  Same spec twice: no effect the second time.

        Raises Conflict for a spec older than one accepted before, Invalid for one that cannot be, Unavailable
        when the hypervisor refuses.  May take `stop_grace_s` and a few seconds; may be cancelled and called again.
        """
        ...

    async def absent(self, incarnation_id: str, *, graceful_s: float = 0.0) -> None:
        """Stop it and forget it, with what lies in its directory.  Already gone: fine."""
        ...

    async def inventory(self) -> Sequence[Found]:
        """All domains of this host, sorted by id, those that survived our restart among them."""
        ...

    async def console_output(self, incarnation_id: str, *, lines: int | None = None) -> str:
        """What the guest printed, over all its boots as far as kept.  Raises NotFound for an unknown domain."""
        ...

    async def capabilities(self) -> Capabilities: ...

"""Compute, as others see it: what a host should run, what it found, and what a guest may know of itself."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

import msgspec

from apus.kernel.caller import Caller
from apus.services.image.contract import BootImage
from apus.services.network.contract import ServerPort


class Power(enum.StrEnum):
    ON = "on"
    OFF = "off"
    PAUSED = "paused"
    GONE = "gone"


class GuestSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The machine that a host is asked to run."""

    name: str
    vcpus: int
    memory_mib: int
    disk_gib: int
    ephemeral_gib: int = 0
    swap_mib: int = 0
    image: BootImage | None = None
    kernel: BootImage | None = None
    ramdisk: BootImage | None = None
    kernel_args: str = ""
    ports: tuple[ServerPort, ...] = ()
    config_drive: bool = False
    extra_specs: dict[str, str] = {}


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted of one incarnation: one guest process, once, on one host.  Owned by the control plane."""

    id: str
    server_id: str
    host: str
    seq: int
    """Raised with every change, over all incarnations of the host: agents ask for what is newer than they know."""
    power: Power
    boots: int = 1
    """How often it shall have been started: one more is a reboot."""
    hard: bool = False
    """Power changes do not ask the guest first."""
    heard: int = 0
    """The newest `Found.counter` that was taken in: a host that forgot its own goes on from here."""
    spec: GuestSpec


class HostForward(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A port of the host that leads to one of the guest's."""

    host_port: int
    guest_port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    host_address: str = "127.0.0.1"


class Found(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What the host found.  Owned by its agent, which alone raises `counter`."""

    id: str
    counter: int
    seq: int
    """The newest wish that it has acted on: when it is the current one and the power differs, that is how it ended."""
    power: Power
    boots: int = 0
    forwards: tuple[HostForward, ...] = ()
    """How the guest is reached when its addresses lead nowhere."""
    error: str | None = None
    at_s: float = 0.0


class HostWork(Protocol):
    """The control plane, as a host's agent sees it."""

    async def wanted(self, host: str, since: int) -> Sequence[Wish]:
        """What changed after `since` (0: everything there is), oldest first."""
        ...

    async def report(self, host: str, found: Sequence[Found], complete: bool) -> None:
        """`complete`: this is everything the host has."""
        ...

    async def drive_files(self, incarnation_id: str) -> Mapping[str, bytes]:
        """The files of its config drive.  Raise NotFound."""
        ...


class HostConsole(Protocol):
    """A host's agent, as the control plane sees it (subject `compute.host.NAME`)."""

    async def console_log(self, incarnation_id: str, lines: int | None) -> str:
        """The last lines that the guest wrote to its serial port.  Raise NotFound."""
        ...


class ServerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A server, as doors and other services need it."""

    id: str
    project_id: str
    name: str
    host: str | None
    deleted: bool


class SshAddress(NamedTuple):
    address: str
    port: int


class ComputeService(Protocol):
    async def ssh_address(self, caller: Caller, server_id: str) -> SshAddress:
        """Where the host reaches the server's SSH.  Raise NotFound, Conflict while there is no such place."""
        ...

    async def server_facts(self, server_id: str) -> ServerFacts | None: ...

    async def metadata_for(self, server_id: str) -> Mapping[str, bytes] | None:
        """All metadata documents by path (`openstack/latest/meta_data.json`, `ec2/latest/meta-data/...`)."""
        ...

    async def keep_password(self, server_id: str, password: str) -> None:
        """What the guest says of its administrator's password.  Raise NotFound; Conflict when it is known already."""
        ...

"""Placement, as others see it: hosts and what they have, claims on it, and why a claim was refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import msgspec

SILENT_S: Final = 60.0
"""A host that was not heard for this long takes no new servers; what it has stays."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """What a consumer asks of one host.  `resources`: class -> amount, in the units of os-resource-classes."""

    resources: dict[str, int]
    """VCPU, MEMORY_MB, DISK_GB and CUSTOM_*."""
    required_traits: tuple[str, ...] = ()
    forbidden_traits: tuple[str, ...] = ()
    availability_zone: str | None = None
    host: str | None = None
    """Only this host, by name."""
    same_host_as: tuple[str, ...] = ()
    """Consumers; only hosts that hold one of them."""
    different_host_from: tuple[str, ...] = ()
    """Consumers; no host that holds one of them."""
    spread_from: tuple[str, ...] = ()
    spread_max: int = 1
    """Consumers; no host that holds `spread_max` of them already."""
    soft: bool = False
    """All about other consumers are wishes, not conditions."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    consumer_id: str
    host: str
    """The host's name."""
    host_id: str
    resources: dict[str, int]


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    total: int
    reserved: int = 0
    allocation_ratio: float = 1.0
    min_unit: int = 1
    max_unit: int = 2147483647
    step_size: int = 1

    @property
    def capacity(self) -> int:
        return int((self.total - self.reserved) * self.allocation_ratio)


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a host's agent says it has.  Sent at start, on change and as a heartbeat."""

    host: str
    host_id: str
    inventories: dict[str, Inventory]
    traits: tuple[str, ...] = ()
    availability_zone: str = "nova"
    booted_at_s: int | None = None
    """When the machine was started, if it can tell."""


class Host(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    availability_zone: str
    inventories: dict[str, Inventory]
    used: dict[str, int]
    traits: tuple[str, ...]
    enabled: bool
    disabled_reason: str | None
    booted_at_s: int | None = None
    heard_at_s: float
    """When its agent was last heard."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """How many hosts one filter turned away, and what would have fitted."""

    filter: str
    hosts: int
    hint: str
    names: tuple[str, ...] = ()
    """For operators only."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """How one claim was decided."""

    subject_id: str
    project_id: str | None
    at_s: float
    need: Need
    hosts_seen: int
    chosen: str | None
    refusals: tuple[Refusal, ...]
    would_fit: str | None = None


class PlacementService(Protocol):
    async def claim(self, consumer_id: str, need: Need, project_id: str, user_id: str, avoid: Sequence[str]) -> Claim:
        """Choose a host on a snapshot and claim at commit; the same consumer again gets the claim it has.

        `avoid`: names of hosts not to take.  Raise NoRoom whose details hold the refusals.
        """
        ...

    async def release(self, consumer_id: str) -> None:
        """Give back what the consumer holds; nothing is fine."""
        ...

    async def report_host(self, report: HostReport) -> None: ...

    async def host_heard(self, host: str) -> None:
        """The heartbeat of a host whose report has not changed."""
        ...

    async def hosts(self) -> Sequence[Host]: ...

    async def enable_host(self, host: str, enabled: bool, reason: str | None) -> None:
        """Raise NotFound."""
        ...

    async def forget_host(self, host: str) -> None:
        """A host that has left for good; one that is alive reports itself again.  Gone already is fine.

        Raise Conflict while something is claimed of it, or other providers hang below it.
        """
        ...

    async def zone_hosts(self, zones: Mapping[str, str]) -> None:
        """Host -> availability zone, as operators have set it; all other hosts are in the one that they report."""
        ...

    async def claims(self) -> Sequence[Claim]:
        """All claims: for sweeps."""
        ...

    async def explain(self, subject_id: str) -> Explanation | None: ...

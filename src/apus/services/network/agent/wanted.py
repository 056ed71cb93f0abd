"""What passes between the control plane and the network agent of one host."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from apus.services.network.drivers.driver import AddressSet, NetworkSpec, PortSpec, Spec


def host_subject(host: str) -> str:
    """Where hints for a host's agent are published; host names are not words of a subject."""
    return f"network.host.{hashlib.blake2s(host.encode('utf-8', 'replace'), digest_size=8).hexdigest()}"


class HostWanted(Spec, frozen=True):
    networks: tuple[NetworkSpec, ...] = ()
    ports: tuple[PortSpec, ...] = ()
    sets: tuple[AddressSet, ...] = ()


class NetworkControl(Protocol):
    """The control plane, as a host's agent sees it; every method may be called again."""

    async def wanted(self, host: str, port_ids: Sequence[str] | None) -> HostWanted:
        """All that the host must have; or what these of its ports need."""
        ...

    async def plugged(self, host: str, port_id: str) -> None: ...

    async def unplugged(self, host: str, port_id: str) -> None: ...

    async def heard(self, host: str, driver: str, started_at_s: float, plugged: Sequence[str]) -> None:
        """The host's full inventory, which replaces what was heard before."""
        ...

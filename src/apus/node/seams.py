"""What crosses between nodes, and under which subject: the control node answers, hosts ask (and the other way for
consoles).  Within one process the same objects are used directly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from apus.kernel.remote import client, serve
from apus.kernel.world import Bus
from apus.services.compute.agent.agent import HostPlacement
from apus.services.compute.contract import HostConsole, HostWork
from apus.services.compute.kicks import host_subject
from apus.services.network.agent.wanted import NetworkControl
from apus.skins.metadata.door import MetadataAnswer

WORK: Final = "compute.work"
PLACEMENT: Final = "placement.hosts"
NETWORK: Final = "network.control"
METADATA: Final = "metadata.door"
TOKENS: Final = "identity.images"


class MetadataDoor(Protocol):
    """The metadata service, as the proxy of a host asks it."""

    async def answer(
        self, network_id: str, remote_ip: str, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> MetadataAnswer: ...


class ImageTokens(Protocol):
    """All that a host may ask for: whoever holds the bus's secret can ask for it too."""

    async def image_token(self) -> str: ...


class ControlSeams(msgspec.Struct, frozen=True, kw_only=True):
    """What a host needs of the control plane."""

    work: HostWork
    placement: HostPlacement
    network: NetworkControl
    metadata: MetadataDoor
    tokens: ImageTokens


async def serve_control(bus: Bus, seams: ControlSeams) -> None:
    """Answer hosts on other nodes."""
    for subject, protocol, target in (
        (WORK, HostWork, seams.work),
        (PLACEMENT, HostPlacement, seams.placement),
        (NETWORK, NetworkControl, seams.network),
        (METADATA, MetadataDoor, seams.metadata),
        (TOKENS, ImageTokens, seams.tokens),
    ):
        await serve(bus, subject, protocol, target)


def ask_control(bus: Bus) -> ControlSeams:
    """The same across the bus."""
    return ControlSeams(
        work=client(bus, WORK, HostWork),
        placement=client(bus, PLACEMENT, HostPlacement),
        network=client(bus, NETWORK, NetworkControl),
        metadata=client(bus, METADATA, MetadataDoor),
        tokens=client(bus, TOKENS, ImageTokens),
    )


def console_of(bus: Bus, host: str) -> HostConsole:
    """A host's agent, for its consoles."""
    return client(bus, host_subject(host), HostConsole)


async def serve_consoles(bus: Bus, hosts: Sequence[tuple[str, HostConsole]]) -> None:
    for host, console in hosts:
        await serve(bus, host_subject(host), HostConsole, console)

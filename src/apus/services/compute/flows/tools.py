"""What the steps of compute's sagas are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from apus.kernel.flow import FlowRunner
from apus.services.network.contract import NetworkService
from apus.services.placement.contract import PlacementService


@dataclasses.dataclass(frozen=True, slots=True)
class Tools:
    runner: FlowRunner
    network: NetworkService
    placement: PlacementService

    kick: Callable[[str], None]
    """Hint a host's agent that something is wanted of it."""

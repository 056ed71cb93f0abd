"""Placement's tables."""

from __future__ import annotations

from typing import Final

from apus.kernel.table import RecordTable
from apus.services.placement.model import Allocation, Decision, Heartbeat, Provider, ResourceClass, Trait

PROVIDERS: Final = RecordTable("placement_provider", Provider, columns=("name",), unique=(("name",),))
ALLOCATIONS: Final = RecordTable(
    "placement_allocation",
    Allocation,
    columns=("consumer_id", "provider_id", "project_id"),
    indexes=(("consumer_id",), ("provider_id",), ("project_id",)),
)
HEARTBEATS: Final = RecordTable("placement_heartbeat", Heartbeat, columns=("heard_at_s",))
DECISIONS: Final = RecordTable("placement_decision", Decision, columns=("made_at_s",), indexes=(("made_at_s",),))
RESOURCE_CLASSES: Final = RecordTable("placement_resource_class", ResourceClass)
TRAITS: Final = RecordTable("placement_trait", Trait)

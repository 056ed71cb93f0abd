"""Placement's own records.  A provider's `used` is raised and lowered in the transaction that writes the allocation,
so claims can never exceed the inventory, whatever the interleaving."""

from __future__ import annotations

from apus.kernel.record import Record
from apus.services.placement.contract import Explanation, Inventory


class Provider(Record, frozen=True, kw_only=True):
    """What has inventory: mostly a host."""

    name: str
    inventories: dict[str, Inventory] = {}
    used: dict[str, int] = {}
    traits: tuple[str, ...] = ()
    aggregates: tuple[str, ...] = ()
    parent_id: str | None = None
    root_id: str = ""
    availability_zone: str = "nova"
    """As the host reports it."""
    given_zone: str | None = None
    """As an operator has set it, which counts."""
    booted_at_s: int | None = None
    enabled: bool = True
    disabled_reason: str | None = None
    is_host: bool = False
    """Reported by an agent; others are made through the API and take no servers."""

    @property
    def zone(self) -> str:
        return self.given_zone or self.availability_zone


class Allocation(Record, frozen=True, kw_only=True):
    """What one consumer holds of one provider."""

    consumer_id: str
    provider_id: str
    provider_name: str
    resources: dict[str, int]
    project_id: str
    user_id: str
    consumer_type: str = "INSTANCE"
    consumer_generation: int = 1


class Heartbeat(Record, frozen=True, kw_only=True):
    """When a host was last heard.  Apart from the provider, whose generation it must not raise."""

    heard_at_s: float


class Decision(Record, frozen=True, kw_only=True):
    """The explanation of a consumer's newest claim."""

    made_at_s: float
    explanation: Explanation


class ResourceClass(Record, frozen=True, kw_only=True):
    """A custom class; the id is its name."""


class Trait(Record, frozen=True, kw_only=True):
    """A custom trait; the id is its name."""

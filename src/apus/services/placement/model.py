"""What placement keeps: hosts (resource providers), claims (allocations), and how claims were decided."""

from __future__ import annotations

from apus.kernel.record import Record
from apus.services.placement.contract import Inventory, Need, Refusal


class HostRow(Record, frozen=True, kw_only=True):
    """A host, or a provider that somebody made through the API.  Its generation is the one that claims check."""

    name: str
    availability_zone: str = "nova"
    inventories: dict[str, Inventory] = {}
    used: dict[str, int] = {}
    """Kept in the transaction of each claim; a class without claims is absent."""
    traits: tuple[str, ...] = ()
    aggregates: tuple[str, ...] = ()
    parent_id: str | None = None
    is_host: bool = False
    """Reported by an agent; only such are chosen for servers."""
    enabled: bool = True
    disabled_reason: str | None = None


class ClaimRow(Record, frozen=True, kw_only=True):
    """What one consumer holds; its id is the consumer's."""

    host_id: str
    """The provider that holds most of it: the server's host."""
    allocations: dict[str, dict[str, int]]
    """Provider id -> class -> amount."""
    project_id: str | None = None
    user_id: str | None = None
    consumer_type: str | None = None


class ExplanationRow(Record, frozen=True, kw_only=True):
    project_id: str | None
    at_s: float
    need: Need
    hosts_seen: int
    chosen: str | None
    refusals: tuple[Refusal, ...] = ()
    would_fit: str | None = None


class NameRow(Record, frozen=True, kw_only=True):
    """A trait or a resource class of the operator's own (CUSTOM_*); its id is its name."""

    kind: str

"""Replies of the Placement API, as the newest microversion shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from apus.services.placement.contract import Inventory
from apus.services.placement.logic.candidates import Candidate, root_of
from apus.services.placement.model import Allocation, Provider


def provider_view(provider: Provider, prefix: str) -> dict[str, Any]:
    href = f"{prefix}/resource_providers/{provider.id}"
    below = ("inventories", "usages", "aggregates", "traits", "allocations")
    return {
        "uuid": provider.id,
        "name": provider.name,
        "generation": provider.generation,
        "parent_provider_uuid": provider.parent_id,
        "root_provider_uuid": root_of(provider),
        "links": [
            {"rel": "self", "href": href},
            *({"rel": name, "href": f"{href}/{name}"} for name in below),
        ],
    }


def inventory_view(inventory: Inventory) -> dict[str, Any]:
    return {
        "total": inventory.total,
        "reserved": inventory.reserved,
        "min_unit": inventory.min_unit,
        "max_unit": inventory.max_unit,
        "step_size": inventory.step_size,
        "allocation_ratio": inventory.allocation_ratio,
    }


def inventories_view(provider: Provider) -> dict[str, Any]:
    return {
        "inventories": {name: inventory_view(item) for name, item in provider.inventories.items()},
        "resource_provider_generation": provider.generation,
    }


def consumer_view(allocations: Sequence[Allocation]) -> dict[str, Any]:
    if not allocations:
        return {"allocations": {}}
    first = allocations[0]
    return {
        "allocations": {
            item.provider_id: {"resources": item.resources, "generation": item.generation} for item in allocations
        },
        "project_id": first.project_id,
        "user_id": first.user_id,
        "consumer_generation": first.consumer_generation,
        "consumer_type": first.consumer_type,
    }


def candidates_view(found: Sequence[Candidate], providers: Sequence[Provider], *, nested: bool) -> dict[str, Any]:
    """The ways to meet the request, and what the providers concerned have: all of each tree, or roots alone."""
    requests = [
        {
            "allocations": {id: {"resources": amounts} for id, amounts in candidate.allocations.items()},
            "mappings": candidate.mappings,
        }
        for candidate in found
    ]
    used = {id for candidate in found for ids in candidate.mappings.values() for id in ids}
    trees = {root_of(item) for item in providers if item.id in used}
    concerned = [item for item in providers if (root_of(item) in trees if nested else item.id in used)]
    return {"allocation_requests": requests, "provider_summaries": {item.id: _summary(item) for item in concerned}}


def _summary(provider: Provider) -> dict[str, Any]:
    return {
        "resources": {
            name: {"capacity": inventory.capacity, "used": provider.used.get(name, 0)}
            for name, inventory in provider.inventories.items()
        },
        "traits": list(provider.traits),
        "parent_provider_uuid": provider.parent_id,
        "root_provider_uuid": root_of(provider),
    }

"""Providers, inventories and candidates as Placement shows them, in version 1.39."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from apus.services.placement.contract import Inventory
from apus.services.placement.logic.snapshot import Snapshot
from apus.services.placement.model import ClaimRow, HostRow

_PARTS: Final = ("inventories", "usages", "aggregates", "traits", "allocations")


def provider_view(row: HostRow) -> dict[str, Any]:
    here = f"/placement/resource_providers/{row.id}"
    return {
        "uuid": row.id,
        "name": row.name,
        "generation": row.generation,
        "parent_provider_uuid": row.parent_id,
        "root_provider_uuid": row.parent_id or row.id,
        "links": [{"rel": "self", "href": here}, *({"rel": part, "href": f"{here}/{part}"} for part in _PARTS)],
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


def inventories_view(row: HostRow) -> dict[str, Any]:
    return {
        "resource_provider_generation": row.generation,
        "inventories": {name: inventory_view(inventory) for name, inventory in row.inventories.items()},
    }


def consumer_view(claim: ClaimRow | None, generations: Mapping[str, int]) -> dict[str, Any]:
    if claim is None:
        return {"allocations": {}}
    return {
        "allocations": {
            provider: {"generation": generations.get(provider, 0), "resources": resources}
            for provider, resources in claim.allocations.items()
        },
        "project_id": claim.project_id,
        "user_id": claim.user_id,
        "consumer_generation": claim.generation,
        "consumer_type": claim.consumer_type or "unknown",
    }


def candidates_view(snapshot: Snapshot, places: Sequence[int], asked: Mapping[str, int]) -> dict[str, Any]:
    resources = {"resources": dict(asked)}
    rows = [snapshot.rows[place] for place in places]
    capacity: dict[str, list[int]] = {}
    for row in rows:
        for name in row.inventories:
            if name not in capacity:
                capacity[name] = snapshot.capacity(name).tolist()
    return {
        "allocation_requests": [
            {"allocations": {row.id: resources}, "mappings": {"": [row.id]}} for row in rows
        ],
        "provider_summaries": {
            row.id: {
                "resources": {
                    name: {"capacity": capacity[name][place], "used": row.used.get(name, 0)} for name in row.inventories
                },
                "traits": row.traits,
                "parent_provider_uuid": row.parent_id,
                "root_provider_uuid": row.parent_id or row.id,
            }
            for place, row in zip(places, rows, strict=True)
        },
    }

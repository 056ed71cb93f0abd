"""Does this amount fit that inventory?  The one rule, for claims at commit and for allocations through the API."""

from __future__ import annotations

from collections.abc import Mapping

from apus.services.placement.contract import Inventory


def misfit(resources: Mapping[str, int], inventories: Mapping[str, Inventory], used: Mapping[str, int]) -> str | None:
    """Why it does not fit; None when it does."""
    for name, amount in resources.items():
        inventory = inventories.get(name)
        if inventory is None:
            return f"there is no {name}"
        free = inventory.capacity - used.get(name, 0)
        if amount > free:
            return f"{amount} {name} is asked and {max(0, free)} is free"
        if amount < inventory.min_unit or amount > inventory.max_unit or amount % inventory.step_size:
            return (
                f"{amount} {name} is not between {inventory.min_unit} and {inventory.max_unit} "
                f"in steps of {inventory.step_size}"
            )
    return None

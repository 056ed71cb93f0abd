"""Whether a provider has room."""

from __future__ import annotations

from collections.abc import Mapping

from apus.services.placement.model import Provider


def fits(provider: Provider, resources: Mapping[str, int]) -> bool:
    """Whether the provider, as it is now, can take this as well, given out in one piece."""
    return takes(provider, resources) and all(
        provider.inventories[name].min_unit <= amount and not amount % provider.inventories[name].step_size
        for name, amount in resources.items()
    )


def takes(provider: Provider, resources: Mapping[str, int]) -> bool:
    """The same for what was asked in several pieces, of which each fits."""
    for name, amount in resources.items():
        inventory = provider.inventories.get(name)
        if inventory is None or provider.used.get(name, 0) + amount > inventory.capacity:
            return False
        if amount > inventory.max_unit:
            return False
    return True

"""Request bodies of the Placement API, newest microversion (1.39), envelope included.

Source: https://docs.openstack.org/api-ref/placement/ .  Older shapes are lifted to these in `changes.py`.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Uuid = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$")]
Count = Annotated[int, msgspec.Meta(ge=0, le=2147483647)]
Amount = Annotated[int, msgspec.Meta(ge=1, le=2147483647)]
Ratio = Annotated[float, msgspec.Meta(ge=0.0)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class ProviderBody(_Strict, frozen=True):
    name: Name
    uuid: Uuid | None = None
    parent_provider_uuid: Uuid | msgspec.UnsetType | None = msgspec.UNSET
    """Not said: as it is.  null: none."""


class InventoryBody(_Strict, frozen=True):
    total: Amount
    reserved: Count = 0
    min_unit: Amount = 1
    max_unit: Amount = 2147483647
    step_size: Amount = 1
    allocation_ratio: Ratio = 1.0
    resource_provider_generation: int | None = None


class InventoriesBody(_Strict, frozen=True):
    resource_provider_generation: int
    inventories: dict[str, InventoryBody]


class TraitsBody(_Strict, frozen=True):
    resource_provider_generation: int
    traits: list[str]


class AggregatesBody(_Strict, frozen=True):
    aggregates: list[Uuid]
    resource_provider_generation: int


class ResourcesBody(msgspec.Struct, frozen=True, kw_only=True):
    resources: dict[str, Amount]
    generation: int | None = None


class AllocationsBody(msgspec.Struct, frozen=True, kw_only=True):
    """What one consumer is to hold: provider -> resources.  Empty: nothing."""

    allocations: dict[str, ResourcesBody]
    project_id: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    user_id: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    consumer_generation: int | None = None
    consumer_type: Annotated[str, msgspec.Meta(pattern=r"^([A-Z0-9_]+|unknown)$", min_length=1, max_length=255)]
    mappings: dict[str, list[str]] = {}
    checked: bool = True
    """False for versions before 1.28, which knew no consumer generation: set by `changes.py`."""


class ReshapeBody(_Strict, frozen=True):
    """All inventories of some providers, and all that some consumers hold, as both shall be afterwards."""

    inventories: dict[str, InventoriesBody]
    allocations: dict[str, AllocationsBody]


class NewInventoryBody(InventoryBody, frozen=True, kw_only=True):
    resource_class: Name


class ClassBody(_Strict, frozen=True):
    name: Annotated[str, msgspec.Meta(pattern=r"^CUSTOM_[A-Z0-9_]+$", max_length=255)]

"""Request bodies of Placement in version 1.39, and the query strings that choose providers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from apus.kernel.errors import Invalid
from apus.kernel.ids import is_uuid
from apus.services.placement.contract import Inventory
from apus.wire.listing import whole_number

ClassName = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[A-Z0-9_]+$")]
Amount = Annotated[int, Meta(ge=1, le=2147483647)]
NAME: Final = re.compile(r"^[A-Z0-9_]{1,255}$")
_STANDARD: Final = ("HW_", "COMPUTE_", "MISC_", "STORAGE_", "OWNER_")


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A field that we do not know is refused by name."""


class ProviderBody(Strict, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=200)]
    uuid: str | None = None
    parent_provider_uuid: str | None = None


class InventoryItem(Strict, frozen=True):
    total: Annotated[int, Meta(ge=1, le=2147483647)]
    reserved: Annotated[int, Meta(ge=0, le=2147483647)] = 0
    min_unit: Amount = 1
    max_unit: Amount = 2147483647
    step_size: Amount = 1
    allocation_ratio: Annotated[float, Meta(gt=0, le=3.4e38)] = 1.0
    resource_provider_generation: int | None = None
    resource_class: str | None = None

    def inventory(self, name: str) -> Inventory:
        if self.reserved > self.total:
            raise Invalid("placement.inventory", f"{name}: reserved is more than total.", field="reserved")
        return Inventory(
            total=self.total,
            reserved=self.reserved,
            min_unit=self.min_unit,
            max_unit=self.max_unit,
            step_size=self.step_size,
            allocation_ratio=self.allocation_ratio,
        )


class InventoriesBody(Strict, frozen=True):
    resource_provider_generation: int
    inventories: dict[ClassName, InventoryItem]


class TraitsBody(Strict, frozen=True):
    resource_provider_generation: int
    traits: list[ClassName]


class ClassBody(Strict, frozen=True):
    name: ClassName


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    resources: dict[ClassName, Amount]


class AllocationsBody(Strict, frozen=True):
    allocations: dict[str, Resources]
    project_id: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    user_id: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    consumer_generation: int | None = None
    consumer_type: str | None = None
    mappings: Any = None
    any_generation: bool = msgspec.field(name="_any_generation", default=False)


def resources_of(text: str) -> dict[str, int]:
    """`VCPU:1,MEMORY_MB:64`."""
    found = {}
    for item in text.split(","):
        name, colon, amount = item.partition(":")
        if not colon or not NAME.match(name):
            raise Invalid(
                "placement.query", f"resources: {item[:80]!r} is not CLASS:AMOUNT.", field="resources"
            )
        found[name] = whole_number("resources", amount, minimum=1, maximum=2147483647)
    return found


def traits_of(values: Iterable[str]) -> tuple[list[list[str]], list[str]]:
    """(groups of which one each is required, forbidden): `A,!B` and `in:A,B` (1.39)."""
    required, forbidden = [], []
    for value in values:
        if value.startswith("in:"):
            required.append([_trait(name) for name in value[3:].split(",")])
            continue
        for name in value.split(","):
            if name.startswith("!"):
                forbidden.append(_trait(name[1:]))
            else:
                required.append([_trait(name)])
    return required, forbidden


def _trait(name: str) -> str:
    if not NAME.match(name):
        raise Invalid("placement.query", f"required: {name[:80]!r} is not a trait.", field="required")
    return name


def known_kind(name: str) -> bool:
    """Whether a standard trait may have this name: those need not be made."""
    return name.startswith(_STANDARD)


def aggregates_of(values: Iterable[str]) -> list[tuple[bool, list[str]]]:
    """(wanted or forbidden, aggregates of which one counts): `UUID`, `in:A,B`, `!UUID`, `!in:A,B`."""
    found = []
    for value in values:
        wanted = not value.startswith("!")
        ids = value.lstrip("!").removeprefix("in:").split(",")
        for id in ids:
            if not is_uuid(id):
                raise Invalid("placement.query", f"member_of: {id[:80]!r} is not a UUID.", field="member_of")
        found.append((wanted, ids))
    return found

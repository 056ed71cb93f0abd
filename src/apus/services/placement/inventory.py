"""Providers as the Placement API edits them: by hand, with generations; the scheduler's claims go the same tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, TypeVar

from apus.kernel.errors import Conflict, Invalid, NotFound
from apus.kernel.ids import new_id
from apus.kernel.record import changed
from apus.kernel.world import Transaction, World
from apus.services.placement.contract import Inventory
from apus.services.placement.logic.candidates import Group
from apus.services.placement.logic.room import fits
from apus.services.placement.model import Allocation, Provider, ResourceClass, Trait
from apus.services.placement.service import Placement, added, release_in
from apus.services.placement.store import ALLOCATIONS, PROVIDERS, RESOURCE_CLASSES, TRAITS

T = TypeVar("T")
Moved = tuple[int, Mapping[str, Inventory]]
"""The generation of a provider, and all its inventories from now on."""
READ_ALL_FROM: Final = 100
"""Changed providers from which one read of all is cheaper than a list of ids."""
_CUSTOM: Final = re.compile(r"^CUSTOM_[A-Z0-9_]+$")


def standard_classes() -> Sequence[str]:
    import os_resource_classes

    return tuple(os_resource_classes.STANDARDS)


def standard_traits() -> Sequence[str]:
    import os_traits

    return tuple(os_traits.get_traits())


def _below(id: str, everyone: Iterable[Provider]) -> set[str]:
    """The provider and all that hang under it."""
    children: dict[str, list[str]] = {}
    for item in everyone:
        if item.parent_id is not None:
            children.setdefault(item.parent_id, []).append(item.id)
    found, todo = {id}, [id]
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in found:
                found.add(child)
                todo.append(child)
    return found


class Inventories:
    """The service behind the Placement API."""

    def __init__(self, world: World, placement: Placement) -> None:
        self._world, self.placement = world, placement
        self._known: dict[str, Provider] = {}
        """As last read: of a thousand providers few change between two questions."""

    # ------------------------------------------------------------------ providers
    async def providers(self) -> list[Provider]:
        """All of them by name, each of the generation that the store has now."""

        def work(tx: Transaction) -> dict[str, Provider]:
            current = dict(tuple(row) for row in tx.execute("SELECT id, generation FROM placement_provider"))
            known = {id: item for id, item in self._known.items() if current.get(id) == item.generation}
            changed_ids = [id for id in current if id not in known]
            if len(changed_ids) > READ_ALL_FROM:
                return {item.id: item for item in PROVIDERS.find(tx)}
            return known | {item.id: item for item in PROVIDERS.find(tx, id=changed_ids)} if changed_ids else known

        self._known = await self._world.store.read(work)
        return sorted(self._known.values(), key=attrgetter("name"))

    async def provider(self, id: str) -> Provider:
        return await self._world.store.read(lambda tx: PROVIDERS.require(tx, id))

    async def create_provider(self, name: str, id: str | None, parent_id: str | None) -> Provider:
        def work(tx: Transaction) -> Provider:
            made = id or new_id(self._world.dice)
            parent = None
            if parent_id is not None:
                parent = PROVIDERS.get(tx, parent_id)
                if parent is None:
                    shown = f"parent_provider_uuid: there is no provider {parent_id}."
                    raise Invalid("placement.no_parent", shown, field="parent_provider_uuid")
            root = parent.root_id if parent else made
            return PROVIDERS.insert(tx, Provider(id=made, name=name, parent_id=parent_id, root_id=root))

        return await self._world.store.write(work)

    async def change_provider(self, id: str, name: str, parent_id: str | None) -> Provider:
        """Name it, and hang it and all below it under this parent.  Raise Invalid: the tree would be none."""

        def work(tx: Transaction) -> Provider:
            provider = PROVIDERS.require(tx, id)
            if parent_id == provider.parent_id:
                return PROVIDERS.put(tx, changed(provider, name=name))
            everyone = {item.id: item for item in PROVIDERS.find(tx)}
            below = _below(id, everyone.values())
            if parent_id is not None and (parent_id not in everyone or parent_id in below):
                why = "is below this one" if parent_id in below else "does not exist"
                shown = f"parent_provider_uuid: provider {parent_id} {why}."
                raise Invalid("placement.no_parent", shown, field="parent_provider_uuid")
            root_id = id if parent_id is None else everyone[parent_id].root_id or parent_id
            for child in below - {id}:
                PROVIDERS.put(tx, changed(everyone[child], root_id=root_id))
            return PROVIDERS.put(tx, changed(provider, name=name, parent_id=parent_id, root_id=root_id))

        return await self._edited(work)

    async def delete_provider(self, id: str) -> None:
        def work(tx: Transaction) -> None:
            PROVIDERS.require(tx, id)
            if ALLOCATIONS.first(tx, provider_id=id) is not None:
                raise Conflict("placement.provider.inuse", f"Provider {id} has allocations; they must go first.")
            if any(other.parent_id == id for other in PROVIDERS.find(tx)):
                raise Conflict("placement.provider.has_children", f"Provider {id} has child providers.")
            PROVIDERS.delete(tx, id)

        await self._edited(work)
        self._known.pop(id, None)  # one of this id that is made anew counts its generations from 1 again

    async def put_inventories(
        self, id: str, seen: int | None, inventories: Mapping[str, Inventory], *, replace: bool = True
    ) -> Provider:
        """All inventories (`replace`) or the named ones.  Raise Conflict: old generation, or one in use would go."""

        def work(tx: Transaction) -> Provider:
            provider = self._seen(tx, id, seen)
            kept = {} if replace else provider.inventories
            return self._set_inventories(tx, provider, {**kept, **inventories})

        return await self._edited(work)

    async def add_inventory(self, id: str, seen: int | None, name: str, inventory: Inventory) -> Provider:
        """Raise Conflict when there is one of this class."""

        def work(tx: Transaction) -> Provider:
            provider = self._seen(tx, id, seen)
            if name in provider.inventories:
                raise Conflict("placement.inventory.exists", f"Provider {id} has an inventory of {name} already.")
            return self._set_inventories(tx, provider, {**provider.inventories, name: inventory})

        return await self._edited(work)

    def _set_inventories(self, tx: Transaction, provider: Provider, wanted: Mapping[str, Inventory]) -> Provider:
        for name, inventory in wanted.items():
            self._check_class(tx, name)
            if inventory.reserved > inventory.total:
                shown = f"inventories.{name}: reserved {inventory.reserved} is more than total {inventory.total}."
                raise Invalid("placement.inventory", shown, field=f"inventories.{name}.reserved")
        for name in provider.inventories:
            if name not in wanted and provider.used.get(name, 0):
                shown = f"Inventory {name} of provider {provider.id} is in use ({provider.used[name]}) and cannot go."
                raise Conflict("placement.inventory.inuse", shown)
        return PROVIDERS.put(tx, changed(provider, inventories=dict(wanted)))

    async def delete_inventory(self, id: str, name: str) -> None:
        provider = await self.provider(id)
        if name not in provider.inventories:
            raise NotFound("placement.no_inventory", f"Provider {id} has no inventory of {name}.")
        rest = {key: value for key, value in provider.inventories.items() if key != name}
        await self.put_inventories(id, provider.generation, rest)

    async def put_traits(self, id: str, seen: int | None, traits: Sequence[str]) -> Provider:
        def work(tx: Transaction) -> Provider:
            provider = self._seen(tx, id, seen)
            known = {*standard_traits(), *(trait.id for trait in TRAITS.find(tx))}
            unknown = sorted(set(traits) - known)
            if unknown:
                raise Invalid("placement.no_trait", f"traits: no such trait: {', '.join(unknown)}.", field="traits")
            return PROVIDERS.put(tx, changed(provider, traits=tuple(sorted(set(traits)))))

        return await self._edited(work)

    async def put_aggregates(self, id: str, seen: int | None, aggregates: Sequence[str]) -> Provider:
        def work(tx: Transaction) -> Provider:
            return PROVIDERS.put(tx, changed(self._seen(tx, id, seen), aggregates=tuple(sorted(set(aggregates)))))

        return await self._edited(work)

    # ------------------------------------------------------------------ allocations
    async def allocations_of(
        self, *, consumer_id: str | None = None, provider_id: str | None = None
    ) -> list[Allocation]:
        asked = {"consumer_id": consumer_id, "provider_id": provider_id}
        conditions = {name: value for name, value in asked.items() if value is not None}
        return await self._world.store.read(lambda tx: ALLOCATIONS.find(tx, **conditions))

    async def allocations_of_project(self, project_id: str, user_id: str | None) -> list[Allocation]:
        found = await self._world.store.read(lambda tx: ALLOCATIONS.find(tx, project_id=project_id))
        return [item for item in found if user_id is None or item.user_id == user_id]

    async def put_allocations(self, consumers: Mapping[str, Any]) -> None:
        """Replace what each consumer holds (an `AllocationsBody` each), all or nothing."""

        def work(tx: Transaction) -> None:
            for consumer_id, body in consumers.items():
                self._put_consumer(tx, consumer_id, body)

        await self._edited(work)

    async def reshape(self, moved: Mapping[str, Moved], consumers: Mapping[str, Any]) -> None:
        """Inventories move between providers together with what is held of them, all or nothing.

        `moved`: by provider; `consumers`: an `AllocationsBody` each.
        """

        def work(tx: Transaction) -> None:
            for id, (seen, _) in moved.items():
                if PROVIDERS.get(tx, id) is None:
                    shown = f"inventories: there is no provider {id}."
                    raise Invalid("placement.no_provider", shown, field="inventories")
                self._seen(tx, id, seen)
            generations = {id: self._checked_generation(tx, id, body) for id, body in consumers.items()}
            for id in consumers:
                release_in(tx, id)
            for id, (_, inventories) in moved.items():
                self._set_inventories(tx, PROVIDERS.require(tx, id), inventories)
            for id, body in consumers.items():
                self._hold(tx, id, body, generations[id])

        await self._edited(work)

    def _put_consumer(self, tx: Transaction, consumer_id: str, body: Any) -> None:
        generation = self._checked_generation(tx, consumer_id, body)
        release_in(tx, consumer_id)
        self._hold(tx, consumer_id, body, generation)

    def _checked_generation(self, tx: Transaction, consumer_id: str, body: Any) -> int | None:
        held = ALLOCATIONS.first(tx, consumer_id=consumer_id)
        generation = held.consumer_generation if held is not None else None
        if body.checked and body.consumer_generation != generation:
            shown = f"consumer generation conflict: expected {generation}, got {body.consumer_generation}."
            raise Conflict("placement.concurrent_update", shown)
        return generation

    def _hold(self, tx: Transaction, consumer_id: str, body: Any, generation: int | None) -> None:
        for provider_id, item in body.allocations.items():
            provider = PROVIDERS.get(tx, provider_id)
            if provider is None:
                shown = f"allocations: there is no provider {provider_id}."
                raise Invalid("placement.no_provider", shown, field="allocations")
            if not fits(provider, item.resources):
                shown = f"Unable to allocate inventory: provider {provider.name} has no room for {item.resources}."
                raise Conflict("placement.full", shown)
            PROVIDERS.put(tx, changed(provider, used=added(provider.used, item.resources)))
            allocation = Allocation(
                id=f"{consumer_id}:{provider_id}",
                consumer_id=consumer_id,
                provider_id=provider_id,
                provider_name=provider.name,
                resources=dict(item.resources),
                project_id=body.project_id,
                user_id=body.user_id,
                consumer_type=body.consumer_type,
                consumer_generation=(generation or 0) + 1,
            )
            ALLOCATIONS.insert(tx, allocation)

    async def delete_allocations(self, consumer_id: str) -> None:
        if not await self.allocations_of(consumer_id=consumer_id):
            raise NotFound("placement.no_allocations", f"No allocations for consumer {consumer_id}.")
        await self.placement.release(consumer_id)

    # ------------------------------------------------------------------ classes and traits
    async def check_names(self, groups: Sequence[Group], traits: Iterable[str] = ()) -> None:
        """Raise Invalid naming a resource class or trait that there is not."""
        asked = {*traits, *(name for group in groups for name in group.forbidden.union(*group.required))}
        unknown = sorted(asked - set(standard_traits()))
        if unknown and (wrong := sorted(set(unknown) - set(await self.traits()))):
            raise Invalid("placement.no_trait", f"required: there is no trait {wrong[0]}.", field="required")
        classes = {name for group in groups for name in group.resources} - set(standard_classes())
        if classes and (wrong := sorted(classes - set(await self.classes()))):
            raise Invalid("placement.no_class", f"resources: there is no resource class {wrong[0]}.", field="resources")

    async def classes(self) -> list[str]:
        custom = await self._world.store.read(lambda tx: [item.id for item in RESOURCE_CLASSES.find(tx)])
        return [*standard_classes(), *sorted(custom)]

    async def ensure_class(self, name: str) -> bool:
        """Whether it was made now."""
        if name in standard_classes():
            return False
        if not _CUSTOM.match(name) or len(name) > 255:
            raise Invalid("placement.class_name", f"name: {name!r} does not match CUSTOM_[A-Z0-9_]+.", field="name")
        return await self._ensure(RESOURCE_CLASSES, ResourceClass(id=name))

    async def delete_class(self, name: str) -> None:
        def work(tx: Transaction) -> None:
            if name in standard_classes():
                raise Invalid("placement.standard_class", f"{name} is a standard class and cannot be deleted.")
            if any(name in provider.inventories for provider in PROVIDERS.find(tx)):
                raise Conflict("placement.class_in_use", f"Resource class {name} is in use by an inventory.")
            if not RESOURCE_CLASSES.delete(tx, name):
                raise NotFound("placement.no_class", f"There is no resource class {name}.")

        await self._world.store.write(work)

    async def traits(self) -> list[str]:
        custom = await self._world.store.read(lambda tx: [item.id for item in TRAITS.find(tx)])
        return [*standard_traits(), *sorted(custom)]

    async def ensure_trait(self, name: str) -> bool:
        if name in standard_traits():
            return False
        if not _CUSTOM.match(name) or len(name) > 255:
            raise Invalid("placement.trait_name", f"name: {name!r} does not match CUSTOM_[A-Z0-9_]+.", field="name")
        return await self._ensure(TRAITS, Trait(id=name))

    async def delete_trait(self, name: str) -> None:
        def work(tx: Transaction) -> None:
            if name in standard_traits():
                raise Invalid("placement.standard_trait", f"{name} is a standard trait and cannot be deleted.")
            if any(name in provider.traits for provider in PROVIDERS.find(tx)):
                raise Conflict("placement.trait_in_use", f"Trait {name} is in use by a provider.")
            if not TRAITS.delete(tx, name):
                raise NotFound("placement.no_trait", f"There is no trait {name}.")

        await self._world.store.write(work)

    async def _ensure(self, table: Any, record: Any) -> bool:
        def work(tx: Transaction) -> bool:
            if table.get(tx, record.id) is not None:
                return False
            table.insert(tx, record)
            return True

        return await self._world.store.write(work)

    async def _edited(self, work: Callable[[Transaction], T]) -> T:
        result = await self._world.store.write(work)
        self.placement.forget()
        return result

    def _seen(self, tx: Transaction, id: str, seen: int | None) -> Provider:
        provider = PROVIDERS.require(tx, id)
        if seen is not None and provider.generation != seen:
            shown = f"resource provider generation conflict: actual {provider.generation}, given {seen}."
            raise Conflict("placement.concurrent_update", shown)
        return provider

    def _check_class(self, tx: Transaction, name: str) -> None:
        if name not in standard_classes() and RESOURCE_CLASSES.get(tx, name) is None:
            raise Invalid("placement.no_class", f"inventories: there is no resource class {name}.", field="inventories")

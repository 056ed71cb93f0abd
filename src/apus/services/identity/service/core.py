"""What all parts of the service share: the world, the token machinery, and how a change ends tokens."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

import msgspec

from apus.kernel.errors import NotFound
from apus.kernel.ids import new_id
from apus.kernel.world import Transaction, World
from apus.services.identity import store as tables
from apus.services.identity.agent.verifier import RevocationView, Verifier
from apus.services.identity.contract import REVOKED_HINT
from apus.services.identity.drivers.keys import TokenKeys
from apus.services.identity.drivers.passwords import Passwords
from apus.services.identity.logic.catalogue import catalogue
from apus.services.identity.model import Endpoint, Service

T = TypeVar("T")

CATALOGUE_SUBJECT: Final = "catalogue"
"""No token hangs on it: its epoch tells every process that the catalogue is another."""

_CATALOGUES_MAX: Final = 1024
"""Encoded catalogues in memory, one a project, 2 to 8 KiB each."""


@dataclasses.dataclass(frozen=True, slots=True)
class Settings:
    token_lifetime_s: float = 3600.0
    """How long a token lives.  Operators shorten it; long jobs renew theirs."""
    project_depth_max: int = 5
    """Projects under each other, the domain not counted (Keystone's max_project_tree_depth)."""


class Core:
    def __init__(
        self, world: World, keys: TokenKeys, vault: TokenKeys, passwords: Passwords, settings: Settings
    ) -> None:
        self.world, self.keys, self.vault, self.passwords, self.settings = world, keys, vault, passwords, settings
        self.view = RevocationView()
        self.verifier = Verifier(keys, self.view, world.clock)
        self._hint_due = False
        self._catalogue_epoch = -1
        self._listed: tuple[list[Service], list[Endpoint]] = ([], [])
        self._encoded: dict[tuple[str | None, str | None], msgspec.Raw] = {}

    def new_id(self) -> str:
        """Keystone's ids are 32 hexadecimal digits; they become parts of names and URLs of other services."""
        return new_id(self.world.dice).replace("-", "")

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self.world.store.read(work)

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Commit, then tell the other processes if tokens ended; this one knows already."""
        result = await self.world.store.write(work)
        if self._hint_due:
            self._hint_due = False
            await self.world.bus.publish(REVOKED_HINT)
        return result

    def end(self, tx: Transaction, subjects: Iterable[str]) -> None:
        """End the tokens of these subjects with the commit of this transaction."""
        epochs = tables.raise_epochs(tx, subjects)
        if epochs:
            tx.after_commit(lambda: self._ended(epochs))

    def _ended(self, epochs: dict[str, int]) -> None:
        self.view.apply(epochs)
        self._hint_due = True

    async def catalogue(self, project_id: str | None, user_id: str) -> msgspec.Raw:
        """The catalogue as JSON for one project; from memory while nobody changed it."""
        epoch = self.view.epochs.get(CATALOGUE_SUBJECT, 0)
        if epoch != self._catalogue_epoch or len(self._encoded) > _CATALOGUES_MAX:
            self._listed = await self.read(_services_and_endpoints)
            self._encoded, self._catalogue_epoch = {}, epoch
        by_user = any("user_id)" in endpoint.url for endpoint in self._listed[1])
        key = (project_id, user_id if by_user else None)
        encoded = self._encoded.get(key)
        if encoded is None:
            encoded = msgspec.Raw(msgspec.json.encode(catalogue(*self._listed, project_id, user_id)))
            self._encoded[key] = encoded
        return encoded


def _services_and_endpoints(tx: Transaction) -> tuple[list[Service], list[Endpoint]]:
    services = sorted(tables.services.find(tx), key=lambda service: (service.type, service.id))
    return services, tables.endpoints.find(tx)


def missing(noun: str, id: str) -> NotFound:
    """In Keystone's words: clients show them."""
    return NotFound(f"identity.{noun.replace(' ', '_')}_not_found", f"Could not find {noun}: {id}.")

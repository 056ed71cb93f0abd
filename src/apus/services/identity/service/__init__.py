"""The identity service: implements the contract, and gives the API's rooms their parts."""

from __future__ import annotations

from collections.abc import Sequence

from apus.kernel.caller import Caller
from apus.kernel.world import Transaction, World
from apus.services.identity import store as tables
from apus.services.identity.agent.verifier import Verifier
from apus.services.identity.contract import DEFAULT_DOMAIN_ID, Login, Revocations
from apus.services.identity.drivers.keys import TokenKeys
from apus.services.identity.drivers.passwords import Passwords
from apus.services.identity.logic.signing import signing_key
from apus.services.identity.loops.follow import FollowRevocations
from apus.services.identity.loops.sweep import SweepExpired
from apus.services.identity.model import Scope
from apus.services.identity.service.access_keys import AccessKeys
from apus.services.identity.service.auth import Ask, Auth, Place
from apus.services.identity.service.bootstrap import Bootstrap, bootstrap
from apus.services.identity.service.core import Core, Settings
from apus.services.identity.service.grants import Grants
from apus.services.identity.service.keeper import Keeper
from apus.services.identity.service.people import People
from apus.services.identity.service.secrets import Secrets


class Identity:
    """`keys` seal tokens, `vault` seals the secrets that users keep here (its keys are never dropped)."""

    def __init__(
        self,
        world: World,
        keys: TokenKeys,
        vault: TokenKeys,
        *,
        settings: Settings | None = None,
        passwords: Passwords | None = None,
    ) -> None:
        self.core = Core(world, keys, vault, passwords or Passwords(world.run), settings or Settings())
        self.keeper = Keeper(self.core)
        self.auth = Auth(self.core)
        self.people = People(self.core, self.keeper)
        self.grants = Grants(self.core)
        self.secrets = Secrets(self.core, self.keeper)
        self.access_keys = AccessKeys(self.core, self.auth, self.secrets)

    @property
    def verifier(self) -> Verifier:
        """The TokenVerifier of this process."""
        return self.core.verifier

    async def start(self) -> None:
        """Load what was revoked before this process began.  Before the first request."""
        known = await self.revocations(0.0)
        self.core.view.apply(known.epochs)

    async def bootstrap(self, wanted: Bootstrap) -> dict[str, str]:
        """Make what a cloud begins with; returns the ids of the projects admin, service and the tenants'."""
        return await bootstrap(self.core, wanted)

    def loops(self) -> tuple[FollowRevocations, SweepExpired]:
        """To be driven by the node."""
        core, lifetime_s = self.core, self.core.settings.token_lifetime_s
        follow = FollowRevocations(self, core.view, core.keys, core.world.clock, lifetime_s)
        return follow, SweepExpired(core.world.store, lifetime_s)

    # ------------------------------------------------------------------------------------------ the contract
    async def project_exists(self, project_id: str) -> bool:
        return await self.core.read(lambda tx: tables.projects.get(tx, project_id) is not None)

    async def project_names(self, project_ids: Sequence[str]) -> dict[str, str]:
        wanted = sorted(set(project_ids))
        found = await self.core.read(lambda tx: tables.projects.find(tx, id=wanted) if wanted else [])
        return {project.id: project.name for project in found}

    async def project_domain(self, project_id: str) -> str | None:
        found = await self.core.read(lambda tx: tables.projects.get(tx, project_id))
        return found.domain_id if found is not None else None

    async def principals_among(self, ids: Sequence[str]) -> Sequence[str]:
        wanted = sorted(set(ids))

        def work(tx: Transaction) -> list[str]:
            found = {project.id for project in tables.projects.find(tx, id=wanted)}
            return sorted(found | {user.id for user in tables.users.find(tx, id=wanted)})

        return await self.core.read(work) if wanted else []

    async def service_token(self) -> str:
        return await self.auth.service_token()

    async def log_in(self, project: str, user: str, password: str) -> Login:
        ask = Ask(
            methods=("password",),
            user=Place(name=user, domain_id=DEFAULT_DOMAIN_ID),
            password=password,
            scope=Scope.PROJECT,
            target=Place(name=project, domain_id=DEFAULT_DOMAIN_ID),
        )
        token, opened = await self.auth.issue(ask)
        assert opened.caller.project_id is not None
        return Login(token=token, project_id=opened.caller.project_id, expires_at_s=opened.caller.expires_at_s)

    async def image_token(self) -> str:
        return await self.auth.image_token()

    async def signing_key(self, access: str, date: str, region: str, service: str) -> tuple[bytes, Caller] | None:
        found = await self.access_keys.secret_of(access)
        return (signing_key(found[0], date, region, service), found[1]) if found is not None else None

    async def revocations(self, since_s: float) -> Revocations:
        now_s = self.core.world.clock.now_s()
        epochs = await self.core.read(lambda tx: dict(tables.epochs_since(tx, since_s)))
        return Revocations(epochs=epochs, horizon_s=now_s)


__all__ = ["Bootstrap", "Identity", "Settings"]

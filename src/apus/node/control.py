"""The control role: every API but the object data, the flows and loops behind them, and the first start."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from apus.kernel import loop as loops
from apus.kernel.flow import FlowRunner
from apus.kernel.remote import serve
from apus.kernel.settings import Settings
from apus.kernel.world import World
from apus.node.catalogue import catalogue, public_url
from apus.node.secrets import load_secrets, write_clouds_yaml
from apus.node.stages import Stages
from apus.node.wiring import Part, looped
from apus.services.identity.api.routes import identity_api
from apus.services.identity.contract import RevocationSource
from apus.services.identity.drivers.keys import TokenKeys
from apus.services.identity.loops.follow import kick_on_hint
from apus.services.identity.service import Bootstrap, Identity
from apus.services.object.client import ObjectClient
from apus.wire.app import Api, App
from apus.wire.client import HttpClient
from apus.wire.forward import Forward

RESELLER_ROLES = ("ResellerAdmin",)
OBJECT_PATHS = ("/v1", "/info", "/healthcheck")


class Front:
    """The one port: objects are handed on to their process, everything else is ours."""

    def __init__(self, app: App, objects: Forward) -> None:
        self._app, self._objects = app, objects

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if any(path == prefix or path.startswith(prefix + "/") for prefix in OBJECT_PATHS):
            await self._objects(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class WiredControl:
    """What the control process runs; services are attributes, for the roles that share the process."""

    def __init__(self, state_dir: Path, settings: Settings, world: World, stages: Stages) -> None:
        self.state_dir, self.settings, self.world, self.stages = state_dir, settings, world, stages
        self.flows = FlowRunner(world, settings.node)
        self.object_http = HttpClient("127.0.0.1", settings.objects_at)
        self.app: Front
        self._parts: list[Part] = []

    async def identity(self) -> Identity:
        """The identity service, with what a cloud begins with; its token keys are there when this returns."""
        world, keys = self.world, self.state_dir / "keys"
        tokens = await TokenKeys.ensure(world.disk, keys / "tokens")
        vault = await TokenKeys.ensure(world.disk, keys / "vault")
        identity = Identity(world, tokens, vault)
        known = load_secrets(self.state_dir)
        await identity.bootstrap(
            Bootstrap(
                admin_password=known.admin_password,
                demo_password=known.demo_password,
                catalogue=catalogue(self.settings),
                region=self.settings.region,
                extra_roles=RESELLER_ROLES,
            )
        )
        await identity.start()
        await serve(world.bus, "identity.revocations", RevocationSource, identity)
        revoked = loops.Mailbox()
        await kick_on_hint(world.bus, revoked)
        follow, sweep = identity.loops()
        self._parts += [looped(follow, world.clock, revoked), looped(sweep, world.clock)]
        write_clouds_yaml(self.state_dir / "clouds.yaml", public_url(self.settings), self.settings, known)
        return identity

    def front(self, apis: Sequence[Api], identity: Identity) -> None:
        app = App(apis, identity.verifier, dice=self.world.dice)
        self.app = Front(app, Forward(self.object_http))

    def parts(self) -> Sequence[Part]:
        return [("flows", self.flows.run()), *self._parts]

    async def begin(self) -> None:
        self.stages.reached("APIs answer")

    async def close(self) -> None:
        self.object_http.close()


async def wire_control(
    state_dir: Path, settings: Settings, roles: frozenset[str], world: World, stages: Stages
) -> WiredControl:
    wired = WiredControl(state_dir, settings, world, stages)
    identity = await wired.identity()
    stages.reached("identity ready")
    apis: list[Api] = [identity_api(identity)]
    if "control" in roles:
        from apus.services.image.api.routes import image_api
        from apus.services.image.service import Images
        from apus.services.placement.api.routes import placement_api
        from apus.services.placement.inventory import Inventories
        from apus.services.placement.service import Placement

        objects = ObjectClient(wired.object_http, identity.service_token)
        placement = Placement(world)
        images = Images(world, wired.flows, objects)
        apis += [image_api(images), placement_api(Inventories(world, placement))]
    wired.front(apis, identity)
    return wired

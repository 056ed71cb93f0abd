"""The control role: every API but the object data, the flows and loops behind them, and the first start."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apus.kernel import loop as loops
from apus.kernel.flow import FencedStore, FlowRunner
from apus.kernel.forget import Forget
from apus.kernel.hints import HintingStore, Hints
from apus.kernel.once import OnceStore
from apus.kernel.remote import serve
from apus.kernel.settings import Settings
from apus.kernel.world import World
from apus.node.announcing import SUBJECT as OBJECT_EVENTS
from apus.node.announcing import StoredEvents
from apus.node.catalogue import catalogue, object_address, public_url
from apus.node.keys import PRINCIPALS, SIGNING_KEYS, SealedKeys, StoredKeys
from apus.node.keys import SUBJECT as KEYS
from apus.node.secrets import load_drive_key, load_secrets, tenants, write_clouds_yaml
from apus.node.shared_store import SUBJECT as SHARED
from apus.node.shared_store import SharedStore, StoredShared
from apus.node.stages import Stages
from apus.node.wiring import Part, looped
from apus.services.identity.api.routes import identity_api
from apus.services.identity.contract import Principals, RevocationSource, SigningKeys
from apus.services.identity.drivers.keys import TokenKeys
from apus.services.identity.loops.follow import kick_on_hint
from apus.services.identity.service import Bootstrap, Identity
from apus.services.object.client import ObjectClient
from apus.services.object.contract import ObjectEvents
from apus.skins.swift_auth.door import SwiftAuth, swift_auth_api
from apus.wire.app import Api, App
from apus.wire.client import HttpClient
from apus.wire.forward import Forward
from apus.wire.idempotency import PurgeReplays, StoreReplays
from apus.wire.metrics import Metrics, metrics_api

if TYPE_CHECKING:
    from apus.node.first_start import FirstStart
    from apus.node.seams import ControlSeams
    from apus.services.compute.agent.image_cache import ReadImage
    from apus.services.image.service import Images

RESELLER_ROLES = ("ResellerAdmin",)
OBJECT_PATHS = ("/v1", "/info", "/healthcheck", "/crossdomain.xml", "/recon", "/apus/v1/object")


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
        self.state_dir, self.settings, self.stages = state_dir, settings, stages
        self.hints = Hints(world.bus)
        store = FencedStore(OnceStore(HintingStore(world.store, self.hints)))
        self.world = world = dataclasses.replace(world, store=store)
        self.flows = FlowRunner(world, settings.node)
        self.metrics = Metrics(world.clock.monotonic_s)
        self.object_events = StoredEvents(world)
        self.object_http = HttpClient(*object_address(settings))
        self.app: Front | App
        self.projects: dict[str, str] = {}
        """Ids by name, of those that the cloud began with."""
        self.first_start: FirstStart | None = None
        self.seams: ControlSeams | None = None
        self.read_image: ReadImage | None = None
        self._parts: list[Part] = []

    async def identity(self) -> Identity:
        """The identity service, with what a cloud begins with; its token keys are there when this returns."""
        world, keys = self.world, self.state_dir / "keys"
        known = load_secrets(self.state_dir)
        if self.settings.store_url or self.settings.bus_url:
            stored = StoredKeys(world.store, known.cluster_key)
            await stored.agree(world.disk, keys)
            await serve(world.bus, KEYS, SealedKeys, stored)
            load_drive_key(self.state_dir)
        tokens = await TokenKeys.ensure(world.disk, keys / "tokens")
        vault = await TokenKeys.ensure(world.disk, keys / "vault")
        identity = Identity(world, tokens, vault)
        self.projects = await identity.bootstrap(
            Bootstrap(
                admin_password=known.admin_password,
                tenants=tenants(self.settings, known),
                catalogue=catalogue(self.settings),
                region=self.settings.region,
                extra_roles=RESELLER_ROLES,
            )
        )
        await identity.start()
        await serve(world.bus, "identity.revocations", RevocationSource, identity)
        await serve(world.bus, SIGNING_KEYS, SigningKeys, identity)
        await serve(world.bus, PRINCIPALS, Principals, identity)
        await serve(world.bus, OBJECT_EVENTS, ObjectEvents, self.object_events)
        await serve(world.bus, SHARED, SharedStore, StoredShared(world.store))
        revoked = loops.Mailbox()
        await kick_on_hint(world.bus, revoked)
        follow, sweep = identity.loops()
        self._parts += [looped(follow, world.clock, self.metrics, revoked), looped(sweep, world.clock, self.metrics)]
        write_clouds_yaml(self.state_dir / "clouds.yaml", public_url(self.settings), self.settings, known)
        return identity

    def doors_of(self, identity: Identity) -> list[Api]:
        """Keystone's, and Swift's own way to log in."""
        storage = next(entry.url for entry in catalogue(self.settings) if entry.type == "object-store")
        return [identity_api(identity), swift_auth_api(SwiftAuth(identity, self.world.clock, storage))]

    async def cloud(self, identity: Identity) -> Sequence[Api]:
        """Images, placement, compute, networks and our own door."""
        from apus.node.first_start import FirstStart
        from apus.node.seams import ControlSeams, console_of, serve_control
        from apus.services.compute.api.routes import compute_apis
        from apus.services.compute.loops.host_watch import HostWatch
        from apus.services.compute.loops.orphan_sweep import OrphanSweep
        from apus.services.compute.loops.port_copies import PortCopies
        from apus.services.compute.loops.purge import Purge
        from apus.services.compute.loops.zones import Zones
        from apus.services.compute.service import Compute
        from apus.services.image.api.routes import image_api
        from apus.services.network.api.routes import network_api
        from apus.services.network.service.service import HostSide, NetworkService
        from apus.services.placement.api.routes import placement_api
        from apus.services.placement.inventory import Inventories
        from apus.services.placement.service import Placement
        from apus.skins.apus.routes import ApusDoor, apus_api
        from apus.skins.metadata.door import MetadataDoor

        world = self.world
        placement = Placement(world)
        await placement.follow()
        images = self._images(identity)
        network = NetworkService(world)
        compute = Compute(
            world,
            self.flows,
            images=images,
            network=network,
            placement=placement,
            console=lambda host: console_of(world.bus, host),
        )
        self.seams = ControlSeams(
            work=compute.work,
            placement=placement,
            network=HostSide(world),
            metadata=MetadataDoor(network, compute),
            tokens=identity,
        )
        await serve_control(world.bus, self.seams)
        self.first_start = FirstStart(
            self.state_dir,
            self.settings,
            world,
            compute=compute,
            images=images,
            network=network,
            project_id=self.projects["admin"],
        )
        self._parts += [
            ("compute-kicks", compute.kicks.run()),
            looped(HostWatch(world, compute.hosts), world.clock, self.metrics),
            looped(PortCopies(world, network), world.clock, self.metrics, await self._port_hints()),
            looped(Zones(compute.aggregates), world.clock, self.metrics),
            looped(OrphanSweep(world, network, placement), world.clock, self.metrics),
            looped(Purge(world), world.clock, self.metrics),
        ]
        inventories = Inventories(world, placement)
        door = ApusDoor(world, self.flows, placement, compute)
        return [
            image_api(images),
            placement_api(inventories),
            *compute_apis(compute),
            network_api(network),
            apus_api(door),
        ]

    async def _port_hints(self) -> loops.Mailbox:
        from apus.services.compute.loops.port_copies import kick_on_hint

        mailbox = loops.Mailbox()
        await kick_on_hint(self.world.bus, mailbox)
        return mailbox

    def _images(self, identity: Identity) -> Images:
        from apus.services.image.limits import Settings as ImageSettings
        from apus.services.image.loops.sweep_debris import SweepDebris
        from apus.services.image.service import Images

        objects = ObjectClient(self.object_http, identity.service_token)
        of_images = ImageSettings(web_download_private_targets=self.settings.web_download_private)
        images = Images(self.world, self.flows, objects, settings=of_images)
        self.read_image = images.read
        self._parts.append(looped(SweepDebris(self.world, objects), self.world.clock, self.metrics, images.debris))
        return images

    def front(self, apis: Sequence[Api], identity: Identity) -> None:
        """Serve these.  Objects are another process's, unless they are among them."""
        app = App(
            [*apis, metrics_api(self.metrics)],
            identity.verifier,
            dice=self.world.dice,
            replays=StoreReplays(self.world.store),
            metrics=self.metrics,
        )
        self._parts.append(looped(Forget(self.world), self.world.clock, self.metrics))
        self._parts.append(looped(PurgeReplays(self.world), self.world.clock, self.metrics))
        self.app = app if self.settings.alone else Front(app, Forward(self.object_http))

    def parts(self) -> Sequence[Part]:
        return [("flows", self.flows.run()), ("hints", self.hints.run()), *self._parts]

    async def begin(self) -> None:
        self.stages.reached("APIs answer")
        if self.first_start is not None:
            await self.first_start.make()
            # The first server should not pay for numpy's import; a thread, so that requests are answered meanwhile.
            await self.world.run.in_thread(lambda: importlib.import_module("apus.services.placement.logic.choose"))

    async def close(self) -> None:
        self.object_http.close()


async def wire_control(
    state_dir: Path, settings: Settings, roles: frozenset[str], world: World, stages: Stages
) -> WiredControl:
    wired = WiredControl(state_dir, settings, world, stages)
    identity = await wired.identity()
    stages.reached("identity ready")
    apis = wired.doors_of(identity)
    if "control" in roles:
        apis += await wired.cloud(identity)
    wired.front(apis, identity)
    return wired

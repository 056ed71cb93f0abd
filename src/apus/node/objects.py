"""The object roles that have doors: the store on its drives, or on those of many hosts (object-proxy), its loops, the
Swift door and, on a port of its own, that of S3."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from apus.kernel import loop as loops
from apus.kernel.errors import Invalid, Unavailable
from apus.kernel.log import get_logger
from apus.kernel.remote import client
from apus.kernel.settings import Settings
from apus.kernel.world import World
from apus.node.announcing import SUBJECT as OBJECT_EVENTS
from apus.node.keys import PRINCIPALS, SIGNING_KEYS, SealedKeys, fetch_token_keys
from apus.node.keys import SUBJECT as KEYS
from apus.node.object_metrics import watch_store
from apus.node.secrets import load_drive_key, load_root_secrets, load_secrets
from apus.node.shared_store import LAYOUT_HINT, Lead, SharedLayout, SharedStore, shared_root_secrets
from apus.node.shared_store import SUBJECT as SHARED
from apus.node.stages import Stages
from apus.node.wiring import Part, looped
from apus.services.identity.agent.verifier import RevocationView, Verifier
from apus.services.identity.contract import Principals, RevocationSource, SigningKeys
from apus.services.identity.drivers.keys import TokenKeys
from apus.services.identity.loops.follow import FollowRevocations, kick_on_hint
from apus.services.identity.service.core import Settings as IdentitySettings
from apus.services.object.api.operator import operator_api
from apus.services.object.api.routes import swift_apis
from apus.services.object.assembly import ObjectStore, Shared, drives_in, open_store
from apus.services.object.contract import ObjectEvents
from apus.services.object.drivers.remote.site import RemoteSite
from apus.services.object.logic.addresses import parse_networks
from apus.services.object.logic.drive_places import DrivePlace
from apus.services.object.logic.sync import Realm, parse_realms
from apus.services.object.loops.layout_watch import LayoutWatch
from apus.services.object.service import Options
from apus.wire.app import Api, App
from apus.wire.metrics import Metrics, metrics_api

if TYPE_CHECKING:
    from apus.skins.s3.door import S3Door

DRIVES_DEFAULT = 4
OPEN_EVERY_S = 1.0
KEYS_WAIT_S = 0.02
KEYS_TRIES = 1500
PRINCIPALS_WAIT_S = 2.0
"""A request waits for the answer, and can do without."""
_log = get_logger("apus.node")


class WiredObjects:
    """The store and its loops."""

    def __init__(self, store: ObjectStore, stages: Stages, metrics: Metrics, lead: Lead | None = None) -> None:
        self.store, self._stages, self._metrics, self._lead = store, stages, metrics, lead
        self._layout_changed = loops.Mailbox()

    def apis(self) -> Sequence[Api]:
        return [*swift_apis(self.store.service), operator_api(self.store)]

    def parts(self) -> Sequence[Part]:
        driven = [self._driven(loop) for loop in self.store.loops]
        if self._lead is not None:
            driven.append(self._driven(self._lead))
        return [(self.store.replicator.name, self.store.replicator.run()), *driven]

    def _driven(self, loop: loops.Loop) -> Part:
        mailbox = self._layout_changed if loop.name == LayoutWatch.name else None
        return looped(loop, self.store.world.clock, self._metrics, mailbox)

    async def begin(self) -> None:
        if self._lead is not None:
            await self.store.world.bus.listen(LAYOUT_HINT, self._on_hint)
        self._stages.reached(f"objects on {len(self.store.drives)} drives")

    async def _on_hint(self, subject: str, body: bytes) -> None:
        self._layout_changed.kick()

    async def close(self) -> None:
        await self.store.close()


class ObjectProcess:
    """The store in a process of its own: it tells tokens itself, and hears from identity which have ended."""

    def __init__(
        self,
        objects: WiredObjects,
        app: App,
        follow: FollowRevocations,
        world: World,
        metrics: Metrics,
        s3: S3Door | None = None,
    ) -> None:
        self._objects, self.app, self._follow, self._world, self._metrics = objects, app, follow, world, metrics
        self.s3 = s3
        self._revoked = loops.Mailbox()

    def apis(self) -> Sequence[Api]:
        return self._objects.apis()

    def parts(self) -> Sequence[Part]:
        return [looped(self._follow, self._world.clock, self._metrics, self._revoked), *self._objects.parts()]

    async def begin(self) -> None:
        await kick_on_hint(self._world.bus, self._revoked)
        await self._objects.begin()

    async def close(self) -> None:
        await self._objects.close()


def drive_paths(state_dir: Path, settings: Settings) -> list[Path]:
    if settings.drives:
        return [Path(drive) for drive in settings.drives]
    return [state_dir / "drives" / f"d{number}" for number in range(1, DRIVES_DEFAULT + 1)]


async def open_objects(
    state_dir: Path,
    settings: Settings,
    world: World,
    stages: Stages,
    metrics: Metrics,
    events: ObjectEvents,
    principals: Principals,
) -> WiredObjects:
    """`events`: where those of objects are told, and `principals` identity, here or across the bus."""
    needs_secrets = settings.encrypt_objects or bool(settings.s3_port)
    lead, shared = None, None
    if "object-proxy" in settings.roles:
        lead, shared = await _share(state_dir, settings, world, needs_secrets=needs_secrets)
    else:
        for path in drive_paths(state_dir, settings):
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
    options = Options(
        account_writes_per_s=settings.account_writes_per_s,
        container_writes_per_s=settings.container_writes_per_s,
        keyring=load_root_secrets(state_dir, make=needs_secrets),
        encrypt=settings.encrypt_objects,
        realms=_sync_realms(state_dir / "container-sync-realms.conf"),
        region=settings.region,
        shard_rows=settings.shard_rows,
        webhook_networks=parse_networks(settings.webhook_networks),
    )
    store = await _opened(state_dir, settings, world, options, events, shared, principals)
    watch_store(store, metrics)
    return WiredObjects(store, stages, metrics, lead)


async def _share(state_dir: Path, settings: Settings, world: World, *, needs_secrets: bool) -> tuple[Lead, Shared]:
    """What this proxy has in common with the others of its store; `keys/object-root` is theirs too."""
    control: SharedStore = client(world.bus, SHARED, SharedStore)
    cluster_key = load_secrets(state_dir).cluster_key
    await shared_root_secrets(world, state_dir, control, cluster_key, make=needs_secrets)
    lead, key = Lead(settings.node, control), load_drive_key(state_dir)

    def site(place: DrivePlace) -> RemoteSite:
        if not place.host:  # the other proxies could not ask for it
            shown = f"path: {place.text} names no host; in a store of many hosts a drive is HOST:PATH."
            raise Invalid("object.drive_place", shown, field="path")
        return RemoteSite(place.host, place.port, key)

    home = SharedLayout(world, state_dir / "object" / "layout.json", control, cluster_key)
    return lead, Shared(home, site, lambda: lead.is_held)


async def _opened(
    state_dir: Path,
    settings: Settings,
    world: World,
    options: Options,
    events: ObjectEvents,
    shared: Shared | None,
    principals: Principals,
) -> ObjectStore:
    """Of a store of many hosts, wait until it has drives, and those that are new can be marked."""
    open_it = partial(
        open_store,
        world,
        layout_path=state_dir / "object" / "layout.json",
        replicas=settings.replicas,
        policies=settings.storage_policies,
        node=settings.node,
        options=options,
        events=events,
        shared=shared,
        principals=principals,
    )
    if shared is None:
        return await open_it(drives_in(drive_paths(state_dir, settings)))
    while True:
        known = await shared.home.load() is not None  # then only the command brings more
        try:
            if known or settings.drives:
                return await open_it([] if known else drives_in(settings.drives))
            _log.warning("the object store has no drives yet: its first proxy is told of them (--drives)")
        except Unavailable as error:
            _log.warning("the object store waits for its drives", why=error.shown)
        await world.clock.sleep(OPEN_EVERY_S)


def _sync_realms(path: Path) -> dict[str, Realm]:
    return parse_realms(path.read_text()) if path.exists() else {}


async def wire_objects(
    state_dir: Path, settings: Settings, world: World, stages: Stages, *, here: bool
) -> ObjectProcess:
    """`here`: the control role shares this state directory, and with it the token keys."""
    metrics = Metrics(world.clock.monotonic_s)
    principals = client(world.bus, PRINCIPALS, Principals, timeout_s=PRINCIPALS_WAIT_S)
    objects = await open_objects(
        state_dir, settings, world, stages, metrics, client(world.bus, OBJECT_EVENTS, ObjectEvents), principals
    )
    if settings.bus_url and not here:
        control: SealedKeys = client(world.bus, KEYS, SealedKeys)
        cluster_key = load_secrets(state_dir).cluster_key
        keys = await fetch_token_keys(world, state_dir / "keys" / "tokens", control, cluster_key)
    else:
        keys = await _token_keys(state_dir, world)
    view = RevocationView()
    source: RevocationSource = client(world.bus, "identity.revocations", RevocationSource)
    follow = FollowRevocations(source, view, keys, world.clock, IdentitySettings().token_lifetime_s)
    apis = [*objects.apis(), metrics_api(metrics)]
    app = App(apis, Verifier(keys, view, world.clock), dice=world.dice, metrics=metrics)
    s3 = None
    if settings.s3_port:
        keys_source = client(world.bus, SIGNING_KEYS, SigningKeys)
        s3 = s3_door(settings, objects.store, keys_source, principals, view, metrics)
    return ObjectProcess(objects, app, follow, world, metrics, s3)


def s3_door(
    settings: Settings,
    store: ObjectStore,
    keys: SigningKeys,
    principals: Principals,
    view: RevocationView,
    metrics: Metrics,
) -> S3Door:
    """`keys` and `principals` are identity's, here or across the bus; `view` is what ends keys that are remembered."""
    from apus.skins.s3.auth import Authority
    from apus.skins.s3.door import S3Door
    from apus.skins.s3.keyring import Keyring

    world = store.world
    authority = Authority(Keyring(keys, view, world.clock), settings.region, world.clock.now_s)
    return S3Door(store.service, authority, principals, dice=world.dice, domains=settings.s3_domains, metrics=metrics)


async def _token_keys(state_dir: Path, world: World) -> TokenKeys:
    """The keys that the control process makes at its first start: wait for them."""
    for _ in range(KEYS_TRIES):
        try:
            return await TokenKeys.load(world.disk, state_dir / "keys" / "tokens")
        except Unavailable:
            await world.clock.sleep(KEYS_WAIT_S)
    return await TokenKeys.load(world.disk, state_dir / "keys" / "tokens")

"""Servers: may? → load → decide → commit (with the flow's row, the action and the event) → kick.

Nothing here waits for a host.  What a host must do is a wish in its incarnation's row; what must be acquired first
is a flow.  The other nouns (flavors, key pairs, groups, quotas, hosts) have modules of their own beside this one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from apus.kernel import policy
from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from apus.kernel.events import emit
from apus.kernel.flow import FlowRunner
from apus.kernel.ids import new_id
from apus.kernel.record import changed
from apus.kernel.table import Query
from apus.kernel.world import Transaction, World
from apus.services.compute import store
from apus.services.compute.aggregates import Aggregates
from apus.services.compute.commands import CreateServer, UpdateServer
from apus.services.compute.contract import HostConsole, Power, ServerFacts, SshAddress
from apus.services.compute.flavors import Flavors, usable_flavor
from apus.services.compute.flows.boot import BOOT, BootInput
from apus.services.compute.flows.delete import DELETE, DeleteInput
from apus.services.compute.flows.tools import Tools
from apus.services.compute.groups import Groups
from apus.services.compute.hosts import Hosts
from apus.services.compute.keypairs import Keypairs, keypair_id
from apus.services.compute.kicks import Kicks
from apus.services.compute.logic import metadata as documents
from apus.services.compute.logic.power import decide
from apus.services.compute.model import Action, Flavor, KeySnapshot, Server
from apus.services.compute.policy import POLICY
from apus.services.compute.quotas import Quotas
from apus.services.compute.store import ACTIONS, FLAVORS, GROUPS, INCARNATIONS, KEYPAIRS, SERVERS
from apus.services.compute.work import Work
from apus.services.image.contract import BootImage, ImageService
from apus.services.network.contract import NetworkService, PortAsk
from apus.services.placement.contract import PlacementService

SSH_PORT: Final = 22
CONSOLE_TIMEOUT_S: Final = 10.0
_NOT_IN_HOSTNAME: Final = re.compile(r"[^a-z0-9.-]+")


class Compute:
    """`kicks.run()`, and the runner's `run()`, must be running for anything to happen."""

    def __init__(
        self,
        world: World,
        runner: FlowRunner,
        *,
        images: ImageService,
        network: NetworkService,
        placement: PlacementService,
        console: Callable[[str], HostConsole],
        quota_defaults: Mapping[str, int] | None = None,
    ) -> None:
        self._world, self._runner, self._images, self._network = world, runner, images, network
        self._placement, self._console = placement, console
        self.kicks = Kicks(world.bus)
        self.work = Work(world, runner)
        self.flavors = Flavors(world)
        self.keypairs = Keypairs(world)
        self.quotas = Quotas(world, quota_defaults)
        self.groups = Groups(world, self.quotas)
        self.hosts = Hosts(world, placement)
        self.aggregates = Aggregates(world, placement)
        tools = Tools(runner, network, placement, self.kicks.kick)
        runner.register(BOOT, tools)
        runner.register(DELETE, tools)

    # ------------------------------------------------------------------ create
    async def create_servers(self, caller: Caller, ask: CreateServer) -> Sequence[Server]:
        policy.require(POLICY, "server:create", caller)
        if caller.project_id is None:
            raise Forbidden("compute.no_project", "Servers belong to a project: ask with a token of one.")
        if ask.host is not None:
            policy.require(POLICY, "server:create_on_host", caller)
        flavor, key = await self._flavor_and_key(caller, ask)
        image = await self._images.boot_image(caller, ask.image_id)
        kernel = await self._part(caller, image, "kernel_id")
        ramdisk = await self._part(caller, image, "ramdisk_id")
        _check_fit(flavor, image)
        await self._check_zone(ask)
        asks: Sequence[PortAsk] = ()
        if ask.networks is None or ask.networks:
            try:
                asks = await self._network.check_ports(caller, ask.networks, ask.security_groups)
            except NotFound as error:  # what the body names and is not there is the body's fault: the URL was right
                raise Invalid(error.code, error.shown, field="server") from error
        if ask.max_count > 1 and any(item.port_id or item.fixed_ip for item in asks):
            raise Invalid(
                "compute.one_port_many_servers",
                "networks: a port or a fixed address can be given to one server only, not to several at once.",
                field="networks",
            )
        made = [
            self._new(caller, ask, flavor, key, image, kernel, ramdisk, tuple(asks), index)
            for index in range(ask.max_count)
        ]

        def work(tx: Transaction) -> list[Server]:
            return self._insert(tx, caller, ask, made)

        return await self._world.store.write(work)

    def _insert(self, tx: Transaction, caller: Caller, ask: CreateServer, made: list[Server]) -> list[Server]:
        assert caller.project_id is not None
        room = self.quotas.check_servers(tx, caller.project_id, made[0], ask.min_count, ask.max_count)
        if ask.group_id is not None:
            self._check_group(tx, caller, ask.group_id, room)
        kept = []
        reservation_id = "r-" + f"{self._world.dice.getrandbits(40):08x}"[:8]
        for server in made[:room]:
            flow = self._runner.start(
                tx, BOOT, BootInput(server.id, caller),
                resource_type="server", resource_id=server.id, project_id=server.project_id, caller=caller,
            )  # fmt: skip
            now = tx.now_s
            server = changed(server, created_at_s=now, updated_at_s=now, reservation_id=reservation_id)
            kept.append(SERVERS.insert(tx, server))
            self._begin(tx, caller, server, "create", flow_id=flow.id)
            emit(
                tx, "compute.server.create", server.id, server.project_id,
                caller=caller, operation_id=flow.id, name=server.name,
            )  # fmt: skip
        return kept

    def _new(
        self,
        caller: Caller,
        ask: CreateServer,
        flavor: Flavor,
        key: KeySnapshot | None,
        image: BootImage,
        kernel: BootImage | None,
        ramdisk: BootImage | None,
        asks: tuple[PortAsk, ...],
        index: int,
    ) -> Server:
        assert caller.project_id is not None
        many = ask.max_count > 1 and ask.name_by_count
        name = f"{ask.name}-{index + 1}" if many else ask.name
        hostname = ask.hostname if ask.hostname and not many else hostname_of(name)
        id = new_id(self._world.dice)
        return Server(
            id=id,
            project_id=caller.project_id,
            user_id=caller.user_id,
            name=name,
            hostname=hostname or f"server-{id}",
            description=ask.description,
            vcpus=flavor.vcpus,
            memory_mib=flavor.memory_mib,
            created_at_s=0.0,
            updated_at_s=0.0,
            flavor=flavor,
            image=image,
            kernel=kernel,
            ramdisk=ramdisk,
            metadata=ask.metadata,
            tags=tuple(dict.fromkeys(ask.tags)),
            key=key,
            user_data=ask.user_data,
            config_drive=ask.config_drive,
            personality=ask.personality,
            availability_zone=ask.availability_zone,
            zone=ask.availability_zone,
            wanted_host=ask.host,
            security_groups=tuple(dict.fromkeys(ask.security_groups)),
            port_asks=asks,
            group_id=ask.group_id,
            same_host=tuple(ask.same_host),
            different_host=tuple(ask.different_host),
            hints=ask.hints,
            launch_index=index,
            disk_config=ask.disk_config,
            access_ipv4=ask.access_ipv4,
            access_ipv6=ask.access_ipv6,
            trusted_certificates=ask.trusted_certificates,
        )

    async def _flavor_and_key(self, caller: Caller, ask: CreateServer) -> tuple[Flavor, KeySnapshot | None]:
        def work(tx: Transaction) -> tuple[Flavor, KeySnapshot | None]:
            flavor = FLAVORS.get(tx, ask.flavor_id)
            if flavor is None or not usable_flavor(flavor, caller):
                raise Invalid("compute.no_flavor", f"flavor: there is no flavor {ask.flavor_id}.", field="flavor")
            if ask.key_name is None:
                return flavor, None
            key = KEYPAIRS.get(tx, keypair_id(caller.user_id, ask.key_name))
            if key is None:
                raise Invalid(
                    "compute.no_key", f"key_name: there is no key pair {ask.key_name} of yours.", field="key_name"
                )
            return flavor, KeySnapshot(name=key.name, type=key.type, public_key=key.public_key)

        return await self._world.store.read(work)

    async def _part(self, caller: Caller, image: BootImage, which: str) -> BootImage | None:
        id = image.properties.get(which)
        if not id:
            return None
        try:
            return await self._images.boot_image(caller, id)
        except NotFound as error:
            raise Invalid(
                "compute.no_kernel", f"image: the image's {which} {id} does not exist.", field="image"
            ) from error

    async def _check_zone(self, ask: CreateServer) -> None:
        if ask.availability_zone is None and ask.host is None:
            return
        hosts = await self._placement.hosts()
        if ask.availability_zone is not None and all(h.availability_zone != ask.availability_zone for h in hosts):
            raise Invalid(
                "compute.no_zone",
                f"availability_zone: the requested availability zone {ask.availability_zone} is not available.",
                field="availability_zone",
            )
        if ask.host is not None and all(host.name != ask.host for host in hosts):
            raise Invalid("compute.no_host", f"host: there is no compute host {ask.host}.", field="host")

    def _check_group(self, tx: Transaction, caller: Caller, group_id: str, count: int) -> None:
        group = GROUPS.get(tx, group_id)
        if group is None or (group.project_id != caller.project_id and not caller.is_admin):
            raise Invalid("compute.no_group", f"hints: there is no server group {group_id}.", field="group")
        self.quotas.check_group_members(tx, caller, group_id, count)

    # ------------------------------------------------------------------ read
    async def server(self, caller: Caller, server_id: str, action: str = "server:show") -> Server:
        return await self._world.store.read(lambda tx: load(tx, caller, server_id, action))

    async def servers(self, caller: Caller, query: Query) -> Sequence[Server]:
        """`query.where` names projects already; see the API room's filters."""
        policy.require(POLICY, "server:list", caller)
        return await self._world.store.read(lambda tx: SERVERS.page(tx, query))

    async def server_facts(self, server_id: str) -> ServerFacts | None:
        row = await self._world.store.read(lambda tx: SERVERS.get(tx, server_id))
        if row is None:
            return None
        return ServerFacts(id=row.id, project_id=row.project_id, name=row.name, host=row.host, deleted=row.deleted)

    async def ssh_address(self, caller: Caller, server_id: str) -> SshAddress:
        server = await self.server(caller, server_id, "server:show")
        for forward in server.seen.forwards if server.seen else ():
            if forward.guest_port == SSH_PORT and forward.protocol == "tcp":
                return SshAddress(forward.host_address, forward.host_port)
        for port in server.ports:
            for ip in sorted(port.fixed_ips, key=lambda ip: ip.version):
                return SshAddress(ip.address, SSH_PORT)
        raise Conflict("compute.no_address", f"Instance {server_id} has no address that leads to it yet.")

    async def metadata_for(self, server_id: str) -> Mapping[str, bytes] | None:
        row = await self._world.store.read(lambda tx: SERVERS.get(tx, server_id))
        return None if row is None or row.deleted else documents.documents(row)

    async def console_output(self, caller: Caller, server_id: str, lines: int | None) -> str:
        server = await self.server(caller, server_id, "server:console_log")
        if server.host is None or server.incarnation_id is None or server.seen is None:
            raise Conflict("compute.no_console", f"Instance {server_id} is not ready: it was not started yet.")
        return await self._console(server.host).console_log(server.incarnation_id, lines)

    async def actions(self, caller: Caller, server_id: str) -> Sequence[Action]:
        """Newest first; also of deleted servers."""

        def work(tx: Transaction) -> list[Action]:
            load(tx, caller, server_id, "server:show", deleted=True)
            found = ACTIONS.find(tx, server_id=server_id)
            return sorted(found, key=lambda action: (-action.started_at_s, action.id))

        return await self._world.store.read(work)

    # ------------------------------------------------------------------ change
    async def update(self, caller: Caller, server_id: str, ask: UpdateServer) -> Server:
        given = {
            field: getattr(ask, field) for field in ask.__struct_fields__ if getattr(ask, field) is not msgspec.UNSET
        }
        return await self._change(caller, server_id, "server:update", lambda server: given, locked=False)

    async def set_metadata(
        self, caller: Caller, server_id: str, decide_: Callable[[dict[str, str]], dict[str, str]]
    ) -> dict[str, str]:
        def fields(server: Server) -> dict[str, Any]:
            new = decide_(dict(server.metadata))
            self.quotas.check_metadata(new)
            return {"metadata": new}

        return (await self._change(caller, server_id, "server:update", fields)).metadata

    async def set_tags(
        self, caller: Caller, server_id: str, decide_: Callable[[tuple[str, ...]], tuple[str, ...]]
    ) -> tuple[str, ...]:
        server = await self._change(caller, server_id, "server:update", lambda row: {"tags": decide_(row.tags)})
        return server.tags

    async def regroup(self, caller: Caller, server_id: str, group: str, *, add: bool) -> None:
        """Into a security group, or out of it, with all ports."""

        def work(tx: Transaction) -> None:
            _check_unlocked(load(tx, caller, server_id, "server:act"), caller)

        await self._world.store.read(work)
        ports = tuple(await self._network.regroup(caller, server_id, group, add=add))
        action = "addSecurityGroup" if add else "removeSecurityGroup"
        await self._change(caller, server_id, "server:act", lambda _: {"ports": ports}, action=action)

    async def keep_password(self, server_id: str, password: str) -> None:
        def work(tx: Transaction) -> None:
            server = SERVERS.get(tx, server_id)
            if server is None or server.deleted:
                raise NotFound("compute.server.not_found", f"Instance {server_id} could not be found.")
            if server.password:
                raise Conflict("compute.password_set", "The password of this server is set already.")
            SERVERS.put(tx, changed(server, password=password))

        await self._world.store.write(work)

    async def forget_password(self, caller: Caller, server_id: str) -> None:
        await self._change(caller, server_id, "server:update", lambda _: {"password": ""}, locked=False)

    async def lock(self, caller: Caller, server_id: str, locked: bool, reason: str | None) -> None:
        fields = {"locked": locked, "locked_reason": reason if locked else None}
        await self._change(
            caller, server_id, "server:act", lambda _: fields, action="lock" if locked else "unlock", locked=False
        )

    async def reset_state(self, caller: Caller, server_id: str, error: bool) -> None:
        def fields(server: Server) -> dict[str, Any]:
            return {"error": error, "fault": server.fault if error else None}

        await self._change(caller, server_id, "server:reset_state", fields, action="reset_state", locked=False)

    async def _change(
        self,
        caller: Caller,
        server_id: str,
        may: str,
        fields: Callable[[Server], Mapping[str, Any]],
        *,
        action: str | None = None,
        locked: bool = True,
    ) -> Server:
        """Change fields that no host needs to know.  `locked`: refused on a locked server."""

        def work(tx: Transaction) -> Server:
            server = load(tx, caller, server_id, may)
            if locked:
                _check_unlocked(server, caller)
            server = SERVERS.put(tx, changed(server, updated_at_s=tx.now_s, **fields(server)))
            if action is not None:
                self._begin(tx, caller, server, action, finished=True)
            emit(tx, f"compute.server.{action or 'update'}", server.id, server.project_id, caller=caller)
            return server

        return await self._world.store.write(work)

    # ------------------------------------------------------------------ power and end
    async def power(self, caller: Caller, server_id: str, action: str) -> None:
        """start, stop, reboot, reboot_hard, pause or unpause: want it, and let the host settle it."""

        def work(tx: Transaction) -> None:
            server = load(tx, caller, server_id, "server:act")
            _check_unlocked(server, caller)
            power = decide(server, action)
            assert server.incarnation_id is not None
            incarnation = INCARNATIONS.require(tx, server.incarnation_id)
            boots = incarnation.boots + (1 if action in ("reboot", "reboot_hard", "start") else 0)
            hard = action == "reboot_hard"
            incarnation = store.want(tx, incarnation, power=power, boots=boots, hard=hard)
            server = SERVERS.put(
                tx,
                changed(
                    server, wanted=power, wanted_seq=incarnation.seq, boots=boots, hard=hard,
                    error=False, fault=None, updated_at_s=tx.now_s,
                ),
            )  # fmt: skip
            name = "reboot" if action.startswith("reboot") else action
            self._begin(tx, caller, server, name, seq=incarnation.seq)
            emit(tx, f"compute.server.{name}", server.id, server.project_id, caller=caller)
            host = incarnation.host
            tx.after_commit(lambda: self.kicks.kick(host))

        await self._world.store.write(work)

    async def delete(self, caller: Caller, server_id: str) -> None:
        def work(tx: Transaction) -> None:
            server = load(tx, caller, server_id, "server:delete")
            _check_unlocked(server, caller)
            if server.deleting:
                return
            server = SERVERS.put(tx, changed(server, deleting=True, wanted=Power.GONE, updated_at_s=tx.now_s))
            self._runner.cancel(tx, "server", server.id)
            flow = self._runner.start(
                tx, DELETE, DeleteInput(server.id, caller),
                resource_type="server", resource_id=server.id, project_id=server.project_id, caller=caller,
                live="delete",
            )  # fmt: skip
            self._begin(tx, caller, server, "delete", flow_id=flow.id)
            emit(tx, "compute.server.delete", server.id, server.project_id, caller=caller, operation_id=flow.id)

        await self._world.store.write(work)

    def _begin(
        self,
        tx: Transaction,
        caller: Caller,
        server: Server,
        action: str,
        *,
        flow_id: str | None = None,
        seq: int = 0,
        finished: bool = False,
    ) -> None:
        store.begin_action(
            tx, server, action,
            user_id=caller.user_id, project_id=caller.project_id, request_id=caller.request_id,
            id=new_id(self._world.dice), flow_id=flow_id, seq=seq, finished=finished,
        )  # fmt: skip


def load(tx: Transaction, caller: Caller, server_id: str, may: str, *, deleted: bool = False) -> Server:
    """The server, if it is there and the caller's to see; raise NotFound, or Forbidden when he may not `may`."""
    missing = NotFound("compute.server.not_found", f"Instance {server_id} could not be found.")
    server = SERVERS.get(tx, server_id)
    if server is None or (server.deleted and not deleted):
        raise missing
    policy.require_visible(caller, server.project_id, missing)
    policy.require(POLICY, may, caller, project_id=server.project_id)
    return server


def hostname_of(name: str) -> str:
    """A host name made from a display name; may be empty."""
    return _NOT_IN_HOSTNAME.sub("-", name.lower().replace("_", "-")).strip("-.")[:63].rstrip("-.")


def _check_unlocked(server: Server, caller: Caller) -> None:
    if server.locked and not caller.is_admin:
        reason = f" ({server.locked_reason})" if server.locked_reason else ""
        raise Conflict("compute.locked", f"Instance {server.id} is locked{reason}")


def _check_fit(flavor: Flavor, image: BootImage) -> None:
    if flavor.memory_mib < image.min_memory_mib:
        raise Invalid(
            "compute.too_little_memory",
            f"flavor: the flavor has {flavor.memory_mib} MiB of memory, the image needs {image.min_memory_mib}.",
            field="flavor",
        )
    need_gib = max(image.min_disk_gib, -(-image.virtual_size_bytes // (1 << 30)))
    if flavor.disk_gib and flavor.disk_gib < need_gib:
        raise Invalid(
            "compute.too_little_disk",
            f"flavor: the flavor's disk is {flavor.disk_gib} GiB, too small for requested image: "
            f"it needs {need_gib} GiB.",
            field="flavor",
        )

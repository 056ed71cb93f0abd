"""A small cloud in memory: compute and placement for real, the services around them as fakes of their contracts."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import msgspec

from apus.kernel.caller import Caller
from apus.kernel.errors import Invalid, NotFound
from apus.kernel.flow import FlowRunner
from apus.kernel.ids import child_id
from apus.kernel.world import World
from apus.services.compute.agent.agent import Agent
from apus.services.compute.agent.journal import MemoryJournal
from apus.services.compute.agent.sim import SimGuests, SimPlugs
from apus.services.compute.commands import CreateServer
from apus.services.compute.model import Flavor, Server
from apus.services.compute.service import Compute
from apus.services.compute.store import SERVERS
from apus.services.image.contract import BootImage
from apus.services.network.contract import FixedIp, PortAsk, ServerPort
from apus.services.placement.contract import HostReport, Inventory
from apus.services.placement.service import Placement

IMAGE_ID = "11111111-1111-4111-8111-111111111111"
NETWORK_ID = "22222222-2222-4222-8222-222222222222"
ALICE = Caller(
    user_id="alice", user_name="alice", project_id="p1", roles=frozenset({"member", "reader"}), request_id="req-alice"
)
BOB = Caller(user_id="bob", user_name="bob", project_id="p2", roles=frozenset({"member", "reader"}), request_id="req-b")
READER = Caller(user_id="rita", project_id="p1", roles=frozenset({"reader"}), request_id="req-rita")
ADMIN = Caller(
    user_id="admin", project_id="p0", roles=frozenset({"admin", "manager", "member", "reader"}), request_id="req-admin"
)
TINY = Flavor(id="1", name="tiny", vcpus=1, memory_mib=64, disk_gib=1)


class FakeImages:
    def __init__(self) -> None:
        self.images = {
            IMAGE_ID: BootImage(
                id=IMAGE_ID, name="micro", disk_format="qcow2", container_format="bare", size_bytes=4,
                virtual_size_bytes=1 << 20, checksum_sha512=hashlib.sha512(b"disk").hexdigest(),
                properties={"os_distro": "micro"},
            )
        }  # fmt: skip

    async def boot_image(self, caller: Caller, image_id: str) -> BootImage:
        if image_id not in self.images:
            raise NotFound("image.not_found", f"There is no image {image_id}.")
        return self.images[image_id]

    async def read(self, image_id: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        yield b"disk"


class FakeNetwork:
    """One network; addresses are counted up."""

    def __init__(self) -> None:
        self.ports: dict[str, tuple[ServerPort, ...]] = {}
        self._next = 10

    async def check_ports(
        self, caller: Caller, asks: Sequence[PortAsk] | None, security_groups: Sequence[str]
    ) -> Sequence[PortAsk]:
        for ask in asks or ():
            if ask.network_id not in (None, NETWORK_ID):
                raise Invalid("network.not_found", f"networks: there is no network {ask.network_id}.", field="networks")
        if "missing" in security_groups:
            raise NotFound("network.SecurityGroupNotFound", "Security group missing could not be found.")
        return [PortAsk(network_id=NETWORK_ID)] if asks is None else list(asks)

    async def ensure_ports(
        self,
        server_id: str,
        server_name: str,
        caller: Caller,
        asks: Sequence[PortAsk],
        security_groups: Sequence[str],
        host: str,
    ) -> Sequence[ServerPort]:
        if server_id not in self.ports:
            made = []
            for index, _ in enumerate(asks):
                self._next += 1
                address = f"10.0.{self._next // 250}.{self._next % 250 + 1}"
                made.append(
                    ServerPort(
                        id=child_id(server_id, str(index)), network_id=NETWORK_ID, network_name="private",
                        project_id=caller.project_id or "", server_id=server_id, mac=f"fa:16:3e:00:{self._next:04x}",
                        fixed_ips=(FixedIp(address=address, subnet_id="s", cidr="10.0.0.0/16"),), mtu=1500, host=host,
                        security_group_ids=("default",), security_group_names=("default",),
                    )
                )  # fmt: skip
            self.ports[server_id] = tuple(made)
        return self.ports[server_id]

    async def release_ports(self, server_id: str) -> None:
        self.ports.pop(server_id, None)

    async def regroup(self, caller: Caller, server_id: str, group: str, *, add: bool) -> Sequence[ServerPort]:
        made = []
        for port in self.ports.get(server_id, ()):
            kept = tuple(name for name in port.security_group_names if name != group) + ((group,) if add else ())
            made.append(msgspec.structs.replace(port, security_group_ids=kept, security_group_names=kept))
        self.ports[server_id] = tuple(made)
        return made

    async def ports_of(self, server_ids: Sequence[str]) -> Mapping[str, Sequence[ServerPort]]:
        return {id: self.ports[id] for id in server_ids if id in self.ports}

    async def server_at(self, network_id: str, address: str) -> str | None:
        for server_id, ports in self.ports.items():
            for port in ports:
                if port.network_id == network_id and any(fixed.address == address for fixed in port.fixed_ips):
                    return server_id
        return None


def host_report(name: str, *, vcpus: int = 64, zone: str = "nova", traits: tuple[str, ...] = ()) -> HostReport:
    return HostReport(
        host=name,
        host_id=child_id("host", name),
        inventories={
            "VCPU": Inventory(total=vcpus, allocation_ratio=4.0),
            "MEMORY_MB": Inventory(total=65536),
            "DISK_GB": Inventory(total=1000),
        },
        traits=traits,
        availability_zone=zone,
    )


class Cloud:
    def __init__(self, world: World, hosts: Sequence[str] = ("h1", "h2"), **sim: Any) -> None:
        self.world = world
        self.runner = FlowRunner(world, "control")
        self.images, self.network, self.placement = FakeImages(), FakeNetwork(), Placement(world)
        self.compute = Compute(
            world, self.runner,
            images=self.images, network=self.network, placement=self.placement, console=lambda host: self.agents[host],
        )  # fmt: skip
        self.plugs = {host: SimPlugs() for host in hosts}
        self.guests = {host: SimGuests(world.clock, self.plugs[host], **sim) for host in hosts}
        self.journals = {host: MemoryJournal() for host in hosts}
        self.agents = {host: self.new_agent(host) for host in hosts}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def new_agent(self, host: str) -> Agent:
        return Agent(
            self.world, lambda: host_report(host),
            work=self.compute.work, placement=self.placement, guests=self.guests[host], journal=self.journals[host],
        )  # fmt: skip

    async def __aenter__(self) -> Cloud:
        await self.compute.flavors.ensure(TINY)
        self.tasks["runner"] = asyncio.create_task(self.runner.run())
        self.tasks["kicks"] = asyncio.create_task(self.compute.kicks.run())
        for host in self.agents:
            self.start_agent(host)
        await asyncio.sleep(0.1)
        return self

    def start_agent(self, host: str) -> None:
        self.agents[host] = self.new_agent(host)
        self.tasks[host] = asyncio.create_task(self.agents[host].run())

    async def stop(self, name: str) -> None:
        task = self.tasks.pop(name)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def __aexit__(self, *_: Any) -> None:
        for name in list(self.tasks):
            await self.stop(name)
        await self.world.bus.close()
        await self.world.store.close()

    async def boot(self, caller: Caller = ALICE, **fields: Any) -> Server:
        ask = CreateServer(**{"name": "one", "flavor_id": "1", "image_id": IMAGE_ID, **fields})
        return (await self.compute.create_servers(caller, ask))[0]

    async def row(self, id: str) -> Server:
        return await self.world.store.read(lambda tx: SERVERS.require(tx, id))

    async def until(self, id: str, *statuses: str, within_s: float = 2000) -> Server:
        from apus.services.compute.logic.status import project

        ends_s = self.world.clock.monotonic_s() + within_s
        while True:
            server = await self.row(id)
            status = project(server)
            if status.status in statuses and status.task_state is None:
                return server
            assert self.world.clock.monotonic_s() < ends_s, f"{id} is {status}, not {statuses}: {server.fault}"
            await asyncio.sleep(0.05)

    async def nothing_left(self) -> None:
        """No guest, port, plug, claim or incarnation."""
        from apus.services.compute.store import INCARNATIONS

        assert all(not guests.states for guests in self.guests.values())
        assert not self.network.ports
        assert all(not plugs.plugged for plugs in self.plugs.values())
        assert not await self.placement.claims()
        assert await self.world.store.read(lambda tx: INCARNATIONS.find(tx)) == []
        for host in await self.placement.hosts():
            assert host.used == {}

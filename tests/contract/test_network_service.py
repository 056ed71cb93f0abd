"""What compute asks of the network, and the host's agent between the service and a simulated driver."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from apus.kernel.caller import Caller
from apus.kernel.errors import CloudError, Conflict, NotFound
from apus.services.network.agent.agent import NetworkAgent
from apus.services.network.contract import PortAsk
from apus.services.network.drivers.simulated import SimulatedDriver, SimulatedMachine
from apus.services.network.service.service import HostSide, NetworkService
from tests.contract.network_server import network_world

CALLER = Caller(user_id="u", project_id="p", roles=frozenset({"member", "reader"}))
OTHER = Caller(user_id="o", project_id="q", roles=frozenset({"member", "reader"}))


class Cloud:
    def __init__(self, service: NetworkService, agent: NetworkAgent, machine: SimulatedMachine) -> None:
        self.service, self.agent, self.machine = service, agent, machine

    async def network(self, name: str = "n", cidr: str = "10.0.0.0/24", caller: Caller = CALLER) -> str:
        network = (await self.service.create_networks(caller, [{"name": name}]))[0]
        await self.service.create_subnets(caller, [{"network_id": network.id, "cidr": cidr, "ip_version": 4}])
        return network.id


@contextlib.asynccontextmanager
async def cloud() -> AsyncIterator[Cloud]:
    async with network_world() as world:
        machine = SimulatedMachine()
        agent = NetworkAgent(world, HostSide(world), SimulatedDriver(machine), host="h1")
        await agent.start()
        yield Cloud(NetworkService(world), agent, machine)
        await agent.close()


def test_ports_of_a_server_come_once_and_go() -> None:
    async def story() -> None:
        async with cloud() as c:
            network = await c.network()
            asks = await c.service.check_ports(CALLER, None, ["default"])
            assert asks == [PortAsk(network_id=network)]
            mine = (await c.service.create_ports(CALLER, [{"network_id": network, "name": "mine"}]))[0]
            asks = [*asks, PortAsk(port_id=mine.id, tag="nic1")]
            first = await c.service.ensure_ports("server", "web", CALLER, asks, ["default"], "h1")
            assert await c.service.ensure_ports("server", "web", CALLER, asks, ["default"], "h1") == first
            assert [(p.id == mine.id, p.made_for_server, p.tag) for p in first] == [
                (False, True, None),
                (True, False, "nic1"),
            ]
            assert first[0].security_group_names == ("default",)
            with pytest.raises(Conflict):
                await c.service.check_ports(CALLER, [PortAsk(port_id=mine.id)], [])
            moved = await c.service.ensure_ports("server", "web", CALLER, asks, ["default"], "h2")
            assert {port.host for port in moved} == {"h2"}
            address = first[0].fixed_ips[0].address
            assert await c.service.server_at(network, address) == "server"
            for _ in range(2):
                await c.service.release_ports("server")
                assert await c.service.ports_of(["server"]) == {}
            left, _ = await c.service.ports(CALLER, {})
            assert [(port.id, port.device_id, port.host) for port in left] == [(mine.id, "", "")]

    asyncio.run(story())


def test_asks_are_checked_before_anything_is_made() -> None:
    async def story() -> None:
        async with cloud() as c:
            assert await c.service.check_ports(CALLER, None, []) == []
            network = await c.network()
            theirs = await c.network("theirs", caller=OTHER)
            with pytest.raises(NotFound):
                await c.service.check_ports(CALLER, [PortAsk(network_id=theirs)], [])
            with pytest.raises(NotFound):
                await c.service.check_ports(CALLER, [PortAsk(network_id=network)], ["no such group"])
            with pytest.raises(CloudError):
                await c.service.check_ports(CALLER, [PortAsk(network_id=network, fixed_ip="nonsense")], [])
            await c.network("second")
            with pytest.raises(Conflict, match="Multiple possible networks"):
                await c.service.check_ports(CALLER, None, [])

    asyncio.run(story())


def test_the_agent_plugs_follows_and_cleans() -> None:
    async def story() -> None:
        async with cloud() as c:
            network = await c.network()
            ports = [
                (await c.service.ensure_ports(server, server, CALLER, [PortAsk(network_id=network)], [], "h1"))[0]
                for server in ("web", "db")
            ]
            for port in ports:
                plug = await c.agent.plug(port)
                assert (plug.kind, plug.needs_config_drive) == ("tap", False)
            assert all(p.active for found in (await c.service.ports_of(["web", "db"])).values() for p in found)
            web, db = ports
            assert c.machine.lease(network, web.mac) == (web.fixed_ips[0].address,)
            assert c.machine.passes(web.id, db.id, 6, 5432)  # members of the default group reach each other
            group = web.security_group_ids[0]
            rules = [r for r in (await c.service.security_group(CALLER, group))[1] if r.direction == "ingress"]
            for rule in rules:
                await c.service.delete_rule(CALLER, rule.id)
            assert await asyncio.wait_for(c.agent.mailbox.next(5), 5) is None  # the first scan is always due
            await c.agent.settle("h1")
            assert not c.machine.passes(web.id, db.id, 6, 5432)
            changes = c.machine.changes
            await c.agent.settle("h1")
            assert c.machine.changes == changes
            await c.service.release_ports("web")
            await c.agent.settle("h1")
            assert set(c.machine.ports) == {db.id}
            await c.agent.unplug(db.id)
            await c.agent.unplug(db.id)
            assert not (await c.service.ports_of(["db"]))["db"][0].active
            agents = await c.service.host_agents()
            assert [(agent.id, agent.driver) for agent in agents] == [("h1", "simulated")]

    asyncio.run(story())


def test_a_port_of_another_host_is_not_plugged() -> None:
    async def story() -> None:
        async with cloud() as c:
            network = await c.network()
            port = (await c.service.ensure_ports("web", "web", CALLER, [PortAsk(network_id=network)], [], "h2"))[0]
            with pytest.raises(CloudError) as refused:
                await c.agent.plug(port)
            assert refused.value.code == "network.port_not_here"

    asyncio.run(story())

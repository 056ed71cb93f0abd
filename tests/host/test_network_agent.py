"""From the API's records to a guest's address: service, agent and real driver together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import pytest

from apus.kernel.caller import Caller
from apus.services.network.agent.agent import NetworkAgent
from apus.services.network.contract import PortAsk
from apus.services.network.drivers.flat.driver import FlatDriver
from apus.services.network.drivers.metadata_proxy import MetadataServer
from apus.services.network.service.service import HostSide, NetworkService
from tests.contract.network_server import network_world
from tests.host.guest import Guest
from tests.host.test_network_driver import PREFIX, RUN_DIRECTORY

CALLER = Caller(user_id="u", project_id="p", roles=frozenset({"member", "reader"}))


@contextlib.asynccontextmanager
async def host() -> AsyncIterator[tuple[NetworkService, NetworkAgent]]:
    async with network_world() as world:
        service = NetworkService(world)

        async def metadata(
            network_id: str, remote_ip: str, method: str, path: str, headers: Mapping[str, str], body: bytes
        ) -> tuple[int, Mapping[str, str], bytes]:
            return 200, {}, (await service.server_at(network_id, remote_ip) or "nobody").encode()

        driver = FlatDriver(
            world.run,
            world.disk,
            prefix=PREFIX,
            run_directory=RUN_DIRECTORY,
            serve_metadata=MetadataServer(metadata).serve,
        )
        agent = NetworkAgent(world, HostSide(world), driver, host="h1")
        await agent.start()
        try:
            yield service, agent
        finally:
            await agent.close()
            await driver.sweep()


@pytest.mark.root
def test_two_servers_of_a_project_and_a_rule() -> None:
    async def story() -> None:
        guests: list[Guest] = []
        async with host() as (service, agent):
            network = (await service.create_networks(CALLER, [{"name": "n", "dns_domain": "cloud.test."}]))[0].id
            for cidr, version in (("10.5.0.0/24", 4), ("fd05::/64", 6)):
                mode = "slaac" if version == 6 else None
                ask = {"cidr": cidr, "ip_version": version, "ipv6_ra_mode": mode, "ipv6_address_mode": mode}
                await service.create_subnets(CALLER, [{"network_id": network, **ask}])
            closed = (await service.create_security_groups(CALLER, [{"name": "web"}]))[0][0]
            try:
                ports = {}
                for name, group in (("web", closed.name), ("client", "default")):
                    asks = [PortAsk(network_id=network)]
                    port = (await service.ensure_ports(name, name, CALLER, asks, [group], "h1"))[0]
                    plug = await agent.plug(port)
                    # the stand-in takes the place of the TAP, so the TAP goes and the port is ensured anew
                    assert plug.tap_name is not None
                    await agent.unplug(port.id)
                    guests.append(Guest(f"{PREFIX}-{name}", plug.tap_name, port.mac))
                    await agent.plug(port)
                    ports[name] = port
                web, client = guests
                address = next(ip.address for ip in ports["web"].fixed_ips if ip.version == 4)
                for guest in guests:
                    await guest.take_lease()
                assert await client.ask_name("10.5.0.1", "web.cloud.test") == address
                assert (await web.http("169.254.169.254", "/")).endswith(b"\r\n\r\nweb")
                assert (await client.http("fe80::a9fe:a9fe", "/")).endswith(b"\r\n\r\nclient")
                listener = await web.serve(80)
                assert not await client.reaches(address, 80)
                rule = {"security_group_id": closed.id, "direction": "ingress", "protocol": "tcp"}
                group = ports["client"].security_group_ids[0]
                opened = (await service.create_rules(CALLER, [{**rule, "remote_group_id": group}]))[0]
                await agent.settle("h1")
                assert await client.reaches(address, 80)
                await service.delete_rule(CALLER, opened.id)
                await agent.settle("h1")
                assert not await client.reaches(address, 80)
                listener.close()
                for name in ("web", "client"):
                    await service.release_ports(name)
                await agent.settle("h1")
                assert (await agent._driver.inventory()).ports == ()
            finally:
                for guest in guests:
                    guest.close()

    asyncio.run(story())

"""One contract for the network drivers, simulated and real; then real traffic through the real one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec.structs
import pytest

from apus.kernel.errors import CloudError
from apus.platform.disk import LocalDisk
from apus.platform.process import LocalRunner
from apus.services.network.drivers.driver import (
    AddressSet,
    DhcpOption,
    NetworkDriver,
    NetworkSpec,
    PortSpec,
    Reservation,
    SecurityRule,
    SubnetSpec,
    TapPlug,
)
from apus.services.network.drivers.flat.commands import present_links, present_namespaces
from apus.services.network.drivers.flat.driver import FlatDriver
from apus.services.network.drivers.flat.names import Names
from apus.services.network.drivers.metadata_proxy import MetadataServer
from apus.services.network.drivers.simulated import SimulatedDriver, SimulatedMachine
from tests.host.guest import Guest, dhcp, sh

PREFIX = f"t{os.getpid() % 0x10000:04x}"


def our_links() -> list[str]:
    """Other tests make and remove theirs all the while."""
    return [line for line in sh("ip -o link").splitlines() if PREFIX in line]


RUN_DIRECTORY = Path(f"/run/apus-test-{PREFIX}")


def new_id() -> str:
    return str(uuid.uuid4())


def mac_of(number: int) -> str:
    return f"fa:16:3e:00:{number >> 8:02x}:{number & 255:02x}"


def network_spec(*, cidr: str = "10.9.0.0/24", gateway: str = "10.9.0.1", **more: object) -> NetworkSpec:
    subnet = SubnetSpec(id=new_id(), cidr=cidr, gateway_ip=gateway)
    return NetworkSpec(**{"id": new_id(), "subnets": (subnet,), "dns_domain": "cloud.test.", **more})


def with_reservations(network: NetworkSpec, *ports: PortSpec) -> NetworkSpec:
    reservations = tuple(
        Reservation(port_id=p.id, mac=p.mac, ips=p.fixed_ips, hostname=f"host-{p.mac[-2:]}") for p in ports
    )
    return msgspec.structs.replace(network, reservations=reservations)


ANY_OUT = (
    SecurityRule(direction="egress", ethertype="IPv4"),
    SecurityRule(direction="egress", ethertype="IPv6"),
)


def tcp_in(port: int, *, cidrs: tuple[str, ...] = (), group: str | None = None) -> SecurityRule:
    return SecurityRule(
        direction="ingress",
        ethertype="IPv4",
        protocol=6,
        port_min=port,
        port_max=port,
        remote_cidrs=cidrs,
        remote_set=group,
    )


def port_spec(
    network: NetworkSpec, number: int, *rules: SecurityRule, ip: str | None = None, **more: object
) -> PortSpec:
    fields: dict[str, object] = {
        "id": new_id(),
        "network_id": network.id,
        "mac": mac_of(number),
        "fixed_ips": (ip or f"10.9.0.{number}",),
        "rules": (*ANY_OUT, *rules),
    }
    return PortSpec(**{**fields, **more})


class Bench:
    """A driver on its machine, that can be restarted, and guests on its ports."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.machine = SimulatedMachine()
        self.run, self.disk = LocalRunner(), LocalDisk()
        self.asked: list[tuple[str, str, str]] = []
        self.guests: list[Guest] = []
        self.driver = self._new()

    def _new(self) -> NetworkDriver:
        if self.kind == "simulated":
            return SimulatedDriver(self.machine)
        return FlatDriver(
            self.run,
            self.disk,
            prefix=PREFIX,
            run_directory=RUN_DIRECTORY,
            serve_metadata=MetadataServer(self._metadata).serve,
        )

    async def _metadata(
        self, network_id: str, remote_ip: str, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        self.asked.append((network_id, remote_ip, path))
        return 200, {"content-type": "text/plain"}, b"you are " + remote_ip.encode()

    async def restart(self) -> None:
        """As after `kill -9`: nothing is told to the machine."""
        await self.driver.close()
        self.driver = self._new()
        await self.driver.start()

    async def guest(self, port: PortSpec) -> Guest:
        guest = Guest(f"{PREFIX}-guest{len(self.guests)}", Names(PREFIX).tap(port.id), port.mac)
        self.guests.append(guest)
        await self.driver.ensure_port(port)
        return guest

    async def close(self) -> None:
        for guest in self.guests:
            guest.close()
        await self.driver.sweep()
        self.run.close()
        self.disk.close()


@contextlib.asynccontextmanager
async def bench(kind: str) -> AsyncIterator[Bench]:
    made = Bench(kind)
    try:
        await made.driver.start()
        yield made
    finally:
        await made.close()


class TestContract:
    @pytest.fixture(params=["simulated", pytest.param("flat", marks=pytest.mark.root)])
    def kind(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_a_port_comes_and_goes_and_twice_is_once(self, kind: str) -> None:
        async def story() -> None:
            async with bench(kind) as b:
                network = network_spec()
                port = port_spec(network, 5)
                for _ in range(2):
                    await b.driver.ensure_network(with_reservations(network, port))
                    plug = await b.driver.ensure_port(port)
                    assert isinstance(plug, TapPlug)
                    await b.driver.update_sets([AddressSet(name="members", addresses=("10.9.0.5",))])
                found = await b.driver.inventory()
                assert (found.networks, found.ports, found.orphans) == ((network.id,), (port.id,), ())
                for _ in range(2):
                    await b.driver.absent_port(port.id)
                    await b.driver.absent_network(network.id)
                    found = await b.driver.inventory()
                    assert (found.networks, found.ports, found.orphans) == ((), (), ())

        asyncio.run(story())

    def test_a_restart_finds_what_is_there(self, kind: str) -> None:
        async def story() -> None:
            async with bench(kind) as b:
                network = network_spec()
                port = port_spec(network, 5)
                await b.driver.ensure_network(network)
                await b.driver.ensure_port(port)
                await b.restart()
                found = await b.driver.inventory()
                assert (found.networks, found.ports) == ((network.id,), (port.id,))
                await b.driver.ensure_network(network)
                await b.driver.ensure_port(port)
                assert await b.driver.inventory() == found

        asyncio.run(story())

    def test_a_port_needs_its_network(self, kind: str) -> None:
        async def story() -> None:
            async with bench(kind) as b:
                with pytest.raises(CloudError) as refused:
                    await b.driver.ensure_port(port_spec(network_spec(), 5))
                assert refused.value.code == "network.network_not_here"

        asyncio.run(story())

    def test_sweep_leaves_nothing(self, kind: str) -> None:
        async def story() -> None:
            async with bench(kind) as b:
                network = network_spec(nat=True)
                await b.driver.ensure_network(network)
                await b.driver.ensure_port(port_spec(network, 5))
                await b.driver.sweep()
                if kind == "flat":
                    assert not [n for n in present_links() | present_namespaces() if n.startswith(PREFIX)]
                    assert f"apus_{PREFIX}" not in sh("nft list tables")
                    assert not RUN_DIRECTORY.exists()
                else:
                    assert not b.machine.networks

        asyncio.run(story())


@pytest.mark.root
class TestTraffic:
    def test_a_guest_gets_its_address_its_names_and_its_metadata(self) -> None:
        async def story() -> None:
            async with bench("flat") as b:
                network = network_spec(mtu=1442)
                first, second = port_spec(network, 5), port_spec(network, 6)
                await b.driver.ensure_network(with_reservations(network, first, second))
                guest, stranger = await b.guest(first), await b.guest(second)
                options = await guest.take_lease()
                assert options[0] == bytes([10, 9, 0, 5])
                assert options[26] == (1442).to_bytes(2)
                assert options[3] == bytes([10, 9, 0, 1])
                assert (await stranger.take_lease())[0] == bytes([10, 9, 0, 6])
                assert await guest.ask_name("10.9.0.1", "host-06.cloud.test") == "10.9.0.6"
                answer = await guest.http("169.254.169.254", "/latest/meta-data/")
                assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
                assert answer.endswith(b"you are 10.9.0.5")
                assert b.asked == [(network.id, "10.9.0.5", "/latest/meta-data/")]
                # a port made later is known without a restart of anything; one without reservation gets nothing
                third = port_spec(network, 7)
                late = await b.guest(third)
                assert await late.run(lambda: dhcp(third.mac, patience_s=0.5)) == {}
                await b.driver.ensure_network(with_reservations(network, first, second, third))
                assert (await late.take_lease())[0] == bytes([10, 9, 0, 7])

        asyncio.run(story())

    def test_a_senseless_option_of_one_port_leaves_the_others_their_addresses(self) -> None:
        async def story() -> None:
            async with bench("flat") as b:
                network = network_spec()
                port, good, bad = port_spec(network, 5), port_spec(network, 6), port_spec(network, 7)
                await b.driver.ensure_network(with_reservations(network, port))
                boot = (DhcpOption(name="67", value="pxe.0"),)
                reservations = (
                    Reservation(port_id=port.id, mac=port.mac, ips=port.fixed_ips),
                    Reservation(port_id=good.id, mac=good.mac, ips=good.fixed_ips, options=boot),
                )
                await b.driver.ensure_network(msgspec.structs.replace(network, reservations=reservations))
                assert (await (await b.guest(good)).take_lease())[67].rstrip(b"\0") == b"pxe.0"
                nonsense = (DhcpOption(name="router", value="nowhere"),)
                spoilt = (*reservations, Reservation(port_id=bad.id, mac=bad.mac, ips=bad.fixed_ips, options=nonsense))
                await b.driver.ensure_network(msgspec.structs.replace(network, reservations=spoilt))
                assert (await (await b.guest(port)).take_lease())[0] == bytes([10, 9, 0, 5])

        asyncio.run(story())

    def test_an_address_moves_to_another_port_at_once(self) -> None:
        async def story() -> None:
            async with bench("flat") as b:
                network = network_spec()
                old, new = port_spec(network, 5), port_spec(network, 6, ip="10.9.0.5")
                await b.driver.ensure_network(with_reservations(network, old))
                assert (await (await b.guest(old)).take_lease())[0] == bytes([10, 9, 0, 5])
                await b.driver.absent_port(old.id)
                await b.driver.ensure_network(with_reservations(network, new))
                assert (await (await b.guest(new)).take_lease())[0] == bytes([10, 9, 0, 5])

        asyncio.run(story())

    def test_a_rule_opens_one_port_statefully_and_groups_are_followed(self) -> None:
        async def story() -> None:
            async with bench("flat") as b:
                network = network_spec()
                server = port_spec(
                    network, 5, tcp_in(80), tcp_in(81, group="friends"), tcp_in(82, cidrs=("10.9.0.7/32",))
                )
                client, friend = port_spec(network, 6), port_spec(network, 7)
                await b.driver.ensure_network(with_reservations(network, server, client, friend))
                one, two, three = [await b.guest(port) for port in (server, client, friend)]
                for guest in (one, two, three):
                    await guest.take_lease()
                listeners = [await one.serve(port) for port in (80, 81, 82, 83)] + [await two.serve(80)]
                reached = [await two.reaches("10.9.0.5", port) for port in (80, 81, 82, 83)]
                assert reached == [True, False, False, False]
                assert await three.reaches("10.9.0.5", 82)
                await b.driver.update_sets([AddressSet(name="friends", addresses=("10.9.0.6",))])
                assert await two.reaches("10.9.0.5", 81)
                assert not await three.reaches("10.9.0.5", 81)
                await b.driver.update_sets([AddressSet(name="friends", addresses=("10.9.0.7",))])
                assert not await two.reaches("10.9.0.5", 81)
                assert await three.reaches("10.9.0.5", 81)
                assert not await one.reaches("10.9.0.6", 80)  # answers pass, what is new does not
                for listener in listeners:
                    listener.close()

        asyncio.run(story())

    def test_a_connection_ends_with_the_rule_that_let_it_in(self) -> None:
        async def story() -> None:
            async with bench("flat") as b:
                network = network_spec()
                server = port_spec(network, 5, tcp_in(80), tcp_in(81), tcp_in(82, group="friends"))
                client = port_spec(network, 6)
                await b.driver.ensure_network(with_reservations(network, server, client))
                one, two = await b.guest(server), await b.guest(client)
                for guest in (one, two):
                    await guest.take_lease()
                await b.driver.update_sets([AddressSet(name="friends", addresses=("10.9.0.6",))])
                listeners = [await one.serve(port) for port in (80, 81, 82)]
                web, other, friendly = [await two.stream_to("10.9.0.5", listener) for listener in listeners]
                assert [await stream.carries() for stream in (web, other, friendly)] == [True] * 3

                without = tuple(rule for rule in server.rules if rule.port_min != 80)
                await b.driver.ensure_port(msgspec.structs.replace(server, rules=without))
                await b.driver.update_sets([AddressSet(name="friends", addresses=())])
                # the server may send to anyone, but not within a connection that no rule lets in
                for ended in (web, friendly):
                    assert not await ended.answers(timeout_s=0.5)
                    assert not await ended.carries(timeout_s=0.5)
                assert await other.carries()

                await b.driver.ensure_port(server)
                assert await web.carries()  # the same rule again: what the ends still hold goes on
                silent = msgspec.structs.replace(client, rules=())
                await b.driver.ensure_port(silent)
                assert not await other.carries(timeout_s=0.5)  # nor may the client go on with what it began
                for end in (web, other, friendly, *listeners):
                    end.close()

        asyncio.run(story())

    def test_a_forged_source_is_dropped(self) -> None:
        async def story() -> None:
            async with bench("flat") as b:
                network = network_spec()
                server, liar = port_spec(network, 5, tcp_in(80)), port_spec(network, 6)
                free = port_spec(network, 8, ip="10.9.0.8", port_security=False)
                await b.driver.ensure_network(with_reservations(network, server, liar, free))
                one, two, three = await b.guest(server), await b.guest(liar), await b.guest(free)
                for guest in (one, two, three):
                    await guest.take_lease()
                listener = await one.serve(80)
                assert await two.reaches("10.9.0.5", 80)
                two.ip("address flush dev eth0")
                two.ip("address add 10.9.0.77/24 dev eth0")
                assert not await two.reaches("10.9.0.5", 80)
                two.ip("address flush dev eth0")
                two.ip("address add 10.9.0.6/24 dev eth0")
                assert await two.reaches("10.9.0.5", 80)
                two.ip("link set eth0 address fa:16:3e:00:00:99")
                assert not await two.reaches("10.9.0.5", 80)
                three.ip("address add 10.9.0.78/24 dev eth0")  # port security off: it may be who it likes
                three.ip("link set eth0 address fa:16:3e:00:00:98")
                assert await three.reaches("10.9.0.5", 80)
                listener.close()

        asyncio.run(story())

    def test_tenants_with_the_same_addresses_are_apart(self) -> None:
        async def story() -> None:
            async with bench("flat") as b:
                mine, theirs = network_spec(nat=True), network_spec(nat=True)
                ours = [port_spec(mine, 5, tcp_in(80)), port_spec(mine, 6)]
                others = [port_spec(theirs, 5, tcp_in(80)), port_spec(theirs, 7)]
                await b.driver.ensure_network(with_reservations(mine, *ours))
                await b.driver.ensure_network(with_reservations(theirs, *others))
                server, client, _, stranger = [await b.guest(port) for port in (*ours, *others)]
                for guest in b.guests:
                    await guest.take_lease()
                listener = await server.serve(80)
                assert await client.reaches("10.9.0.5", 80)
                assert not await stranger.reaches("10.9.0.5", 80)  # in its own network nobody listens there
                for guest in (client, stranger):
                    await guest.http("169.254.169.254", "/")
                assert b.asked == [(mine.id, "10.9.0.6", "/"), (theirs.id, "10.9.0.7", "/")]
                listener.close()

        asyncio.run(story())

    def test_the_outside_sees_the_host_and_the_host_reaches_guests(self) -> None:
        async def story() -> None:
            outside = Outside()
            try:
                async with bench("flat") as b:
                    network = network_spec(nat=True, host_reachable=True, cidr="10.91.7.0/24", gateway="10.91.7.1")
                    port = port_spec(network, 5, tcp_in(22), ip="10.91.7.5")
                    await b.driver.ensure_network(with_reservations(network, port))
                    guest = await b.guest(port)
                    await guest.take_lease()
                    listener = await outside.serve(7070)
                    assert await guest.reaches("198.18.77.2", 7070)
                    assert await asyncio.to_thread(listener.accept) == "198.18.77.1"
                    inside = await guest.serve(22)
                    _, writer = await asyncio.wait_for(asyncio.open_connection("10.91.7.5", 22), 2)
                    writer.close()
                    with pytest.raises((OSError, TimeoutError)):
                        await asyncio.wait_for(asyncio.open_connection("10.91.7.5", 23), 0.3)
                    # the host's own services are not the guests'
                    own = await asyncio.start_server(lambda r, w: w.close(), "0.0.0.0", 7071)
                    assert not await guest.reaches("198.18.77.1", 7071)
                    own.close()
                    overlapping = network_spec(host_reachable=True, cidr="10.91.0.0/16", gateway="10.91.0.1")
                    with pytest.raises(CloudError) as refused:
                        await b.driver.ensure_network(overlapping)
                    assert refused.value.code == "network.route_overlaps"
                    listener.close()
                    inside.close()
            finally:
                outside.close()

        asyncio.run(story())

    def test_traffic_does_not_notice_a_restart(self) -> None:
        async def story() -> None:
            async with bench("flat") as b:
                network = network_spec(nat=True)
                server, client = port_spec(network, 5, tcp_in(80)), port_spec(network, 6)
                full = with_reservations(network, server, client)
                await b.driver.ensure_network(full)
                one, two = await b.guest(server), await b.guest(client)
                for guest in (one, two):
                    await guest.take_lease()
                listener = await one.serve(80)
                before = our_links(), sh(f"ip -n {Names(PREFIX).namespace(network.id)} -o address")
                pid = (RUN_DIRECTORY / Names(PREFIX).bridge(network.id)[-9:] / "dnsmasq.pid").read_text()
                await b.restart()
                assert await two.reaches("10.9.0.5", 80)
                await b.driver.ensure_network(full)
                await b.driver.ensure_port(server)
                await b.driver.ensure_port(client)
                assert (our_links(), sh(f"ip -n {Names(PREFIX).namespace(network.id)} -o address")) == before
                assert (RUN_DIRECTORY / Names(PREFIX).bridge(network.id)[-9:] / "dnsmasq.pid").read_text() == pid
                assert await two.reaches("10.9.0.5", 80)
                assert (await two.http("169.254.169.254", "/")).endswith(b"you are 10.9.0.6")
                listener.close()

        asyncio.run(story())

    def test_ipv6_by_slaac(self) -> None:
        async def story() -> None:
            async with bench("flat") as b:
                subnet = SubnetSpec(
                    id=new_id(),
                    cidr="fd00:9::/64",
                    gateway_ip="fd00:9::1",
                    ipv6_ra_mode="slaac",
                    ipv6_address_mode="slaac",
                )
                network = network_spec(subnets=(subnet,))
                port = port_spec(network, 5, ip="fd00:9::f816:3eff:fe00:5")
                await b.driver.ensure_network(with_reservations(network, port))
                guest = await b.guest(port)
                async with asyncio.timeout(8):
                    while await guest.local_address_towards("fd00:9::1", 53) != "fd00:9::f816:3eff:fe00:5":
                        pass
                answer = await guest.http("fe80::a9fe:a9fe", "/x")
                assert b"you are fe80::f816:3eff:fe00:5" in answer

        asyncio.run(story())


class Outside(Guest):
    """Another machine beyond the host's own interface."""

    def __init__(self) -> None:
        super().__init__(f"{PREFIX}-outside", f"{PREFIX}xout", "02:00:00:00:00:77")
        sh(f"ip address add 198.18.77.1/24 dev {self.tap_name}")
        sh(f"ip link set {self.tap_name} up")
        self.ip("address add 198.18.77.2/24 dev eth0")

"""An address belongs to one port, whatever is asked in whatever order; and the choice is from the pools."""

from __future__ import annotations

import asyncio
import ipaddress
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from apus.kernel.caller import Caller
from apus.kernel.errors import CloudError
from apus.services.network.logic import addresses
from apus.services.network.service.service import NetworkService
from apus.services.network.store import ADDRESSES, PORTS
from tests.contract.network_server import network_world

CALLER = Caller(user_id="u", project_id="p", roles=frozenset({"member", "reader"}))


@settings(deadline=None)  # a machine that is busy is no failure
@given(
    prefix=st.integers(min_value=24, max_value=30),
    gateway=st.integers(min_value=1, max_value=254),
    seed=st.integers(min_value=0),
)
def test_every_address_is_given_once_and_then_none(prefix: int, gateway: int, seed: int) -> None:
    cidr = ipaddress.ip_network(f"10.0.0.0/{prefix}")
    door = int(cidr.network_address) + gateway % (cidr.num_addresses - 2) + 1
    pools = addresses.without(addresses.usable(cidr), door)
    dice, taken = Random(seed), set()
    while (chosen := addresses.choose(pools, taken, dice)) is not None:
        assert chosen not in taken
        taken.add(chosen)
    assert taken == {int(host) for host in cidr.hosts()} - {door}


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=4),
    st.sets(st.integers(0, 300)),
    st.integers(min_value=0),
)
def test_a_choice_is_free_and_in_a_pool(pieces: list[tuple[int, int]], taken: set[int], seed: int) -> None:
    pools = [
        (start * 70 + index * 10_000, start * 70 + index * 10_000 + size) for index, (start, size) in enumerate(pieces)
    ]
    chosen = addresses.choose(pools, taken, Random(seed))
    free = [n for first, last in pools for n in range(first, last + 1) if n not in taken]
    assert (chosen is None) == (not free)
    assert chosen is None or chosen in free


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("any"), st.just(0)),
        st.tuples(st.just("this"), st.integers(0, 17)),
        st.tuples(st.just("move"), st.integers(0, 17)),
        st.tuples(st.just("delete"), st.integers(0, 20)),
    ),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(STEPS, st.integers(0, 1000))
def test_an_address_belongs_to_one_port(steps: list[tuple[str, int]], seed: int) -> None:
    async def story() -> None:
        async with network_world() as world:
            service = NetworkService(world)
            network = (await service.create_networks(CALLER, [{"name": "n"}]))[0]
            cidr = {"network_id": network.id, "cidr": "10.0.0.0/28", "ip_version": 4}
            await service.create_subnets(CALLER, [cidr])
            for verb, number in steps:
                asked = [{"ip_address": str(ipaddress.ip_address("10.0.0.0") + number)}]
                ports, _ = await service.ports(CALLER, {})
                ports.sort(key=lambda port: port.created_at_s)
                try:
                    if verb == "any":
                        await service.create_ports(CALLER, [{"network_id": network.id}])
                    elif verb == "this":
                        await service.create_ports(CALLER, [{"network_id": network.id, "fixed_ips": asked}])
                    elif verb == "move" and ports:
                        await service.update_port(CALLER, ports[seed % len(ports)].id, {"fixed_ips": asked})
                    elif verb == "delete" and ports:
                        await service.delete_port(CALLER, ports[number % len(ports)].id)
                except CloudError:
                    continue
            rows = await service.read(lambda tx: {row.address: row.port_id for row in ADDRESSES.find(tx)})
            held = await service.read(lambda tx: [(ip.ip_address, p.id) for p in PORTS.find(tx) for ip in p.fixed_ips])
            assert len(dict(held)) == len(held), "an address of two ports"
            assert dict(held) == rows
            assert "10.0.0.1" not in rows
            assert all(1 <= int(ip.rpartition(".")[2]) <= 14 for ip in rows)

    asyncio.run(story())

"""What is always true of a cluster, and what is true once it is quiet.  Each gives the list of what is not so."""

from __future__ import annotations

from collections import Counter

from apus.kernel.flow import FlowState, flows_of
from apus.kernel.flow.log import page_flows
from apus.kernel.world import Transaction
from apus.services.compute.contract import Power
from apus.services.compute.logic.status import project
from apus.services.compute.model import Incarnation
from apus.services.compute.store import INCARNATIONS, SERVERS
from apus.services.network.model import Port
from apus.services.network.store import ADDRESSES, PLUGGED, PORTS
from apus.services.placement.service import added
from apus.services.placement.store import ALLOCATIONS, PROVIDERS
from tests.sim.cluster import HOSTS, JOURNAL, Cluster

FLOWS_MAX = 1000


def one_copy_each(cluster: Cluster) -> list[str]:
    """Never two running copies of one server."""
    copies: Counter[str] = Counter()
    for name in HOSTS:
        copies.update(cluster.machines[name].running().values())
    return [f"{count} copies of {server} run" for server, count in copies.items() if count > 1]


def consistent(tx: Transaction) -> list[str]:
    """Of one snapshot of the store, at any time."""
    return [*_claims(tx), *_addresses(tx)]


def _claims(tx: Transaction) -> list[str]:
    wrong = []
    held: dict[str, dict[str, int]] = {}
    where: dict[str, str] = {}
    for claim in ALLOCATIONS.find(tx):
        held[claim.provider_id] = added(held.get(claim.provider_id, {}), claim.resources)
        if claim.consumer_id in where:
            wrong.append(f"{claim.consumer_id} has two claims")
        where[claim.consumer_id] = claim.provider_name
    for host in PROVIDERS.find(tx):
        if host.used != held.get(host.id, {}):
            wrong.append(f"{host.name} is used {host.used}, its claims are {held.get(host.id, {})}")
        for name, used in host.used.items():
            if used > host.inventories[name].capacity:
                wrong.append(f"{host.name}: {used} {name} claimed of {host.inventories[name].capacity}")
    incarnations = INCARNATIONS.find(tx)
    for one in incarnations:
        # the claim of one that is gone is released first, then it is forgotten
        if where.get(one.server_id) != one.host and not one.gone:
            wrong.append(f"incarnation {one.id} on {one.host} has its claim on {where.get(one.server_id)}")
    owned = {one.server_id for one in incarnations}
    for consumer in where:
        if consumer not in owned and not _flow_lives(tx, consumer):
            wrong.append(f"the claim of {consumer} on {where[consumer]} has no owner")
    return wrong


def _flow_lives(tx: Transaction, server_id: str) -> bool:
    return any(flow.state.live for flow in flows_of(tx, server_id))


def _addresses(tx: Transaction) -> list[str]:
    wrong = []
    taken = {f"{row.subnet_id}/{row.address}": row.port_id for row in ADDRESSES.find(tx)}
    of_ports: dict[str, str] = {}
    for port in PORTS.find(tx):
        for ip in port.fixed_ips:
            key = f"{ip.subnet_id}/{ip.ip_address}"
            if key in of_ports:
                wrong.append(f"{key} belongs to {port.id} and {of_ports[key]}")
            of_ports[key] = port.id
    if taken != of_ports:
        wrong.append(f"addresses taken are {taken}, those of ports {of_ports}")
    return wrong


async def unquiet(cluster: Cluster) -> list[str]:
    """What is still to be done, or was left behind."""
    for name in HOSTS:
        if not cluster.node(name).is_up:
            return [f"{name} is down"]
    left, incarnations, ports, plugged = await cluster.read(_rows)
    left += await cluster.read(consistent)
    for name in HOSTS:
        here = [one for one in incarnations if one.host == name]
        left += _host(cluster, name, here, [port for port in ports if port.host == name], plugged)
    return left


def _rows(tx: Transaction) -> tuple[list[str], list[Incarnation], list[Port], set[str]]:
    left = []
    for flow in page_flows(tx, project_id=None, state=None, resource_id=None, limit=FLOWS_MAX):
        if flow.state.live:
            left.append(f"flow {flow.saga} of {flow.resource_id} is {flow.state}: {flow.reason} {flow.log[-1]}")
        elif flow.state is FlowState.UNWOUND and not flow.reason:
            left.append(f"flow {flow.saga} of {flow.resource_id} was undone for no reason")
    incarnations, ports = INCARNATIONS.find(tx), PORTS.find(tx)
    owners = {one.server_id for one in incarnations}
    for server in SERVERS.find(tx, deleted=False):
        status = project(server)
        if status.task_state is not None or (status.status != "ERROR" and not server.settled):
            left.append(f"server {server.id} is {status}")
        elif status.status != "ERROR" and server.id not in owners:
            left.append(f"server {server.id} is {status} and has no incarnation")
        elif status.status == "ERROR" and (server.fault is None or not server.fault.message):
            left.append(f"server {server.id} is in ERROR for no reason")
    for one in incarnations:
        if one.power is Power.GONE:
            left.append(f"incarnation {one.id} of {one.server_id} on {one.host} is not gone: {one.found}")
    claims = {claim.consumer_id: claim.provider_name for claim in ALLOCATIONS.find(tx)}
    if claims != {one.server_id: one.host for one in incarnations}:
        left.append(f"claims {claims}, incarnations {[(one.server_id, one.host) for one in incarnations]}")
    for port in ports:
        if (port.device_id, port.host) not in claims.items():
            left.append(f"port {port.id} of {port.device_id} on {port.host} has no owner")
    return left, incarnations, ports, {row.id for row in PLUGGED.find(tx)}


def _host(cluster: Cluster, name: str, here: list[Incarnation], ports: list[Port], plugged: set[str]) -> list[str]:
    machine, left = cluster.machines[name], []
    wanted = {one.id for one in here}
    if machine.guests() != wanted:
        left.append(f"guests on {name} are {sorted(machine.guests())}, wanted {sorted(wanted)}")
    running = machine.running()
    for one in here:
        runs = one.found is not None and one.found.power in (Power.ON, Power.PAUSED)
        if runs is not (one.id in running):
            left.append(f"guest {one.id} on {name} was found {one.found} and is not so")
    mine = {port.id for port in ports}
    if not set(machine.network.ports) <= mine:
        left.append(f"plugs on {name} without an owner: {sorted(set(machine.network.ports) - mine)}")
    for port in ports:
        if port.device_id in running.values() and port.id not in machine.network.ports:
            left.append(f"port {port.id} on {name} is not plugged")
    if plugged & mine != set(machine.network.ports):
        left.append(f"plugged on {name}: heard {sorted(plugged & mine)}, found {sorted(machine.network.ports)}")
    if not mine and machine.network.networks:
        left.append(f"networks on {name} without a port: {sorted(machine.network.networks)}")
    journal = {path.stem for path in cluster.node(name).drive.files if path.parent == JOURNAL}
    if journal != wanted:
        left.append(f"the journal of {name} knows {sorted(journal)}, wanted {sorted(wanted)}")
    return left

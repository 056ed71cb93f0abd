"""What is always true of a cluster, and what is true once it is quiet.  Each gives the list of what is not so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from apus.kernel.events import events_after
from apus.kernel.flow import FlowState, flows_of
from apus.kernel.flow.log import page_flows
from apus.kernel.world import Transaction
from apus.services.compute.contract import Power
from apus.services.compute.logic.status import project
from apus.services.compute.model import Incarnation
from apus.services.compute.store import ACTIONS, INCARNATIONS, SERVERS
from apus.services.network.model import Port
from apus.services.network.store import ADDRESSES, PLUGGED, PORTS
from apus.services.placement.service import added
from apus.services.placement.store import ALLOCATIONS, PROVIDERS
from tests.sim.cluster import HOSTS, JOURNAL, Cluster, Pulse

FLOWS_MAX = 1000


def one_copy_each(cluster: Cluster) -> list[str]:
    """Never two running copies of one server."""
    copies: Counter[str] = Counter()
    for name in HOSTS:
        copies.update(pulse.server_id for pulse in cluster.machines[name].running().values())
    return [f"{count} copies of {server} run" for server, count in copies.items() if count > 1]


class Witness:
    """Looks again and again: what running guests notice, and what goes back that must not."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._pulses: dict[str, dict[str, Pulse]] = {name: {} for name in HOSTS}
        self._newest: dict[str, tuple[int, int, int, int]] = {}

    async def look(self) -> list[str]:
        rows = {row.id: row for row in await self._cluster.read(INCARNATIONS.find)}
        bound = await self._cluster.read(lambda tx: dict(tx.execute("SELECT id, host FROM network_port")))
        wrong = self._went_back(rows)
        for name in HOSTS:
            machine, before = self._cluster.machines[name], self._pulses[name]
            now = self._pulses[name] = machine.running()
            for id, pulse in before.items():
                if id not in machine.ended:
                    wrong += _noticed(name, id, pulse, now.get(id), rows.get(id))
            machine.ended.clear()
            wrong += [f"{id} runs on {name} and is forgotten" for id in now if id not in rows]
            plugged = machine.network.ports
            wrong += [
                f"port {id} is plugged on {name}, and bound to {bound.get(id)}"
                for id in plugged
                if bound.get(id) != name
            ]
        return wrong

    def _went_back(self, rows: dict[str, Incarnation]) -> list[str]:
        wrong = []
        for id, row in rows.items():
            found = row.found
            now = (row.seq, row.boots, found.counter if found is not None else 0, found.seq if found is not None else 0)
            was = self._newest.get(id, now)
            if any(one < other for one, other in zip(now, was, strict=True)):
                wrong.append(
                    f"incarnation {id} went back from {was} to {now} (wish, boots, word of its host, of which wish)"
                )
            self._newest[id] = now
        return wrong


def _noticed(host: str, id: str, was: Pulse, now: Pulse | None, row: Incarnation | None) -> list[str]:
    if now is None or now.boots != was.boots:
        asked = row is None or row.power in (Power.OFF, Power.GONE) or row.boots > was.boots
        return [] if asked else [f"guest {id} on {host} was ended in its boot {was.boots} and nobody asked for it"]
    lost = [port for port, device in was.devices.items() if now.devices.get(port) != device]
    return [f"guest {id} on {host} lost the device of port {port}" for port in lost]


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
    for name in cluster.nodes:
        if not cluster.node(name).is_up or cluster.node(name).sleeps:
            return [f"{name} is down, or sleeps"]
    left, incarnations, ports, plugged = await cluster.read(_rows)
    left += await cluster.read(consistent)
    left += await cluster.read(_told)
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
        if (port.made_for_server or port.device_id) and (port.device_id, port.host) not in claims.items():
            left.append(f"port {port.id} of {port.device_id} on {port.host} has no owner")
    return left, incarnations, ports, {row.id for row in PLUGGED.find(tx)}


def _told(tx: Transaction) -> list[str]:
    """Each action ends, and has its event; each end of a boot or a deletion is told once."""
    left = []
    events = Counter(_events(tx))
    actions: Counter[tuple[str, str]] = Counter()
    live = {server.id for server in SERVERS.find(tx, deleted=False)}
    for action in ACTIONS.find(tx):
        actions[action.server_id, action.action] += 1
        if not action.finished and action.server_id in live:
            left.append(f"the action {action.action} of {action.server_id} has not ended")
    ends = ("active", "deleted", "failed")
    for server in SERVERS.find(tx):
        actions[server.id, "active"] = int(server.launched_at_s is not None)
        actions[server.id, "deleted"] = int(server.deleted)
        actions[server.id, "failed"] = events[server.id, "failed"] if server.launched_at_s is None else 0
    told = Counter({key: count for key, count in events.items() if key[1] in ends or key in actions})
    for id, what in sorted({*told, *actions}):
        if told[id, what] != actions[id, what]:
            left.append(f"{what} of {id} happened {actions[id, what]} times and was told {told[id, what]} times")
    return left


def _events(tx: Transaction) -> Iterator[tuple[str, str]]:
    seq = 0
    while page := events_after(tx, seq):
        for event in page:
            service, noun, what = event.kind.split(".")
            if (service, noun) == ("compute", "server"):
                yield event.resource_id, what
        seq = page[-1].seq


def _host(cluster: Cluster, name: str, here: list[Incarnation], ports: list[Port], plugged: set[str]) -> list[str]:
    machine, left = cluster.machines[name], []
    wanted = {one.id for one in here}
    if machine.guests() != wanted:
        left.append(f"guests on {name} are {sorted(machine.guests())}, wanted {sorted(wanted)}")
    running = machine.running()
    owners = {pulse.server_id for pulse in running.values()}
    for one in here:
        runs = one.found is not None and one.found.power in (Power.ON, Power.PAUSED)
        if runs is not (one.id in running):
            left.append(f"guest {one.id} on {name} was found {one.found} and is not so")
    mine = {port.id for port in ports}
    if not set(machine.network.ports) <= mine:
        left.append(f"plugs on {name} without an owner: {sorted(set(machine.network.ports) - mine)}")
    for port in ports:
        if port.device_id in owners and port.id not in machine.network.ports:
            left.append(f"port {port.id} on {name} is not plugged")
    if plugged & mine != set(machine.network.ports):
        left.append(f"plugged on {name}: heard {sorted(plugged & mine)}, found {sorted(machine.network.ports)}")
    if not mine and machine.network.networks:
        left.append(f"networks on {name} without a port: {sorted(machine.network.networks)}")
    journal = {path.stem for path in cluster.node(name).drive.files if path.parent == JOURNAL}
    if journal != wanted:
        left.append(f"the journal of {name} knows {sorted(journal)}, wanted {sorted(wanted)}")
    return left

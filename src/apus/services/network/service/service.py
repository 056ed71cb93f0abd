"""The network service: each method is one transaction, and then a hint to the hosts that it concerns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from apus.kernel.caller import Caller
from apus.kernel.record import changed
from apus.kernel.world import Transaction, World
from apus.services.network.agent.wanted import HostWanted, host_subject
from apus.services.network.contract import PortAsk, ServerPort
from apus.services.network.logic.limits import QUOTA_DEFAULTS
from apus.services.network.model import HostAgent, Network, Port, Quota, Rule, SecurityGroup, Subnet
from apus.services.network.service import groups, hosts, networks, ports, servers
from apus.services.network.service.refusals import bad_input, missing
from apus.services.network.service.rights import COUNTED, check_quota, limit_of
from apus.services.network.store import (
    GROUPS,
    HOST_AGENTS,
    NETWORKS,
    PLUGGED,
    PORTS,
    QUOTAS,
    RULES,
    SUBNETS,
    plugged_among,
)

T = TypeVar("T")
Fields = Mapping[str, Any]


class NetworkService:
    """Implements the contract's NetworkService, and what the API and the hosts' agents ask."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def _write(self, work: Callable[[Transaction, set[str]], T]) -> T:
        """Hosts that the work names are hinted at after the commit; a lost hint is found by their scan."""
        concerned: set[str] = set()
        result = await self._world.store.write(lambda tx: work(tx, concerned))
        for host in sorted(concerned - {""}):
            await self._world.bus.publish(host_subject(host))
        return result

    async def read(self, work: Callable[[Transaction], T]) -> T:
        return await self._world.store.read(work)

    # networks and subnets

    async def networks(self, caller: Caller) -> list[tuple[Network, list[str]]]:
        """Networks with the ids of their subnets."""

        def work(tx: Transaction) -> list[tuple[Network, list[str]]]:
            found = networks.visible_networks(tx, caller)
            below: dict[str, list[str]] = {network.id: [] for network in found}
            every = SUBNETS.find(tx) if len(found) > 200 else SUBNETS.find(tx, network_id=list(below))
            for subnet in sorted(every, key=lambda subnet: (subnet.created_at_s, subnet.id)):
                if subnet.network_id in below:
                    below[subnet.network_id].append(subnet.id)
            return [(network, below[network.id]) for network in found]

        return await self.read(work)

    async def network(self, caller: Caller, id: str) -> tuple[Network, list[str]]:
        def work(tx: Transaction) -> tuple[Network, list[str]]:
            return networks.get_network(tx, caller, id), _subnet_ids(tx, id)

        return await self.read(work)

    async def create_networks(self, caller: Caller, asks: Sequence[Fields]) -> list[Network]:
        dice = self._world.dice
        return await self._write(lambda tx, _: [networks.create_network(tx, caller, dice, ask) for ask in asks])

    async def update_network(self, caller: Caller, id: str, fields: Fields) -> tuple[Network, list[str]]:
        def work(tx: Transaction, concerned: set[str]) -> tuple[Network, list[str]]:
            updated = networks.update_network(tx, caller, id, fields)
            concerned |= _hosts_on(tx, id)
            return updated, _subnet_ids(tx, id)

        return await self._write(work)

    async def delete_network(self, caller: Caller, id: str) -> None:
        await self._write(lambda tx, _: networks.delete_network(tx, caller, id))

    async def subnets(self, caller: Caller) -> list[Subnet]:
        return await self.read(lambda tx: networks.visible_subnets(tx, caller))

    async def subnet(self, caller: Caller, id: str) -> Subnet:
        return await self.read(lambda tx: networks.get_subnet(tx, caller, id))

    async def create_subnets(self, caller: Caller, asks: Sequence[Fields]) -> list[Subnet]:
        def work(tx: Transaction, concerned: set[str]) -> list[Subnet]:
            made = [networks.create_subnet(tx, caller, self._world.dice, ask) for ask in asks]
            for subnet in made:
                concerned |= _hosts_on(tx, subnet.network_id)
            return made

        return await self._write(work)

    async def update_subnet(self, caller: Caller, id: str, fields: Fields) -> Subnet:
        def work(tx: Transaction, concerned: set[str]) -> Subnet:
            updated = networks.update_subnet(tx, caller, self._world.dice, id, fields)
            concerned |= _hosts_on(tx, updated.network_id)
            return updated

        return await self._write(work)

    async def delete_subnet(self, caller: Caller, id: str) -> None:
        def work(tx: Transaction, concerned: set[str]) -> None:
            concerned |= _hosts_on(tx, networks.get_subnet(tx, caller, id).network_id)
            networks.delete_subnet(tx, caller, id)

        await self._write(work)

    # ports

    async def ports(self, caller: Caller, where: Fields) -> tuple[list[Port], set[str]]:
        """Ports, and which of them are plugged; `where` is on columns."""

        def work(tx: Transaction) -> tuple[list[Port], set[str]]:
            found = ports.visible_ports(tx, caller, where)
            return found, plugged_among(tx, [port.id for port in found])

        return await self.read(work)

    async def port(self, caller: Caller, id: str) -> tuple[Port, bool]:
        return await self.read(lambda tx: (ports.get_port(tx, caller, id), PLUGGED.get(tx, id) is not None))

    async def create_ports(self, caller: Caller, asks: Sequence[Fields]) -> list[Port]:
        dice = self._world.dice
        return await self._write(lambda tx, concerned: ports.create_ports(tx, caller, dice, asks, concerned))

    async def update_port(self, caller: Caller, id: str, fields: Fields) -> tuple[Port, bool]:
        def work(tx: Transaction, concerned: set[str]) -> tuple[Port, bool]:
            updated = ports.update_port(tx, caller, self._world.dice, id, fields, concerned)
            return updated, PLUGGED.get(tx, id) is not None

        return await self._write(work)

    async def delete_port(self, caller: Caller, id: str) -> None:
        await self._write(lambda tx, concerned: ports.delete_port(tx, caller, id, concerned))

    # security groups

    async def security_groups(self, caller: Caller) -> list[tuple[SecurityGroup, list[Rule]]]:
        def work(tx: Transaction, _: set[str]) -> list[tuple[SecurityGroup, list[Rule]]]:
            if caller.project_id is not None:
                groups.ensure_default(tx, caller.project_id)
            found = groups.visible_groups(tx, caller)
            below: dict[str, list[Rule]] = {group.id: [] for group in found}
            for rule in groups.visible_rules(tx, caller):
                if rule.group_id in below:
                    below[rule.group_id].append(rule)
            return [(group, below[group.id]) for group in found]

        return await self._write(work)

    async def security_group(self, caller: Caller, id: str) -> tuple[SecurityGroup, list[Rule]]:
        def work(tx: Transaction) -> tuple[SecurityGroup, list[Rule]]:
            return groups.get_group(tx, caller, id), _rules_of(tx, id)

        return await self.read(work)

    async def create_security_groups(
        self, caller: Caller, asks: Sequence[Fields]
    ) -> list[tuple[SecurityGroup, list[Rule]]]:
        def work(tx: Transaction, _: set[str]) -> list[tuple[SecurityGroup, list[Rule]]]:
            made = [groups.create_group(tx, caller, self._world.dice, ask) for ask in asks]
            return [(group, _rules_of(tx, group.id)) for group in made]

        return await self._write(work)

    async def update_security_group(self, caller: Caller, id: str, fields: Fields) -> tuple[SecurityGroup, list[Rule]]:
        return await self._write(lambda tx, _: (groups.update_group(tx, caller, id, fields), _rules_of(tx, id)))

    async def delete_security_group(self, caller: Caller, id: str) -> None:
        await self._write(lambda tx, _: groups.delete_group(tx, caller, id))

    async def rules(self, caller: Caller) -> list[Rule]:
        return await self.read(lambda tx: groups.visible_rules(tx, caller))

    async def rule(self, caller: Caller, id: str) -> Rule:
        return await self.read(lambda tx: groups.get_rule(tx, caller, id))

    async def create_rules(self, caller: Caller, asks: Sequence[Fields]) -> list[Rule]:
        dice = self._world.dice
        return await self._write(lambda tx, concerned: groups.create_rules(tx, caller, dice, asks, concerned))

    async def delete_rule(self, caller: Caller, id: str) -> None:
        await self._write(lambda tx, concerned: groups.delete_rule(tx, caller, id, concerned))

    # tags and quotas

    async def change_tags(
        self, caller: Caller, noun: str, id: str, change: Callable[[set[str]], set[str]], *, write: bool
    ) -> list[str]:
        """The tags afterwards; without `write` they stay as they are."""

        def work(tx: Transaction) -> list[str]:
            if noun not in _TAGGED:
                raise missing("TagResourceNotFound", "Resource", noun)
            table, get = _TAGGED[noun]
            record = get(tx, caller, id)
            tags = sorted(change(set(record.tags)))
            if write and tuple(tags) != record.tags:
                table.put(tx, changed(record, tags=tuple(tags)))
            return tags

        return await (self._write(lambda tx, _: work(tx)) if write else self.read(work))

    def now_s(self) -> float:
        return self._world.clock.now_s()

    async def quotas(self, project_id: str) -> dict[str, tuple[int, int]]:
        """Noun -> (limit, in use)."""

        def work(tx: Transaction) -> dict[str, tuple[int, int]]:
            found = {}
            for noun in QUOTA_DEFAULTS:
                used = COUNTED[noun].count(tx, project_id=project_id) if noun in COUNTED else 0
                found[noun] = (limit_of(tx, project_id, noun), used)
            return found

        return await self.read(work)

    async def set_quotas(self, project_id: str, limits: Mapping[str, int], *, above_use: bool = False) -> None:
        """`above_use`: raise OverQuota for a limit below what is in use."""
        for noun, limit in limits.items():
            if noun not in QUOTA_DEFAULTS:
                raise bad_input(noun, f"Unrecognized attribute(s) '{noun}'")
            if not -1 <= limit <= 2_147_483_647:
                raise bad_input(noun, f"'{limit}' is not between -1 and 2147483647")

        def work(tx: Transaction, _: set[str]) -> None:
            known = QUOTAS.get(tx, project_id)
            if known is None:
                QUOTAS.insert(tx, Quota(id=project_id, limits=dict(limits)))
            else:
                QUOTAS.put(tx, changed(known, limits={**known.limits, **limits}))
            for noun in limits.keys() & COUNTED.keys() if above_use else ():
                check_quota(tx, project_id, noun, 0)

        await self._write(work)

    async def reset_quotas(self, project_id: str) -> None:
        await self._write(lambda tx, _: QUOTAS.delete(tx, project_id))

    async def set_quotas_of_all(self) -> list[Quota]:
        return await self.read(lambda tx: QUOTAS.find(tx))

    async def host_agents(self) -> list[HostAgent]:
        return await self.read(lambda tx: sorted(HOST_AGENTS.find(tx), key=lambda agent: agent.id))

    # the contract with compute

    async def check_ports(
        self, caller: Caller, asks: Sequence[PortAsk] | None, security_groups: Sequence[str]
    ) -> Sequence[PortAsk]:
        return await self._write(lambda tx, _: servers.checked_asks(tx, caller, asks, security_groups))

    async def ensure_ports(
        self,
        server_id: str,
        server_name: str,
        caller: Caller,
        asks: Sequence[PortAsk],
        security_groups: Sequence[str],
        host: str,
    ) -> Sequence[ServerPort]:
        def work(tx: Transaction, concerned: set[str]) -> Sequence[ServerPort]:
            servers.ensure_ports(
                tx, self._world.dice, server_id, server_name, caller, asks, security_groups, host, concerned
            )
            return servers.ports_of(tx, [server_id]).get(server_id, ())

        return await self._write(work)

    async def release_ports(self, server_id: str) -> None:
        await self._write(lambda tx, concerned: servers.release(tx, self._world.dice, server_id, concerned))

    async def regroup(self, caller: Caller, server_id: str, group: str, *, add: bool) -> Sequence[ServerPort]:
        def work(tx: Transaction, concerned: set[str]) -> Sequence[ServerPort]:
            servers.regroup(tx, caller, self._world.dice, server_id, group, concerned, add=add)
            return servers.ports_of(tx, [server_id]).get(server_id, ())

        return await self._write(work)

    async def ports_of(self, server_ids: Sequence[str]) -> Mapping[str, Sequence[ServerPort]]:
        return await self.read(lambda tx: servers.ports_of(tx, server_ids))

    async def server_at(self, network_id: str, address: str) -> str | None:
        return await self.read(lambda tx: servers.server_at(tx, network_id, address))


class HostSide:
    """Implements NetworkControl: the same service, as the hosts' agents see it."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def wanted(self, host: str, port_ids: Sequence[str] | None) -> HostWanted:
        return await self._world.store.read(lambda tx: hosts.wanted_of(tx, host, port_ids))

    async def plugged(self, host: str, port_id: str) -> None:
        await self._world.store.write(lambda tx: hosts.plug_heard(tx, host, port_id))

    async def unplugged(self, host: str, port_id: str) -> None:
        await self._world.store.write(lambda tx: PLUGGED.delete_where(tx, id=port_id, host=host))

    async def heard(self, host: str, driver: str, started_at_s: float, plugged: Sequence[str]) -> None:
        await self._world.store.write(lambda tx: hosts.heard(tx, host, driver, started_at_s, plugged))


def _hosts_on(tx: Transaction, network_id: str) -> set[str]:
    rows = tx.execute("SELECT DISTINCT host FROM network_port WHERE network_id = :id", {"id": network_id})
    return {host for (host,) in rows}


def _subnet_ids(tx: Transaction, network_id: str) -> list[str]:
    found = SUBNETS.find(tx, network_id=network_id)
    return [subnet.id for subnet in sorted(found, key=lambda subnet: (subnet.created_at_s, subnet.id))]


def _rules_of(tx: Transaction, group_id: str) -> list[Rule]:
    return sorted(RULES.find(tx, group_id=group_id), key=lambda rule: (rule.created_at_s, rule.id))


_TAGGED: dict[str, tuple[Any, Callable[[Transaction, Caller, str], Any]]] = {
    "networks": (NETWORKS, networks.own_network),
    "subnets": (SUBNETS, networks.get_subnet),
    "ports": (PORTS, ports.get_port),
    "security-groups": (GROUPS, groups.get_group),
}

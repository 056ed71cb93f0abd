"""What one host must have, put together from the records; and what it says that it has."""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal, cast

from apus.kernel.record import changed
from apus.kernel.world import Transaction
from apus.services.network.agent.wanted import HostWanted
from apus.services.network.drivers.driver import (
    AddressPair,
    AddressSet,
    DhcpOption,
    HostRoute,
    Ipv6Mode,
    NetworkSpec,
    PortSpec,
    Reservation,
    SubnetSpec,
)
from apus.services.network.logic.rules import flattened
from apus.services.network.model import HostAgent, Network, Plugged, Port, Rule, Subnet
from apus.services.network.store import HOST_AGENTS, MEMBERSHIPS, NETWORKS, PLUGGED, PORTS, RULES, SUBNETS

_LABEL = re.compile(r"[^a-z0-9-]+")


def wanted_of(tx: Transaction, host: str, port_ids: Sequence[str] | None) -> HostWanted:
    """All that the host must have, or what these ports of it need."""
    ports = PORTS.find(tx, host=host)
    if port_ids is not None:
        chosen = set(port_ids)
        ports = [port for port in ports if port.id in chosen]
    network_ids = sorted({port.network_id for port in ports})
    networks = {network.id: network for network in NETWORKS.find(tx, id=network_ids)}
    subnets: dict[str, list[Subnet]] = defaultdict(list)
    for subnet in SUBNETS.find(tx, network_id=network_ids):
        subnets[subnet.network_id].append(subnet)
    neighbours: dict[str, list[Port]] = defaultdict(list)
    for port in PORTS.find(tx, network_id=network_ids):
        neighbours[port.network_id].append(port)
    group_ids = sorted({group for port in ports for group in port.security_groups})
    rules: dict[str, list[Rule]] = defaultdict(list)
    for rule in RULES.find(tx, group_id=group_ids):
        rules[rule.group_id].append(rule)
    remote = sorted({rule.remote_group_id for found in rules.values() for rule in found if rule.remote_group_id})
    return HostWanted(
        networks=tuple(network_spec(networks[id], subnets[id], neighbours[id]) for id in network_ids),
        ports=tuple(port_spec(port, networks[port.network_id], rules) for port in ports),
        sets=address_sets(tx, remote),
    )


def network_spec(network: Network, subnets: Sequence[Subnet], ports: Sequence[Port]) -> NetworkSpec:
    ordered = sorted(subnets, key=lambda subnet: (subnet.created_at_s, subnet.id))
    leased = {subnet.id for subnet in subnets if subnet.enable_dhcp}
    return NetworkSpec(
        id=network.id,
        mtu=network.mtu,
        vlan_id=network.vlan_id,
        physical_network=network.physical_network,
        subnets=tuple(_subnet_spec(subnet) for subnet in ordered),
        nat=network.nat,
        host_reachable=network.host_reachable,
        dns_domain=network.dns_domain,
        reservations=tuple(_reservation(port, leased) for port in sorted(ports, key=lambda p: p.id) if port.fixed_ips),
    )


def _subnet_spec(subnet: Subnet) -> SubnetSpec:
    return SubnetSpec(
        id=subnet.id,
        cidr=subnet.cidr,
        gateway_ip=subnet.gateway_ip,
        service_ip=subnet.service_ip,
        enable_dhcp=subnet.enable_dhcp,
        dns_nameservers=subnet.dns_nameservers,
        host_routes=tuple(HostRoute(destination=r.destination, next_hop=r.nexthop) for r in subnet.host_routes),
        ipv6_ra_mode=cast(Ipv6Mode | None, subnet.ipv6_ra_mode),
        ipv6_address_mode=cast(Ipv6Mode | None, subnet.ipv6_address_mode),
    )


def host_name_of(port: Port) -> str:
    """What DNS calls the port: its own name, else its first address, as Neutron does it."""
    name = _LABEL.sub("-", port.dns_name.lower()).strip("-")[:63].strip("-")
    if name:
        return name
    first = ipaddress.ip_address(port.fixed_ips[0].ip_address)
    return "host-" + (str(first).replace(".", "-") if first.version == 4 else first.exploded.replace(":", "-"))


def _reservation(port: Port, leased: set[str]) -> Reservation:
    return Reservation(
        port_id=port.id,
        mac=port.mac,
        ips=tuple(ip.ip_address for ip in port.fixed_ips if ip.subnet_id in leased),
        hostname=host_name_of(port),
        options=tuple(
            DhcpOption(name=o.opt_name, value=o.opt_value, ip_version=cast(Literal[4, 6], o.ip_version))
            for o in port.dhcp_options
        ),
    )


def port_spec(port: Port, network: Network, rules: dict[str, list[Rule]]) -> PortSpec:
    return PortSpec(
        id=port.id,
        network_id=port.network_id,
        mac=port.mac,
        mtu=network.mtu,
        fixed_ips=tuple(ip.ip_address for ip in port.fixed_ips),
        allowed_address_pairs=tuple(
            AddressPair(mac=pair.mac_address, cidr=pair.ip_address) for pair in port.allowed_address_pairs
        ),
        port_security=port.port_security,
        rules=flattened([rule for group in port.security_groups for rule in rules[group]]),
        admin_state_up=port.admin_state_up and network.admin_state_up,
    )


def address_sets(tx: Transaction, group_ids: Sequence[str]) -> tuple[AddressSet, ...]:
    """The members' addresses of each group, empty ones too: a rule names the set."""
    members: dict[str, set[str]] = {id: set() for id in group_ids}
    found = MEMBERSHIPS.find(tx, group_id=list(group_ids))
    ports = {port.id: port for port in PORTS.find(tx, id=sorted({item.port_id for item in found}))}
    for item in found:
        port = ports.get(item.port_id)
        if port is not None:
            members[item.group_id] |= {ip.ip_address for ip in port.fixed_ips}
            members[item.group_id] |= {pair.ip_address for pair in port.allowed_address_pairs}
    return tuple(AddressSet(name=id, addresses=tuple(sorted(ips))) for id, ips in members.items())


def heard(tx: Transaction, host: str, driver: str, started_at_s: float, plugged: Sequence[str]) -> None:
    """The host's full word about itself: it alone says what is plugged on it."""
    known = HOST_AGENTS.get(tx, host)
    if known is None:
        HOST_AGENTS.insert(tx, HostAgent(id=host, driver=driver, seen_at_s=tx.now_s, started_at_s=started_at_s))
    else:
        HOST_AGENTS.put(tx, changed(known, driver=driver, seen_at_s=tx.now_s, started_at_s=started_at_s))
    before = {record.id for record in PLUGGED.find(tx, host=host)}
    now = {port.id for port in PORTS.find(tx, host=host)} & set(plugged)
    for id in before - now:
        PLUGGED.delete(tx, id)
    for id in sorted(now - before):
        plug_heard(tx, host, id)


def plug_heard(tx: Transaction, host: str, port_id: str) -> None:
    port = PORTS.get(tx, port_id)
    if port is None or port.host != host:
        return  # it has gone elsewhere meanwhile: late word
    known = PLUGGED.get(tx, port_id)
    if known is None:
        PLUGGED.insert(tx, Plugged(id=port_id, host=host))
    elif known.host != host:
        PLUGGED.put(tx, changed(known, host=host))

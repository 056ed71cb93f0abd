"""Ports of servers: what compute asks of the network.  Port ids derive from the server, so twice is once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import msgspec.structs

from apus.kernel.caller import Caller, the_system
from apus.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from apus.kernel.ids import child_id
from apus.kernel.world import Transaction
from apus.services.network.contract import FixedIp, PortAsk, ServerPort
from apus.services.network.model import Network, Port
from apus.services.network.service.groups import ensure_default
from apus.services.network.service.networks import get_network, visible_networks
from apus.services.network.service.ports import create_ports, delete_port, get_port, update_port
from apus.services.network.service.refusals import conflict, missing, parsed_ip
from apus.services.network.store import ADDRESSES, GROUPS, NETWORKS, PORTS, SUBNETS, plugged_among


def checked_asks(
    tx: Transaction, caller: Caller, asks: Sequence[PortAsk] | None, groups: Sequence[str]
) -> Sequence[PortAsk]:
    group_ids(tx, caller, groups)
    if asks is None:
        return [PortAsk(network_id=_only_network(tx, caller).id)] if _candidates(tx, caller) else []
    return [_checked(tx, caller, ask) for ask in asks]


def _candidates(tx: Transaction, caller: Caller) -> list[Network]:
    usable = [n for n in visible_networks(tx, caller) if not n.external and SUBNETS.count(tx, network_id=n.id)]
    own = [network for network in usable if network.project_id == caller.project_id]
    return own or [network for network in usable if network.shared]


def _only_network(tx: Transaction, caller: Caller) -> Network:
    found = _candidates(tx, caller)
    if len(found) > 1:
        names = ", ".join(sorted(network.name or network.id for network in found))
        raise Conflict(
            "network.ambiguous", f"Multiple possible networks found ({names}), use a Network ID to be more specific."
        )
    return found[0]


def _checked(tx: Transaction, caller: Caller, ask: PortAsk) -> PortAsk:
    if ask.port_id is not None:
        port = get_port(tx, caller, ask.port_id)
        if port.device_id:
            raise conflict("PortInUse", f"Port {port.id} is still in use.")
        if not port.fixed_ips and SUBNETS.count(tx, network_id=port.network_id):
            raise Invalid("network.port_without_address", f"Port {port.id} requires a FixedIP in order to be used.")
        return changed_ask(ask, network_id=port.network_id)
    if ask.network_id is None:
        raise Invalid("network.bad_ask", "networks: each needs a network (uuid) or a port.", field="networks")
    network = get_network(tx, caller, ask.network_id)
    subnets = SUBNETS.find(tx, network_id=network.id)
    if not subnets:
        raise Invalid("network.no_subnet", f"Network {network.id} requires a subnet in order to boot instances on.")
    if ask.fixed_ip is not None:
        parsed_ip("fixed_ip", ask.fixed_ip)
        taken = ADDRESSES.first(tx, id=[f"{subnet.id}/{ask.fixed_ip}" for subnet in subnets])
        if taken is not None:
            raise conflict("IpAddressAlreadyAllocated", f"Fixed IP address {ask.fixed_ip} is already in use.")
    return ask


def changed_ask(ask: PortAsk, *, network_id: str) -> PortAsk:
    return PortAsk(network_id=network_id, port_id=ask.port_id, fixed_ip=ask.fixed_ip, tag=ask.tag)


def group_ids(tx: Transaction, caller: Caller, groups: Sequence[str]) -> list[str]:
    """By name or id, of the caller's project."""
    if caller.project_id is None:
        raise Forbidden("network.no_project", "Security groups belong to a project: ask with a token of one.")
    ids = []
    for name in dict.fromkeys(groups):
        if name == "default":
            ids.append(ensure_default(tx, caller.project_id).id)
            continue
        found = GROUPS.find(tx, project_id=caller.project_id, name=name) or GROUPS.find(
            tx, project_id=caller.project_id, id=name
        )
        if not found:
            raise missing("SecurityGroupNotFound", "Security group", name)
        if len(found) > 1:
            raise Conflict("network.ambiguous_group", f"Several security groups are named {name!r}: use an id.")
        ids.append(found[0].id)
    return ids


def ensure_ports(
    tx: Transaction,
    dice: Random,
    server_id: str,
    server_name: str,
    caller: Caller,
    asks: Sequence[PortAsk],
    groups: Sequence[str],
    host: str,
    hosts: set[str],
) -> list[str]:
    ids = []
    chosen = group_ids(tx, caller, groups) if groups else None
    system = the_system(caller.request_id)
    for place, ask in enumerate(asks):
        bound = {
            "device_id": server_id,
            "device_owner": "compute:nova",
            "binding:host_id": host,
            "dns_name": server_name,
            "place": place,
            "device_tag": ask.tag,
        }
        id = ask.port_id or child_id(server_id, "port", str(place))
        known = PORTS.get(tx, id)
        if known is not None:
            if known.device_id not in ("", server_id):
                raise conflict("PortInUse", f"Port {id} is still in use.")
            if known.device_id != server_id or known.host != host:
                kept = {**bound, "dns_name": known.dns_name or server_name}
                update_port(tx, system, dice, id, kept, hosts)
        else:
            if ask.port_id is not None:
                raise missing("PortNotFound", "Port", id)
            assert ask.network_id is not None, "checked before"
            get_network(tx, caller, ask.network_id)
            fields = {
                "id": id,
                "network_id": ask.network_id,
                "project_id": caller.project_id,
                "fixed_ips": [{"ip_address": ask.fixed_ip}] if ask.fixed_ip else None,
                "security_groups": chosen,
                "made_for_server": True,
                **bound,
            }
            from_project = changed_caller(caller)
            create_ports(tx, from_project, dice, [fields], hosts)
        ids.append(id)
    return ids


def changed_caller(caller: Caller) -> Caller:
    """The caller with what compute may do for him: bind a port to a host."""
    return msgspec.structs.replace(caller, roles=caller.roles | {"service", "admin"})


def release(tx: Transaction, dice: Random, server_id: str, hosts: set[str]) -> None:
    system = the_system()
    for port in PORTS.find(tx, device_id=server_id):
        if port.made_for_server:
            delete_port(tx, system, port.id, hosts)
        else:
            free = {"device_id": "", "device_owner": "", "binding:host_id": "", "device_tag": None, "place": 0}
            update_port(tx, system, dice, port.id, free, hosts)


def regroup(
    tx: Transaction, caller: Caller, dice: Random, server_id: str, group: str, hosts: set[str], *, add: bool
) -> None:
    """All ports that are filtered, or none."""
    (group_id,) = group_ids(tx, caller, [group])
    ports = [port for port in PORTS.find(tx, device_id=server_id) if port.port_security and port.fixed_ips]
    if add and not ports:
        raise Invalid(
            "network.no_port_for_group",
            f"No port of instance {server_id} can be in a security group: that takes an address and port security.",
        )
    moved = [port for port in ports if (group_id in port.security_groups) is not add]
    if not add and not moved:
        raise NotFound(
            "network.not_in_group", f"Security group {group} is not associated with the instance {server_id}"
        )
    for port in moved:
        kept = [id for id in port.security_groups if id != group_id]
        update_port(
            tx, the_system(caller.request_id), dice, port.id, {"security_groups": kept + [group_id] * add}, hosts
        )


def ports_of(tx: Transaction, server_ids: Sequence[str]) -> Mapping[str, Sequence[ServerPort]]:
    ports = [port for port in PORTS.find(tx, device_id=list(server_ids)) if port.device_id]
    ids = sorted({port.network_id for port in ports})
    networks = {network.id: network for network in NETWORKS.find(tx, id=ids)}
    subnets = {subnet.id: subnet for subnet in SUBNETS.find(tx, network_id=ids)}
    names = {g.id: g.name for g in GROUPS.find(tx, id=sorted({g for p in ports for g in p.security_groups}))}
    active = plugged_among(tx, [port.id for port in ports])
    found: dict[str, list[ServerPort]] = {}
    for port in sorted(ports, key=lambda port: (port.place, port.created_at_s, port.id)):
        network = networks[port.network_id]
        found.setdefault(port.device_id, []).append(
            ServerPort(
                id=port.id,
                network_id=port.network_id,
                network_name=network.name,
                project_id=port.project_id,
                server_id=port.device_id,
                mac=port.mac,
                fixed_ips=tuple(
                    FixedIp(
                        address=ip.ip_address,
                        subnet_id=ip.subnet_id,
                        cidr=subnets[ip.subnet_id].cidr,
                        gateway_ip=subnets[ip.subnet_id].gateway_ip,
                        dns_nameservers=subnets[ip.subnet_id].dns_nameservers,
                        host_routes=tuple((r.destination, r.nexthop) for r in subnets[ip.subnet_id].host_routes),
                        dhcp=subnets[ip.subnet_id].enable_dhcp,
                        ipv6_address_mode=subnets[ip.subnet_id].ipv6_address_mode,
                    )
                    for ip in port.fixed_ips
                ),
                mtu=network.mtu,
                host=port.host or None,
                made_for_server=port.made_for_server,
                security_group_ids=port.security_groups,
                security_group_names=tuple(names.get(group, group) for group in port.security_groups),
                tag=port.device_tag,
                active=port.id in active,
                dns_name=port.dns_name,
            )
        )
    return found


def server_at(tx: Transaction, network_id: str, address: str) -> str | None:
    """Also by a link-local IPv6 address, which a guest makes from its MAC."""
    subnets = [subnet.id for subnet in SUBNETS.find(tx, network_id=network_id)]
    row = ADDRESSES.first(tx, id=[f"{subnet}/{address}" for subnet in subnets])
    if row is not None:
        port: Port | None = PORTS.get(tx, row.port_id)
    elif address.startswith("fe80:"):
        port = PORTS.first(tx, network_id=network_id, mac=_mac_of(address))
    else:
        port = None
    return port.device_id or None if port is not None else None


def _mac_of(link_local: str) -> str:
    octets = parsed_ip("address", link_local).packed[8:]
    return ":".join(f"{byte:02x}" for byte in (octets[0] ^ 2, octets[1], octets[2], *octets[5:]))

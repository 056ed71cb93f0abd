"""Networks and subnets: plain functions of a transaction."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from apus.kernel.caller import Caller
from apus.kernel.events import emit
from apus.kernel.ids import new_id
from apus.kernel.record import changed
from apus.kernel.world import Transaction
from apus.services.network.logic import addresses
from apus.services.network.logic.limits import MTU_MAX, MTU_MIN
from apus.services.network.model import Address, Network, Pool, Route, Subnet
from apus.services.network.service.refusals import bad_input, conflict, missing, parsed_cidr, parsed_ip, refused
from apus.services.network.service.rights import check_quota, only_admin, owner_of
from apus.services.network.store import ADDRESSES, NETWORKS, PORTS, SUBNETS, taken_addresses

_ADMIN_FIELDS = ("shared", "external", "is_default", "physical_network", "vlan_id", "provider_type")
HELD_BY_SERVICE = "dhcp:"
"""Owner of the address that DHCP answers from where there is no gateway."""


def visible_networks(tx: Transaction, caller: Caller) -> list[Network]:
    if caller.is_admin:
        return NETWORKS.find(tx)
    mine = NETWORKS.find(tx, project_id=caller.project_id)
    known = {network.id for network in mine}
    open_to_all = [n for n in NETWORKS.find(tx) if (n.shared or n.external) and n.id not in known]
    return mine + open_to_all


def get_network(tx: Transaction, caller: Caller, id: str) -> Network:
    network = NETWORKS.get(tx, id)
    if network is None or not (
        caller.is_admin or network.project_id == caller.project_id or network.shared or network.external
    ):
        raise missing("NetworkNotFound", "Network", id)
    return network


def own_network(tx: Transaction, caller: Caller, id: str) -> Network:
    network = get_network(tx, caller, id)
    if not caller.is_admin and network.project_id != caller.project_id:
        only_admin(caller, "not the owner", "update_network")
    return network


def create_network(tx: Transaction, caller: Caller, dice: Random, fields: Mapping[str, Any]) -> Network:
    given = {key: value for key, value in fields.items() if key != "project_id"}
    project = owner_of(caller, fields.get("project_id"), "network")
    _check_network(caller, given, "create_network")
    check_quota(tx, project, "network", 1)
    network = Network(
        id=given.pop("id", None) or new_id(dice),
        project_id=project,
        created_at_s=tx.now_s,
        updated_at_s=tx.now_s,
        **_network_fields(given),
    )
    NETWORKS.insert(tx, network)
    emit(tx, "network.network.created", network.id, project, caller=caller)
    return network


def update_network(tx: Transaction, caller: Caller, id: str, fields: Mapping[str, Any]) -> Network:
    network = own_network(tx, caller, id)
    _check_network(caller, fields, "update_network")
    new = changed(network, **_network_fields(fields), updated_at_s=tx.now_s)
    if network.shared and not new.shared:
        foreign = [port for port in PORTS.find(tx, network_id=id) if port.project_id != network.project_id]
        if foreign:
            raise conflict(
                "InvalidSharedSetting",
                f"Unable to reconfigure sharing settings for network {id}. Multiple tenants are using it.",
            )
    emit(tx, "network.network.updated", id, network.project_id, caller=caller)
    return NETWORKS.put(tx, new)


def _check_network(caller: Caller, fields: Mapping[str, Any], verb: str) -> None:
    for field in _ADMIN_FIELDS:
        if fields.get(field):
            only_admin(caller, field, verb)
    mtu = fields.get("mtu")
    if mtu and not MTU_MIN <= mtu <= MTU_MAX:
        raise bad_input("mtu", f"'{mtu}' is not between {MTU_MIN} and {MTU_MAX}")
    kind, physical, vlan = fields.get("provider_type"), fields.get("physical_network"), fields.get("vlan_id")
    if kind not in (None, "local", "flat", "vlan"):
        raise bad_input("provider:network_type", f"'{kind}' is none of local, flat, vlan")
    if kind in ("flat", "vlan") and not physical:
        raise bad_input("provider:physical_network", f"a network of type {kind} needs one")
    if vlan is not None and not 1 <= vlan <= 4094:
        raise bad_input("provider:segmentation_id", f"'{vlan}' is not between 1 and 4094")
    if (kind == "vlan") != (vlan is not None) and kind is not None:
        raise bad_input("provider:segmentation_id", "a network of type vlan has one, and no other")


def _network_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in fields.items() if key != "provider_type"}
    if not kept.get("mtu", True):
        kept["mtu"] = 1500
    if "dns_domain" in kept:
        domain = kept["dns_domain"] or ""
        if domain and not domain.endswith("."):
            raise bad_input("dns_domain", f"'{domain}' is not a FQDN: it must end with a dot")
        kept["dns_domain"] = domain
    return kept


def delete_network(tx: Transaction, caller: Caller, id: str) -> None:
    network = own_network(tx, caller, id)
    if PORTS.count(tx, network_id=id):
        raise conflict(
            "NetworkInUse",
            f"Unable to complete operation on network {id}. There are one or more ports still in use on the network.",
        )
    for subnet in SUBNETS.find(tx, network_id=id):
        ADDRESSES.delete_where(tx, subnet_id=subnet.id)
    SUBNETS.delete_where(tx, network_id=id)
    NETWORKS.delete(tx, id)
    emit(tx, "network.network.deleted", id, network.project_id, caller=caller)


def visible_subnets(tx: Transaction, caller: Caller) -> list[Subnet]:
    if caller.is_admin:
        return SUBNETS.find(tx)
    mine = SUBNETS.find(tx, project_id=caller.project_id)
    known = {subnet.id for subnet in mine}
    shared = [n.id for n in visible_networks(tx, caller) if n.project_id != caller.project_id and n.shared]
    return mine + [s for s in (SUBNETS.find(tx, network_id=shared) if shared else []) if s.id not in known]


def get_subnet(tx: Transaction, caller: Caller, id: str) -> Subnet:
    subnet = SUBNETS.get(tx, id)
    if subnet is None:
        raise missing("SubnetNotFound", "Subnet", id)
    if not caller.is_admin and subnet.project_id != caller.project_id:
        network = NETWORKS.get(tx, subnet.network_id)
        if network is None or not network.shared:
            raise missing("SubnetNotFound", "Subnet", id)
    return subnet


def create_subnet(tx: Transaction, caller: Caller, dice: Random, fields: Mapping[str, Any]) -> Subnet:
    network = own_network(tx, caller, fields["network_id"])
    project = owner_of(caller, fields.get("project_id"), "subnet")
    if caller.is_admin and not fields.get("project_id"):
        project = network.project_id
    cidr = _checked_cidr(tx, network, fields)
    check_quota(tx, project, "subnet", 1)
    modes = _modes(cidr, fields)
    gateway = _gateway(cidr, fields)
    pools = _pools(cidr, gateway, fields.get("allocation_pools"))
    subnet = Subnet(
        id=new_id(dice),
        network_id=network.id,
        project_id=project,
        cidr=str(cidr),
        ip_version=cidr.version,
        name=fields.get("name") or "",
        description=fields.get("description") or "",
        gateway_ip=gateway,
        enable_dhcp=fields.get("enable_dhcp", True),
        dns_nameservers=_nameservers(fields.get("dns_nameservers")),
        host_routes=_routes(cidr, fields.get("host_routes")),
        allocation_pools=pools,
        ipv6_ra_mode=modes[0],
        ipv6_address_mode=modes[1],
        service_types=tuple(fields.get("service_types") or ()),
        dns_publish_fixed_ip=bool(fields.get("dns_publish_fixed_ip")),
        created_at_s=tx.now_s,
        updated_at_s=tx.now_s,
    )
    subnet = _with_service_address(tx, subnet, dice)
    SUBNETS.insert(tx, subnet)
    emit(tx, "network.subnet.created", subnet.id, project, caller=caller)
    return subnet


def _checked_cidr(tx: Transaction, network: Network, fields: Mapping[str, Any]) -> addresses.Cidr:
    text = fields.get("cidr")
    if not text:
        raise refused("BadRequest", "Bad subnets request: a subnetpool or cidr must be specified.", field="cidr")
    cidr = parsed_cidr("cidr", text)
    version = fields["ip_version"]
    if version not in (4, 6):
        raise bad_input("ip_version", f"'{version}' is not in [4, 6]")
    if cidr.version != version:
        raise bad_input("cidr", f"'{text}' is not of the IP version {version}")
    if cidr.prefixlen == 0 or cidr.is_multicast or cidr.is_loopback or cidr.is_link_local:
        raise bad_input("cidr", f"'{text}' cannot be a subnet of guests")
    for other in SUBNETS.find(tx, network_id=network.id):
        if addresses.overlap(cidr, ipaddress.ip_network(other.cidr)):
            raise bad_input(
                "cidr", f"Requested subnet with cidr: {cidr} for network: {network.id} overlaps with another subnet"
            )
    return cidr


def _modes(cidr: addresses.Cidr, fields: Mapping[str, Any]) -> tuple[str | None, str | None]:
    ra, address = fields.get("ipv6_ra_mode"), fields.get("ipv6_address_mode")
    if not ra and not address:
        return None, None
    if cidr.version == 4:
        raise bad_input("ipv6_ra_mode", "ipv6_ra_mode and ipv6_address_mode are for IPv6 subnets")
    if not fields.get("enable_dhcp", True):
        raise bad_input("enable_dhcp", "ipv6_ra_mode or ipv6_address_mode cannot be set when enable_dhcp is False")
    if ra and address and ra != address:
        raise bad_input("ipv6_address_mode", f"ipv6_ra_mode {ra!r} and ipv6_address_mode {address!r} must be the same")
    if address in ("slaac", "dhcpv6-stateless") and cidr.prefixlen != 64:
        raise bad_input("cidr", f"guests make their own addresses in a /64 only, not in {cidr}")
    return ra, address


def _gateway(cidr: addresses.Cidr, fields: Mapping[str, Any]) -> str | None:
    if "gateway_ip" not in fields:
        first, last = addresses.usable(cidr)
        return str(ipaddress.ip_address(first)) if first < last else None
    return None if fields["gateway_ip"] is None else _in_subnet("gateway_ip", fields["gateway_ip"], cidr)


def _in_subnet(field: str, text: str, cidr: addresses.Cidr) -> str:
    ip = parsed_ip(field, text)
    first, last = addresses.usable(cidr)
    if ip.version != cidr.version or not first <= int(ip) <= last:
        raise bad_input(field, f"'{text}' is not an address of a host in {cidr}")
    return str(ip)


def _pools(cidr: addresses.Cidr, gateway: str | None, given: Sequence[Mapping[str, str]] | None) -> tuple[Pool, ...]:
    whole = addresses.usable(cidr)
    gateway_number = int(ipaddress.ip_address(gateway)) if gateway else None
    if given is None:
        ranges = addresses.without(whole, gateway_number)
    else:
        ranges = sorted((_end("start", pool, cidr), _end("end", pool, cidr)) for pool in given)
        for first, last in ranges:
            if first > last:
                raise bad_input("allocation_pools", "the end of a pool is before its start")
            if not (whole[0] <= first and last <= whole[1]):
                raise refused("OutOfBoundsAllocationPool", f"The allocation pool spans beyond the subnet cidr {cidr}.")
            if gateway_number is not None and first <= gateway_number <= last:
                raise conflict(
                    "GatewayConflictWithAllocationPools",
                    f"Gateway ip {gateway} conflicts with the allocation pool that holds it.",
                )
        for (_, end), (start, _) in itertools.pairwise(ranges):
            if start <= end:
                raise conflict("OverlappingAllocationPools", f"Found overlapping allocation pools for subnet {cidr}.")
    kind = ipaddress.IPv4Address if cidr.version == 4 else ipaddress.IPv6Address
    return tuple(Pool(start=str(kind(first)), end=str(kind(last))) for first, last in ranges)


def _end(which: str, pool: Mapping[str, str], cidr: addresses.Cidr) -> int:
    ip = parsed_ip(f"allocation_pools.{which}", pool[which])
    if ip.version != cidr.version:
        raise bad_input("allocation_pools", f"'{ip}' is not of the subnet's IP version")
    return int(ip)


def _nameservers(given: Sequence[str] | None) -> tuple[str, ...]:
    servers = [str(parsed_ip("dns_nameservers", server)) for server in given or ()]
    if len(set(servers)) != len(servers):
        raise bad_input("dns_nameservers", "a name server is listed twice")
    return tuple(servers)


def _routes(cidr: addresses.Cidr, given: Sequence[Mapping[str, str]] | None) -> tuple[Route, ...]:
    routes = []
    for route in given or ():
        to, via = parsed_cidr("host_routes", route["destination"]), parsed_ip("host_routes", route["nexthop"])
        if to.version != cidr.version or via.version != cidr.version:
            raise bad_input("host_routes", f"{to} via {via} is not of the subnet's IP version")
        routes.append(Route(destination=str(to), nexthop=str(via)))
    return tuple(routes)


def _with_service_address(tx: Transaction, subnet: Subnet, dice: Random) -> Subnet:
    """Where the gateway is not ours to hold, DHCP and DNS need an address of their own."""
    needed = subnet.gateway_ip is None and subnet.enable_dhcp and not subnet.self_addressed
    if not needed or subnet.service_ip is not None:
        return subnet
    ranges = pool_ranges(subnet)
    taken = {int(ipaddress.ip_address(ip)) for ip in taken_addresses(tx, subnet.id)}
    number = addresses.choose(ranges, taken, dice) if ranges else None
    if number is None:
        return subnet
    ip = str(ipaddress.IPv4Address(number) if subnet.ip_version == 4 else ipaddress.IPv6Address(number))
    owner = HELD_BY_SERVICE + subnet.id
    ADDRESSES.insert(tx, Address(id=f"{subnet.id}/{ip}", subnet_id=subnet.id, port_id=owner, address=ip))
    return changed(subnet, service_ip=ip)


def pool_ranges(subnet: Subnet) -> list[addresses.Range]:
    return [
        (int(ipaddress.ip_address(pool.start)), int(ipaddress.ip_address(pool.end))) for pool in subnet.allocation_pools
    ]


def update_subnet(tx: Transaction, caller: Caller, dice: Random, id: str, fields: Mapping[str, Any]) -> Subnet:
    subnet = get_subnet(tx, caller, id)
    own_network(tx, caller, subnet.network_id)
    cidr = ipaddress.ip_network(subnet.cidr)
    new: dict[str, Any] = {}
    for field in ("name", "description"):
        if field in fields:
            new[field] = fields[field] or ""
    for field in ("enable_dhcp", "dns_publish_fixed_ip"):
        if field in fields:
            new[field] = fields[field]
    if "service_types" in fields:
        new["service_types"] = tuple(fields["service_types"] or ())
    if "dns_nameservers" in fields:
        new["dns_nameservers"] = _nameservers(fields["dns_nameservers"])
    if "host_routes" in fields:
        new["host_routes"] = _routes(cidr, fields["host_routes"])
    gateway = subnet.gateway_ip
    if "gateway_ip" in fields:
        gateway = new["gateway_ip"] = _gateway(cidr, fields)
        if gateway and gateway != subnet.gateway_ip and gateway in taken_addresses(tx, id):
            raise conflict("IpAddressAlreadyAllocated", f"IP address {gateway} already allocated in subnet {id}")
    if "allocation_pools" in fields:
        new["allocation_pools"] = _pools(cidr, gateway, fields["allocation_pools"])
    elif "gateway_ip" in fields and gateway:
        given = [{"start": pool.start, "end": pool.end} for pool in subnet.allocation_pools]
        _pools(cidr, gateway, given)
    updated = _with_service_address(tx, changed(subnet, **new, updated_at_s=tx.now_s), dice)
    emit(tx, "network.subnet.updated", id, subnet.project_id, caller=caller)
    return SUBNETS.put(tx, updated)


def delete_subnet(tx: Transaction, caller: Caller, id: str) -> None:
    subnet = get_subnet(tx, caller, id)
    own_network(tx, caller, subnet.network_id)
    used = [address for address in ADDRESSES.find(tx, subnet_id=id) if not address.port_id.startswith(HELD_BY_SERVICE)]
    if used and not subnet.self_addressed:
        raise conflict(
            "SubnetInUse",
            f"Unable to complete operation on subnet {id}: One or more ports have an IP allocation from this subnet.",
        )
    for port_id in {address.port_id for address in used}:
        port = PORTS.get(tx, port_id)
        if port is not None:
            PORTS.put(tx, changed(port, fixed_ips=tuple(ip for ip in port.fixed_ips if ip.subnet_id != id)))
    ADDRESSES.delete_where(tx, subnet_id=id)
    SUBNETS.delete(tx, id)
    emit(tx, "network.subnet.deleted", id, subnet.project_id, caller=caller)

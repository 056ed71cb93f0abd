"""Ports: plain functions of a transaction.  An address is chosen from what is free at that moment and taken in the same
transaction; the address's own row makes a second taker impossible.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict, NoRoom
from apus.kernel.events import emit
from apus.kernel.ids import is_uuid, new_id
from apus.kernel.record import changed
from apus.kernel.world import Transaction
from apus.services.network.contract import SERVER_HINT
from apus.services.network.drivers.driver import OPTION_NAMES
from apus.services.network.logic import addresses
from apus.services.network.model import Address, AddressPair, DhcpOption, FixedIp, Membership, Network, Port, Subnet
from apus.services.network.service.groups import ensure_default, get_group, hosts_of_groups
from apus.services.network.service.networks import get_network, own_network, pool_ranges
from apus.services.network.service.refusals import (
    bad_input,
    conflict,
    missing,
    parsed_cidr,
    parsed_ip,
    parsed_mac,
    refused,
)
from apus.services.network.service.rights import check_quota, only_admin, owner_of
from apus.services.network.store import ADDRESSES, MEMBERSHIPS, PLUGGED, PORTS, SUBNETS, taken_addresses

_MAC_TRIES = 8


class Allocator:
    """Addresses of one transaction: what is taken is read once a subnet, however many ports are made."""

    def __init__(self, tx: Transaction, dice: Random) -> None:
        self._tx, self._dice = tx, dice
        self._taken: dict[str, set[int]] = {}
        self._subnets: dict[str, list[Subnet]] = {}

    def subnets(self, network_id: str) -> list[Subnet]:
        if network_id not in self._subnets:
            found = SUBNETS.find(self._tx, network_id=network_id)
            self._subnets[network_id] = sorted(found, key=lambda subnet: (subnet.created_at_s, subnet.id))
        return self._subnets[network_id]

    def take(self, port_id: str, subnet: Subnet, ip: str | None) -> FixedIp:
        """This address, or any; raise Conflict when it is taken, NoRoom when none is left."""
        taken = self._taken.get(subnet.id)
        if taken is None:
            known = taken_addresses(self._tx, subnet.id)
            taken = self._taken[subnet.id] = {int(ipaddress.ip_address(address)) for address in known}
        if ip is None:
            ranges = pool_ranges(subnet)
            number = addresses.choose(ranges, taken, self._dice) if ranges else None
            if number is None:
                raise NoRoom(
                    "network.no_address",
                    f"No more IP addresses available on network {subnet.network_id}.",
                    details={"type": "IpAddressGenerationFailure"},
                )
            kind = ipaddress.IPv4Address if subnet.ip_version == 4 else ipaddress.IPv6Address
            ip = str(kind(number))
        else:
            number = int(ipaddress.ip_address(ip))
            if number in taken:
                raise conflict("IpAddressAlreadyAllocated", f"IP address {ip} already allocated in subnet {subnet.id}.")
        taken.add(number)
        row = Address(id=f"{subnet.id}/{ip}", subnet_id=subnet.id, port_id=port_id, address=ip)
        ADDRESSES.insert(self._tx, row)
        return FixedIp(subnet_id=subnet.id, ip_address=ip)

    def release(self, subnet_id: str, ip: str) -> None:
        ADDRESSES.delete(self._tx, f"{subnet_id}/{ip}")
        if subnet_id in self._taken:
            self._taken[subnet_id].discard(int(ipaddress.ip_address(ip)))

    def fixed_ips(
        self,
        port_id: str,
        network: Network,
        mac: str,
        asked: Sequence[Mapping[str, str]] | None,
        router: bool,
        *,
        automatic: bool = True,
    ) -> tuple[FixedIp, ...]:
        """As asked, or one of each IP version; and what guests give themselves."""
        subnets = self.subnets(network.id)
        given = [self._asked(port_id, network, subnets, mac, ask, router) for ask in asked or ()]
        if asked is None:
            for version in (4, 6):
                given += self._any_of(port_id, [s for s in subnets if s.ip_version == version and not s.self_addressed])
        if automatic and not router and asked != []:
            have = {ip.subnet_id for ip in given}
            given += [self.self_made(port_id, s, mac) for s in subnets if s.self_addressed and s.id not in have]
        return tuple(given)

    def _any_of(self, port_id: str, subnets: Sequence[Subnet]) -> list[FixedIp]:
        for place, subnet in enumerate(subnets):
            try:
                return [self.take(port_id, subnet, None)]
            except NoRoom:
                if place == len(subnets) - 1:
                    raise
        return []

    def self_made(self, port_id: str, subnet: Subnet, mac: str) -> FixedIp:
        return self.take(port_id, subnet, addresses.eui64(ipaddress.IPv6Network(subnet.cidr), mac))

    def _asked(
        self,
        port_id: str,
        network: Network,
        subnets: Sequence[Subnet],
        mac: str,
        ask: Mapping[str, str],
        router: bool,
    ) -> FixedIp:
        ip = parsed_ip("fixed_ips.ip_address", ask["ip_address"]) if ask.get("ip_address") else None
        if ask.get("subnet_id"):
            subnet = next((s for s in subnets if s.id == ask["subnet_id"]), None)
            if subnet is None:
                shown = (
                    f"Failed to create port on network {network.id}: subnet {ask['subnet_id']} is not of this network."
                )
                raise refused("InvalidInput", f"Invalid input for operation: {shown}", field="fixed_ips.subnet_id")
        elif ip is not None:
            subnet = next((s for s in subnets if ip in ipaddress.ip_network(s.cidr)), None)
            if subnet is None:
                shown = f"IP address {ip} is not a valid IP for any of the subnets on the specified network."
                raise refused("InvalidIpForNetwork", shown, field="fixed_ips.ip_address")
        else:
            raise bad_input("fixed_ips", "each must have a subnet_id or an ip_address")
        if ip is None:
            if subnet.self_addressed and not router:
                return self.self_made(port_id, subnet, mac)
            return self.take(port_id, subnet, None)
        cidr = ipaddress.ip_network(subnet.cidr)
        first, last = addresses.usable(cidr)
        if ip.version != cidr.version or not first <= int(ip) <= last:
            shown = f"IP address {ip} is not a valid IP for the specified subnet."
            raise refused("InvalidIpForSubnet", shown, field="fixed_ips.ip_address")
        if subnet.self_addressed and not router and str(ip) != addresses.eui64(ipaddress.IPv6Network(cidr), mac):
            raise refused(
                "AllocationOnAutoAddressSubnet",
                f"IPv6 address {ip} cannot be directly assigned to a port on subnet {subnet.id} as the subnet is"
                " configured for automatic addresses",
            )
        if str(ip) == subnet.gateway_ip and not router:
            shown = f"IP address {ip} already allocated in subnet {subnet.id}: it is the gateway's."
            raise conflict("IpAddressAlreadyAllocated", shown)
        return self.take(port_id, subnet, str(ip))


def visible_ports(tx: Transaction, caller: Caller, where: Mapping[str, Any]) -> list[Port]:
    if caller.is_admin or "service" in caller.roles:
        return PORTS.find(tx, **where)
    return PORTS.find(tx, **{**where, "project_id": caller.project_id})


def get_port(tx: Transaction, caller: Caller, id: str) -> Port:
    port = PORTS.get(tx, id)
    if port is None or not (caller.is_admin or "service" in caller.roles or port.project_id == caller.project_id):
        raise missing("PortNotFound", "Port", id)
    return port


def create_ports(
    tx: Transaction, caller: Caller, dice: Random, asks: Sequence[Mapping[str, Any]], hosts: set[str]
) -> list[Port]:
    allocator = Allocator(tx, dice)
    made: list[Port] = []
    for fields in asks:
        made.append(_create_port(tx, caller, dice, allocator, fields))
    for project in {port.project_id for port in made}:
        check_quota(tx, project, "port", 0)
    hosts |= {port.host for port in made} | hosts_of_groups(tx, sorted({g for p in made for g in p.security_groups}))
    return made


def _create_port(
    tx: Transaction, caller: Caller, dice: Random, allocator: Allocator, fields: Mapping[str, Any]
) -> Port:
    network = get_network(tx, caller, fields["network_id"])
    project = owner_of(caller, fields.get("project_id"), "port")
    owned = caller.is_admin or network.project_id == caller.project_id
    _check_rights(caller, owned, fields)
    id = fields.get("id") or new_id(dice)
    mac = parsed_mac("mac_address", fields["mac_address"]) if fields.get("mac_address") else None
    mac = mac or _free_mac(tx, network.id, dice)
    security = fields.get("port_security_enabled")
    security = network.port_security if security is None else security
    owner = fields.get("device_owner") or ""
    port = Port(
        id=id,
        project_id=project,
        network_id=network.id,
        mac=mac,
        port_security=security,
        security_groups=_groups(tx, caller, project, owner, security, fields),
        allowed_address_pairs=_pairs(mac, security, fields.get("allowed_address_pairs")),
        dhcp_options=_options((), fields.get("extra_dhcp_opts")),
        fixed_ips=allocator.fixed_ips(id, network, mac, fields.get("fixed_ips"), owner.startswith("network:")),
        created_at_s=tx.now_s,
        updated_at_s=tx.now_s,
        **_plain(fields),
    )
    try:
        PORTS.insert(tx, port)
    except Conflict:
        raise conflict("MacAddressInUse", f"MAC address {mac} is in use on network {network.id}.") from None
    _join(tx, port, ())
    emit(tx, "network.port.created", id, project, caller=caller)
    return port


def _check_rights(caller: Caller, owns_network: bool, fields: Mapping[str, Any]) -> None:
    if caller.is_admin or "service" in caller.roles:
        return
    for field in ("binding:host_id", "binding:profile"):
        if fields.get(field):
            only_admin(caller, field, "port")
    if owns_network:
        return
    for field in ("mac_address", "allowed_address_pairs", "port_security_enabled"):
        if fields.get(field) is not None:
            only_admin(caller, field, "port")
    if any(ask.get("ip_address") for ask in fields.get("fixed_ips") or ()):
        only_admin(caller, "fixed_ips:ip_address", "port")
    if (fields.get("device_owner") or "").startswith("network:"):
        only_admin(caller, "device_owner", "port")


_PLAIN = {
    "name": "name",
    "description": "description",
    "device_id": "device_id",
    "device_owner": "device_owner",
    "binding:host_id": "host",
    "dns_name": "dns_name",
}


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that are kept as they come."""
    kept: dict[str, Any] = {ours: fields[theirs] or "" for theirs, ours in _PLAIN.items() if theirs in fields}
    if fields.get("admin_state_up") is not None:
        kept["admin_state_up"] = fields["admin_state_up"]
    if "binding:vnic_type" in fields:
        kept["vnic_type"] = fields["binding:vnic_type"] or "normal"
    if "binding:profile" in fields:
        kept["binding_profile"] = fields["binding:profile"] or {}
    for ours in ("made_for_server", "place", "device_tag"):
        if ours in fields:
            kept[ours] = fields[ours]
    return kept


def _free_mac(tx: Transaction, network_id: str, dice: Random) -> str:
    for _ in range(_MAC_TRIES):
        mac = addresses.new_mac(dice)
        if not PORTS.count(tx, network_id=network_id, mac=mac):
            return mac
    raise NoRoom("network.no_mac", f"No free MAC address was found on network {network_id}.")


def _groups(
    tx: Transaction, caller: Caller, project: str, owner: str, security: bool, fields: Mapping[str, Any]
) -> tuple[str, ...]:
    asked = fields.get("security_groups")
    if asked is None:
        return () if not security or owner.startswith("network:") else (ensure_default(tx, project).id,)
    if asked and not security:
        raise conflict(
            "PortSecurityAndIPRequiredForSecurityGroups",
            "Port security must be enabled and port must have an IP address in order to use security groups.",
        )
    return tuple(dict.fromkeys(get_group(tx, caller, id).id for id in asked))


def _pairs(mac: str, security: bool, given: Sequence[Mapping[str, str]] | None) -> tuple[AddressPair, ...]:
    pairs: dict[AddressPair, None] = {}
    for pair in given or ():
        cidr = parsed_cidr("allowed_address_pairs.ip_address", pair["ip_address"])
        own = parsed_mac("allowed_address_pairs.mac_address", pair["mac_address"]) if pair.get("mac_address") else mac
        text = str(cidr) if "/" in pair["ip_address"] else str(cidr.network_address)
        item = AddressPair(ip_address=text, mac_address=own)
        if item in pairs:
            raise bad_input("allowed_address_pairs", f"{text} of {own} is listed twice")
        pairs[item] = None
    if pairs and not security:
        raise conflict(
            "AddressPairAndPortSecurityRequired",
            "Port Security must be enabled in order to have allowed address pairs on a port.",
        )
    return tuple(pairs)


def _options(known: Sequence[DhcpOption], given: Sequence[Mapping[str, Any]] | None) -> tuple[DhcpOption, ...]:
    """An option that is given replaces the one of its name; without a value it goes."""
    kept = {(option.opt_name, option.ip_version): option for option in known}
    for ask in given or ():
        key = (ask["opt_name"], int(ask.get("ip_version") or 4))
        kept.pop(key, None)
        if not (key[0] in OPTION_NAMES or key[0].isdigit()):
            raise bad_input("extra_dhcp_opts", f"'{key[0]}' is not a DHCP option that can be set")
        if ask.get("opt_value") is not None:
            kept[key] = DhcpOption(opt_name=key[0], opt_value=ask["opt_value"], ip_version=key[1])
    return tuple(kept.values())


def _join(tx: Transaction, port: Port, before: Sequence[str]) -> None:
    for group in set(before) - set(port.security_groups):
        MEMBERSHIPS.delete(tx, f"{port.id}/{group}")
    new = [group for group in port.security_groups if group not in before]
    MEMBERSHIPS.insert_many(tx, [Membership(id=f"{port.id}/{g}", port_id=port.id, group_id=g) for g in new])


def update_port(
    tx: Transaction, caller: Caller, dice: Random, id: str, fields: Mapping[str, Any], hosts: set[str]
) -> Port:
    port = get_port(tx, caller, id)
    network = get_network(tx, caller, port.network_id)
    _check_rights(caller, caller.is_admin or network.project_id == caller.project_id, fields)
    new = _plain(fields)
    mac = port.mac
    if fields.get("mac_address"):
        mac = new["mac"] = parsed_mac("mac_address", fields["mac_address"])
        if mac != port.mac and port.host:
            raise conflict("PortBound", f"Unable to complete operation on port {id}, port is already bound.")
    security = fields.get("port_security_enabled")
    security = new["port_security"] = port.port_security if security is None else security
    if "security_groups" in fields:
        asked = {**fields, "security_groups": fields["security_groups"] or []}
        new["security_groups"] = _groups(tx, caller, port.project_id, port.device_owner, security, asked)
    elif not security and port.security_groups:
        raise conflict(
            "PortSecurityPortHasSecurityGroup",
            "Port has security group associated. Cannot disable port security or IP address until security group"
            " is removed.",
        )
    if "allowed_address_pairs" in fields:
        new["allowed_address_pairs"] = _pairs(mac, security, fields["allowed_address_pairs"])
    if "extra_dhcp_opts" in fields:
        new["dhcp_options"] = _options(port.dhcp_options, fields["extra_dhcp_opts"])
    if fields.get("fixed_ips") is not None:
        new["fixed_ips"] = _changed_ips(tx, dice, port, network, mac, fields["fixed_ips"])
    try:
        updated = PORTS.put(tx, changed(port, **new, updated_at_s=tx.now_s))
    except Conflict as error:
        if error.code.endswith(".exists"):
            raise conflict("MacAddressInUse", f"MAC address {mac} is in use on network {network.id}.") from None
        raise
    _join(tx, updated, port.security_groups)
    if port.host and updated.host != port.host:
        PLUGGED.delete(tx, id)
    hosts |= {port.host, updated.host}
    hosts |= hosts_of_groups(tx, sorted({*port.security_groups, *updated.security_groups}))
    emit(tx, "network.port.updated", id, port.project_id, caller=caller)
    _hint_servers(tx, port, updated)
    return updated


def _hint_servers(tx: Transaction, *ports: Port) -> None:
    for port in ports:
        if is_uuid(port.device_id) and port.device_owner.startswith("compute:"):
            tx.hint(f"{SERVER_HINT}{port.device_id}")


def _changed_ips(
    tx: Transaction, dice: Random, port: Port, network: Network, mac: str, asked: Sequence[Mapping[str, str]]
) -> tuple[FixedIp, ...]:
    """Those that stay are kept as they are, so that an update that repeats them changes nothing."""
    allocator = Allocator(tx, dice)
    known = {ip.ip_address: ip for ip in port.fixed_ips}
    kept: list[FixedIp] = []
    rest: list[Mapping[str, str]] = []
    for ask in asked:
        same = known.get(ask.get("ip_address") or "")
        if same is None and not ask.get("ip_address"):
            same = next((ip for ip in port.fixed_ips if ip.subnet_id == ask.get("subnet_id") and ip not in kept), None)
        if same is not None and ask.get("subnet_id") in (None, same.subnet_id) and same not in kept:
            kept.append(same)
        else:
            rest.append(ask)
    for ip in port.fixed_ips:
        if ip not in kept:
            allocator.release(ip.subnet_id, ip.ip_address)
    have = {ip.subnet_id for ip in kept}
    router = port.device_owner.startswith("network:")
    new = allocator.fixed_ips(port.id, network, mac, rest, router, automatic=False) if rest else ()
    automatic: list[FixedIp] = []
    if not router and asked:
        have |= {ip.subnet_id for ip in new}
        for subnet in allocator.subnets(network.id):
            if subnet.self_addressed and subnet.id not in have:
                automatic.append(allocator.self_made(port.id, subnet, mac))
    return (*kept, *new, *automatic)


def delete_port(tx: Transaction, caller: Caller, id: str, hosts: set[str]) -> None:
    port = get_port(tx, caller, id)
    if not (caller.is_admin or port.project_id == caller.project_id):
        own_network(tx, caller, port.network_id)
    hosts |= {port.host} | hosts_of_groups(tx, port.security_groups)
    ADDRESSES.delete_where(tx, port_id=id)
    MEMBERSHIPS.delete_where(tx, port_id=id)
    PLUGGED.delete(tx, id)
    PORTS.delete(tx, id)
    emit(tx, "network.port.deleted", id, port.project_id, caller=caller)
    _hint_servers(tx, port)

"""The `ip` commands that lead from what is found to what is wanted.  Pure; each line is one of `ip -batch`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from apus.kernel.errors import Conflict, Unavailable
from apus.services.network.drivers.driver import NetworkSpec, PortSpec
from apus.services.network.drivers.flat.dnsmasq import own_ip
from apus.services.network.drivers.flat.names import Names, TransitLink, transit_link
from apus.services.network.drivers.flat.ruleset import METADATA_IPV4, METADATA_IPV6
from apus.services.network.drivers.flat.validate import Cidr, checked_cidr, checked_device, checked_ip


class FoundHost(msgspec.Struct, frozen=True):
    """What of the host's own network matters to one network of ours."""

    links: frozenset[str]
    namespaces: frozenset[str]
    addresses: Mapping[str, tuple[str, ...]]
    """Device -> `ip/length`, IPv4."""
    routes: tuple[tuple[str, str], ...] = ()
    """(destination, device) of the routes that are not default ones."""


class FoundNamespace(msgspec.Struct, frozen=True):
    """What the network's namespace holds: device -> `ip/length`."""

    addresses: Mapping[str, tuple[str, ...]] = {}


def uplink(network: NetworkSpec, names: Names, found: FoundHost, promised: Collection[str]) -> TransitLink | None:
    """The link to the outside: the one that is there, else a free one; none for a network that needs none."""
    if not (network.nat or network.host_reachable):
        return None
    device = names.transit(network.id)
    for address in found.addresses.get(device, ()):
        ip = checked_ip(address.split("/")[0])
        return TransitLink(str(ip), str(ip + 1))
    taken = {a.split("/")[0] for addresses in found.addresses.values() for a in addresses}
    return transit_link(device, frozenset(taken | set(promised)))


def host_commands(
    network: NetworkSpec,
    names: Names,
    found: FoundHost,
    link: TransitLink | None,
    physical: Mapping[str, str],
    via_ip_layer: bool,
) -> list[str]:
    """In the host's namespace: the bridge, the namespace, the links of both, routes to guests."""
    bridge, gateway, transit = names.bridge(network.id), names.gateway(network.id), names.transit(network.id)
    namespace, mtu = names.namespace(network.id), int(network.mtu)
    lines: list[str] = []
    if bridge not in found.links:
        lines.append(f"link add {bridge} type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
    track = f"nf_call_iptables {int(via_ip_layer)} nf_call_ip6tables {int(via_ip_layer)} nf_call_arptables 0"
    lines.append(f"link set {bridge} type bridge {track}")
    lines.append(f"link set {bridge} alias network:{network.id} mtu {mtu} addrgenmode none arp off up")
    if namespace not in found.namespaces:
        lines.append(f"netns add {namespace}")
    if gateway not in found.links:
        lines.append(f"link add {gateway} mtu {mtu} type veth peer name gw mtu {mtu} netns {namespace}")
    lines.append(f"link set {gateway} mtu {mtu} master {bridge} addrgenmode none up")
    lines += _physical_commands(network, names, found, physical)
    if link is None:
        return lines + ([f"link delete {transit}"] if transit in found.links else [])
    if transit not in found.links:
        lines.append(f"link add {transit} type veth peer name uplink netns {namespace}")
    lines.append(f"address replace {link.host_ip}/30 dev {transit}")
    lines.append(f"link set {transit} addrgenmode none up")
    return lines + _route_commands(network, transit, found, link)


def _physical_commands(network: NetworkSpec, names: Names, found: FoundHost, physical: Mapping[str, str]) -> list[str]:
    segment = network.physical_network
    if segment is None:
        return []
    device = physical.get(segment)
    if device is None or device not in found.links:
        what = (
            f"no interface for it is configured (there are {sorted(physical)})"
            if device is None
            else f"{device} is absent"
        )
        raise Unavailable("network.no_physical_network", f"physical network {segment!r}: {what}")
    checked_device(device)
    bridge = names.bridge(network.id)
    if network.vlan_id is None:
        if found.addresses.get(device):
            raise Conflict(
                "network.interface_in_use",
                f"physical network {segment!r}: {device} has the host's own addresses; an untagged network needs an "
                "interface without any, or a VLAN of this one",
            )
        return [f"link set {device} master {bridge} up"]
    tagged = names.vlan(network.id)
    lines = (
        [] if tagged in found.links else [f"link add link {device} name {tagged} type vlan id {int(network.vlan_id)}"]
    )
    return [*lines, f"link set {device} up", f"link set {tagged} master {bridge} addrgenmode none up"]


def _route_commands(network: NetworkSpec, transit: str, found: FoundHost, link: TransitLink) -> list[str]:
    wanted = [checked_cidr(s.cidr) for s in network.subnets] if network.host_reachable else []
    wanted = [cidr for cidr in wanted if cidr.version == 4]
    for cidr in wanted:
        for destination, device in found.routes:
            other = checked_cidr(destination)
            if device != transit and other.version == cidr.version and _overlap(cidr, other):
                raise Conflict(
                    "network.route_overlaps",
                    f"{cidr} cannot be reached from the host: it overlaps {destination}, which is routed to {device}",
                )
    lines = [f"route replace {cidr} via {link.namespace_ip} dev {transit}" for cidr in wanted]
    kept = {str(cidr) for cidr in wanted} | {str(checked_cidr(f"{link.host_ip}/30"))}
    stale = [to for to, device in found.routes if device == transit and str(checked_cidr(to)) not in kept]
    return [*lines, *(f"route delete {to} dev {transit}" for to in stale)]


def _overlap(one: Cidr, other: Cidr) -> bool:
    first, last = int(one.network_address), int(one.broadcast_address)
    return first <= int(other.broadcast_address) and int(other.network_address) <= last


def namespace_commands(network: NetworkSpec, found: FoundNamespace, link: TransitLink | None) -> list[str]:
    """Inside the network's namespace: its addresses on the bridge, and the way out."""
    wanted: list[str] = []
    for subnet in network.subnets:
        ip = own_ip(subnet)
        if ip:
            wanted.append(f"{checked_ip(ip)}/{checked_cidr(subnet.cidr).prefixlen}")
    wanted += [f"{METADATA_IPV4}/32", f"{METADATA_IPV6}/64"]  # last: the first is what our own packets come from
    stale = [a for a in found.addresses.get("gw", ()) if a not in wanted and not a.startswith("fe80:")]
    lines = ["link set lo up", f"link set gw mtu {int(network.mtu)} up"]
    lines += [f"address delete {address} dev gw" for address in stale]
    present = found.addresses.get("gw", ())
    lines += [
        f"address add {a} dev gw{' nodad' if ':' in a else ''}" for a in dict.fromkeys(wanted) if a not in present
    ]
    if link is not None:
        lines.append(f"address replace {link.namespace_ip}/30 dev uplink")
        lines += ["link set uplink addrgenmode none up", f"route replace default via {link.host_ip} dev uplink"]
    return lines


def port_commands(port: PortSpec, names: Names, present: bool) -> list[str]:
    device = names.tap(port.id)
    lines = []
    if not present:
        owner = "" if port.owner_uid is None else f" user {int(port.owner_uid)}"
        lines.append(f"tuntap add dev {device} mode tap{owner}")
    state = "up" if port.admin_state_up else "down"
    attach = f"master {names.bridge(port.network_id)} alias port:{port.id}:{port.network_id}"
    return [*lines, f"link set {device} addrgenmode none mtu {int(port.mtu)} {attach} {state}"]

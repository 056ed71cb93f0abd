"""nftables rules from specs: pure text, each piece one transaction that may be applied again and again.

Sources are checked in the bridge's prerouting hook, before the bridge learns where a MAC lives; a forged frame must
not even teach it.  Permissions are checked in the forward hook, in two base chains: one by the device that a frame
came in from (what its guest may send), one by the device that it leaves to (what that guest may receive).

Being part of a known connection permits nothing: each packet is judged by the rules as they are now, so that a
connection ends with the rule that let it in.  What goes the way of the connection's first packet is read as it
stands; answers are read backwards against the rules of the other direction (`sport` for `dport`), and pass by no
other.  Tracking is needed to tell an answer from a packet that opens a connection of its own.

Bridges track connections themselves where the kernel has `nf_conntrack_bridge`.  Elsewhere bridged frames are led
through the IP layer's tracking (`nf_call_iptables` of our bridges only), which leaves its verdict in two bits of the
packet mark for the bridge rules to read.  Every network is a zone of its own, as tenants' addresses overlap.
"""

from __future__ import annotations

import enum
import ipaddress
from collections.abc import Iterable, Sequence

from apus.services.network.drivers.driver import AddressSet, NetworkSpec, PortSpec, SecurityRule
from apus.services.network.drivers.flat.names import Names, short
from apus.services.network.drivers.flat.validate import checked_cidr, checked_ip, checked_mac

_RELATED, _BROKEN, _ANSWER, _BITS = 0x20000000, 0x40000000, 0x60000000, 0x60000000
METADATA_IPV4, METADATA_IPV6 = "169.254.169.254", "fe80::a9fe:a9fe"
_PORTED = {6: "tcp", 17: "udp", 33: "dccp", 132: "sctp", 136: "udplite"}
_ICMP_ANSWERS = {4: {8: 0, 13: 14, 15: 16, 17: 18}, 6: {128: 129, 139: 140}}
"""By IP version, which type answers which: the questions that connection tracking knows."""
_FAMILIES = (("IPv4", "ip", 4), ("IPv6", "ip6", 6))


class Tracking(enum.Enum):
    """Who tracks the connections of bridged frames."""

    BRIDGE = "bridge"
    IP_LAYER = "ip_layer"

    @property
    def related(self) -> str:
        """An ICMP error about a known connection."""
        return self._either("ct state related", _RELATED)

    @property
    def answer(self) -> str:
        """A packet of a known connection that goes against the way of its first packet."""
        return self._either("ct state established ct direction reply", _ANSWER)

    @property
    def invalid(self) -> str:
        return self._either("ct state invalid", _BROKEN)

    def _either(self, state: str, bits: int) -> str:
        return state if self is Tracking.BRIDGE else f"meta mark and {_BITS:#x} == {bits:#x}"


PROBE_BRIDGE_TRACKING = "add table bridge {table}\nadd chain bridge {table} f\nadd rule bridge {table} f ct state new\n"


def table_name(names: Names) -> str:
    return f"apus_{names.prefix}"


def _set_name(name: str, version: int) -> str:
    return f"g{version}_{short(name)}"


def _chain(family: str, table: str, chain: str, rules: Iterable[str], hook: str = "") -> list[str]:
    """The chain with these rules and no others, made if it is not there."""
    head = f"add chain {family} {table} {chain}" + (f" {{ {hook}; }}" if hook else "")
    return [
        head,
        f"flush chain {family} {table} {chain}",
        *(f"add rule {family} {table} {chain} {r}" for r in rules),
    ]


def text(lines: Sequence[str]) -> str:
    return "".join(line + "\n" for line in lines)


def host_rules(names: Names, tracking: Tracking, guest_ports: Sequence[int]) -> list[str]:
    """The tables of the cloud in the host's namespace, without any port or network; leaves those alone."""
    table = table_name(names)
    bridge, inet = f"bridge {table}", f"inet {table}"
    lines = [f"add table {bridge}", f"add table {inet}"]
    lines += [f"add map {bridge} {way} {{ type ifname : verdict; }}" for way in ("source", "leave", "enter")]
    lines += _chain(
        "bridge", table, "check_source", ["iifname vmap @source"], "type filter hook prerouting priority -300"
    )
    lines += _chain("bridge", table, "check_leave", ["iifname vmap @leave"], "type filter hook forward priority -210")
    lines += _chain("bridge", table, "check_enter", ["oifname vmap @enter"], "type filter hook forward priority -205")
    no_guest_to_host = [f"iifname {names.any_of(kind)} drop" for kind in "pgv"]
    lines += _chain("bridge", table, "to_host", no_guest_to_host, "type filter hook input priority -200")
    family = "bridge" if tracking is Tracking.BRIDGE else "inet"
    lines.append(f"add map {family} {table} zone {{ type ifname : verdict; }}")
    zone_hook = f"type filter hook prerouting priority {-310 if family == 'bridge' else -450}"
    lines += _chain(family, table, "choose_zone", ["iifname vmap @zone"], zone_hook)
    if tracking is Tracking.IP_LAYER:
        ours, clear = f"iifname {names.any_of('b')}", f"meta mark set meta mark and {0xFFFFFFFF ^ _BITS:#x}"
        marks = [f"{ours} ct state related {clear} or {_RELATED:#x}"]
        marks += [f"{ours} ct state established ct direction reply {clear} or {_ANSWER:#x}"]
        marks += [f"{ours} ct state invalid {clear} or {_BROKEN:#x}"]
        lines += _chain("inet", table, "mark_state", marks, "type filter hook prerouting priority -150")
    transit = names.any_of("t")
    masquerade = [f"meta nfproto ipv4 iifname {transit} oifname != {transit} masquerade"]
    lines += _chain("inet", table, "to_outside", masquerade, "type nat hook postrouting priority 100")
    between = [
        f"iifname {transit} oifname {transit} drop",
        f"oifname {transit} ct state established,related accept",
        f"oifname {transit} drop",
    ]
    lines += _chain("inet", table, "between", between, "type filter hook forward priority 0")
    to_host = [f"iifname {transit} ct state established,related accept"]
    to_host += [f"iifname {transit} meta l4proto {{ icmp, ipv6-icmp }} accept"]
    if guest_ports:
        to_host.append(f"iifname {transit} tcp dport {{ {', '.join(str(int(p)) for p in guest_ports)} }} accept")
    to_host.append(f"iifname {transit} drop")
    return lines + _chain("inet", table, "host_services", to_host, "type filter hook input priority 0")


def sweep_rules(names: Names) -> list[str]:
    table = table_name(names)
    return [f"{verb} table {family} {table}" for family in ("bridge", "inet") for verb in ("add", "delete")]


def network_rules(names: Names, network_id: str, zone: int, tracking: Tracking) -> list[str]:
    """The network's conntrack zone, and which interfaces other than ports belong to it."""
    table, family = table_name(names), "bridge" if tracking is Tracking.BRIDGE else "inet"
    members = [names.bridge(network_id)]
    if tracking is Tracking.BRIDGE:
        members = [names.gateway(network_id), names.vlan(network_id)]
    chain = f"z_{short(network_id)}"
    lines = _chain(family, table, chain, [f"ct zone set {zone}"])
    return lines + [f'add element {family} {table} zone {{ "{device}" : jump {chain} }}' for device in members]


def network_absent_rules(names: Names, key: str, tracking: Tracking) -> list[str]:
    if tracking is Tracking.BRIDGE:
        members = [f"{names.prefix}{kind}{key}" for kind in "gv"]
        return _chain_absent("bridge", table_name(names), f"z_{key}", "zone", members)
    return _chain_absent("inet", table_name(names), f"z_{key}", "zone", [f"{names.prefix}b{key}"])


def _chain_absent(family: str, table: str, chain: str, map_name: str, devices: Sequence[str]) -> list[str]:
    """Added first, for deleting what is not there would refuse the whole transaction."""
    lines = [f"add chain {family} {table} {chain}"]
    for device in devices:
        element = f'{family} {table} {map_name} {{ "{device}" : jump {chain} }}'
        lines += [f"add element {element}", f"delete element {element}"]
    return [*lines, f"flush chain {family} {table} {chain}", f"delete chain {family} {table} {chain}"]


def port_rules(names: Names, port: PortSpec, zone: int, tracking: Tracking) -> list[str]:
    """The port's chains, and the jumps to them as the very last."""
    table, device, key = table_name(names), names.tap(port.id), short(port.id)
    lines: list[str] = []
    if tracking is Tracking.BRIDGE:
        lines += _chain("bridge", table, f"z_{key}p", [f"ct zone set {zone}"])
        lines.append(f'add element bridge {table} zone {{ "{device}" : jump z_{key}p }}')
    if not port.port_security:
        return lines + _filters_absent(names, key)
    for name in sorted({rule.remote_set for rule in port.rules if rule.remote_set}):
        lines += _sets(table, name)
    lines += _chain("bridge", table, f"s_{key}", _source_rules(port))
    lines += _chain("bridge", table, f"al_{key}", [*_permissions(port, "ingress", backwards=True), "drop"])
    lines += _chain("bridge", table, f"l_{key}", _leave_rules(port, key, tracking))
    lines += _chain("bridge", table, f"ae_{key}", [*_permissions(port, "egress", backwards=True), "drop"])
    lines += _chain("bridge", table, f"e_{key}", _enter_rules(port, key, tracking))
    for way, chain in (("source", f"s_{key}"), ("leave", f"l_{key}"), ("enter", f"e_{key}")):
        lines.append(f'add element bridge {table} {way} {{ "{device}" : jump {chain} }}')
    return lines


def _filters_absent(names: Names, key: str) -> list[str]:
    table, device = table_name(names), f"{names.prefix}p{key}"
    lines: list[str] = []
    for way, chain in (("source", f"s_{key}"), ("leave", f"l_{key}"), ("enter", f"e_{key}")):
        lines += _chain_absent("bridge", table, chain, way, [device])
    for chain in (f"al_{key}", f"ae_{key}"):  # last: nothing refers to them any more
        lines += _chain_absent("bridge", table, chain, "", [])
    return lines


def port_absent_rules(names: Names, key: str, tracking: Tracking) -> list[str]:
    """By the short form of the port's id, which is all that is left of a port that nobody remembers."""
    lines = _filters_absent(names, key)
    if tracking is Tracking.BRIDGE:
        lines += _chain_absent("bridge", table_name(names), f"z_{key}p", "zone", [f"{names.prefix}p{key}"])
    return lines


def _sets(table: str, name: str) -> list[str]:
    return [
        f"add set bridge {table} {_set_name(name, version)} {{ type ipv{version}_addr; flags interval; }}"
        for version in (4, 6)
    ]


def set_rules(names: Names, sets: Sequence[AddressSet]) -> list[str]:
    table = table_name(names)
    lines: list[str] = []
    for wanted in sets:
        lines += _sets(table, wanted.name)
        for version in (4, 6):
            name = _set_name(wanted.name, version)
            lines.append(f"flush set bridge {table} {name}")
            members = collapsed(wanted.addresses, version)
            if members:
                lines.append(f"add element bridge {table} {name} {{ {', '.join(members)} }}")
    return lines


def set_absent_rules(names: Names, set_names: Sequence[str]) -> list[str]:
    table = table_name(names)
    lines: list[str] = []
    for name in set_names:
        lines += _sets(table, name)
        lines += [f"delete set bridge {table} {_set_name(name, version)}" for version in (4, 6)]
    return lines


def collapsed(addresses: Iterable[str], version: int) -> list[str]:
    """The addresses of one version without overlaps, which an interval set does not take."""
    networks = [checked_cidr(address) for address in addresses]
    if version == 4:
        return [str(n) for n in ipaddress.collapse_addresses(n for n in networks if n.version == 4)]
    return [str(n) for n in ipaddress.collapse_addresses(n for n in networks if n.version == 6)]


def link_local(mac: str) -> str:
    """The IPv6 address that an interface gives itself from its MAC (RFC 4291, modified EUI-64)."""
    octets = bytes.fromhex(checked_mac(mac).replace(":", ""))
    interface = bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + interface))


def _own_addresses(port: PortSpec) -> dict[str, list[str]]:
    """MAC -> what it may send from."""
    own: dict[str, list[str]] = {checked_mac(port.mac): [str(checked_ip(ip)) for ip in port.fixed_ips]}
    for pair in port.allowed_address_pairs:
        own.setdefault(checked_mac(pair.mac), []).append(pair.cidr)
    for mac, addresses in own.items():
        addresses.append(link_local(mac))
    return own


def _source_rules(port: PortSpec) -> list[str]:
    own = _own_addresses(port)
    rules = [f"ether saddr != {{ {', '.join(sorted(own))} }} drop"]
    for mac, addresses in own.items():
        ipv4, ipv6 = collapsed(addresses, 4), collapsed(addresses, 6)
        rules.append(f"ether saddr {mac} arp saddr ether != {mac} drop")
        if "0.0.0.0/0" in ipv4:
            rules.append(f"ether saddr {mac} meta protocol {{ arp, ip }} accept")
        elif ipv4:
            members = ", ".join(ipv4)
            rules.append(f"ether saddr {mac} arp saddr ip {{ 0.0.0.0, {members} }} accept")
            rules.append(f"ether saddr {mac} ip saddr {{ {members} }} accept")
        if "::/0" in ipv6:
            rules.append(f"ether saddr {mac} meta protocol ip6 accept")
            continue
        rules += _neighbour_rules(mac, ipv6)
        rules.append(f"ether saddr {mac} ip6 saddr {{ {', '.join(ipv6)} }} accept")
    rules.append("ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept")
    # duplicate address detection and multicast reports are sent before there is an address
    rules.append("ip6 saddr :: icmpv6 type { 131, 133, 135, 143 } accept")
    return [*rules, "drop"]


def _neighbour_rules(mac: str, own_ipv6: Sequence[str]) -> list[str]:
    """An advertisement's target, too, must be the port's own; nftables 1.0 has no name for that field."""
    tests = []
    for cidr in own_ipv6:
        network = ipaddress.IPv6Network(cidr)
        bits = network.prefixlen
        tests.append(f"@th,64,{bits} {int(network.network_address) >> (128 - bits):#x}")
    head = f"ether saddr {mac} icmpv6 type 136"
    return [
        *(f"{head} {test} ip6 saddr {{ {', '.join(own_ipv6)} }} accept" for test in tests),
        f"{head} drop",
    ]


def _leave_rules(port: PortSpec, key: str, tracking: Tracking) -> list[str]:
    fixed = [
        "meta protocol arp accept",
        "meta protocol ip udp sport 68 udp dport 67 accept",
        "meta protocol ip6 udp sport 546 udp dport 547 accept",
        "udp sport { 67, 547 } udp dport { 68, 546 } drop",  # a guest is no DHCP server
        "icmpv6 type { 134, 137 } drop",  # nor a router
        "icmpv6 type { 130, 131, 132, 133, 135, 136, 143 } accept",
        *_known(tracking, f"al_{key}"),
    ]
    return [*fixed, *_permissions(port, "egress"), "drop"]


def _enter_rules(port: PortSpec, key: str, tracking: Tracking) -> list[str]:
    fixed = [
        "meta protocol arp accept",
        "meta protocol ip udp sport 67 udp dport 68 accept",
        "meta protocol ip6 udp sport 547 udp dport 546 accept",
        "icmpv6 type { 130, 134, 135, 136 } accept",
        *_known(tracking, f"ae_{key}"),
    ]
    return [*fixed, *_permissions(port, "ingress"), "drop"]


def _known(tracking: Tracking, answers: str) -> list[str]:
    return [f"{tracking.related} accept", f"{tracking.invalid} drop", f"{tracking.answer} goto {answers}"]


def _permissions(port: PortSpec, direction: str, *, backwards: bool = False) -> list[str]:
    found: dict[str, None] = {}
    for rule in port.rules:
        if rule.direction == direction:
            found.update(dict.fromkeys(permission(rule, backwards=backwards)))
    return list(found)


def permission(rule: SecurityRule, *, backwards: bool = False) -> list[str]:
    """The rule's matches, one for each kind of remote; `backwards`: of the answers to what the rule lets through."""
    _, family, version = next(f for f in _FAMILIES if f[0] == rule.ethertype)
    service = _service(rule, version, backwards)
    if service is None:
        return []
    field = f"{family} {'saddr' if (rule.direction == 'ingress') is not backwards else 'daddr'}"
    remotes: list[str] = []
    if rule.remote_cidrs:
        cidrs = collapsed(rule.remote_cidrs, version)
        if cidrs and cidrs[0].endswith("/0"):
            remotes.append(f"meta protocol {family}")
        elif cidrs:
            remotes.append(f"{field} {{ {', '.join(cidrs)} }}")
    elif rule.remote_set is None:
        remotes.append(f"meta protocol {family}")
    if rule.remote_set is not None:
        remotes.append(f"{field} @{_set_name(rule.remote_set, version)}")
    return [f"{remote}{service} accept" for remote in remotes]


def _service(rule: SecurityRule, version: int, backwards: bool) -> str | None:
    """None: nothing can be an answer to it."""
    protocol = rule.protocol
    if protocol is None:
        return ""
    if protocol in (1, 58):
        return _icmp(rule, version, backwards)
    if protocol not in _PORTED or rule.port_min is None:
        return f" meta l4proto {int(protocol)}"
    low, high = int(rule.port_min), int(rule.port_max if rule.port_max is not None else rule.port_min)
    field = "sport" if backwards else "dport"
    return f" meta l4proto {int(protocol)} th {field} {low if low == high else f'{low}-{high}'}"


def _icmp(rule: SecurityRule, version: int, backwards: bool) -> str | None:
    name = "icmp" if version == 4 else "icmpv6"
    if rule.port_min is None:
        return f" meta l4proto {'icmp' if version == 4 else 'ipv6-icmp'}"
    if backwards:
        answer = _ICMP_ANSWERS[version].get(int(rule.port_min))
        return None if answer is None else f" {name} type {answer}"
    code = "" if rule.port_max is None else f" {name} code {int(rule.port_max)}"
    return f" {name} type {int(rule.port_min)}{code}"


def namespace_rules(network: NetworkSpec, host_ip: str | None) -> list[str]:
    """What the network's own namespace lets in and through; it holds the gateway, DHCP, DNS and metadata."""
    guests_v4 = [s.cidr for s in network.subnets if checked_cidr(s.cidr).version == 4]
    services = [
        "ct state established,related accept",
        "ct state invalid drop",
        "meta l4proto { icmp, ipv6-icmp } accept",
        'iifname "lo" accept',
        'iifname "gw" udp dport { 53, 67, 547 } accept',
        'iifname "gw" tcp dport 53 accept',
        f'iifname "gw" ip daddr {METADATA_IPV4} tcp dport 80 accept',
        f'iifname "gw" ip6 daddr {METADATA_IPV6} tcp dport 80 accept',
        "drop",
    ]
    through = ["ct state established,related accept"]
    if network.nat and guests_v4:
        through.append(f'iifname "gw" oifname "uplink" ip saddr {{ {", ".join(collapsed(guests_v4, 4))} }} accept')
    if network.host_reachable and host_ip:
        through.append(f'iifname "uplink" oifname "gw" ip saddr {checked_ip(host_ip)} accept')
    lines = ["add table inet apus"]
    lines += _chain("inet", "apus", "services", services, "type filter hook input priority 0")
    lines += _chain("inet", "apus", "through", [*through, "drop"], "type filter hook forward priority 0")
    masquerade = ['oifname "uplink" masquerade']
    return lines + _chain("inet", "apus", "to_outside", masquerade, "type nat hook postrouting priority 100")

"""Security group rules in the words of the API and in those of the host's driver."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from apus.services.network.drivers.driver import SecurityRule
from apus.services.network.model import Rule

PROTOCOLS: Final = {
    "ah": 51, "dccp": 33, "egp": 8, "esp": 50, "gre": 47, "icmp": 1, "icmpv6": 58, "igmp": 2, "ipip": 4,
    "ipv6-encap": 41, "ipv6-frag": 44, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "ipv6-route": 43,
    "ospf": 89, "pgm": 113, "rsvp": 46, "sctp": 132, "tcp": 6, "udp": 17, "udplite": 136, "vrrp": 112,
}  # fmt: skip
"""The names that the API takes (network API reference, security group rules)."""
PORTED: Final = frozenset({6, 17, 33, 132, 136})
ICMP: Final = frozenset({1, 58})


def protocol_number(protocol: str | None) -> int | None:
    if protocol is None or protocol in ("any", "0"):
        return None
    return PROTOCOLS.get(protocol) or int(protocol)


def flattened(rules: Sequence[Rule]) -> tuple[SecurityRule, ...]:
    """What a port of these groups may do, each permission once."""
    found: dict[SecurityRule, None] = {}
    for rule in sorted(rules, key=lambda rule: rule.id):
        direction: Literal["ingress", "egress"] = "ingress" if rule.direction == "ingress" else "egress"
        ethertype: Literal["IPv4", "IPv6"] = "IPv6" if rule.ethertype == "IPv6" else "IPv4"
        number = protocol_number(rule.protocol)
        found[
            SecurityRule(
                direction=direction,
                ethertype=ethertype,
                protocol=58 if number == 1 and ethertype == "IPv6" else number,
                port_min=rule.port_min,
                port_max=rule.port_max,
                remote_cidrs=(rule.remote_ip_prefix,) if rule.remote_ip_prefix else (),
                remote_set=rule.remote_group_id,
            )
        ] = None
    return tuple(found)

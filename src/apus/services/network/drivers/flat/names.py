"""What our things are called on the machine.

An interface's name has 15 characters: 5 of the cloud, one for the kind, 9 of the thing's id.  The cloud's prefix
alone decides what is ours, so two clouds on one machine, or two hosts of one cloud in namespaces of one machine,
need different prefixes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
import re

_PREFIX = re.compile(r"[a-z][a-z0-9]{1,4}")
_HEX_ID = re.compile(r"[0-9a-f]{32}")


def short(id: str) -> str:
    """Nine characters of an id: of a UUID its first ones, which people recognise."""
    plain = id.replace("-", "").lower()
    if _HEX_ID.fullmatch(plain):
        return plain[:9]
    return hashlib.blake2s(id.encode(), digest_size=5).hexdigest()[:9]


@dataclasses.dataclass(frozen=True, slots=True)
class Names:
    prefix: str

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):
            raise ValueError(f"prefix {self.prefix!r}: must be 2 to 5 characters a-z0-9, the first a letter")

    def bridge(self, network_id: str) -> str:
        return f"{self.prefix}b{short(network_id)}"

    def gateway(self, network_id: str) -> str:
        """The bridge's end of the link into the network's namespace."""
        return f"{self.prefix}g{short(network_id)}"

    def transit(self, network_id: str) -> str:
        """The host's end of the link that leads from the namespace to the outside."""
        return f"{self.prefix}t{short(network_id)}"

    def vlan(self, network_id: str) -> str:
        return f"{self.prefix}v{short(network_id)}"

    def tap(self, port_id: str) -> str:
        return f"{self.prefix}p{short(port_id)}"

    def namespace(self, network_id: str) -> str:
        return f"{self.prefix}n{short(network_id)}"

    def any_of(self, kind: str) -> str:
        """All our interfaces of a kind, as nftables writes it."""
        return f'"{self.prefix}{kind}*"'

    def owns(self, name: str) -> bool:
        return re.fullmatch(rf"{self.prefix}[bgtvpn][0-9a-f]{{9}}", name) is not None


TRANSIT_POOL = ipaddress.IPv4Network("100.64.0.0/10")
"""Shared address space (RFC 6598): never a tenant's, never routed outside."""
_LINKS = 1 << (30 - TRANSIT_POOL.prefixlen)


@dataclasses.dataclass(frozen=True, slots=True)
class TransitLink:
    host_ip: str
    namespace_ip: str


def transit_link(name: str, taken_ips: frozenset[str]) -> TransitLink:
    """A /30 for the link, found from its name, so that nothing has to be remembered; the next one if it is taken."""
    start = int.from_bytes(hashlib.blake2s(name.encode(), digest_size=4).digest()) % _LINKS
    for step in range(_LINKS):
        first = int(TRANSIT_POOL.network_address) + ((start + step) % _LINKS) * 4
        link = TransitLink(str(ipaddress.IPv4Address(first + 1)), str(ipaddress.IPv4Address(first + 2)))
        if link.host_ip not in taken_ips and link.namespace_ip not in taken_ips:
            return link
    raise ValueError("no transit address is free")

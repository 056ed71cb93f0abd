"""Which address a port gets.  Pure: what is taken is passed in, the choice is returned, None when nothing is left."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from random import Random

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Cidr = ipaddress.IPv4Network | ipaddress.IPv6Network
Range = tuple[int, int]
"""First and last, both included."""


def usable(cidr: Cidr) -> Range:
    """Addresses that a host may have: without the network's and, for IPv4, the broadcast one."""
    first, last = int(cidr.network_address), int(cidr.broadcast_address)
    if cidr.version == 4 and cidr.prefixlen >= 31:
        return first, last
    if cidr.version == 6 and cidr.prefixlen == 128:
        return first, last
    return first + 1, last - (cidr.version == 4)


def without(whole: Range, excluded: int | None) -> list[Range]:
    """The range in pieces around one address: the pools of a subnet that names none."""
    first, last = whole
    if excluded is None or not first <= excluded <= last:
        return [whole]
    pieces = [(first, excluded - 1), (excluded + 1, last)]
    return [(low, high) for low, high in pieces if low <= high]


def choose(pools: Sequence[Range], taken: Collection[int], dice: Random) -> int | None:
    """A free address: the next one from a place by chance, so that an address just freed is seldom given again."""
    sizes = [last - first + 1 for first, last in pools]
    total = sum(sizes)
    inside = sum(1 for address in taken if any(first <= address <= last for first, last in pools))
    if total <= inside:
        return None
    start = dice.randrange(min(total, 1 << 62))
    for step in range(inside + 1):
        place = (start + step) % total
        for (first, _), size in zip(pools, sizes, strict=True):
            if place < size:
                if first + place not in taken:
                    return first + place
                break
            place -= size
    raise AssertionError("more addresses taken than counted")


def eui64(cidr: ipaddress.IPv6Network, mac: str) -> str:
    """The address that a guest makes from the prefix and its MAC (RFC 4291, modified EUI-64)."""
    octets = bytes.fromhex(mac.replace(":", ""))
    interface = int.from_bytes(bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:])
    return str(ipaddress.IPv6Address(int(cidr.network_address) | interface))


def overlap(one: Cidr, other: Cidr) -> bool:
    return one.version == other.version and one.overlaps(other)


def new_mac(dice: Random) -> str:
    """In the range that OpenStack uses, so that a guest's MAC is told from a machine's."""
    return "fa:16:3e:" + ":".join(f"{dice.randrange(256):02x}" for _ in range(3))

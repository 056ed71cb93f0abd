"""Where the store may send requests for its clients: not to the machine itself, its links, or a cloud's metadata."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from apus.kernel.errors import Invalid

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
URL_MAX: Final = 2_000
_METADATA: Final = (ipaddress.ip_network("fd00:ec2::254/128"), ipaddress.ip_network("100.100.100.200/32"))
_CARRY_V4: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))
"""Addresses of version 6 whose last 32 bits are one of version 4."""


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Raise Invalid."""
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise Invalid("object.webhook_networks", f"{error}.", field="webhook_networks") from error


def may_reach(text: str, allowed: Sequence[Network]) -> bool:
    """`allowed` are networks that the operator opens although they would be closed."""
    try:
        address = _plain(ipaddress.ip_address(text.partition("%")[0]))
    except ValueError:
        return False
    if any(address in network for network in allowed):
        return True
    closed = (
        address.is_loopback or address.is_link_local or address.is_multicast or address.is_unspecified
        or address.is_reserved
    )  # fmt: skip
    return not closed and not any(address in network for network in _METADATA)


def _plain(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if isinstance(address, ipaddress.IPv4Address):
        return address
    inside = address.ipv4_mapped or address.sixtofour
    if inside is None and any(address in network for network in _CARRY_V4) and int(address) > 1:
        inside = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return inside or address


def check_url(url: str, allowed: Sequence[Network]) -> None:
    """Raise Invalid for what is no URL to send to.  A name is looked at again when it is resolved."""
    try:
        parts = urlsplit(url)
        host, good = parts.hostname, parts.scheme in ("http", "https") and parts.port != 0
    except ValueError:
        host, good = None, False
    if not good or not host or len(url) > URL_MAX or not url.isascii() or not url.isprintable() or " " in url:
        raise Invalid("object.webhook_url", "A webhook is an http or https URL.", field="webhook")
    if _is_address(host) and not may_reach(host, allowed):
        raise Invalid("object.webhook_url", f"Nothing is sent to {host} from here.", field="webhook")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True

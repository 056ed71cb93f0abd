"""Values that end up in rules, commands and configuration are parsed here first, whoever checked them before."""

from __future__ import annotations

import ipaddress
import re

from apus.kernel.errors import Invalid

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.IGNORECASE)
_DEVICE = re.compile(r"[A-Za-z0-9_.-]{1,15}")

Ip = ipaddress.IPv4Address | ipaddress.IPv6Address
Cidr = ipaddress.IPv4Network | ipaddress.IPv6Network


def _invalid(what: str, value: str) -> Invalid:
    return Invalid("network.bad_spec", f"{value!r} is not {what}", field=what)


def checked_mac(mac: str) -> str:
    lower = mac.lower()
    if not _MAC.fullmatch(lower):
        raise _invalid("a MAC address", mac)
    return lower


def checked_ip(ip: str) -> Ip:
    try:
        if "%" in ip:
            raise ValueError("a zone")
        return ipaddress.ip_address(ip)
    except ValueError:
        raise _invalid("an IP address", ip) from None


def checked_cidr(cidr: str) -> Cidr:
    try:
        if "%" in cidr:
            raise ValueError("a zone")
        return ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        raise _invalid("an address range", cidr) from None


def checked_domain(domain: str) -> str:
    """Without the final dot; empty is fine."""
    plain = domain.rstrip(".").lower()
    if plain and (len(plain) > 253 or not all(_LABEL.fullmatch(label) for label in plain.split("."))):
        raise _invalid("a domain name", domain)
    return plain


def checked_hostname(name: str) -> str:
    if not _LABEL.fullmatch(name):
        raise _invalid("a host name", name)
    return name.lower()


def checked_device(name: str) -> str:
    if not _DEVICE.fullmatch(name) or name in (".", ".."):
        raise _invalid("an interface name", name)
    return name

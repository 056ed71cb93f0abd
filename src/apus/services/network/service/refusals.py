"""How the service says no: Neutron's names of errors, which clients match on; and values parsed or refused."""

from __future__ import annotations

import ipaddress
import re

from apus.kernel.errors import Conflict, Invalid, NotFound
from apus.services.network.logic.addresses import Cidr, Ip

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def refused(kind: str, shown: str, *, field: str | None = None) -> Invalid:
    """400 with Neutron's name of the error, which clients match on."""
    return Invalid("network.invalid", shown, field=field, details={"type": kind})


def conflict(kind: str, shown: str) -> Conflict:
    return Conflict("network.conflict", shown, details={"type": kind})


def missing(kind: str, noun: str, id: str) -> NotFound:
    return NotFound("network.not_found", f"{noun} {id} could not be found.", details={"type": kind})


def bad_input(field: str, why: str) -> Invalid:
    return refused("InvalidInput", f"Invalid input for {field}. Reason: {why}.", field=field)


def parsed_cidr(field: str, text: str) -> Cidr:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise bad_input(field, f"'{text}' is not a valid IP subnet") from None


def parsed_ip(field: str, text: str) -> Ip:
    try:
        if "%" in text:
            raise ValueError
        return ipaddress.ip_address(text)
    except ValueError:
        raise bad_input(field, f"'{text}' is not a valid IP address") from None


def parsed_mac(field: str, text: str) -> str:
    mac = text.lower().replace("-", ":")
    if not _MAC.fullmatch(mac) or int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise bad_input(field, f"'{text}' is not a valid MAC address")
    return mac

"""What dnsmasq is told of a network: one fixed configuration, and two files that it reads again on SIGHUP.

Ports come and go by the re-read files; only a change of the subnets, or of a port's own options, restarts it.  Those
are tied to the MAC in the configuration and not by a tag in the file of hosts: dnsmasq 2.86 to 2.90 links a variable
of its stack into the tags of a host that it answered, and dies of freeing it at the next SIGHUP.
Nobody without a reservation gets an address (`static` ranges, unknown ignored).
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

import msgspec

from apus.kernel.errors import Invalid
from apus.services.network.drivers.driver import OPTION_NAMES, DhcpOption, NetworkSpec, Reservation, SubnetSpec
from apus.services.network.drivers.flat.names import short
from apus.services.network.drivers.flat.ruleset import METADATA_IPV4
from apus.services.network.drivers.flat.validate import (
    checked_cidr,
    checked_domain,
    checked_hostname,
    checked_ip,
    checked_mac,
)

_VALUE = re.compile(r"[\x20-\x7e]{0,255}")


class DnsmasqFiles(msgspec.Struct, frozen=True):
    config: str
    hosts: str
    names: str


def wants_dnsmasq(network: NetworkSpec) -> bool:
    return any(subnet.enable_dhcp or subnet.ipv6_ra_mode for subnet in network.subnets)


def own_ip(subnet: SubnetSpec) -> str | None:
    """The address in the subnet that the namespace holds."""
    return subnet.gateway_ip if subnet.gateway_here and subnet.gateway_ip else subnet.service_ip


def files(network: NetworkSpec, directory: Path, upstream: tuple[str, ...]) -> DnsmasqFiles:
    domain = checked_domain(network.dns_domain)
    return DnsmasqFiles(
        config="\n".join(_config(network, directory, domain, upstream)) + "\n",
        hosts="".join(line + "\n" for r in network.reservations for line in host_lines(r, network)),
        names="".join(line + "\n" for r in network.reservations for line in name_lines(r, domain)),
    )


def _config(network: NetworkSpec, directory: Path, domain: str, upstream: tuple[str, ...]) -> list[str]:
    lines = [
        "keep-in-foreground",
        "interface=gw",
        "except-interface=lo",
        "bind-interfaces",
        "user=dnsmasq",
        "no-hosts",
        "no-resolv",
        "no-ping",
        "no-negcache",
        "dhcp-authoritative",
        "dhcp-ignore=tag:!known",
        "dhcp-lease-max=65536",
        "log-facility=-",
        "quiet-dhcp",
        "quiet-dhcp6",
        "quiet-ra",
        f"pid-file={directory}/dnsmasq.pid",
        f"dhcp-leasefile={directory}/leases",
        f"dhcp-hostsfile={directory}/hosts",
        f"addn-hosts={directory}/names",
        f"dhcp-option-force=option:mtu,{network.mtu}",
    ]
    lines += [f"server={checked_ip(server)}" for server in (upstream if network.nat else ())]
    if domain:
        lines += [f"domain={domain}", f"local=/{domain}/"]
    if any(subnet.ipv6_ra_mode for subnet in network.subnets):
        lines += ["enable-ra", f"ra-param=gw,mtu:{network.mtu},0,{1800 if _routes_ipv6(network) else 0}"]
    for subnet in network.subnets:
        lines += _subnet_lines(subnet)
    for reservation in network.reservations:
        lines += option_lines(reservation)
    return lines


def _routes_ipv6(network: NetworkSpec) -> bool:
    return any(s.gateway_ip and s.gateway_here for s in network.subnets if checked_cidr(s.cidr).version == 6)


def _subnet_lines(subnet: SubnetSpec) -> list[str]:
    cidr, tag = checked_cidr(subnet.cidr), f"s{short(subnet.id)}"
    return _subnet6_lines(subnet, tag) if isinstance(cidr, ipaddress.IPv6Network) else _subnet4_lines(subnet, tag)


def _subnet4_lines(subnet: SubnetSpec, tag: str) -> list[str]:
    if not subnet.enable_dhcp:
        return []
    cidr = checked_cidr(subnet.cidr)
    served_by = own_ip(subnet)
    head = f"dhcp-option=tag:{tag},"
    lines = [f"dhcp-range=set:{tag},{cidr.network_address},static,{cidr.netmask},86400s"]
    lines.append(head + "option:router" + (f",{checked_ip(subnet.gateway_ip)}" if subnet.gateway_ip else ""))
    servers = subnet.dns_nameservers or ((served_by,) if served_by else ())
    lines.append(head + "option:dns-server" + "".join(f",{checked_ip(server)}" for server in servers))
    routes = [(str(checked_cidr(r.destination)), str(checked_ip(r.next_hop))) for r in subnet.host_routes]
    if served_by and not (subnet.gateway_here and subnet.gateway_ip):
        routes.append((f"{METADATA_IPV4}/32", served_by))
    if routes and subnet.gateway_ip:
        routes.append(("0.0.0.0/0", subnet.gateway_ip))  # with option 121 a client ignores option 3 (RFC 3442)
    if routes:
        lines.append(head + "option:classless-static-route," + ",".join(f"{to},{via}" for to, via in routes))
    return lines


def _subnet6_lines(subnet: SubnetSpec, tag: str) -> list[str]:
    cidr = checked_cidr(subnet.cidr)
    address_mode, ra_mode = subnet.ipv6_address_mode, subnet.ipv6_ra_mode
    lines = []
    if ra_mode == "slaac":
        lines.append(f"dhcp-range=set:{tag},{cidr.network_address},ra-only,{cidr.prefixlen}")
    elif "dhcpv6-stateless" in (ra_mode, address_mode):
        lines.append(f"dhcp-range=set:{tag},{cidr.network_address},ra-stateless,{cidr.prefixlen}")
    elif subnet.enable_dhcp and "dhcpv6-stateful" in (ra_mode, address_mode):
        lines.append(f"dhcp-range=set:{tag},{cidr.network_address},static,{cidr.prefixlen},86400s")
    if lines:
        servers = subnet.dns_nameservers or tuple(ip for ip in (own_ip(subnet),) if ip)
        if servers:
            listed = ",".join(f"[{checked_ip(server)}]" for server in servers)
            lines.append(f"dhcp-option=tag:{tag},option6:dns-server,{listed}")
    return lines


def host_lines(reservation: Reservation, network: NetworkSpec) -> list[str]:
    """One line an IPv4 address, for a line holds but one; IPv6 ones go with each."""
    ips = [checked_ip(ip) for ip in reservation.ips]
    four = [str(ip) for ip in ips if ip.version == 4]
    six = [f"[{ip}]" for ip in ips if ip.version == 6]
    head = [checked_mac(reservation.mac)]
    tail = [checked_hostname(reservation.hostname)] if reservation.hostname else []
    tail.append(f"{int(reservation.lease_s)}s")
    if not four:
        return [",".join([*head, *six, *tail])]
    return [",".join([*head, ip, *six, *tail]) for ip in four]


def option_lines(reservation: Reservation) -> list[str]:
    if not reservation.options:
        return []
    tag = f"p{short(reservation.port_id)}"
    lines = [f"dhcp-mac=set:{tag},{checked_mac(reservation.mac)}"]
    return lines + [f"dhcp-option-force=tag:{tag},{_option(option)}" for option in reservation.options]


def _option(option: DhcpOption) -> str:
    if not (option.name in OPTION_NAMES or (option.name.isascii() and option.name.isdigit())):
        raise Invalid("network.bad_dhcp_option", f"{option.name!r} is not a DHCP option that can be set", field="name")
    if not _VALUE.fullmatch(option.value):
        raise Invalid("network.bad_dhcp_option", "a DHCP option's value is printable text", field="value")
    kind = "option" if option.ip_version == 4 else "option6"
    name = option.name if option.name.isdigit() and kind == "option" else f"{kind}:{option.name}"
    return f"{name},{option.value}"


def name_lines(reservation: Reservation, domain: str) -> list[str]:
    if not reservation.hostname:
        return []
    name = checked_hostname(reservation.hostname)
    full = f"{name}.{domain} {name}" if domain else name
    return [f"{checked_ip(ip)} {full}" for ip in reservation.ips]


def leased_elsewhere(leases: str, reservations: tuple[Reservation, ...]) -> bool:
    """Does a lease give an address of ours to another MAC?  dnsmasq would not hand it out until that one ends."""
    owners = _owners(reservations)
    return any(_leased_ip(line) in owners and not _holds(line, owners) for line in leases.splitlines())


def kept_leases(leases: str, reservations: tuple[Reservation, ...]) -> str:
    """The leases that hold still."""
    owners = _owners(reservations)
    kept = (line for line in leases.splitlines() if line.startswith("duid") or _holds(line, owners))
    return "".join(line + "\n" for line in kept)


def _owners(reservations: tuple[Reservation, ...]) -> dict[str, str]:
    return {str(checked_ip(ip)): checked_mac(r.mac) for r in reservations for ip in r.ips}


def _leased_ip(line: str) -> str | None:
    fields = line.split()
    return fields[2] if len(fields) >= 5 and fields[0] != "duid" else None


def _holds(line: str, owners: dict[str, str]) -> bool:
    ip = _leased_ip(line)
    owner = owners.get(ip) if ip else None
    if ip is None or owner is None:
        return False
    fields = line.split()
    if ":" not in ip:
        return fields[1].lower() == owner
    duid = fields[4].lower()  # its kinds 1 and 3 end with a MAC; the others say nothing of it
    return duid.endswith(owner) or not duid.startswith(("00:01:", "00:03:"))

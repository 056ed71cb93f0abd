"""The text that the flat driver hands to nftables, ip and dnsmasq, from plain values."""

from __future__ import annotations

from pathlib import Path

import pytest

from apus.kernel.errors import CloudError, Conflict, Invalid, Unavailable
from apus.services.network.contract import UserNetwork
from apus.services.network.drivers.driver import (
    AddressPair,
    AddressSet,
    DhcpOption,
    HostRoute,
    NetworkSpec,
    PortSpec,
    Reservation,
    SecurityRule,
    SubnetSpec,
)
from apus.services.network.drivers.flat import dnsmasq, plan, ruleset
from apus.services.network.drivers.flat.names import Names, short, transit_link
from apus.services.network.drivers.flat.ruleset import Tracking
from apus.services.network.drivers.user.driver import user_network

NAMES = Names("ax1")
NETWORK = "0a1b2c3d-4e5f-4000-8000-000000000001"
PORT = "9f8e7d6c-5b4a-4000-8000-000000000002"
SUBNET = SubnetSpec(id=NETWORK, cidr="10.0.0.0/24", gateway_ip="10.0.0.1")
EMPTY = plan.FoundHost(links=frozenset(), namespaces=frozenset(), addresses={})


def rule(**fields: object) -> SecurityRule:
    return SecurityRule(**{"direction": "ingress", "ethertype": "IPv4", **fields})


def port(**fields: object) -> PortSpec:
    plain: dict[str, object] = {
        "id": PORT,
        "network_id": NETWORK,
        "mac": "fa:16:3e:00:00:05",
        "fixed_ips": ("10.0.0.5",),
    }
    return PortSpec(**{**plain, **fields})


def test_names_fit_an_interface() -> None:
    names = [NAMES.bridge(NETWORK), NAMES.tap(PORT), NAMES.gateway("not a uuid"), NAMES.namespace(NETWORK)]
    assert all(len(name) <= 15 and (NAMES.owns(name)) for name in names)
    assert NAMES.tap(PORT) == "ax1p9f8e7d6c5"
    assert not Names("ax2").owns(NAMES.tap(PORT))
    with pytest.raises(ValueError, match="prefix"):
        Names("toolong")


def test_transit_links_are_the_same_each_time_and_never_taken() -> None:
    first = transit_link("ax1t0a1b2c3d4", frozenset())
    assert transit_link("ax1t0a1b2c3d4", frozenset()) == first
    assert transit_link("ax1t0a1b2c3d4", frozenset({first.host_ip})) != first


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (rule(), ["meta protocol ip accept"]),
        (rule(protocol=6, port_min=22, port_max=22), ["meta protocol ip meta l4proto 6 th dport 22 accept"]),
        (
            rule(protocol=17, port_min=1, port_max=9, remote_cidrs=("10.1.0.0/16", "10.1.2.0/24")),
            ["ip saddr { 10.1.0.0/16 } meta l4proto 17 th dport 1-9 accept"],
        ),
        (rule(protocol=1, port_min=8, port_max=0), ["meta protocol ip icmp type 8 icmp code 0 accept"]),
        (rule(protocol=58, ethertype="IPv6", port_min=128), ["meta protocol ip6 icmpv6 type 128 accept"]),
        (rule(protocol=1, ethertype="IPv6"), ["meta protocol ip6 meta l4proto ipv6-icmp accept"]),
        (
            rule(protocol=112, direction="egress", remote_cidrs=("0.0.0.0/0",)),
            ["meta protocol ip meta l4proto 112 accept"],
        ),
        (rule(remote_set="web"), [f"ip saddr @g4_{short('web')} accept"]),
        (rule(remote_cidrs=("fd00::/8",)), []),
    ],
)
def test_a_permission(given: SecurityRule, lines: list[str]) -> None:
    assert ruleset.permission(given) == lines


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (rule(), ["meta protocol ip accept"]),
        (
            rule(protocol=6, port_min=22, port_max=22, remote_cidrs=("10.1.0.0/16",)),
            ["ip daddr { 10.1.0.0/16 } meta l4proto 6 th sport 22 accept"],
        ),
        (rule(direction="egress", remote_set="web"), [f"ip saddr @g4_{short('web')} accept"]),
        (rule(protocol=1, port_min=8, port_max=0), ["meta protocol ip icmp type 0 accept"]),
        (rule(protocol=58, ethertype="IPv6", port_min=128), ["meta protocol ip6 icmpv6 type 129 accept"]),
        (rule(protocol=1, port_min=3), []),
    ],
)
def test_the_answers_to_a_permission(given: SecurityRule, lines: list[str]) -> None:
    assert ruleset.permission(given, backwards=True) == lines


def test_what_is_not_an_address_never_becomes_a_rule() -> None:
    with pytest.raises(Invalid):
        ruleset.permission(rule(remote_cidrs=("10.0.0.0/8 } accept; flush ruleset",)))
    with pytest.raises(Invalid):
        ruleset.port_rules(NAMES, port(mac="fa:16:3e:00:00:05 drop"), 1, Tracking.BRIDGE)
    with pytest.raises(Invalid):
        ruleset.set_rules(NAMES, [AddressSet(name="x", addresses=("fe80::1%lo",))])


def test_sources_are_the_ports_own() -> None:
    pair = AddressPair(mac="fa:16:3e:00:00:06", cidr="0.0.0.0/0")
    lines = "\n".join(ruleset.port_rules(NAMES, port(allowed_address_pairs=(pair,)), 1, Tracking.IP_LAYER))
    assert "ether saddr != { fa:16:3e:00:00:05, fa:16:3e:00:00:06 } drop" in lines
    assert "ether saddr fa:16:3e:00:00:05 ip saddr { 10.0.0.5/32 } accept" in lines
    assert "ether saddr fa:16:3e:00:00:06 meta protocol { arp, ip } accept" in lines
    assert "@th,64,128 0xfe80000000000000f8163efffe000005" in lines


def test_bridge_tracking_uses_connection_state_and_zones() -> None:
    lines = "\n".join(ruleset.port_rules(NAMES, port(), 77, Tracking.BRIDGE))
    assert "ct zone set 77" in lines
    assert "ct state established ct direction reply goto al_9f8e7d6c5" in lines
    assert "ct state related accept" in lines
    assert "meta mark" not in lines
    assert "meta mark" in "\n".join(ruleset.port_rules(NAMES, port(), 77, Tracking.IP_LAYER))


def test_port_security_off_is_no_filter() -> None:
    lines = ruleset.port_rules(NAMES, port(port_security=False), 1, Tracking.IP_LAYER)
    assert not [line for line in lines if line.startswith("add rule")]


def test_a_network_on_an_empty_host() -> None:
    network = NetworkSpec(id=NETWORK, subnets=(SUBNET,), nat=True)
    link = plan.uplink(network, NAMES, EMPTY, ())
    assert link is not None
    lines = plan.host_commands(network, NAMES, EMPTY, link, {}, True)
    assert lines[0].startswith("link add ax1b0a1b2c3d4 type bridge")
    assert "netns add ax1n0a1b2c3d4" in lines
    there = plan.FoundHost(
        links=frozenset({"ax1b0a1b2c3d4", "ax1g0a1b2c3d4", "ax1t0a1b2c3d4"}),
        namespaces=frozenset({"ax1n0a1b2c3d4"}),
        addresses={"ax1t0a1b2c3d4": ("100.64.0.5/30",)},
    )
    link = plan.uplink(network, NAMES, there, ())
    assert (link and link.host_ip) == "100.64.0.5"
    assert not [line for line in plan.host_commands(network, NAMES, there, link, {}, True) if " add " in line]


def test_inside_what_is_stale_goes() -> None:
    found = plan.FoundNamespace(addresses={"gw": ("10.0.0.254/24", "10.0.0.1/24", "fe80::1/64")})
    lines = plan.namespace_commands(NetworkSpec(id=NETWORK, subnets=(SUBNET,)), found, None)
    assert "address delete 10.0.0.254/24 dev gw" in lines
    assert not [line for line in lines if "10.0.0.1/24" in line or "delete fe80" in line]


def test_physical_networks() -> None:
    tagged = NetworkSpec(id=NETWORK, physical_network="dc", vlan_id=12)
    found = plan.FoundHost(links=frozenset({"eth1"}), namespaces=frozenset(), addresses={"eth1": ("192.0.2.1/24",)})
    lines = plan.host_commands(tagged, NAMES, found, None, {"dc": "eth1"}, False)
    assert "link add link eth1 name ax1v0a1b2c3d4 type vlan id 12" in lines
    with pytest.raises(Conflict, match="own addresses"):
        plan.host_commands(NetworkSpec(id=NETWORK, physical_network="dc"), NAMES, found, None, {"dc": "eth1"}, False)
    with pytest.raises(Unavailable, match="no interface for it"):
        plan.host_commands(tagged, NAMES, found, None, {}, False)


def test_dnsmasq_is_told_of_subnets_and_ports() -> None:
    four = SubnetSpec(
        id=NETWORK,
        cidr="10.0.0.0/24",
        gateway_ip="10.0.0.1",
        dns_nameservers=("192.0.2.53",),
        host_routes=(HostRoute(destination="192.0.2.0/24", next_hop="10.0.0.9"),),
    )
    six = SubnetSpec(id=PORT, cidr="fd00::/64", gateway_ip="fd00::1", ipv6_ra_mode="dhcpv6-stateful")
    reservation = Reservation(
        port_id=PORT,
        mac="FA:16:3E:00:00:05",
        ips=("10.0.0.5", "fd00::5"),
        hostname="web",
        options=(DhcpOption(name="bootfile-name", value="pxe.0"), DhcpOption(name="150", value="192.0.2.9")),
        lease_s=600,
    )
    network = NetworkSpec(
        id=NETWORK, subnets=(four, six), nat=True, dns_domain="cloud.test.", reservations=(reservation,)
    )
    made = dnsmasq.files(network, Path("/run/x"), ("192.0.2.1",))
    tag = f"s{short(NETWORK)}"
    for line in (
        f"dhcp-range=set:{tag},10.0.0.0,static,255.255.255.0,86400s",
        f"dhcp-option=tag:{tag},option:dns-server,192.0.2.53",
        f"dhcp-option=tag:{tag},option:classless-static-route,192.0.2.0/24,10.0.0.9,0.0.0.0/0,10.0.0.1",
        f"dhcp-range=set:s{short(PORT)},fd00::,static,64,86400s",
        "enable-ra",
        "server=192.0.2.1",
        "domain=cloud.test",
        f"dhcp-mac=set:p{short(PORT)},fa:16:3e:00:00:05",
        f"dhcp-option-force=tag:p{short(PORT)},option:bootfile-name,pxe.0",
        f"dhcp-option-force=tag:p{short(PORT)},150,192.0.2.9",
    ):
        assert line in made.config.splitlines()
    assert made.hosts == "fa:16:3e:00:00:05,10.0.0.5,[fd00::5],web,600s\n"
    assert made.names == "10.0.0.5 web.cloud.test web\nfd00::5 web.cloud.test web\n"


@pytest.mark.parametrize(
    "option", [DhcpOption(name="conf-file", value="/etc/passwd"), DhcpOption(name="66", value="a\ndhcp-script=/bin/sh")]
)
def test_no_option_is_a_line_of_its_own(option: DhcpOption) -> None:
    reservation = Reservation(port_id=PORT, mac="fa:16:3e:00:00:05", ips=("10.0.0.5",), options=(option,))
    with pytest.raises(CloudError):
        dnsmasq.option_lines(reservation)


def test_leases_of_moved_addresses_end() -> None:
    now = (Reservation(port_id=PORT, mac="fa:16:3e:00:00:05", ips=("10.0.0.5", "fd00::5")),)
    mine = "99 fa:16:3e:00:00:05 10.0.0.5 web *\nduid 00:01:00:01\n99 77 fd00::5 web 00:03:00:01:fa:16:3e:00:00:05\n"
    assert not dnsmasq.leased_elsewhere(mine, now)
    assert dnsmasq.kept_leases(mine, now) == mine
    others = "99 fa:16:3e:00:00:09 10.0.0.5 old *\n99 77 fd00::5 old 00:03:00:01:fa:16:3e:00:00:09\n"
    assert dnsmasq.leased_elsewhere(others, now)
    assert dnsmasq.kept_leases(others, now) == ""


def test_user_mode_network_is_the_ports_own_subnet() -> None:
    network = NetworkSpec(id=NETWORK, subnets=(SUBNET,), nat=True)
    assert user_network(network, port()) == UserNetwork(
        cidr="10.0.0.0/24", gateway="10.0.0.1", dns="10.0.0.254", guest="10.0.0.5"
    )

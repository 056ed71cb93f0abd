"""Records as the Networking API v2.0 shows them.  Administrators see more: where a port is, how a network is made."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from apus.kernel.caller import Caller
from apus.services.network.model import HostAgent, Network, Port, Rule, SecurityGroup, Subnet

View = dict[str, Any]


def stamp(at_s: float) -> str:
    return datetime.datetime.fromtimestamp(int(at_s), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _standard(record: Network | Subnet | Port | SecurityGroup) -> View:
    return {
        "id": record.id,
        "project_id": record.project_id,
        "tenant_id": record.project_id,
        "name": record.name,
        "description": record.description,
        "tags": list(record.tags),
        "revision_number": record.generation,
        "created_at": stamp(record.created_at_s),
        "updated_at": stamp(record.updated_at_s),
    }


def network_view(network: Network, subnet_ids: Sequence[str], caller: Caller) -> View:
    view = _standard(network) | {
        "admin_state_up": network.admin_state_up,
        "status": "ACTIVE",
        "shared": network.shared,
        "router:external": network.external,
        "mtu": network.mtu,
        "port_security_enabled": network.port_security,
        "dns_domain": network.dns_domain,
        "subnets": list(subnet_ids),
        "availability_zone_hints": list(network.availability_zone_hints),
        "availability_zones": ["nova"] if subnet_ids else [],
        "ipv4_address_scope": None,
        "ipv6_address_scope": None,
        "is_default": network.is_default,
    }
    if caller.is_admin:
        kind = "local" if network.physical_network is None else "vlan" if network.vlan_id is not None else "flat"
        view["provider:network_type"] = kind
        view["provider:physical_network"] = network.physical_network
        view["provider:segmentation_id"] = network.vlan_id
    return view


def subnet_view(subnet: Subnet) -> View:
    return _standard(subnet) | {
        "network_id": subnet.network_id,
        "ip_version": subnet.ip_version,
        "cidr": subnet.cidr,
        "gateway_ip": subnet.gateway_ip,
        "enable_dhcp": subnet.enable_dhcp,
        "dns_nameservers": list(subnet.dns_nameservers),
        "host_routes": [{"destination": r.destination, "nexthop": r.nexthop} for r in subnet.host_routes],
        "allocation_pools": [{"start": pool.start, "end": pool.end} for pool in subnet.allocation_pools],
        "ipv6_ra_mode": subnet.ipv6_ra_mode,
        "ipv6_address_mode": subnet.ipv6_address_mode,
        "service_types": list(subnet.service_types),
        "subnetpool_id": None,
        "dns_publish_fixed_ip": subnet.dns_publish_fixed_ip,
        "router:external": False,
    }


def port_view(port: Port, active: bool, caller: Caller) -> View:
    view = _standard(port) | {
        "network_id": port.network_id,
        "mac_address": port.mac,
        "admin_state_up": port.admin_state_up,
        "status": "ACTIVE" if active and port.admin_state_up else "DOWN",
        "device_id": port.device_id,
        "device_owner": port.device_owner,
        "fixed_ips": [{"subnet_id": ip.subnet_id, "ip_address": ip.ip_address} for ip in port.fixed_ips],
        "allowed_address_pairs": [
            {"ip_address": pair.ip_address, "mac_address": pair.mac_address} for pair in port.allowed_address_pairs
        ],
        "extra_dhcp_opts": [
            {"opt_name": o.opt_name, "opt_value": o.opt_value, "ip_version": o.ip_version} for o in port.dhcp_options
        ],
        "security_groups": list(port.security_groups),
        "port_security_enabled": port.port_security,
        "binding:vnic_type": port.vnic_type,
        "dns_name": port.dns_name,
        "dns_assignment": [
            {"ip_address": ip.ip_address, "hostname": name, "fqdn": f"{name}."}
            for ip in port.fixed_ips
            for name in (port.dns_name or _host_name(ip.ip_address),)
        ],
    }
    if caller.is_admin or "service" in caller.roles:
        view |= {
            "binding:host_id": port.host,
            "binding:profile": port.binding_profile,
            "binding:vif_type": "bridge" if port.host else "unbound",
            "binding:vif_details": {"port_filter": True} if port.host else {},
        }
    return view


def _host_name(address: str) -> str:
    ip = ipaddress.ip_address(address)
    return "host-" + (str(ip).replace(".", "-") if ip.version == 4 else ip.exploded.replace(":", "-"))


def group_view(group: SecurityGroup, rules: Sequence[Rule]) -> View:
    ordered = sorted(rules, key=lambda rule: (rule.created_at_s, rule.id))
    return _standard(group) | {
        "stateful": group.stateful,
        "shared": False,
        "security_group_rules": [rule_view(rule) for rule in ordered],
    }


def rule_view(rule: Rule) -> View:
    return {
        "id": rule.id,
        "project_id": rule.project_id,
        "tenant_id": rule.project_id,
        "security_group_id": rule.group_id,
        "direction": rule.direction,
        "ethertype": rule.ethertype,
        "protocol": rule.protocol,
        "port_range_min": rule.port_min,
        "port_range_max": rule.port_max,
        "remote_ip_prefix": rule.remote_ip_prefix,
        "normalized_cidr": rule.remote_ip_prefix,
        "remote_group_id": rule.remote_group_id,
        "remote_address_group_id": None,
        "belongs_to_default_sg": False,
        "description": rule.description,
        "revision_number": rule.generation,
        "created_at": stamp(rule.created_at_s),
        "updated_at": stamp(rule.updated_at_s),
    }


ALIVE_S = 75.0
"""Neutron's own agent_down_time."""


def agent_view(agent: HostAgent, now_s: float) -> View:
    return {
        "id": agent.id,
        "agent_type": "Apus network agent",
        "binary": "apus",
        "host": agent.id,
        "topic": "N/A",
        "alive": now_s - agent.seen_at_s < ALIVE_S,
        "admin_state_up": True,
        "availability_zone": "nova",
        "configurations": {"driver": agent.driver},
        "description": "",
        "resources_synced": None,
        "created_at": _plain_stamp(agent.started_at_s),
        "started_at": _plain_stamp(agent.started_at_s),
        "heartbeat_timestamp": _plain_stamp(agent.seen_at_s),
    }


def _plain_stamp(at_s: float) -> str:
    return datetime.datetime.fromtimestamp(int(at_s), datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def availability_view(network: Network, subnets: Sequence[Subnet], used: Mapping[str, int]) -> View:
    rows = []
    for subnet in subnets:
        pools = [
            int(ipaddress.ip_address(pool.end)) - int(ipaddress.ip_address(pool.start)) + 1
            for pool in subnet.allocation_pools
        ]
        rows.append(
            {
                "subnet_id": subnet.id,
                "subnet_name": subnet.name,
                "cidr": subnet.cidr,
                "ip_version": subnet.ip_version,
                "total_ips": sum(pools),
                "used_ips": used.get(subnet.id, 0),
            }
        )
    return {
        "network_id": network.id,
        "network_name": network.name,
        "project_id": network.project_id,
        "tenant_id": network.project_id,
        "total_ips": sum(int(str(row["total_ips"])) for row in rows),
        "used_ips": sum(int(str(row["used_ips"])) for row in rows),
        "subnet_ip_availability": rows,
    }

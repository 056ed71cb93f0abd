"""No input makes a 5xx: each attribute of each body in turn is given what it should not be."""

from __future__ import annotations

import json
from typing import Any

from tests.contract.test_network_api import Client, made, with_client

ODD: tuple[Any, ...] = (
    None, "", " ", "x" * 300, "\u0000", "\ud800", "é", -1, 0, 1, 65536, 2**63, 2**70, 1.5, True, [], {}, [[]], [None], [""],
    [{}], {"a": 1}, "fe80::1%lo", "0.0.0.0/0", "::/0", "255.255.255.255", "ff02::1", "10.0.0.0/33", "1/1", "10.0.0.1/32",
    ["10.0.0.300"], ["::"], [{"ip_address": "::1"}], [{"subnet_id": "x"}], [{"start": "10.0.0.9", "end": "::1"}],
    [{"destination": "x", "nexthop": "y"}], [{"opt_name": "a\nb", "opt_value": "c"}], [{"opt_name": "66", "ip_version": "x"}],
    "00:00:00:00:00:00", "slaac", "any", "icmpv6", "256", "tcp",
)  # fmt: skip
QUERIES = (
    "limit=-1", "limit=x", "limit=99999999999999999999", "marker=none", "sort_key=x", "sort_key=name&sort_dir=up",
    "fields=x", "name=%00", "name=%ff", "tags=", "fixed_ips=x", "fixed_ips=ip_address=1", "shared=x", "x=y",
    "sort_key=fixed_ips", "sort_key=tags", "page_reverse=x", "limit=1&page_reverse=true", "sort=,,:", "id=",
)  # fmt: skip


def attributes(network: str, group: str) -> dict[str, dict[str, Any]]:
    return {
        "networks": {"name": "n", "description": "", "admin_state_up": True, "shared": False, "router:external": False,
                     "mtu": 1500, "dns_domain": "a.b.", "port_security_enabled": True, "project_id": "p-one",
                     "provider:network_type": "local", "provider:physical_network": None, "provider:segmentation_id": None,
                     "availability_zone_hints": []},
        "subnets": {"network_id": network, "ip_version": 4, "cidr": "10.77.0.0/24", "name": "s", "gateway_ip": None,
                    "enable_dhcp": True, "dns_nameservers": [], "host_routes": [], "allocation_pools": None,
                    "ipv6_ra_mode": None, "ipv6_address_mode": None, "service_types": [], "tenant_id": "p-one"},
        "ports": {"network_id": network, "name": "p", "mac_address": "fa:16:3e:11:22:33", "fixed_ips": [], "device_id": "",
                  "device_owner": "", "security_groups": [group], "allowed_address_pairs": [], "extra_dhcp_opts": [],
                  "port_security_enabled": True, "binding:host_id": "", "binding:vnic_type": "normal",
                  "binding:profile": {}, "dns_name": "", "admin_state_up": True},
        "security-groups": {"name": "g", "description": "", "stateful": True},
        "security-group-rules": {"security_group_id": group, "direction": "ingress", "ethertype": "IPv4", "protocol": "tcp",
                                 "port_range_min": 1, "port_range_max": 2, "remote_ip_prefix": None,
                                 "remote_group_id": None, "description": ""},
    }  # fmt: skip


def test_no_input_is_our_fault() -> None:
    def story(call: Client, admin: Client) -> None:
        network = made(call("POST", "/v2.0/networks", {"network": {"name": "n"}}))["id"]
        body = {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24"}
        subnet = made(call("POST", "/v2.0/subnets", {"subnet": body}))["id"]
        port = made(call("POST", "/v2.0/ports", {"port": {"network_id": network}}))["id"]
        group = made(call("POST", "/v2.0/security-groups", {"security_group": {"name": "g"}}))["id"]
        ids = {"networks": network, "subnets": subnet, "ports": port, "security-groups": group}
        ours = []

        def check(method: str, path: str, body: Any = None) -> None:
            status, answer = admin(method, path, body)
            if status >= 500:
                ours.append((method, path, json.dumps(body)[:200], answer))

        for plural, fields in attributes(network, group).items():
            noun = plural[:-1].replace("-", "_")
            for field in fields:
                for odd in ODD:
                    check("POST", f"/v2.0/{plural}", {noun: {**fields, field: odd}})
                    if plural in ids:
                        check("PUT", f"/v2.0/{plural}/{ids[plural]}", {noun: {field: odd}})
            for odd in ODD:
                for whole in (odd, {noun: odd}, {f"{noun}s": odd}):
                    check("POST", f"/v2.0/{plural}", whole)
            for query in QUERIES:
                check("GET", f"/v2.0/{plural}?{query}")
        for odd in ODD:
            check("PUT", "/v2.0/quotas/p-one", {"quota": {"port": odd}})
            check("PUT", "/v2.0/quotas/p-one", {"quota": odd})
            check("PUT", f"/v2.0/ports/{port}/tags", {"tags": odd})
        for path in ("/v2.0/x", "/v2.0/ports/%00", "/v2.0/ports/%ff/tags/%ff", "/v2.0/quotas/%00", "/v2.0/agents/%00"):
            for method in ("GET", "PUT", "DELETE", "POST", "PATCH"):
                check(method, path, {} if method != "GET" else None)
        assert not ours, f"{len(ours)}: {ours[:5]}"

    with_client(story)

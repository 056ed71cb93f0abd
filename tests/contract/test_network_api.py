"""The Networking API as openstacksdk, the `openstack` command and plain requests see it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openstack
import openstack.exceptions
import pytest

from tests.contract.network_server import NetworkServer, network_server


class Client:
    """Plain requests with one token."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url, token

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Auth-Token": self._token, **{k.replace("_", "-"): v for k, v in headers.items()}},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")


def with_server(story: Callable[[NetworkServer], None]) -> None:
    async def run() -> None:
        async with network_server() as server:
            await asyncio.to_thread(story, server)

    asyncio.run(run())


def with_client(story: Callable[[Client, Client], None]) -> None:
    """A member of a project, and the administrator."""
    with_server(lambda server: story(Client(server.url, "p-one"), Client(server.url, "admin")))


def connection(server: NetworkServer, token: str) -> Any:
    return openstack.connection.Connection(
        auth_type="admin_token",
        auth={"endpoint": server.url, "token": token},
        network_endpoint_override=server.url,
    )


def made(answer: tuple[int, Any]) -> Any:
    status, body = answer
    assert status in (200, 201), body
    return next(iter(body.values()))


def refusal(answer: tuple[int, Any]) -> tuple[int, str]:
    return answer[0], answer[1]["NeutronError"]["type"]


def test_openstacksdk_does_its_work() -> None:
    def story(server: NetworkServer) -> None:
        cloud = connection(server, "p-one")
        network = cloud.network.create_network(name="blue", description="sky", mtu=1400)
        subnet = cloud.network.create_subnet(network_id=network.id, ip_version=4, cidr="10.0.0.0/24", name="s")
        assert (subnet.gateway_ip, subnet.allocation_pools) == (
            "10.0.0.1",
            [{"start": "10.0.0.2", "end": "10.0.0.254"}],
        )
        port = cloud.network.create_port(network_id=network.id, name="door", fixed_ips=[{"ip_address": "10.0.0.9"}])
        assert port.fixed_ips == [{"subnet_id": subnet.id, "ip_address": "10.0.0.9"}]
        assert port.status == "DOWN"
        group = cloud.network.find_security_group("default")
        assert port.security_group_ids == [group.id]
        assert sorted((r["direction"], r["ethertype"]) for r in group.security_group_rules) == [
            ("egress", "IPv4"),
            ("egress", "IPv6"),
            ("ingress", "IPv4"),
            ("ingress", "IPv6"),
        ]
        rule = cloud.network.create_security_group_rule(
            security_group_id=group.id, direction="ingress", protocol="tcp", port_range_min=22, port_range_max=22
        )
        assert rule.remote_ip_prefix is None
        cloud.network.update_port(port, name="window", allowed_address_pairs=[{"ip_address": "10.0.0.77"}])
        again = cloud.network.find_port("window")
        assert again.allowed_address_pairs == [{"ip_address": "10.0.0.77", "mac_address": port.mac_address}]
        assert again.revision_number == 2
        cloud.network.set_tags(network, ["a", "b"])
        assert [n.name for n in cloud.network.networks(tags="a,b")] == ["blue"]
        assert list(cloud.network.networks(not_tags="a")) == []
        assert "security-group" in [e.alias for e in cloud.network.extensions()]
        assert cloud.network.get_quota("p-one").networks == 100
        details = cloud.network.get_quota("p-one", details=True)
        assert details.ports["used"] == 1
        with pytest.raises(openstack.exceptions.ConflictException):
            cloud.network.delete_network(network)
        other = connection(server, "p-two")
        assert other.network.find_network(network.id) is None
        assert [group.name for group in other.network.security_groups()] == ["default"]
        cloud.network.delete_port(port)
        cloud.network.delete_network(network)
        assert list(cloud.network.networks()) == []

    with_server(story)


def test_the_openstack_command() -> None:
    def story(server: NetworkServer) -> None:
        command = [
            str(Path(sys.executable).with_name("openstack")),
            "--os-auth-type=admin_token",
            "--os-token=admin",
            f"--os-endpoint={server.url}",
        ]

        def run(line: str) -> Any:
            done = subprocess.run([*command, *line.split(), "-f", "json"], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout or "null")

        assert run("network create blue")["name"] == "blue"
        assert run("subnet create --network blue --subnet-range 10.1.0.0/24 s")["gateway_ip"] == "10.1.0.1"
        assert run("port list") == []

    with_server(story)


def test_bulk_is_all_or_nothing() -> None:
    def story(call: Client, admin: Client) -> None:
        network = made(call("POST", "/v2.0/networks", {"network": {"name": "n"}}))
        made(
            call(
                "POST",
                "/v2.0/subnets",
                {"subnet": {"network_id": network["id"], "ip_version": 4, "cidr": "10.0.0.0/29"}},
            )
        )
        ask = {"network_id": network["id"]}
        assert refusal(call("POST", "/v2.0/ports", {"ports": [ask] * 6})) == (409, "IpAddressGenerationFailure")
        assert call("GET", "/v2.0/ports")[1] == {"ports": []}
        five = made(call("POST", "/v2.0/ports", {"ports": [ask] * 5}))
        assert len({port["fixed_ips"][0]["ip_address"] for port in five}) == 5
        assert call("POST", "/v2.0/ports", {"ports": [ask], "port": ask})[0] == 400

    with_client(story)


def test_refusals_are_neutrons() -> None:
    def story(call: Client, admin: Client) -> None:
        network = made(call("POST", "/v2.0/networks", {"network": {"name": "n"}}))["id"]

        def subnet(cidr: str, **more: Any) -> tuple[int, Any]:
            return call(
                "POST", "/v2.0/subnets", {"subnet": {"network_id": network, "ip_version": 4, "cidr": cidr, **more}}
            )

        first = made(subnet("10.0.0.0/24"))
        assert refusal(subnet("10.0.0.128/25")) == (400, "InvalidInput")
        assert refusal(subnet("nonsense")) == (400, "InvalidInput")
        assert refusal(subnet("10.7.0.0/24", allocation_pools=[{"start": "10.8.0.1", "end": "10.8.0.2"}]))[0] == 400
        pool = [{"start": "10.7.0.1", "end": "10.7.0.20"}]
        assert refusal(subnet("10.7.0.0/24", gateway_ip="10.7.0.5", allocation_pools=pool)) == (
            409,
            "GatewayConflictWithAllocationPools",
        )

        def port(**more: Any) -> tuple[int, Any]:
            return call("POST", "/v2.0/ports", {"port": {"network_id": network, **more}})

        one = made(port(fixed_ips=[{"ip_address": "10.0.0.7"}]))
        assert refusal(port(fixed_ips=[{"ip_address": "10.0.0.7"}])) == (409, "IpAddressAlreadyAllocated")
        assert refusal(port(fixed_ips=[{"ip_address": "10.3.0.7"}])) == (400, "InvalidIpForNetwork")
        assert refusal(port(mac_address=one["mac_address"])) == (409, "MacAddressInUse")
        assert refusal(port(**{"binding:host_id": "h"})) == (403, "PolicyNotAuthorized")
        assert call("POST", "/v2.0/ports", {"port": {"network_id": network, "colour": "red"}})[0] == 400
        assert refusal(call("DELETE", f"/v2.0/subnets/{first['id']}")) == (409, "SubnetInUse")
        group = made(call("POST", "/v2.0/security-groups", {"security_group": {"name": "g"}}))["id"]

        def rule(protocol: str, low: int | None, high: int) -> str:
            body = {"security_group_id": group, "direction": "ingress", "protocol": protocol}
            rule = {"security_group_rule": {**body, "port_range_min": low, "port_range_max": high}}
            status, answer = call("POST", "/v2.0/security-group-rules", rule)
            assert status == 400
            return str(answer["NeutronError"]["message"])

        assert "Invalid value for port -16" in rule("tcp", -16, 80)
        assert "Invalid value for port 65536" in rule("udp", 80, 65536)
        assert "port_range_min must be <= port_range_max" in rule("tcp", None, 6)
        assert "Invalid value for ICMP code" in rule("icmp", 1, 256)
        assert "ICMP type (port-range-min) is missing" in rule("icmp", None, 6)
        for method, path in (("POST", "/v2.0/security-groups"), ("PUT", f"/v2.0/security-groups/{group}")):
            refused = call(method, path, {"security_group": {"name": "x", "stateful": False}})
            assert refused[0] == 400
            assert "stateful" in refused[1]["NeutronError"]["message"]
        renamed = call("PUT", f"/v2.0/security-groups/{group}", {"security_group": {"name": "default"}})
        assert refusal(renamed) == (409, "SecurityGroupDefaultAlreadyExists")
        assert refusal(call("GET", "/v2.0/ports/none")) == (404, "PortNotFound")
        assert refusal(call("GET", "/v2.0/networks?colour=red")) == (400, "InvalidInput")
        assert call("GET", "/v2.0/agents") == (200, {"agents": []})
        assert refusal(call("GET", "/v2.0/agents/none"))[0] == 403
        quota = {"quota": {"network": 1}}
        assert call("PUT", "/v2.0/quotas/p-one", quota)[0] == 403
        assert admin("PUT", "/v2.0/quotas/p-one", quota)[0] == 200
        assert refusal(call("POST", "/v2.0/networks", {"network": {}})) == (409, "OverQuota")
        below = {"network": 0, "port": 7}
        checked = admin("PUT", "/v2.0/quotas/p-one", {"quota": {**below, "check_limit": True}})
        assert refusal(checked) == (409, "OverQuota")
        assert admin("GET", "/v2.0/quotas/p-one")[1]["quota"]["port"] == 500, "half of it was kept"
        assert admin("PUT", "/v2.0/quotas/p-one", {"quota": {"check_limit": 1}})[0] == 400
        assert admin("PUT", "/v2.0/quotas/p-one", {"quota": {**below, "force": True}})[0] == 200
        revision = {"If_Match": "revision_number=9"}
        assert call("PUT", f"/v2.0/networks/{network}", {"network": {"name": "x"}}, **revision)[0] == 412

    with_client(story)


def test_lists_filter_sort_page_and_pick() -> None:
    def story(call: Client, admin: Client) -> None:
        for name in ("c", "a", "b"):
            made(call("POST", "/v2.0/networks", {"network": {"name": name}}))
        assert [n["name"] for n in call("GET", "/v2.0/networks?sort_key=name&sort_dir=desc")[1]["networks"]] == [
            "c",
            "b",
            "a",
        ]
        assert call("GET", "/v2.0/networks?name=a&name=b&fields=name&sort_key=name")[1]["networks"] == [
            {"name": "a"},
            {"name": "b"},
        ]
        assert call("GET", "/v2.0/networks?shared=true")[1] == {"networks": []}
        page = call("GET", "/v2.0/networks?limit=2&sort_key=name")[1]
        link = next(link["href"] for link in page["networks_links"] if link["rel"] == "next")
        rest = call("GET", link[link.index("/v2.0") :])[1]
        assert [n["name"] for n in page["networks"] + rest["networks"]] == ["a", "b", "c"]

    with_client(story)


def test_ipv6_addresses_are_made_from_the_mac() -> None:
    def story(call: Client, admin: Client) -> None:
        network = made(call("POST", "/v2.0/networks", {"network": {}}))["id"]
        body = {"network_id": network, "ip_version": 6, "cidr": "2001:db8::/64"}
        modes = {"ipv6_ra_mode": "slaac", "ipv6_address_mode": "slaac"}
        made(call("POST", "/v2.0/subnets", {"subnet": {**body, **modes}}))
        mac = "fa:16:3e:00:00:05"
        port = made(call("POST", "/v2.0/ports", {"port": {"network_id": network, "mac_address": mac}}))
        assert [ip["ip_address"] for ip in port["fixed_ips"]] == ["2001:db8::f816:3eff:fe00:5"]

    with_client(story)


def test_another_tenants_things_do_not_exist_and_a_reader_only_reads() -> None:
    def story(server: NetworkServer) -> None:
        mine, theirs, reader = (Client(server.url, token) for token in ("p-one", "p-two", "r-one"))
        network = made(mine("POST", "/v2.0/networks", {"network": {"name": "n"}}))["id"]
        body = {"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/24"}
        subnet = made(mine("POST", "/v2.0/subnets", {"subnet": body}))["id"]
        port = made(mine("POST", "/v2.0/ports", {"port": {"network_id": network}}))
        group = port["security_groups"][0]
        rule = mine("GET", f"/v2.0/security-groups/{group}")[1]["security_group"]["security_group_rules"][0]["id"]
        for plural, id in (
            ("networks", network),
            ("subnets", subnet),
            ("ports", port["id"]),
            ("security-groups", group),
            ("security-group-rules", rule),
        ):
            noun = plural[:-1].replace("-", "_")
            assert theirs("GET", f"/v2.0/{plural}/{id}")[0] == 404
            assert theirs("DELETE", f"/v2.0/{plural}/{id}")[0] == 404
            assert id not in str(theirs("GET", f"/v2.0/{plural}")[1])
            assert reader("GET", f"/v2.0/{plural}/{id}")[0] == 200
            assert reader("DELETE", f"/v2.0/{plural}/{id}")[0] == 403
            if plural != "security-group-rules":
                assert theirs("PUT", f"/v2.0/{plural}/{id}", {noun: {"name": "x"}})[0] == 404
                assert reader("PUT", f"/v2.0/{plural}/{id}", {noun: {"name": "x"}})[0] == 403
                assert theirs("PUT", f"/v2.0/{plural}/{id}/tags", {"tags": ["x"]})[0] == 404
        assert theirs("POST", "/v2.0/ports", {"port": {"network_id": network}})[0] == 404
        assert theirs("POST", "/v2.0/subnets", {"subnet": {**body, "cidr": "10.1.0.0/24"}})[0] == 404
        assert theirs("GET", "/v2.0/quotas/p-one")[0] == 403
        foreign = {"port": {"network_id": network, "security_groups": [group]}}
        admin = Client(server.url, "admin")
        assert admin("PUT", f"/v2.0/networks/{network}", {"network": {"shared": True}})[0] == 200
        assert theirs("GET", f"/v2.0/networks/{network}")[0] == 200
        assert theirs("POST", "/v2.0/ports", foreign)[0] == 404  # the group is still not theirs
        assert theirs("POST", "/v2.0/ports", {"port": {"network_id": network}})[0] == 201
        assert theirs("DELETE", f"/v2.0/networks/{network}")[0] == 403

    with_server(story)

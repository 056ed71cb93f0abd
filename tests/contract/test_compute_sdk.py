"""Compute and placement as openstacksdk and plain HTTP see them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import openstack
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from keystoneauth1 import session, token_endpoint

from tests.contract.compute_door import serving
from tests.sim.cloud import IMAGE_ID, NETWORK_ID


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as (base, _):
        yield base


def connection(url: str, token: str) -> openstack.connection.Connection:
    auth = token_endpoint.Token(f"{url}/compute/v2.1", token)
    return openstack.connection.Connection(
        session=session.Session(auth=auth), region_name="r",
        compute_endpoint_override=f"{url}/compute/v2.1", compute_api_version="2",
    )  # fmt: skip


def call(url: str, method: str, path: str, body: Any = None, *, token: str = "alice", version: str = "2.100") -> Any:
    headers = {"X-Auth-Token": token, "OpenStack-API-Version": f"compute {version}"}
    if path.startswith("/placement"):
        headers["OpenStack-API-Version"] = f"placement {version}"
    return requests.request(method, url + path, json=body, headers=headers, timeout=30)


def server_body(**fields: Any) -> dict[str, Any]:
    return {"server": {"name": "s", "flavorRef": "1", "imageRef": IMAGE_ID, "networks": "auto", **fields}}


def wait(url: str, id: str, status: str = "ACTIVE", token: str = "alice") -> dict[str, Any]:
    for _ in range(200):
        server = call(url, "GET", f"/compute/v2.1/servers/{id}", token=token).json()["server"]
        if server["status"] == status and server["OS-EXT-STS:task_state"] is None:
            return dict(server)
        time.sleep(0.03)
    raise AssertionError(server)


def boot(url: str, token: str = "alice", **fields: Any) -> dict[str, Any]:
    answer = call(url, "POST", "/compute/v2.1/servers", server_body(**fields), token=token)
    assert answer.status_code == 202, answer.text
    return wait(url, answer.json()["server"]["id"], token=token)


def test_discovery(url: str) -> None:
    old, new = requests.get(f"{url}/compute", timeout=9).json()["versions"]
    assert (old["id"], old["status"], new["id"], new["version"]) == ("v2.0", "SUPPORTED", "v2.1", "2.100")
    for entry in (old, new):
        shown = requests.get(entry["links"][0]["href"], timeout=9).json()["version"]
        assert (shown["id"], shown["links"][0]) == (entry["id"], entry["links"][0])
    headers = {"X-Auth-Token": "alice", "OpenStack-API-Version": "compute 2.90"}
    answer = requests.get(f"{url}/compute/v2/flavors/detail", headers=headers, timeout=9)
    assert answer.headers["OpenStack-API-Version"] == "compute 2.1"
    assert all("extra_specs" not in flavor for flavor in answer.json()["flavors"])
    assert requests.get(f"{url}/compute/v2.1/", timeout=9).json()["version"]["min_version"] == "2.1"
    assert requests.get(f"{url}/placement/", timeout=9).json()["versions"][0]["max_version"] == "1.39"


def test_the_sdk_lives_through_a_server(url: str) -> None:
    cloud = connection(url, "alice")
    key = cloud.compute.create_keypair(name="k1")
    assert "PRIVATE KEY" in key.private_key
    flavor = cloud.compute.find_flavor("tiny")
    server = cloud.compute.create_server(
        name="first", flavor_id=flavor.id, image_id=IMAGE_ID, networks=[{"uuid": NETWORK_ID}], key_name="k1",
        metadata={"a": "b"}, user_data="aGVsbG8=", tags=["t1"],
    )  # fmt: skip
    server = cloud.compute.wait_for_server(server, interval=0.05, wait=20)
    assert server.status == "ACTIVE"
    assert server.addresses["private"][0]["addr"].startswith("10.0.")
    assert cloud.compute.update_server(server, access_ipv6="0:0:0:0:0:babe:1.2.3.4").access_ipv6 == "::babe:102:304"
    assert [found.id for found in cloud.compute.servers(name="first")] == [server.id]
    cloud.compute.stop_server(server)
    cloud.compute.wait_for_server(server, status="SHUTOFF", interval=0.05, wait=20)
    cloud.compute.start_server(server)
    cloud.compute.wait_for_server(server, interval=0.05, wait=20)
    cloud.compute.reboot_server(server, "HARD")
    cloud.compute.wait_for_server(server, interval=0.05, wait=20)
    assert "is up" in cloud.compute.get_server_console_output(server)["output"]
    assert len(cloud.compute.get_server_console_output(server, length=2)["output"].split("\n")) == 2
    cloud.compute.set_server_metadata(server, c="d")
    assert cloud.compute.get_server_metadata(server).metadata == {"a": "b", "c": "d"}
    actions = [action.action for action in cloud.compute.server_actions(server)]
    assert actions == ["reboot", "start", "stop", "create"]
    cloud.compute.delete_server(server)
    cloud.compute.wait_for_delete(server, interval=0.05, wait=20)
    assert next(iter(cloud.compute.availability_zones())).name == "nova"
    admin = connection(url, "admin")
    assert {host.name for host in admin.compute.hypervisors()} == {"h1", "h2"}
    assert {service.state for service in admin.compute.services()} == {"up"}


VERSIONS = [
    "2.1", "2.2", "2.3", "2.9", "2.16", "2.19", "2.26", "2.36", "2.37", "2.47", "2.52", "2.57", "2.63", "2.71", "2.73",
    "2.75", "2.88", "2.90", "2.96", "2.98", "2.100",
]  # fmt: skip


def host_of(url: str, server: Any) -> str:
    shown = call(url, "GET", f"/compute/v2.1/servers/{server['id']}", token="admin").json()["server"]
    return str(shown["OS-EXT-SRV-ATTR:host"])


def test_every_version_answers_every_read(url: str) -> None:
    server = boot(url)
    for version in VERSIONS:
        for path in (
            "/servers", "/servers/detail", f"/servers/{server['id']}", "/flavors", "/flavors/detail", "/flavors/1",
            "/os-keypairs", "/limits", "/os-availability-zone", f"/servers/{server['id']}/os-instance-actions",
            f"/servers/{server['id']}/ips", "/os-server-groups", "/os-quota-sets/p1",
        ):  # fmt: skip
            answer = call(url, "GET", f"/compute/v2.1{path}", version=version)
            assert answer.status_code == 200, (version, path, answer.text)
            assert answer.headers["x-openstack-nova-api-version"] == version
        for path in ("/os-hypervisors/detail", "/os-services", "/os-hypervisors", "/os-availability-zone/detail"):
            assert call(url, "GET", f"/compute/v2.1{path}", version=version, token="admin").status_code == 200
    old = call(url, "GET", f"/compute/v2.1/servers/{server['id']}", version="2.1").json()["server"]
    assert old["flavor"]["id"] == "1"
    assert not {"locked", "tags", "description", "host_status", "OS-EXT-SRV-ATTR:hostname"} & set(old)
    new = call(url, "GET", f"/compute/v2.1/servers/{server['id']}").json()["server"]
    assert new["flavor"] == {
        "vcpus": 1, "ram": 64, "disk": 1, "ephemeral": 0, "swap": 0, "original_name": "tiny", "extra_specs": {},
    }  # fmt: skip
    assert new["scheduler_hints"] == {}
    listed = call(url, "GET", "/compute/v2.1/servers/detail").json()["servers"]
    assert {str(each["scheduler_hints"]) for each in listed} == {"{}"}
    for path in ("/flavors", "/flavors/detail"):
        assert "description" not in call(url, "GET", f"/compute/v2.1{path}", version="2.54").json()["flavors"][0]
    on = call(url, "GET", f"/compute/v2.1/os-hypervisors/{host_of(url, server)}/servers", version="2.52", token="admin")
    assert server["id"] in {each["uuid"] for each in on.json()["hypervisors"][0]["servers"]}
    nowhere = call(url, "GET", "/compute/v2.1/os-hypervisors/none/servers", version="2.52", token="admin")
    assert nowhere.status_code == 404
    assert isinstance(
        call(url, "GET", "/compute/v2.1/os-hypervisors", version="2.52", token="admin").json()["hypervisors"][0]["id"],
        int,
    )


def test_refusals_name_what_is_wrong(url: str) -> None:
    for fields, status, part in (
        ({"flavorRef": "none"}, 400, "flavor"),
        ({"imageRef": "33333333-1111-4111-8111-111111111111"}, 400, "image"),
        ({"name": ""}, 400, "name"),
        ({"networks": [{"uuid": "x"}]}, 400, "networks"),
        ({"networks": "any"}, 400, "networks"),
        ({"min_count": 5, "max_count": 2}, 400, "min_count"),
        ({"user_data": "!!!"}, 400, "user_data"),
        ({"nonsense": 1}, 400, "nonsense"),
        ({"key_name": "missing"}, 400, "key_name"),
        ({"security_groups": [{"name": "missing"}]}, 400, "Security group missing"),
        ({"availability_zone": "mars"}, 400, "availability_zone"),
        ({"availability_zone": "nova:h1"}, 403, "administrator"),
        ({"metadata": {"a": "x" * 256}}, 400, "metadata"),
        ({"personality": []}, 400, "personality"),
    ):
        answer = call(url, "POST", "/compute/v2.1/servers", server_body(**fields))
        assert answer.status_code == status, (fields, answer.text)
        assert part in answer.text
    server = boot(url)
    path = f"/compute/v2.1/servers/{server['id']}/action"
    assert call(url, "POST", path, {"nonsense": None}).status_code == 400
    assert call(url, "POST", path, {"createBackup": {}}).status_code == 400
    assert call(url, "POST", path, {"os-start": None}).status_code == 409
    assert call(url, "POST", path, {"reboot": {}}).status_code == 400
    assert call(url, "POST", path, {"os-resetState": {"state": "error"}}).status_code == 403


def test_another_tenant_sees_and_moves_nothing(url: str) -> None:
    server = boot(url)
    path = f"/compute/v2.1/servers/{server['id']}"
    for method, where, body in (
        ("GET", "", None), ("DELETE", "", None), ("PUT", "", {"server": {"name": "mine"}}),
        ("POST", "/action", {"os-stop": None}), ("POST", "/action", {"lock": None}), ("GET", "/metadata", None),
        ("POST", "/action", {"os-getConsoleOutput": {}}), ("PUT", "/tags", {"tags": []}), ("GET", "/ips", None),
        ("GET", "/os-instance-actions", None),
    ):  # fmt: skip
        assert call(url, method, path + where, body, token="bob").status_code == 404, (method, where)
    assert server["id"] not in call(url, "GET", "/compute/v2.1/servers", token="bob").text
    assert call(url, "GET", "/compute/v2.1/servers?all_tenants=1", token="bob").status_code == 403
    assert server["id"] in call(url, "GET", "/compute/v2.1/servers?all_tenants=1", token="admin").text
    assert call(url, "DELETE", path, token="reader").status_code == 403
    assert call(url, "GET", path, token="reader").status_code == 200
    assert call(url, "GET", path, token="nobody").status_code == 401
    assert call(url, "GET", "/compute/v2.1/os-hypervisors").status_code == 403
    assert call(url, "POST", "/compute/v2.1/flavors", {"flavor": {}}).status_code == 403


def test_filters_sorting_and_paging(url: str) -> None:
    ids = [boot(url, name=f"page-{number}", tags=[f"t{number}"])["id"] for number in range(4)]

    def found(query: str) -> list[str]:
        answer = call(url, "GET", f"/compute/v2.1/servers?{query}")
        assert answer.status_code == 200, answer.text
        return [server["id"] for server in answer.json()["servers"]]

    assert found("name=page-&sort_key=display_name&sort_dir=asc") == ids
    assert found("name=page-&sort_key=display_name&sort_dir=desc&limit=2") == ids[:1:-1]
    assert found(f"name=page-&sort_key=display_name&sort_dir=asc&marker={ids[1]}") == ids[2:]
    assert found("name=^page-2$") == [ids[2]]
    assert found("tags=t3") == [ids[3]]
    assert found("name=page-&status=SHUTOFF") == []
    assert found("name=page-&limit=0") == []
    assert call(url, "GET", "/compute/v2.1/servers?marker=nothing").status_code == 400
    assert call(url, "GET", "/compute/v2.1/servers?sort_key=nothing").status_code == 400
    assert call(url, "GET", "/compute/v2.1/servers?name=(a%2B)%2Bb").status_code == 400
    seen, path = [], "/compute/v2.1/servers?limit=2&name=page-"
    while path:
        answer = call(url, "GET", path).json()
        seen += [server["id"] for server in answer["servers"]]
        links = answer.get("servers_links")
        path = links[0]["href"].removeprefix(url) if links else ""
    assert sorted(seen) == sorted(ids)


def test_flavors_keys_groups_quotas(url: str) -> None:
    def admin(method: str, path: str, body: Any = None, **kwargs: Any) -> Any:
        return call(url, method, f"/compute/v2.1{path}", body, token="admin", **kwargs)

    made = admin("POST", "/flavors", {"flavor": {"name": "f9", "ram": 128, "vcpus": 2, "disk": 1, "id": "f9"}})
    assert made.status_code == 200, made.text
    assert admin("POST", "/flavors", {"flavor": {"name": "f9", "ram": 1, "vcpus": 1, "disk": 1}}).status_code == 409
    assert admin("POST", "/flavors", {"flavor": {"name": "f8", "ram": 0, "vcpus": 1, "disk": 1}}).status_code == 400
    assert admin("POST", "/flavors/f9/os-extra_specs", {"extra_specs": {"hw:x": "1"}}).status_code == 200
    assert admin("GET", "/flavors/f9").json()["flavor"]["extra_specs"] == {"hw:x": "1"}
    assert admin("DELETE", "/flavors/f9/os-extra_specs/hw:x").status_code == 200
    assert admin("DELETE", "/flavors/f9").status_code == 202
    bad = call(url, "POST", "/compute/v2.1/os-keypairs", {"keypair": {"name": "bad", "public_key": "ssh-rsa nonsense"}})
    assert bad.status_code == 400
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ+8z0YkIgJyPzVbQUy5Gh2aH3DgxK6y1y8m2zXq8q3A c"
    good = call(url, "POST", "/compute/v2.1/os-keypairs", {"keypair": {"name": "good", "public_key": key}})
    assert good.status_code == 201, good.text
    assert call(url, "DELETE", "/compute/v2.1/os-keypairs/good").status_code == 204
    ask = {"keypair": {"name": "windows", "type": "x509"}}
    made = call(url, "POST", "/compute/v2.1/os-keypairs", ask, version="2.91").json()["keypair"]
    certificate = x509.load_pem_x509_certificate(made["public_key"].encode())
    private = serialization.load_pem_private_key(made["private_key"].encode(), None)
    assert private.public_key() == certificate.public_key()
    assert call(url, "POST", "/compute/v2.1/os-keypairs", ask, version="2.92").status_code == 400
    group = call(url, "POST", "/compute/v2.1/os-server-groups", {"server_group": {"name": "g", "policy": "affinity"}})
    assert group.json()["server_group"]["policy"] == "affinity"
    old = call(
        url, "POST", "/compute/v2.1/os-server-groups", {"server_group": {"name": "g", "policies": ["affinity"]}},
        version="2.1",
    )  # fmt: skip
    assert old.json()["server_group"]["policies"] == ["affinity"]
    assert admin("PUT", "/os-quota-sets/p2", {"quota_set": {"instances": 1}}).json()["quota_set"]["instances"] == 1
    assert call(url, "POST", "/compute/v2.1/servers", server_body(min_count=2), token="bob").status_code == 403
    assert admin("DELETE", "/os-quota-sets/p2").status_code == 202
    path, before = "/os-quota-class-sets/default", admin("GET", "/os-quota-class-sets/default").json()
    assert admin("PUT", path, {"quota_class_set": {"instances": 1}}).json()["quota_class_set"]["instances"] == 1
    assert call(url, "POST", "/compute/v2.1/servers", server_body(min_count=2), token="bob").status_code == 403
    assert admin("GET", "/os-quota-sets/p2/defaults").json()["quota_set"]["instances"] == 1
    assert admin("PUT", path, {"quota_class_set": {"colour": 1}}).status_code == 400
    assert admin("PUT", "/os-quota-class-sets/other", {"quota_class_set": {"instances": 1}}).status_code == 404
    most = {"instances": before["quota_class_set"]["instances"]}
    assert admin("PUT", path, {"quota_class_set": most}).status_code == 200
    assert admin("GET", path).json() == before
    old = admin("GET", path, version="2.49").json()["quota_class_set"]
    assert {"floating_ips", "injected_files"} <= set(old)
    assert "server_groups" not in old


def test_placement(url: str) -> None:
    def placement(method: str, path: str, body: Any = None, version: str = "1.39") -> Any:
        return call(url, method, f"/placement{path}", body, token="admin", version=version)

    made = placement("POST", "/resource_providers", {"name": "rp1"})
    assert made.status_code == 200, made.text
    id, generation = made.json()["uuid"], made.json()["generation"]
    inventories = {"resource_provider_generation": generation, "inventories": {"VCPU": {"total": 8}}}
    put = placement("PUT", f"/resource_providers/{id}/inventories", inventories)
    assert put.status_code == 200, put.text
    assert placement("PUT", f"/resource_providers/{id}/inventories", inventories).status_code == 409
    assert placement("PUT", "/traits/CUSTOM_GOLD").status_code == 201
    assert placement("PUT", "/traits/CUSTOM_GOLD").status_code == 204
    traits = {"resource_provider_generation": put.json()["resource_provider_generation"], "traits": ["CUSTOM_GOLD"]}
    assert placement("PUT", f"/resource_providers/{id}/traits", traits).status_code == 200
    found = placement("GET", "/allocation_candidates?resources=VCPU:8&required=CUSTOM_GOLD").json()
    assert list(found["provider_summaries"]) == [id]
    consumer = "44444444-4444-4444-8444-444444444444"
    body = {
        "allocations": {id: {"resources": {"VCPU": 6}}}, "project_id": "p", "user_id": "u",
        "consumer_generation": None, "consumer_type": "TEST",
    }  # fmt: skip
    assert placement("PUT", f"/allocations/{consumer}", body).status_code == 204
    assert placement("PUT", f"/allocations/{consumer}", body).status_code == 409
    assert placement("GET", f"/allocations/{consumer}").json()["allocations"][id]["resources"] == {"VCPU": 6}
    assert (
        placement("GET", "/allocation_candidates?resources=VCPU:3&required=CUSTOM_GOLD").json()["allocation_requests"]
        == []
    )
    assert placement("DELETE", f"/resource_providers/{id}").status_code == 409
    assert placement("GET", f"/resource_providers/{id}/usages").json()["usages"] == {"VCPU": 6}
    assert placement("DELETE", f"/allocations/{consumer}").status_code == 204
    assert placement("DELETE", f"/resource_providers/{id}").status_code == 204
    for version in ("1.0", "1.6", "1.12", "1.17", "1.29", "1.36"):
        assert placement("GET", "/resource_providers", version=version).status_code == 200
    assert call(url, "GET", "/placement/resource_providers", version="1.0").status_code == 403


def test_an_anti_affinity_group_may_allow_some_on_a_host(url: str) -> None:
    """Two hosts, two servers of the group on each: the fifth finds none, and a group of one to a host is as before."""
    for most, expected in ((2, 4), (None, 2)):
        rules = {} if most is None else {"rules": {"max_server_per_host": most}}
        group = call(
            url, "POST", "/compute/v2.1/os-server-groups",
            {"server_group": {"name": f"apart-{most}", "policy": "anti-affinity", **rules}}, token="admin",
        ).json()["server_group"]["id"]  # fmt: skip
        hosts: dict[str, int] = {}
        made = []
        for _ in range(expected + 1):
            body = {**server_body(), "os:scheduler_hints": {"group": group}}
            made.append(call(url, "POST", "/compute/v2.1/servers", body, token="admin").json()["server"]["id"])
            server = settled(url, made[-1])
            if server["status"] == "ACTIVE":
                host = host_of(url, server)
                hosts[host] = hosts.get(host, 0) + 1
        assert hosts == {"h1": most or 1, "h2": most or 1}
        assert server["status"] == "ERROR"
        assert "different_host" in server["fault"]["message"]
        for id in made:
            call(url, "DELETE", f"/compute/v2.1/servers/{id}", token="admin")


def settled(url: str, id: str) -> dict[str, Any]:
    for _ in range(200):
        server = call(url, "GET", f"/compute/v2.1/servers/{id}", token="admin").json()["server"]
        if server["status"] in ("ACTIVE", "ERROR"):
            return dict(server)
        time.sleep(0.03)
    raise AssertionError(server)

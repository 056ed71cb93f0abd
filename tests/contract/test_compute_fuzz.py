"""Senseless requests to every route of compute and placement: refused by name, never our fault."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import Any

import pytest

from apus.kernel.policy import Rule
from apus.services.compute.api.routes import compute_apis
from apus.services.placement.api.routes import placement_api
from apus.services.placement.inventory import Inventories
from apus.wire.app import Api, App
from tests.contract.compute_door import Tokens
from tests.flow.virtual import memory_world, run_virtual
from tests.sim.cloud import IMAGE_ID, Cloud

WORDS: list[Any] = [
    None, True, -1, 0, 1, 2**63, 1.5, "", "x", "é\0", "a" * 300, [], [1], {}, {"a": None}, "1", "auto", "none",
    IMAGE_ID,
    "..", "%00", {"uuid": "x"}, [{"uuid": IMAGE_ID}], [{"port": 5}], "2020-01-01", "!!",
]  # fmt: skip
KEYS = [
    "server", "name", "flavorRef", "imageRef", "networks", "min_count", "max_count", "metadata", "meta",
    "tags", "flavor",
    "ram", "vcpus", "disk", "id", "keypair", "public_key", "type", "server_group", "policy", "policies", "rules",
    "quota_set", "instances", "force", "os-start", "os-stop", "reboot", "lock", "os-getConsoleOutput", "length",
    "os-resetState", "state", "extra_specs", "status", "forced_down", "host", "binary", "personality", "user_data",
    "security_groups", "config_drive", "availability_zone", "os:scheduler_hints", "group", "same_host", "key_name",
    "block_device_mapping_v2", "hostname", "description", "uuid", "resource_provider_generation",
    "inventories", "VCPU",
    "total", "traits", "aggregates", "allocations", "resources", "project_id", "user_id", "consumer_generation",
    "addTenantAccess", "tenant", "accessIPv4", "return_reservation_id", "trusted_image_certificates",
]  # fmt: skip
QUERIES = [
    "limit", "marker", "sort_key", "sort_dir", "name", "status", "all_tenants", "changes-since", "ip", "tags",
    "deleted",
    "is_public", "minRam", "start", "end", "detailed", "resources", "required", "member_of", "in_tree", "power_state",
    "project_id", "offset", "with_servers", "hypervisor_hostname_pattern", "locked", "uuid", "flavor", "host",
    "user_id",
]  # fmt: skip


def thing(dice: Random, depth: int = 0) -> Any:
    if depth < 3 and dice.random() < 0.6:
        return {dice.choice(KEYS): thing(dice, depth + 1) for _ in range(dice.randrange(5))}
    if depth < 3 and dice.random() < 0.2:
        return [thing(dice, depth + 1) for _ in range(dice.randrange(3))]
    return dice.choice(WORDS)


async def call(
    app: App, method: str, path: str, query: str, body: bytes, token: str | None, version: str
) -> tuple[int, bytes]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"openstack-api-version", version.encode())]
    if token is not None:
        headers.append((b"x-auth-token", token.encode()))
    scope = {
        "type": "http", "method": method, "raw_path": path.encode(), "path": path, "query_string": query.encode(),
        "headers": headers, "server": ("127.0.0.1", 80), "scheme": "http",
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


async def doors() -> tuple[Cloud, list[Api], App]:
    cloud = Cloud(await memory_world(), hosts=("h1",))
    apis = [*compute_apis(cloud.compute), placement_api(Inventories(cloud.world, cloud.placement))]
    return cloud, apis, App(apis, Tokens(), dice=Random(3))


@pytest.mark.parametrize("seed", range(4))
def test_senseless_requests_are_refused_and_never_our_fault(seed: int) -> None:
    async def story() -> None:
        cloud, apis, app = await doors()
        async with cloud:
            dice = Random(seed)
            known = [(await cloud.boot()).id, "1", "h1", IMAGE_ID, "CUSTOM_X", "VCPU"]
            await asyncio.sleep(1)
            for api in apis:
                newest = "2.100" if api.name == "compute" else "1.39"
                for route in api.routes:
                    for _ in range(12):
                        path = api.prefix + route.path
                        while "{" in path:
                            before, _, rest = path.partition("{")
                            value = dice.choice([*known, "x", "%2e%2e", "a" * 300])
                            path = before + value + rest.partition("}")[2]
                        query = f"{dice.choice(QUERIES)}={dice.choice(['', '1', '-1', 'x', 'VCPU:1', '9' * 30, '%00'])}"
                        body = json.dumps(thing(dice)).encode() if dice.random() < 0.9 else b"{"
                        version = f"{api.name} {dice.choice([newest, '2.1' if api.name == 'compute' else '1.0'])}"
                        status, answer = await call(app, route.method, path, query, body, "admin", version)
                        assert status < 500, (route.method, path, query, body, answer)

    run_virtual(story())


def test_no_route_but_the_public_ones_answers_without_a_token() -> None:
    async def story() -> None:
        cloud, apis, app = await doors()
        async with cloud:
            for api in apis:
                newest = "2.100" if api.name == "compute" else "1.39"
                for route in api.routes:
                    path = api.prefix + route.path.replace("{", "").replace("}", "")
                    since = f"{route.since[0]}.{route.since[1]}" if route.since else newest
                    until = f"{route.until[0]}.{route.until[1]}" if route.until else since
                    status, _ = await call(app, route.method, path, "", b"{}", None, f"{api.name} {until}")
                    public = route.may is not None and api.policy[route.may] is Rule.PUBLIC
                    assert (status == 200) if public else (status == 401), (route.method, path, status)

    run_virtual(story())

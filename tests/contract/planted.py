"""Two tenants with one of everything each, every text of the second marked; and throw-away people for the admin."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any, Final

from tests.contract.whole_cloud import WholeCloud

MARK: Final = "zqvictimqz"
"""In names, tags and metadata of the other tenant, never in a request: it may appear in nobody else's answers."""
PASSWORD: Final = "planted-password"
_KEY: Final = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQC1 nobody"

Things = dict[str, list[str]]
"""Segment of the path before the id -> ids."""

VIEWS: Final = (
    "/compute/v2.1/servers/detail", "/compute/v2.1/os-keypairs", "/compute/v2.1/os-server-groups",
    "/compute/v2.1/os-quota-sets/{project}", "/compute/v2.1/servers/{server}/os-interface",
    "/network/v2.0/networks?project_id={project}", "/network/v2.0/subnets?project_id={project}",
    "/network/v2.0/ports?project_id={project}", "/network/v2.0/security-groups?project_id={project}",
    "/network/v2.0/security-group-rules?project_id={project}", "/network/v2.0/quotas/{project}",
    "/image/v2/images?owner={project}", "/image/v2/images/{image}/file", "/image/v2/images/{image}/members",
    "/v1/AUTH_{project}", "/v1/AUTH_{project}/{container}", "/v1/AUTH_{project}/{container}/{object}",
    "/identity/v3/users/{user}/application_credentials", "/identity/v3/users/{user}", "/identity/v3/projects/{project}",
    "/identity/v3/users/{user}/credentials/OS-EC2", "/apus/v1/operations",
)  # fmt: skip
"""What a tenant can see of its own."""


class Tenant:
    def __init__(self, name: str, project: str, user: str, token: str) -> None:
        self.name, self.project, self.user, self.token = name, project, user, token
        self.things: Things = {"projects": [project], "users": [user]}
        self.named: dict[str, str] = {"project": project, "user": user}

    def has(self, segment: str, id: str, noun: str | None = None) -> None:
        self.things.setdefault(segment, []).append(id)
        if noun is not None:
            self.named[noun] = id


async def add_person(cloud: WholeCloud, admin: str, name: str, project_id: str, role: str) -> str:
    """A user with a role on a project; returns its id."""
    made = await cloud.made("POST", "/identity/v3/users", {"user": {"name": name, "password": PASSWORD}}, admin)
    roles = await cloud.made("GET", f"/identity/v3/roles?name={role}", None, admin)
    grant = f"/identity/v3/projects/{project_id}/users/{made['user']['id']}/roles/{roles['roles'][0]['id']}"
    await cloud.made("PUT", grant, None, admin)
    return str(made["user"]["id"])


async def plant(cloud: WholeCloud, admin: str, name: str) -> Tenant:
    """A tenant with one of everything; `name` is in each text."""
    project = (await cloud.made("POST", "/identity/v3/projects", {"project": {"name": name}}, admin))["project"]["id"]
    user = await add_person(cloud, admin, name, project, "member")
    tenant = Tenant(name, project, user, await cloud.login(name, PASSWORD, name))
    await _secrets(cloud, tenant)
    await _network(cloud, tenant)
    await _images(cloud, tenant)
    await _objects(cloud, tenant)
    await _servers(cloud, tenant)
    operations = await cloud.made("GET", "/apus/v1/operations", None, tenant.token)
    for one in operations["operations"]:
        tenant.has("operations", one["id"])
        tenant.has("os-instance-actions", one["request_id"])
    return tenant


async def _secrets(cloud: WholeCloud, tenant: Tenant) -> None:
    people = f"/identity/v3/users/{tenant.user}"
    for number in range(2):
        body = {"application_credential": {"name": f"{tenant.name}-{number}", "description": tenant.name}}
        made = await cloud.made("POST", f"{people}/application_credentials", body, tenant.token)
        tenant.has("application_credentials", made["application_credential"]["id"])
        made = await cloud.made("POST", f"{people}/credentials/OS-EC2", {"tenant_id": tenant.project}, tenant.token)
        tenant.has("OS-EC2", made["credential"]["access"])


async def _network(cloud: WholeCloud, tenant: Tenant) -> None:
    async def make(plural: str, noun: str, **fields: Any) -> str:
        path = f"/network/v2.0/{plural}"
        made = await cloud.made("POST", path, {noun: {"description": tenant.name, **fields}}, tenant.token)
        tenant.has(plural, made[noun]["id"], noun)
        return str(made[noun]["id"])

    for number in range(2):
        network = await make("networks", "network", name=f"{tenant.name}-{number}")
        await make("subnets", "subnet", network_id=network, name=tenant.name, cidr=f"10.9{number}.0.0/24", ip_version=4)
        group = await make("security-groups", "security_group", name=f"{tenant.name}-{number}")
        await make(
            "security-group-rules", "security_group_rule", security_group_id=group, direction="ingress", protocol="tcp",
            port_range_min=22, port_range_max=22,
        )  # fmt: skip
        await make("ports", "port", network_id=network, name=tenant.name, security_groups=[group])
        await cloud.made("PUT", f"/network/v2.0/networks/{network}/tags/{tenant.name}", None, tenant.token)


async def _images(cloud: WholeCloud, tenant: Tenant) -> None:
    for number in range(3):
        body = {
            "name": f"{tenant.name}-{number}", "disk_format": "raw", "container_format": "bare", "tags": [tenant.name],
            "property": tenant.name,
        }  # fmt: skip
        made = await cloud.made("POST", "/image/v2/images", body, tenant.token)
        if number < 2:  # the last stays queued
            data = tenant.name.encode() * 100
            octets = {"content-type": "application/octet-stream"}
            answer = await cloud.ask("PUT", f"/image/v2/images/{made['id']}/file", data, tenant.token, octets)
            assert answer is not None
            assert answer.status == 204, answer.body
            tenant.named["image"] = made["id"]
        tenant.has("images", made["id"])


async def _objects(cloud: WholeCloud, tenant: Tenant) -> None:
    account, container = f"AUTH_{tenant.project}", "held"
    tenant.has("v1", account, "account")
    await cloud.made("PUT", f"/v1/{account}/{container}", None, tenant.token)
    for number in range(2):
        answer = await cloud.ask(
            "PUT", f"/v1/{account}/{container}/o-{number}", tenant.name.encode() * 50, tenant.token,
            {"x-object-meta-colour": tenant.name},
        )  # fmt: skip
        assert answer is not None
        assert answer.status == 201, answer.body
        tenant.has("object", f"o-{number}", "object")
    tenant.has("container", container, "container")


async def _servers(cloud: WholeCloud, tenant: Tenant) -> None:
    v296 = {"openstack-api-version": "compute 2.96"}

    async def make(path: str, body: dict[str, Any]) -> Any:
        answer = await cloud.ask("POST", f"/compute/v2.1/{path}", body, tenant.token, v296)
        assert answer is not None
        assert answer.status < 300, (path, answer.status, answer.body)
        return json.loads(answer.body)

    await cloud.made("POST", "/compute/v2.1/os-keypairs", {"keypair": {"name": "key"}}, tenant.token)
    tenant.has("os-keypairs", "key")
    made = await make("os-server-groups", {"server_group": {"name": tenant.name, "policy": "anti-affinity"}})
    tenant.has("os-server-groups", made["server_group"]["id"])
    for number in range(2):
        body = {
            "name": f"{tenant.name}-{number}", "flavorRef": "1", "imageRef": tenant.things["images"][0],
            "networks": [{"uuid": tenant.things["networks"][0]}], "metadata": {"who": tenant.name},
            "description": tenant.name, "tags": [tenant.name],
        }  # fmt: skip
        tenant.has("servers", (await make("servers", {"server": body}))["server"]["id"], "server")
    for id in tenant.things["servers"]:
        await until_active(cloud, id, tenant.token)


async def until_active(cloud: WholeCloud, id: str, token: str) -> None:
    async with asyncio.timeout(20):
        while True:
            shown = (await cloud.made("GET", f"/compute/v2.1/servers/{id}", None, token))["server"]
            if shown["status"] == "ACTIVE":
                return
            assert shown["status"] == "BUILD", shown
            await asyncio.sleep(0.02)


async def view_of(cloud: WholeCloud, tenant: Tenant) -> dict[str, bytes | int]:
    """All that the tenant sees of its own, to be compared."""
    seen: dict[str, bytes | int] = {}
    for path in VIEWS:
        answer = await cloud.ask("GET", path.format_map(tenant.named), None, tenant.token)
        assert answer is not None
        assert answer.status in (200, 204), (path, answer.status, answer.body)
        seen[path] = answer.body
    return seen


async def throw_aways(cloud: WholeCloud, admin: str, things: Things) -> Things:
    """What an administrator may break: people, services, flavors of no importance."""
    v3, made = "/identity/v3", cloud.made

    async def add(plural: str, noun: str, **fields: Any) -> str:
        id = str((await made("POST", f"{v3}/{plural}", {noun: fields}, admin))[noun]["id"])
        things.setdefault(plural, []).append(id)
        return id

    domain = await add("domains", "domain", name="throw-away")
    things["users"], things["projects"] = [], []
    for number in range(3):
        await add("users", "user", name=f"throw-away-{number}", password=PASSWORD)
        await add("groups", "group", name=f"throw-away-{number}")
        await add("projects", "project", name=f"throw-away-{number}")
        await add("roles", "role", name=f"throw-away-{number}")
        await add("projects", "project", name=f"below-{number}", domain_id=domain)
    service = await add("services", "service", name="throw-away", type="rubbish")
    region = await add("regions", "region", description="throw-away")
    await add("endpoints", "endpoint", service_id=service, interface="public", url="http://x/", region_id=region)
    await add("credentials", "credential", user_id=things["users"][0], type="cert", blob="x")
    limits = {"registered_limits": [{"service_id": service, "resource_name": "wings", "default_limit": 2}]}
    listed = await made("POST", f"{v3}/registered_limits", limits, admin)
    things["registered_limits"] = [listed["registered_limits"][0]["id"]]
    things["limits"] = ["model", "x"]
    flavor = {"flavor": {"name": "throw-away", "id": "throw-away", "ram": 64, "vcpus": 1, "disk": 1}}
    await made("POST", "/compute/v2.1/flavors", flavor, admin)
    things["flavors"], things["os-extra_specs"] = ["throw-away"], ["hw:x"]
    providers = await made("POST", "/placement/resource_providers", {"name": "throw-away"}, admin)
    rows = await made("GET", "/placement/resource_providers?name=throw-away", None, admin)
    things["resource_providers"] = [rows["resource_providers"][0]["uuid"]]
    hypervisors = await _hypervisors(cloud, admin)
    things["os-hypervisors"] = [str(row["id"]) for row in hypervisors]
    things["os-hosts"] = [str(row["hypervisor_hostname"]) for row in hypervisors]
    things["os-aggregates"] = []
    for number in range(3):
        aggregate = {"aggregate": {"name": f"throw-away-{number}"}}
        made_one = (await made("POST", "/compute/v2.1/os-aggregates", aggregate, admin))["aggregate"]
        things["os-aggregates"].append(str(made_one["id"]))
    things["resource_classes"], things["traits"] = ["VCPU", "CUSTOM_THROW"], ["HW_CPU_X86_AVX", "CUSTOM_THROW"]
    assert providers is None or providers
    return things


async def _hypervisors(cloud: WholeCloud, admin: str) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = (await cloud.made("GET", "/compute/v2.1/os-hypervisors", None, admin))[
        "hypervisors"
    ]
    return found

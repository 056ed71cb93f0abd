"""A whole cloud on simulated hosts through the unmodified clients: the `openstack` command, openstacksdk, swiftclient.

Each kind of resource is created, shown, listed, changed and deleted by the command, and what it prints as JSON is checked.
To start the command takes ten times as long as its call, so it stays (`openstack_shell.py`); one test starts it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import openstack
import pytest
from swiftclient.service import SwiftService, SwiftUploadObject

from tests.host.cloud_process import CloudProcess

pytestmark = pytest.mark.xdist_group("clients")

ROOT = Path(__file__).parents[2]
MEMBER, ADMIN = "apus", "apus-admin"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKJ5xWGQ7uZdTm5mJp0Yl8GgN0p5yQxqk2m3i8rX7bqX somebody"


class Shell:
    """The command, as one user of the cloud."""

    def __init__(self, config: Path, cloud: str) -> None:
        options = ["--os-cloud", cloud, "--os-compute-api-version", "2.90", "--os-placement-api-version", "1.39"]
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.contract.openstack_shell", *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
            env=os.environ | {"OS_CLIENT_CONFIG_FILE": str(config)},
        )  # fmt: skip

    def run(self, words: list[str]) -> str:
        """What the command prints; it must end well."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(words), file=self._process.stdin, flush=True)
        code, out, err = json.loads(self._process.stdout.readline())
        assert code == 0, (words, out, err)
        return str(out)

    def end(self) -> None:
        self._process.communicate(timeout=20)


class Cloud:
    def __init__(self, process: CloudProcess) -> None:
        self.process = process
        config = process.state_dir / "clouds.yaml"
        self._shells = {cloud: Shell(config, cloud) for cloud in (MEMBER, ADMIN)}

    def run(self, words: str, cloud: str = MEMBER) -> str:
        return self._shells[cloud].run(words.split())

    def json(self, words: str, cloud: str = MEMBER) -> Any:
        return json.loads(self._shells[cloud].run([*words.split(), "-f", "json"]))

    def sdk(self, cloud: str = MEMBER) -> Any:
        return openstack.connect(cloud=cloud, load_yaml_config=True)

    def end(self) -> None:
        for shell in self._shells.values():
            shell.end()


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    process = CloudProcess(tmp_path_factory.mktemp("clients") / "state")
    process.must_up("--network", "simulated", hosts=2)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OS_CLIENT_CONFIG_FILE", str(process.state_dir / "clouds.yaml"))
            cloud = Cloud(process)
            yield cloud
            cloud.end()
    finally:
        process.down()


class Kind(msgspec.Struct, frozen=True):
    """One noun of the command.  `{name}` in the texts is a name of the test's own."""

    noun: str
    create: str
    shown: dict[str, Any]
    change: str = ""
    """Arguments of `NOUN set`."""
    changed: dict[str, Any] = {}
    before: tuple[str, ...] = ()
    """Commands that make what it stands on."""
    after: tuple[str, ...] = ()
    cloud: str = ADMIN
    key: str = "{name}"
    """What `show`, `set` and `delete` are given."""
    listing: str = ""
    """Arguments of `NOUN list`."""
    found_by: str = "Name"
    """Column of the list with the name or id."""
    silent: bool = False
    """Its `create` prints nothing."""


KINDS = (
    Kind("domain", "{name} --description first", {"name": "{name}", "description": "first", "enabled": True},
         "--disable --description second", {"enabled": False, "description": "second"}),
    Kind("project", "{name} --property a=b", {"name": "{name}", "a": "b", "domain_id": "default"},
         "--tag t --description d", {"tags": ["t"], "description": "d"}),
    Kind("user", "{name} --password p --email a@b.example", {"name": "{name}", "email": "a@b.example"},
         "--disable", {"enabled": False}),
    Kind("group", "{name} --description first", {"name": "{name}"}, "--description second", {"description": "second"}),
    Kind("role", "{name}", {"name": "{name}"}, "--description d", {"description": "d"}),
    Kind("region", "{name} --parent-region RegionOne", {"region": "{name}", "parent_region": "RegionOne"},
         "--description d", {"description": "d"}, found_by="Region"),
    Kind("service", "--name {name} weather", {"name": "{name}", "type": "weather"}, "--description d --disable",
         {"description": "d", "enabled": False}),
    Kind("endpoint", "{name} public http://weather.example/v1", {"interface": "public", "url": "http://weather.example/v1"},
         "--url http://weather.example/v2", {"url": "http://weather.example/v2"}, before=("service create --name {name} weather",),
         after=("service delete {name}",), key="{id}", listing="--service {name}", found_by="ID"),
    Kind("credential", "admin blob --type cert", {"type": "cert", "blob": "blob"},
         "--user admin --type cert --data other", {"blob": "other"}, key="{id}", found_by="ID"),
    Kind("ec2 credentials", "", {}, key="{access}", found_by="Access", cloud=MEMBER),
    Kind("application credential", "{name} --role reader", {"name": "{name}", "unrestricted": False}, cloud=MEMBER),
    Kind("registered limit", "--service nova --default-limit 4 {name}", {"default_limit": 4, "resource_name": "{name}"},
         "--default-limit 5", {"default_limit": 5}, key="{id}", found_by="ID"),
    Kind("limit", "--service nova --project demo --resource-limit 3 {name}", {"resource_limit": 3}, "--resource-limit 2",
         {"resource_limit": 2}, before=("registered limit create --service nova --default-limit 4 {name} -f json",),
         key="{id}", found_by="ID"),
    Kind("flavor", "{name} --ram 64 --disk 1 --vcpus 2 --property a=b",
         {"name": "{name}", "ram": 64, "vcpus": 2, "properties": {"a": "b"}},
         "--property c=d --description z", {"properties": {"a": "b", "c": "d"}, "description": "z"}),
    Kind("keypair", "{name} --public-key {file}", {"name": "{name}", "type": "ssh"}, cloud=MEMBER),
    Kind("server group", "{name} --policy anti-affinity --rule max_server_per_host=2",
         {"name": "{name}", "policy": "anti-affinity", "rules": {"max_server_per_host": 2}}, cloud=MEMBER),
    Kind("network", "{name} --tag a --mtu 1400", {"name": "{name}", "mtu": 1400, "tags": ["a"]}, "--description d",
         {"description": "d"}, cloud=MEMBER),
    Kind("subnet", "{name} --network {name} --subnet-range 10.77.0.0/24", {"cidr": "10.77.0.0/24", "gateway_ip": "10.77.0.1"},
         "--dns-nameserver 192.0.2.1 --no-dhcp", {"dns_nameservers": ["192.0.2.1"], "enable_dhcp": False},
         before=("network create {name}",), after=("network delete {name}",), cloud=MEMBER),
    Kind("port", "{name} --network default --fixed-ip subnet=default", {"name": "{name}", "status": "DOWN"},
         "--disable --description d", {"admin_state_up": False, "description": "d"}, cloud=MEMBER),
    Kind("security group", "{name} --description first", {"name": "{name}", "description": "first"}, "--description second",
         {"description": "second"}, cloud=MEMBER),
    Kind("security group rule", "{name} --protocol tcp --dst-port 22:23 --remote-ip 192.0.2.0/24",
         {"protocol": "tcp", "port_range_min": 22, "port_range_max": 23, "remote_ip_prefix": "192.0.2.0/24"},
         before=("security group create {name}",), after=("security group delete {name}",), key="{id}",
         listing="{name}", found_by="ID", cloud=MEMBER),
    Kind("image", "{name} --file {file} --disk-format raw --property a=b --tag t",
         {"name": "{name}", "status": "active", "tags": ["t"], "visibility": "shared"}, "--private --min-ram 7",
         {"visibility": "private", "min_ram": 7}, cloud=MEMBER),
    Kind("container", "{name}", {"container": "{name}", "object_count": "0"}, "--property a=b",
         {"properties": {"a": "b"}}, cloud=MEMBER),
    Kind("object", "{name} {file} --name thing", {"object": "thing", "content-length": "{length}"}, "--property a=b",
         {"properties": {"a": "b"}}, before=("container create {name}",), after=("container delete {name}",),
         key="{name} thing", listing="{name}", cloud=MEMBER),
    Kind("resource provider", "{name}", {"name": "{name}"}, "--name {name}", {}, key="{uuid}", found_by="name"),
    Kind("trait", "CUSTOM_{upper}", {"name": "CUSTOM_{upper}"}, key="CUSTOM_{upper}", found_by="name", silent=True),
    Kind("resource class", "CUSTOM_{upper}", {"name": "CUSTOM_{upper}"}, key="CUSTOM_{upper}", found_by="name", silent=True),
)  # fmt: skip


def lower(view: dict[str, Any]) -> dict[str, Any]:
    return {key.lower(): value for key, value in view.items()}


def holds(view: dict[str, Any], expected: dict[str, Any], fill: Callable[[str], str]) -> None:
    for field, value in expected.items():
        assert field in view, view
        found = view[field]
        wanted = fill(value) if isinstance(value, str) else value
        if isinstance(wanted, dict):
            assert wanted.items() <= found.items(), (field, found)
        else:
            assert found == wanted, field


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.noun)
def test_a_kind_lives_through_the_command(cloud: Cloud, kind: Kind, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(KEY + "\n")
    name = kind.noun.replace(" ", "-") + "-1"
    known = {"name": name, "upper": name.upper().replace("-", "_"), "file": str(file), "length": str(len(KEY) + 1)}

    def fill(text: str) -> str:
        return text.format(**known)

    def run(words: str, as_json: bool = True) -> Any:
        return cloud.json(fill(words), kind.cloud) if as_json else cloud.run(fill(words), kind.cloud)

    for words in kind.before:
        run(words, as_json=False)
    made = run(f"{kind.noun} create {kind.create}", as_json=not kind.silent)
    if not kind.silent:
        view = lower(made[0] if isinstance(made, list) else made)
        known |= {key: value for key, value in view.items() if isinstance(value, str)} | {"name": name}
    key = fill(kind.key)
    holds(lower(run(f"{kind.noun} show {key}")), kind.shown, fill)
    listed = run(f"{kind.noun} list {kind.listing}")
    assert [row for row in map(lower, listed) if row[kind.found_by.lower()] in (key, *key.split(), name)], listed
    if kind.change:
        run(f"{kind.noun} set {kind.change} {key}", as_json=False)
        holds(lower(run(f"{kind.noun} show {key}")), kind.changed, fill)
    run(f"{kind.noun} delete {key}", as_json=False)
    left = run(f"{kind.noun} list {kind.listing}")
    assert not [row for row in map(lower, left) if row[kind.found_by.lower()] in (key, key.split()[-1])], left
    for words in kind.after:
        run(words, as_json=False)


def test_the_command_itself_runs(cloud: Cloud) -> None:
    command = Path(sys.executable).with_name("openstack")
    environment = os.environ | {"OS_CLOUD": ADMIN, "PYTHONWARNINGS": "ignore"}
    asked = [str(command), "catalog", "list", "-f", "json"]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=60, check=True)
    types = {row["Type"] for row in json.loads(done.stdout)}
    assert {"compute", "identity", "image", "network", "object-store", "placement", "apus"} <= types


def test_roles_members_and_trusts_by_the_command(cloud: Cloud) -> None:
    cloud.run("user create carol --password p", ADMIN)
    cloud.run("group create staff", ADMIN)
    cloud.run("group add user staff carol", ADMIN)
    assert "carol in group" in cloud.run("group contains user staff carol", ADMIN)
    cloud.run("role add --group staff --project demo reader", ADMIN)
    rows = cloud.json("role assignment list --project demo --names", ADMIN)
    assert ("reader", "staff@Default") in {(row["Role"], row["Group"]) for row in rows}
    effective = cloud.json("role assignment list --user carol --effective --names", ADMIN)
    assert {row["Role"] for row in effective} == {"reader"}
    cloud.run("role create watcher", ADMIN)
    cloud.run("implied role create watcher --implied-role reader", ADMIN)
    assert "watcher" in {row["Prior Role Name"] for row in cloud.json("implied role list", ADMIN)}
    cloud.run("implied role delete watcher --implied-role reader", ADMIN)
    cloud.run("role delete watcher", ADMIN)

    mine, theirs = (cloud.json(f"user show {name}", ADMIN)["id"] for name in ("demo", "carol"))
    project = cloud.json("project show demo", ADMIN)["id"]
    role = cloud.json("role show member", ADMIN)["id"]
    trust = cloud.json(f"trust create {mine} {theirs} --project {project} --role {role}")
    assert cloud.json(f"trust show {trust['id']}")["trustee_user_id"] == theirs
    cloud.run(f"trust delete {trust['id']}")
    cloud.run("role remove --group staff --project demo reader", ADMIN)
    cloud.run("group remove user staff carol", ADMIN)
    cloud.run("group delete staff", ADMIN)
    cloud.run("user delete carol", ADMIN)
    token = cloud.json("token issue")["id"]
    cloud.run(f"token revoke {token}")


@pytest.fixture(scope="module")
def image(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("image") / "disk"
    file.write_bytes(b"disk" * 1000)
    return str(cloud.json(f"image create disk --file {file} --disk-format raw --public", ADMIN)["id"])


def test_a_server_lives_through_the_command(cloud: Cloud, image: str) -> None:
    sdk = cloud.sdk()

    def reaches(status: str) -> dict[str, Any]:
        sdk.compute.wait_for_server(sdk.compute.find_server("one"), status=status, interval=0.05, wait=20)
        return dict(cloud.json("server show one"))

    cloud.json(f"server create --image {image} --flavor m1.micro --network default --property a=b one")
    server = reaches("ACTIVE")
    assert server["properties"] == {"a": "b"}
    assert server["addresses"]["default"]
    cloud.run("server set one --property c=d --description d --tag t")
    cloud.run("server unset one --property a")
    server = cloud.json("server show one")
    assert (server["properties"], server["description"], server["tags"]) == ({"c": "d"}, "d", ["t"])
    for verb, status in (
        ("stop", "SHUTOFF"), ("start", "ACTIVE"), ("pause", "PAUSED"), ("unpause", "ACTIVE"), ("reboot --hard", "ACTIVE"),
    ):  # fmt: skip
        cloud.run(f"server {verb} one")
        reaches(status)
    cloud.run("server lock one")
    cloud.run("server unlock one")
    assert [row["Name"] for row in cloud.json("server list --status ACTIVE --name ^one$")] == ["one"]
    assert [row["Name"] for row in cloud.json("server list --all-projects --long", ADMIN)] == ["one"]
    assert "is up" in cloud.run("console log show one")
    events = cloud.json("server event list one")
    assert {"create", "stop", "start", "pause", "unpause", "reboot", "lock"} <= {event["Action"] for event in events}
    first = next(event for event in events if event["Action"] == "create")
    assert cloud.json(f"server event show one {first['Request ID']}")["action"] == "create"
    assert [used["name"] for used in cloud.json("usage show --project demo", ADMIN)["Servers"]] == ["one"]
    cloud.run("server delete one")
    sdk.compute.wait_for_delete(server_of(sdk, server["id"]), interval=0.05, wait=20)
    assert cloud.json("server list") == []


def server_of(sdk: Any, id: str) -> Any:
    return openstack.compute.v2.server.Server.existing(id=id)


def test_what_an_operator_reads_and_sets(cloud: Cloud) -> None:
    host = cloud.json("hypervisor list", ADMIN)[0]["Hypervisor Hostname"]
    assert {row["State"] for row in cloud.json("hypervisor list --long", ADMIN)} == {"up"}
    compute = cloud.sdk(ADMIN).compute
    assert " up " in compute.get_hypervisor(compute.find_hypervisor(host).id).uptime
    cloud.run(f"compute service set --disable --disable-reason broken {host} nova-compute", ADMIN)
    rows = cloud.json("compute service list --long", ADMIN)
    assert [(row["Status"], row["Disabled Reason"]) for row in rows if row["Host"] == host] == [("disabled", "broken")]
    cloud.run(f"compute service set --enable {host} nova-compute", ADMIN)
    assert {row["Zone Name"] for row in cloud.json("availability zone list")} >= {"nova"}
    cloud.run("quota set demo --cores 30 --ports 40 --check-limit", ADMIN)
    limits = {row["Resource"]: row["Limit"] for row in cloud.json("quota show demo", ADMIN)}
    assert (limits["cores"], limits["ports"]) == (30, 40)
    assert cloud.json("quota list --network", ADMIN)[0]["Ports"] == 40
    cloud.run("quota delete demo", ADMIN)
    assert {row["Name"]: row["Value"] for row in cloud.json("limits show --absolute")}["max_total_cores"] != 30
    assert cloud.json("extension list --network")
    assert {row["Service Type"] for row in cloud.json("versions show")} >= {"compute", "identity", "image", "network"}
    assert cloud.json("ip availability list", ADMIN)[0]["Network Name"] == "default"


def test_hosts_are_put_together_by_the_command(cloud: Cloud) -> None:
    hosts = [row["Hypervisor Hostname"] for row in cloud.json("hypervisor list", ADMIN)]
    cloud.run("aggregate create rack --zone north --property a=b", ADMIN)
    cloud.run(f"aggregate add host rack {hosts[0]}", ADMIN)
    shown = cloud.json("aggregate show rack", ADMIN)
    assert (shown["availability_zone"], shown["hosts"], shown["properties"]) == ("north", [hosts[0]], {"a": "b"})
    assert {row["Zone Name"] for row in cloud.json("availability zone list")} == {"nova", "north"}
    assert cloud.json(f"hypervisor show {hosts[0]}", ADMIN)["aggregates"] == ["rack"]
    cloud.run("aggregate set rack --name shelf --zone south --property c=d", ADMIN)
    assert [row["Availability Zone"] for row in cloud.json("aggregate list", ADMIN)] == ["south"]
    old = "--os-compute-api-version 2.42"
    zones = {row["Host Name"]: row["Zone"] for row in cloud.json(f"{old} host list", ADMIN)}
    assert zones == {hosts[0]: "south", hosts[1]: "nova"}
    assert cloud.json(f"{old} host show {hosts[0]}", ADMIN)[0]["Project"] == "(total)"
    cloud.run(f"aggregate remove host shelf {hosts[0]}", ADMIN)
    cloud.run("aggregate delete shelf", ADMIN)
    assert {row["Zone Name"] for row in cloud.json("availability zone list")} == {"nova"}
    assert cloud.json("server migration list", ADMIN) == []


def test_a_server_changes_its_security_groups_by_the_command(cloud: Cloud, image: str) -> None:
    cloud.run("security group create inner")
    cloud.json(f"server create --image {image} --flavor m1.micro --network default --wait three")
    assert [group["name"] for group in cloud.json("server show three")["security_groups"]] == ["default"]
    cloud.run("server add security group three inner")
    cloud.run("server remove security group three default")
    assert [group["name"] for group in cloud.json("server show three")["security_groups"]] == ["inner"]
    (port,) = cloud.json("port list --server three")
    group = cloud.json("security group show inner")["id"]
    assert cloud.json(f"port show {port['ID']}")["security_group_ids"] == [group]
    cloud.run(f"port set --security-group default {port['ID']}")  # behind compute's back

    def names() -> set[str]:
        return {group["name"] for group in cloud.json("server show three")["security_groups"]}

    until = time.monotonic() + 20
    while names() != {"default", "inner"}:
        assert time.monotonic() < until
    assert json.loads(cloud.run("server show three --topology -f json"))["topology"]["nodes"] == []
    cloud.run("server delete three --wait")
    cloud.run("security group delete inner")


def test_a_host_s_resources_by_the_command(cloud: Cloud) -> None:
    def placement(words: str, *, silent: bool = False) -> Any:
        return cloud.run(words, ADMIN) if silent else cloud.json(words, ADMIN)

    id = placement("resource provider create shelf")["uuid"]
    placement(f"resource provider inventory set {id} --resource VCPU=8 --resource VCPU:reserved=1")
    assert placement(f"resource provider inventory show {id} VCPU")["reserved"] == 1
    placement(f"resource provider inventory class set {id} MEMORY_MB --total 100")
    assert {row["resource_class"] for row in placement(f"resource provider inventory list {id}")} == {
        "VCPU",
        "MEMORY_MB",
    }
    placement("trait create CUSTOM_SHINY", silent=True)
    placement(f"resource provider trait set {id} --trait CUSTOM_SHINY")
    candidates = placement("allocation candidate list --resource VCPU=2 --required CUSTOM_SHINY")
    assert [row["resource provider"] for row in candidates] == [id]
    consumer = "5b7a1e0e-6d3f-4a6b-8c6f-0d2a7f5a9f11"
    owner = f"--project-id {consumer} --user-id {consumer}"
    placement(f"resource provider allocation set {consumer} --allocation rp={id},VCPU=2 {owner} --consumer-type TEST")
    assert placement(f"resource provider allocation show {consumer}")[0]["resources"] == {"VCPU": 2}
    assert {row["resource_class"]: row["usage"] for row in placement(f"resource provider usage show {id}")}["VCPU"] == 2
    alone = placement(
        "allocation candidate list --group 1 --resource VCPU=1 --required CUSTOM_SHINY --group 2 --resource MEMORY_MB=1"
        " --group-policy none"
    )
    assert {row["resource provider"] for row in alone} == {id}
    apart = "--group 1 --resource VCPU=1 --group 2 --resource MEMORY_MB=1 --group-policy isolate"
    assert placement(f"allocation candidate list {apart} --required CUSTOM_SHINY") == []
    assert [row["uuid"] for row in placement("resource provider list --required CUSTOM_SHINY --resource VCPU=1")] == [
        id
    ]
    group = "0f7c2f4e-1111-4a6b-8c6f-0d2a7f5a9f11"
    generation = placement(f"resource provider show {id}")["generation"]
    placement(f"resource provider aggregate set {id} --aggregate {group} --generation {generation}")
    assert [row["uuid"] for row in placement(f"resource provider list --member-of {group}")] == [id]
    (owned,) = placement(f"resource usage show {consumer}")
    assert (owned["resource_class"], owned["usage"]["VCPU"]) == (
        "TEST",
        2,
    )  # since 1.38 by type, which it prints as it is
    placement(f"resource provider allocation delete {consumer}", silent=True)
    placement(f"resource provider trait delete {id}", silent=True)
    placement(f"resource provider inventory delete {id}", silent=True)
    placement(f"resource provider delete {id}", silent=True)
    placement("trait delete CUSTOM_SHINY", silent=True)


def test_an_image_is_shared_and_saved_by_the_command(cloud: Cloud, tmp_path: Path) -> None:
    file, back = tmp_path / "disk", tmp_path / "back"
    file.write_bytes(b"0123456789" * 1000)
    id = cloud.json(f"image create shared --file {file} --disk-format raw")["id"]
    admin = cloud.json("project show admin", ADMIN)["id"]
    cloud.run(f"image add project {id} {admin}")
    assert [row["Status"] for row in cloud.json(f"image member list {id}")] == ["pending"]
    cloud.run(f"image set --accept {id}", ADMIN)
    assert [row["Status"] for row in cloud.json(f"image member list {id}")] == ["accepted"]
    cloud.run(f"image remove project {id} {admin}")
    cloud.run(f"image save {id} --file {back}")
    assert back.read_bytes() == file.read_bytes()
    cloud.run(f"image set --deactivate {id}")
    assert cloud.json(f"image show {id}")["status"] == "deactivated"
    cloud.run(f"image delete {id}")


def test_the_sdk_s_own_layer_makes_and_cleans(cloud: Cloud, image: str) -> None:
    """What Ansible's modules are made of."""
    sdk = cloud.sdk()
    group = sdk.create_security_group("web", "for the web")
    sdk.create_security_group_rule(group.id, port_range_min=80, port_range_max=80, protocol="tcp")
    network = sdk.create_network("back")
    subnet = sdk.create_subnet(network.id, cidr="10.66.0.0/24", subnet_name="back", ip_version=4)
    key = sdk.create_keypair("sdk", KEY)
    server = sdk.create_server(
        "two", image=image, flavor="m1.micro", network="back", key_name=key.name, security_groups=["web"], wait=True,
        auto_ip=False, timeout=30, meta={"a": "b"},
    )  # fmt: skip
    assert server.status == "ACTIVE"
    assert sdk.get_server_private_ip(server).startswith("10.66.0.")
    assert [found.id for found in sdk.search_servers("two")] == [server.id]
    assert sdk.get_compute_limits().total_cores_used >= 1
    assert sdk.delete_server(server.id, wait=True, timeout=30)
    assert sdk.delete_keypair("sdk")
    assert sdk.delete_security_group("web")
    assert sdk.delete_subnet(subnet.id)
    assert sdk.delete_network(network.id)
    sdk.create_container("sdk")
    sdk.create_object("sdk", "thing", data=b"data")
    assert sdk.get_object("sdk", "thing")[1] == "data"
    assert [found.name for found in sdk.list_objects("sdk")] == ["thing"]
    assert sdk.delete_object("sdk", "thing")
    assert sdk.delete_container("sdk")


def test_swiftclient_puts_lists_changes_and_deletes(cloud: Cloud, tmp_path: Path) -> None:
    secrets = json.loads((cloud.process.state_dir / "secrets.json").read_text())
    options = {
        "auth_version": "3", "os_auth_url": f"http://127.0.0.1:{cloud.process.port}/identity/v3", "os_username": "demo",
        "os_password": secrets["demo_password"], "os_project_name": "demo", "os_user_domain_id": "default",
        "os_project_domain_id": "default",
    }  # fmt: skip
    file = tmp_path / "file"
    file.write_bytes(os.urandom(100_000))

    def good(results: Any) -> list[dict[str, Any]]:
        found = list(results) if not isinstance(results, dict) else [results]
        assert all(each["success"] for each in found), found
        return found

    with SwiftService(options=options) as swift:
        good(swift.post("box", options={"meta": ["colour:red"]}))
        good(swift.upload("box", [SwiftUploadObject(str(file), object_name=f"a/{n}") for n in range(3)]))
        assert [row["name"] for page in good(swift.list("box")) for row in page["listing"]] == ["a/0", "a/1", "a/2"]
        good(swift.post("box", ["a/1"], {"meta": ["taste:sweet"]}))
        shown = good(swift.stat("box", ["a/1"]))[0]["headers"]
        assert (shown["x-object-meta-taste"], shown["content-length"]) == ("sweet", "100000")
        good(swift.copy("box", ["a/1"], {"destination": "/box/b"}))
        good(swift.download("box", ["b"], {"out_file": str(tmp_path / "back")}))
        assert (tmp_path / "back").read_bytes() == file.read_bytes()
        assert good(swift.stat("box"))[0]["headers"]["x-container-meta-colour"] == "red"
        assert good(swift.stat())[0]["headers"]["x-account-container-count"] == "1"
        good(swift.delete("box"))
        assert [row["name"] for page in good(swift.list()) for row in page["listing"]] == []

"""The pure rooms of compute: status as a table, power, quotas, keys, metadata documents, version changes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from apus.kernel.errors import Conflict, Invalid, OverQuota
from apus.kernel.record import changed
from apus.services.compute.api.changes import MAXIMUM, VERSIONS
from apus.services.compute.api.views import diagnostics, server_view
from apus.services.compute.contract import Found, Power
from apus.services.compute.logic import metadata, quota
from apus.services.compute.logic.keys import fingerprint
from apus.services.compute.logic.power import POSSIBLE, decide
from apus.services.compute.logic.status import project
from apus.services.compute.model import Fault, Flavor, KeySnapshot, Server
from apus.services.network.contract import FixedIp, ServerPort

ED25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ+8z0YkIgJyPzVbQUy5Gh2aH3DgxK6y1y8m2zXq8q3A me@here"


def found(power: Power, seq: int = 1, boots: int = 1) -> Found:
    return Found(id="i", counter=1, seq=seq, power=power, boots=boots)


def server(**fields: Any) -> Server:
    flavor = Flavor(id="1", name="tiny", vcpus=1, memory_mib=64, disk_gib=1)
    return Server(
        **{
            "id": "s1", "project_id": "p", "user_id": "u", "name": "n", "vcpus": 1, "memory_mib": 64,
            "created_at_s": 1.0, "updated_at_s": 1.0, "hostname": "n", "flavor": flavor, **fields,
        }
    )  # fmt: skip


RUNNING = {"launched_at_s": 1.0, "wanted_seq": 1, "host": "h", "incarnation_id": "i"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, ("BUILD", "building", "scheduling", 0)),
        ({"host": "h"}, ("BUILD", "building", "networking", 0)),
        ({"host": "h", "incarnation_id": "i"}, ("BUILD", "building", "spawning", 0)),
        ({"deleting": True}, ("BUILD", "building", "deleting", 0)),
        ({"error": True}, ("ERROR", "error", None, 0)),
        ({"error": True, "deleting": True}, ("ERROR", "error", "deleting", 0)),
        ({"deleted": True}, ("DELETED", "deleted", None, 0)),
        ({**RUNNING, "seen": found(Power.ON)}, ("ACTIVE", "active", None, 1)),
        ({**RUNNING, "seen": found(Power.OFF)}, ("SHUTOFF", "stopped", None, 4)),
        ({**RUNNING, "seen": found(Power.PAUSED)}, ("PAUSED", "paused", None, 3)),
        ({**RUNNING, "seen": found(Power.ON), "deleting": True}, ("ACTIVE", "active", "deleting", 1)),
        (
            {**RUNNING, "wanted_seq": 2, "wanted": Power.OFF, "seen": found(Power.ON)},
            ("ACTIVE", "active", "powering-off", 1),
        ),
        (
            {**RUNNING, "wanted_seq": 2, "boots": 2, "seen": found(Power.OFF)},
            ("SHUTOFF", "stopped", "powering-on", 4),
        ),
        ({**RUNNING, "wanted_seq": 2, "boots": 2, "seen": found(Power.ON)}, ("REBOOT", "active", "rebooting", 1)),
        (
            {**RUNNING, "wanted_seq": 2, "boots": 2, "hard": True, "seen": found(Power.ON)},
            ("HARD_REBOOT", "active", "rebooting_hard", 1),
        ),
        (
            {**RUNNING, "wanted_seq": 2, "wanted": Power.PAUSED, "seen": found(Power.ON)},
            ("ACTIVE", "active", "pausing", 1),
        ),
        ({**RUNNING, "wanted_seq": 2, "seen": found(Power.PAUSED)}, ("PAUSED", "paused", "unpausing", 3)),
    ],
)
def test_status_is_a_projection(fields: dict[str, Any], expected: tuple[Any, ...]) -> None:
    assert tuple(project(server(**fields))) == expected


def test_power_actions_are_possible_exactly_where_the_table_says() -> None:
    states = {
        "active": server(**RUNNING, seen=found(Power.ON)),
        "stopped": server(**RUNNING, seen=found(Power.OFF)),
        "paused": server(**RUNNING, seen=found(Power.PAUSED)),
        "error": server(**RUNNING, seen=found(Power.ON), error=True),
        "building": server(),
    }
    for action, (possible, power) in POSSIBLE.items():
        for state, row in states.items():
            if state in possible:
                assert decide(row, action) is power
            else:
                with pytest.raises(Conflict):
                    decide(row, action)


def test_quota() -> None:
    limits = quota.limits_of({"instances": 2, "cores": -1}, quota.DEFAULTS)
    used = {"instances": 1, "cores": 10**6, "ram": 0}
    quota.check(limits, used, {"instances": 1, "cores": 10**6, "ram": 1})
    with pytest.raises(OverQuota, match=r"instances: 2, but already used 1 of 2 instances"):
        quota.check(limits, used, {"instances": 2, "cores": 1, "ram": 1})


def test_keys() -> None:
    assert fingerprint(ED25519).count(":") == 15
    for wrong in ("", "ssh-rsa", "ssh-rsa !!!!", "ssh-rsa AAAA", ED25519[:40], f"{ED25519}\n{ED25519}", "x" * 20000):
        with pytest.raises(Invalid):
            fingerprint(wrong)


def full_server() -> Server:
    fixed = FixedIp(address="10.0.0.5", subnet_id="s", cidr="10.0.0.0/24", gateway_ip="10.0.0.1", dhcp=False)
    port = ServerPort(
        id="12345678-1234-4123-8123-123456789012", network_id="net", network_name="private", project_id="p",
        server_id="s1", mac="fa:16:3e:00:00:01", fixed_ips=(fixed,), mtu=1400, host="h",
    )  # fmt: skip
    return server(
        **RUNNING, seen=found(Power.ON), ports=(port,), user_data="aGVsbG8=", metadata={"a": "b"}, tags=("t",),
        key=KeySnapshot(name="k", type="ssh", public_key=ED25519), personality={"/etc/motd": "aGk="},
    )  # fmt: skip


def test_metadata_documents() -> None:
    documents = metadata.documents(full_server())
    meta = json.loads(documents["openstack/latest/meta_data.json"])
    assert meta["public_keys"] == {"k": ED25519}
    assert meta["meta"] == {"a": "b"}
    assert documents["openstack/latest/user_data"] == documents["latest/user-data"] == b"hello"
    network = json.loads(documents["openstack/latest/network_data.json"])
    assert network["networks"][0]["ip_address"] == "10.0.0.5"
    assert network["networks"][0]["routes"][0]["gateway"] == "10.0.0.1"
    assert network["links"][0]["mtu"] == 1400
    assert documents["2009-04-04/meta-data/local-ipv4"] == b"10.0.0.5"
    assert documents["latest/meta-data/public-keys/0/openssh-key"].startswith(b"ssh-ed25519")
    assert documents["openstack/content/0000"] == b"hi"
    files = metadata.config_drive_files(full_server())
    assert json.loads(files["ec2/latest/meta-data.json"])["placement"]["availability-zone"] == "nova"


def test_diagnostics_tell_what_is_known_in_the_shape_of_each_version() -> None:
    view = diagnostics(full_server())
    assert VERSIONS.downgrade(view, "diagnostics", (2, 47)) == {"memory": full_server().memory_mib << 10}
    assert VERSIONS.downgrade(view, "diagnostics", (2, 48)) == view
    assert view["num_nics"] == len(view["nic_details"]) == len(full_server().ports)
    assert len(view["cpu_details"]) == view["num_cpus"] == full_server().vcpus
    assert view["uptime"] is None


def test_views_lose_with_each_older_version_what_it_did_not_have() -> None:
    keys_by_version = {}
    for minor in range(1, MAXIMUM[1] + 1):
        view = {"server": server_view(full_server(), "http://c/compute", admin=True)}
        keys_by_version[minor] = set(VERSIONS.downgrade(view, "show_server", (2, minor))["server"])
    for minor in range(2, MAXIMUM[1] + 1):
        assert keys_by_version[minor - 1] <= keys_by_version[minor], minor
    assert keys_by_version[100] - keys_by_version[99] == {"scheduler_hints"}
    assert keys_by_version[9] - keys_by_version[8] == {"locked"}
    tenant = server_view(full_server(), "http://c/compute", admin=False)
    assert "OS-EXT-SRV-ATTR:host" not in tenant
    failed = changed(full_server(), error=True, fault=Fault(code=500, message="why", at_s=1.0))
    assert server_view(failed, "http://c", admin=False)["fault"]["message"] == "why"

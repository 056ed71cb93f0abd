"""Two processes prove the seams: control and compute nodes in namespaces of their own, over NATS and PostgreSQL."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

from apus.guest.build import MicroImage
from tests.host.cluster import Api, Cluster, cluster, until
from tests.host.guest import sh

pytestmark = [pytest.mark.root, pytest.mark.postgres, pytest.mark.nats, pytest.mark.timeout(300)]

HOSTS = 3
SERVERS = 20
SETTLED_S = 45.0


def hosts_up(api: Api, count: int) -> bool:
    services = (api.get("/compute/v2.1/os-services?binary=nova-compute") or {"services": []})["services"]
    return sum(service["state"] == "up" for service in services) == count


def named(items: list[dict[str, Any]], name: str) -> str | None:
    return next((item["id"] for item in items if item["name"] == name), None)


def default_network(api: Api) -> str:
    found = until(
        "the first network",
        lambda: named((api.get("/network/v2.0/networks") or {"networks": []})["networks"], "default"),
        20,
    )
    until("its subnet", lambda: (api.get("/network/v2.0/subnets") or {"subnets": []})["subnets"], 10)
    return found


def boot(api: Api, name: str, image: str, network: str, flavor: str = "1", **more: Any) -> str:
    server = {"name": name, "imageRef": image, "flavorRef": flavor, "networks": [{"uuid": network}], **more}
    return str(api.insist("POST", "/compute/v2.1/servers", {"server": server})["server"]["id"])


def statuses(api: Api) -> dict[str, str] | None:
    reply = api.get("/compute/v2.1/servers/detail")
    return None if reply is None else {server["id"]: server["status"] for server in reply["servers"]}


def all_active(api: Api, ids: list[str]) -> bool:
    found = statuses(api) or {}
    assert "ERROR" not in found.values(), [api.get(f"/compute/v2.1/servers/{id}") for id in found][:3]
    return bool(found) and all(found.get(id) == "ACTIVE" for id in ids)


def nothing_left(api: Api) -> bool:
    """No server, no port of one, no claim, no operation that goes on."""
    found, ports = statuses(api), api.get("/network/v2.0/ports")
    usage = api.get("/placement/resource_providers")
    operations = api.get("/apus/v1/operations?limit=1000")
    if found != {} or None in (ports, usage, operations):
        return False
    held = [api.get(f"/placement/resource_providers/{item['uuid']}/usages") for item in usage["resource_providers"]]
    live = [one for one in operations["operations"] if one["state"] in ("running", "waiting", "stuck")]
    servers_ports = [port for port in ports["ports"] if port["device_owner"].startswith("compute:")]
    return not servers_ports and not live and all(not any(one["usages"].values()) for one in held if one)


def an_image(api: Api) -> str:
    """Simulated hosts read no image: a record with a few bytes is enough."""
    body = {"name": "none", "disk_format": "raw", "container_format": "bare"}
    id = str(api.insist("POST", "/image/v2/images", body)["id"])
    status, reply = api.ask("PUT", f"/image/v2/images/{id}/file", "data", {"Content-Type": "application/octet-stream"})
    assert status == 204, (status, reply)
    return id


def test_simulated_servers_outlive_every_part(tmp_path: Path) -> None:
    with cluster(tmp_path) as c:
        api = c.control("ctl", "--network", "simulated", roles="control,object")
        host = c.compute("far", [api], "--sim-hosts", str(HOSTS), "--network", "simulated")
        until("hosts", lambda: hosts_up(api, HOSTS), 30)
        image, network = an_image(api), default_network(api)
        ids = [boot(api, f"s{number}", image, network) for number in range(SERVERS // 2)]
        host.kill()
        ids += [boot(api, f"t{number}", image, network) for number in range(SERVERS // 2)]
        host.start()
        until("all active after the host came back", lambda: all_active(api, ids), SETTLED_S)
        _lose_each(c, api, image, network, ids)
        for id in ids:
            api.insist("DELETE", f"/compute/v2.1/servers/{id}")
        until("nothing left", lambda: nothing_left(api), SETTLED_S)


def _lose_each(c: Cluster, api: Api, image: str, network: str, ids: list[str]) -> None:
    """Kill the bus, the database and the control node while servers boot and go; each returns."""
    ids += [boot(api, f"bus{number}", image, network) for number in range(3)]
    c.kill_server(c.bus)
    ids += [boot(api, f"nobus{number}", image, network) for number in range(2)]
    c.start_bus()
    until("all active after the bus came back", lambda: all_active(api, ids), SETTLED_S)
    ids += [boot(api, f"db{number}", image, network) for number in range(3)]
    c.kill_server(c.database)
    c.start_database()
    ids += [boot(api, f"newdb{number}", image, network) for number in range(2)]
    until("all active after the database came back", lambda: all_active(api, ids), SETTLED_S)
    ids += [boot(api, f"ctl{number}", image, network) for number in range(3)]
    api.insist("DELETE", f"/compute/v2.1/servers/{ids.pop(0)}")
    c.nodes["ctl"].kill()
    c.nodes["ctl"].start()
    until("all active after control came back", lambda: all_active(api, ids), SETTLED_S)
    assert all(node.running() for node in c.nodes.values())


@pytest.mark.qemu
def test_a_real_guest_far_away_and_two_control_nodes(tmp_path: Path, micro: MicroImage) -> None:
    """The guest outlives its node's process; what the first control node had begun, the second finishes."""
    with cluster(tmp_path) as c:
        one = c.control("one", "--network", "flat", roles="control,object")
        first = c.nodes["one"]
        until("secrets", (first.state_dir / "secrets.json").exists, 10)
        objects = f"http://{one.host}:{one.port + 1}"
        two = c.control("two", "--network", "flat", "--object-url", objects, like=first)
        host = c.compute("far", [two, one], "--network", "flat")
        until("hosts", lambda: hosts_up(one, 1) and hosts_up(two, 1), 30)
        image = until("the micro image", lambda: micro_image(one), 30)
        network = default_network(one)
        guest = boot(one, "guest", image, network)
        until("guest active", lambda: all_active(two, [guest]), SETTLED_S)
        before = guests(c)
        assert len(before) == 1
        host.kill()
        assert guests(c) == before
        ids = [boot(one, f"late{number}", image, network) for number in range(2)]
        first.kill()
        host.start()
        until("the second control node finishes", lambda: all_active(two, [guest, *ids]), SETTLED_S)
        until("its console tells of the boot", lambda: "login" in console(two, guest), SETTLED_S)
        assert before < guests(c)
        assert len(guests(c)) == 3
        first.start()
        for id in [guest, *ids]:
            two.insist("DELETE", f"/compute/v2.1/servers/{id}")
        until("nothing left", lambda: nothing_left(one), SETTLED_S)
        assert not guests(c)
        assert not leftovers(c)


def micro_image(api: Api) -> str | None:
    images = (api.get("/image/v2/images?name=micro") or {"images": []})["images"]
    return next((image["id"] for image in images if image["status"] == "active"), None)


def console(api: Api, server: str) -> str:
    try:
        status, reply = api.ask("POST", f"/compute/v2.1/servers/{server}/action", {"os-getConsoleOutput": {}})
    except OSError:
        return ""
    return str(reply["output"]) if status == 200 else ""


def guests(c: Cluster) -> set[int]:
    """Processes of QEMU that belong to this cluster's hosts."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                program = (entry / "cmdline").read_bytes().split(b"\0")[0]
                if b"qemu-system" in program and (entry / "cwd").resolve().is_relative_to(c.root):
                    found.add(int(entry.name))
    return found


def leftovers(c: Cluster) -> list[str]:
    """Taps in the host's namespace."""
    prefix = c.nodes["far"].settings.network_prefix
    return [line for line in sh(f"ip -n {c.link.name} -o link").splitlines() if f"{prefix}p" in line]

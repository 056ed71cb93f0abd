"""An object store over machines: hosts with drives and proxies as real processes in namespaces of their own."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host.cluster import until
from tests.host.object_cluster import OBJECTS, ObjectCluster, object_cluster

pytestmark = [pytest.mark.root, pytest.mark.nats, pytest.mark.timeout(300)]

DATA = b"x" * 3_000_000


def ask(c: ObjectCluster, proxy: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    address = c.proxies[proxy].machine.address
    connection = http.client.HTTPConnection(address, OBJECTS, timeout=30)
    connection.request(method, f"/v1/AUTH_{c.project('demo')}{path}", body, {"X-Auth-Token": c.token("demo")})
    reply = connection.getresponse()
    answer = reply.status, reply.read()
    connection.close()
    return answer


def command(c: ObjectCluster, *words: str) -> str:
    """`apus …`, as on the node with the accounts."""
    argv = [sys.executable, "-m", "apus", *words, "--state-dir", str(c.accounts.state_dir)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_proxies_share_a_store_whose_hosts_join_and_leave(tmp_path: Path) -> None:
    with object_cluster(tmp_path, 3, 2) as c:
        assert ask(c, 0, "PUT", "/c")[0] == 201
        for proxy, other in ((0, 1), (1, 0)):
            assert ask(c, proxy, "PUT", f"/c/o{proxy}", DATA)[0] == 201
            assert ask(c, other, "GET", f"/c/o{proxy}") == (200, DATA)
        first, second = (proxy.node.state_dir / "keys/object-root" for proxy in c.proxies)
        assert first.read_text() == second.read_text()
        assert not any((host.node.state_dir / "secrets.json").exists() for host in c.hosts)
        place = c.place(c.add_host())
        until("the fourth drive", lambda: place in added(c, place), 20)
        until("it is known to the other proxy", lambda: len((c.status(1) or {"drives": []})["drives"]) == 4, 10)
        c.hosts[0].node.kill()
        assert ask(c, 1, "PUT", "/c/later", DATA)[0] == 201
        until("the loss is seen", lambda: c.hosts[0].machine.address in command(c, "object", "repair", "status"), 10)
        c.hosts[0].node.start()
        until("all is repaired", lambda: (c.status(0) or {}).get("partitions_to_check") == 0, 60)
        for name in ("o0", "o1", "later"):
            assert ask(c, 0, "GET", f"/c/{name}") == (200, DATA)


def added(c: ObjectCluster, place: str) -> str:
    """The host may still be starting."""
    argv = [sys.executable, "-m", "apus", "object", "drive", "add", place, "--format", "json"]
    subprocess.run([*argv, "--state-dir", str(c.accounts.state_dir)], capture_output=True, timeout=60)
    drives = json.loads(command(c, "object", "drive", "list", "--format", "json"))
    return " ".join(one["path"].replace(":8779:", ":") for one in drives)

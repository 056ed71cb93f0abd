"""An object store over machines: hosts with a drive each, proxies, and a node with the accounts, all real processes."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from apus.platform.process import LocalRunner
from apus.platform.servers import start_nats, stop_server
from tests.conftest import free_port
from tests.host.cluster import Api, NodeProcess, until
from tests.host.machines import Machine, Machines

PORT = 8774
OBJECTS = PORT + 1
DISKS = 8779
STARTED_S = 30.0


class Host:
    """A machine with one process."""

    def __init__(self, machine: Machine, node: NodeProcess) -> None:
        self.machine, self.node = machine, node


class ObjectCluster:
    def __init__(self, root: Path) -> None:
        self.root, self.run, self.machines = root, LocalRunner(), Machines()
        self.port = free_port()
        self.bus = asyncio.run(start_nats(root / "nats", free_port(), self.run, listen=self.machines.here))
        self.hosts: list[Host] = []
        self.proxies: list[Host] = []
        first = self.machines.add()  # where the first proxy will be
        options = ["--name", "accounts", "--join", self.bus.url, "--bind", self.machines.here]
        options += ["--port", str(self.port), "--object-url", f"http://{first.address}:{OBJECTS}"]
        self._places = [first]
        self.accounts = NodeProcess(root / "accounts", "identity", options)
        self.secrets = self.accounts.state_dir / "secrets.json"
        self.key = self.accounts.state_dir / "keys" / "object-drives"

    def start(self, hosts: int, proxies: int) -> None:
        self.accounts.start()
        until("the key of the drives", self.key.exists, STARTED_S)
        for _ in range(hosts):
            self.add_host()
        for _ in range(proxies):
            self.add_proxy()
        for number in range(proxies):
            until(f"proxy {number}", partial(self.status, number), STARTED_S)

    def add_host(self) -> Host:
        name, machine = f"disk{len(self.hosts) + 1}", self.machines.add()
        options = ["--name", name, "--bind", machine.address, "--drive-key", str(self.key)]
        return self._begin(self.hosts, machine, NodeProcess(self.root / name, "object-disk", options, machine.enter))

    def add_proxy(self) -> Host:
        name = f"proxy{len(self.proxies) + 1}"
        machine = self._places.pop() if self._places else self.machines.add()
        options = ["--name", name, "--join", self.bus.url, "--bind", machine.address, "--port", str(PORT)]
        options += ["--s3-port", str(OBJECTS + 1), "--secrets-file", str(self.secrets)]
        if not self.proxies:
            options += ["--drives", ",".join(self.place(host) for host in self.hosts)]
        return self._begin(self.proxies, machine, NodeProcess(self.root / name, "object-proxy", options, machine.enter))

    def _begin(self, kind: list[Host], machine: Machine, node: NodeProcess) -> Host:
        host = Host(machine, node)
        kind.append(host)
        node.start()
        return host

    def place(self, host: Host) -> str:
        """Of its drive."""
        return f"{host.machine.address}:{host.node.state_dir / 'drive'}"

    def url(self, proxy: int) -> str:
        return f"http://{self.proxies[proxy].machine.address}:{OBJECTS}"

    def status(self, proxy: int = 0) -> dict[str, Any] | None:
        """As its operator sees the store through this proxy; None while that cannot be."""
        connection = http.client.HTTPConnection(self.proxies[proxy].machine.address, OBJECTS, timeout=15)
        try:
            connection.request("GET", "/apus/v1/object/status", headers={"X-Auth-Token": self.token("admin")})
            reply = connection.getresponse()
            return dict(json.loads(reply.read())) if reply.status == 200 else None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def token(self, user: str) -> str:
        return self._api(user).token()

    def project(self, user: str) -> str:
        """The id of his."""
        reply = self._api(user).insist("GET", "/identity/v3/auth/projects")
        return str(next(one["id"] for one in reply["projects"] if one["name"] == user))

    def _api(self, user: str) -> Api:
        return Api(self.machines.here, self.port, self.secrets, user)

    def close(self) -> None:
        nodes = [self.accounts, *(host.node for host in (*self.proxies, *self.hosts))]
        for node in nodes:
            node.terminate()
        for node in nodes:
            node.stop()
        asyncio.run(stop_server(self.bus, self.root / "nats", self.run))
        self.run.close()
        self.machines.close()


@contextlib.contextmanager
def object_cluster(root: Path, hosts: int, proxies: int) -> Iterator[ObjectCluster]:
    """What its processes had to say is shown when a test fails."""
    made = ObjectCluster(root)
    try:
        made.start(hosts, proxies)
        yield made
    except BaseException:
        for path in sorted(root.glob("*/node.log")):
            lines = [line for line in path.read_text().splitlines() if '"apus.http"' not in line]
            print(f"--- {path.parent.name}\n" + "\n".join(lines[-60:]))
        raise
    finally:
        made.close()

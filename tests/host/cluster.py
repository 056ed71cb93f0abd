"""A cloud of several nodes on one machine: processes in network namespaces, over NATS and PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from apus.kernel.settings import Settings, load_settings
from apus.platform.process import LocalRunner
from apus.platform.servers import Server, start_nats, start_postgres, stop_server
from tests.conftest import free_port
from tests.host.guest import sh

T = TypeVar("T")
POLL_S: Final = 0.1
SOURCES: Final = Path(__file__).parents[2] / "src"


def until(what: str, look: Callable[[], T | None], within_s: float) -> T:
    """The first answer that is not None or False.  Things of other processes give no event to wait for."""
    end_s = time.monotonic() + within_s
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        assert time.monotonic() < end_s, f"{what}: not within {within_s:g} s"
        time.sleep(POLL_S)


class Link:
    """A machine for nodes: namespaces that outlive their processes, joined to ours by a veth pair."""

    def __init__(self) -> None:
        self.tag = secrets.token_hex(3)
        third, fourth = secrets.randbelow(250), 4 * secrets.randbelow(60)
        net = f"10.219.{third}."
        self.name, self.here_ip, self.there_ip = f"ct{self.tag}", f"{net}{fourth + 1}", f"{net}{fourth + 2}"
        sh(f"ip netns add {self.name}")
        sh(f"ip link add ct{self.tag}h type veth peer name up0 netns {self.name}")
        sh(f"ip address add {self.here_ip}/30 dev ct{self.tag}h")
        sh(f"ip link set ct{self.tag}h up")
        for words in (f"address add {self.there_ip}/30 dev up0", "link set up0 up", "link set lo up"):
            sh(f"ip -n {self.name} {words}")
        sh(f"ip -n {self.name} route add default via {self.here_ip}")

        # `ip netns exec` makes a mount namespace too, for /sys; this process keeps it as long as the machine is on
        init = ["ip", "netns", "exec", self.name, "sh", "-c", "echo on; exec sleep infinity"]
        self._init = subprocess.Popen(init, stdout=subprocess.PIPE)
        assert self._init.stdout is not None
        assert self._init.stdout.readline() == b"on\n"

    @property
    def enter(self) -> Sequence[str]:
        """Begins the command line of what runs there."""
        return ["nsenter", "-t", str(self._init.pid), "-m", "-n", "--"]

    def close(self) -> None:
        self._init.kill()
        self._init.wait()
        subprocess.run(["ip", "netns", "delete", self.name], check=False)
        subprocess.run(["ip", "link", "delete", f"ct{self.tag}h"], check=False, capture_output=True)


class NodeProcess:
    """One `apus node`; `enter` begins its command line when it runs on another machine."""

    def __init__(self, state_dir: Path, roles: str, options: Sequence[str], enter: Sequence[str] = ()) -> None:
        self.state_dir, self._enter = state_dir, enter
        self._argv = [sys.executable, "-m", "apus", "node", "--roles", roles, "--state-dir", str(state_dir), *options]
        self._process: subprocess.Popen[bytes] | None = None
        state_dir.mkdir(parents=True, exist_ok=True)

    @property
    def settings(self) -> Settings:
        return load_settings(self.state_dir / "apus.toml")

    def start(self) -> None:
        argv = [*self._enter, *self._argv]
        with (self.state_dir / "node.log").open("ab") as log:
            environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
            self._process = subprocess.Popen(argv, stdout=log, stderr=log, env=environment, start_new_session=True)

    def kill(self) -> None:
        """As by the kernel: nothing is put in order."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def terminate(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        self.terminate()
        if self._process is not None:
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()
            self._process = None

    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def log(self) -> str:
        return (self.state_dir / "node.log").read_text()

    def sweep(self) -> None:
        """What of a host outlives its process."""
        if not self._enter:
            return
        code = (
            "import sys; from pathlib import Path; from apus.kernel.settings import load_settings; "
            "from apus.node.sweep import sweep_machine; there = Path(sys.argv[1]); "
            "sweep_machine(there, load_settings(there / 'apus.toml'))"
        )
        environment = {**os.environ, "PYTHONPATH": str(SOURCES)}
        subprocess.run([*self._enter, sys.executable, "-c", code, str(self.state_dir)], check=False, env=environment)


class Api:
    """One control node's APIs, as a member of a project or as the administrator."""

    def __init__(self, host: str, port: int, secrets_path: Path, user: str) -> None:
        self.host, self.port, self._secrets_path, self._user = host, port, secrets_path, user
        self._token = ""

    def ask(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] = {}) -> tuple[int, Any]:
        """Raises OSError when nobody answers."""
        status, reply = self._ask(method, path, body, {"X-Auth-Token": self.token(), **headers})
        if status == 401:
            self._token = ""
            status, reply = self._ask(method, path, body, {"X-Auth-Token": self.token(), **headers})
        return status, reply

    def get(self, path: str) -> Any:
        """None while the cloud cannot answer."""
        try:
            status, reply = self.ask("GET", path)
        except (OSError, http.client.HTTPException):
            return None
        return reply if status == 200 else None

    def insist(self, method: str, path: str, body: Any = None, *, within_s: float = 30.0) -> Any:
        """As a careful client: with a key, and again while the cloud is away."""
        headers = {"Idempotency-Key": secrets.token_hex(8)} if method == "POST" else {}

        def once() -> tuple[int, Any] | None:
            try:
                status, reply = self.ask(method, path, body, headers)
            except (OSError, http.client.HTTPException):
                return None
            if status in (409, 503) and method == "POST":
                return None
            return None if status in (500, 502, 503, 504) else (status, reply)

        status, reply = until(f"{method} {path}", once, within_s)
        assert status < 300 or (method == "DELETE" and status == 404), (status, reply)
        return reply

    def token(self) -> str:
        if not self._token:
            password = json.loads(self._secrets_path.read_text())[f"{self._user}_password"]
            user = {"name": self._user, "domain": {"id": "default"}, "password": password}
            scope = {"project": {"name": self._user, "domain": {"id": "default"}}}
            proof = {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}
            connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
            body = json.dumps({"auth": proof})
            connection.request("POST", "/identity/v3/auth/tokens", body, {"Content-Type": "application/json"})
            reply = connection.getresponse()
            reply.read()
            connection.close()
            if reply.status != 201:
                raise ConnectionError(f"no token: {reply.status}")
            self._token = reply.headers["X-Subject-Token"]
        return self._token

    def _ask(self, method: str, path: str, body: Any, headers: Mapping[str, str]) -> tuple[int, Any]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=15)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json", **headers})
            reply = connection.getresponse()
            text = reply.read()
        finally:
            connection.close()
        try:
            return reply.status, json.loads(text) if text else None
        except ValueError:
            return reply.status, text


class Cluster:
    """NATS, PostgreSQL, and the nodes that a test adds."""

    def __init__(self, root: Path) -> None:
        self.root, self.link, self.run = root, Link(), LocalRunner()
        self.nodes: dict[str, NodeProcess] = {}
        self.nats_port, self.postgres_port = free_port(), free_port()
        self.start_bus()
        self.start_database()

    # ------------------------------------------------------------------ what nodes stand on
    def start_bus(self) -> None:
        self.bus: Server = asyncio.run(
            start_nats(self.root / "nats", self.nats_port, self.run, listen=self.link.here_ip)
        )

    def start_database(self) -> None:
        self.database: Server = asyncio.run(start_postgres(self.root / "postgres", self.postgres_port, self.run))

    def kill_server(self, server: Server) -> None:
        asyncio.run(self.run.kill(server.process, signal.SIGKILL))
        until(f"end of {server.name}", lambda: not self.run.alive(server.process), 10)

    # ------------------------------------------------------------------ nodes
    def control(self, name: str, *options: str, roles: str = "control", like: NodeProcess | None = None) -> Api:
        port = free_port()
        given = ["--name", name, "--store", self.database.url, "--join", self.bus.url, "--bind", self.link.here_ip]
        given += ["--port", str(port), *options]
        if like is not None:
            given += ["--secrets-file", str(like.state_dir / "secrets.json")]
        node = self._add(name, roles, given)
        return Api(self.link.here_ip, port, node.state_dir / "secrets.json", "admin")

    def compute(self, name: str, controls: Sequence[Api], *options: str) -> NodeProcess:
        urls = ",".join(f"http://{api.host}:{api.port}" for api in controls)
        given = ["--name", name, "--join", self.bus.url, "--control-url", urls, *options]
        return self._add(name, "compute,network", given, self.link.enter)

    def _add(self, name: str, roles: str, options: Sequence[str], enter: Sequence[str] = ()) -> NodeProcess:
        node = self.nodes[name] = NodeProcess(self.root / name, roles, options, enter)
        node.start()
        return node

    def close(self) -> None:
        for node in self.nodes.values():
            node.terminate()
        for node in self.nodes.values():
            node.stop()
            node.sweep()
        for server, directory in ((self.bus, "nats"), (self.database, "postgres")):
            asyncio.run(stop_server(server, self.root / directory, self.run))
        self.run.close()
        self.link.close()


@contextlib.contextmanager
def cluster(root: Path) -> Iterator[Cluster]:
    made = Cluster(root)
    try:
        yield made
    except BaseException:
        for name, node in made.nodes.items():
            lines = [line for line in node.log().splitlines() if '"apus.http"' not in line]
            print(f"--- {name}\n" + "\n".join(lines[-60:]))
        raise
    finally:
        made.close()

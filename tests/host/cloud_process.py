"""`apus` as a person runs it: a process, its exit code, what it says; and requests to the cloud it starts."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tests.conftest import free_port

SOURCE = Path(__file__).parents[2] / "src"


class Said(msgspec.Struct, frozen=True):
    code: int
    out: str
    err: str


class Answer(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE), **more}


def apus(*words: str, timeout_s: float = 90, **env: str) -> Said:
    done = subprocess.run(
        [sys.executable, "-m", "apus", *words], capture_output=True, text=True, timeout=timeout_s, env=environment(**env)
    )
    return Said(done.returncode, done.stdout, done.stderr)


class CloudProcess:
    """One cloud in a directory, on a port of its own."""

    def __init__(self, state_dir: Path, port: int = 0) -> None:
        self.state_dir, self.port = state_dir, port or free_pair()

    def up(self, *options: str, hosts: int = 1, **env: str) -> Said:
        sim = ["--sim-hosts", str(hosts)] if hosts else []
        return apus("up", "--detach", "--state-dir", str(self.state_dir), "--port", str(self.port), *sim, *options, **env)

    def must_up(self, *options: str, hosts: int = 1, **env: str) -> None:
        said = self.up(*options, hosts=hosts, **env)
        assert said.code == 0, said

    def run(self, *words: str, **env: str) -> Said:
        return apus(*words, "--state-dir", str(self.state_dir), **env)

    def down(self) -> None:
        assert self.run("down").code == 0

    def pids(self) -> list[int]:
        """All processes that have this state directory on their command line."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if str(self.state_dir).encode() in words and int(entry.name) != os.getpid():
                    found.append(int(entry.name))
        return found

    def supervisor(self) -> int:
        return int((self.state_dir / "run" / "supervisor.lock").read_text())

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        token: str | None = None,
        headers: Mapping[str, str] = {},
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        sent = dict(headers)
        if token is not None:
            sent["X-Auth-Token"] = token
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, sent)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def login(self, user: str = "admin") -> tuple[str, str]:
        """(token, project id)."""
        password = json.loads((self.state_dir / "secrets.json").read_text())[f"{user}_password"]
        domain = {"id": "default"}
        identity = {"methods": ["password"], "password": {"user": {"name": user, "domain": domain, "password": password}}}
        body = {"auth": {"identity": identity, "scope": {"project": {"name": user, "domain": domain}}}}
        answer = self.ask("POST", "/identity/v3/auth/tokens", body)
        assert answer.status == 201, answer.text
        return answer.headers["x-subject-token"], answer.json["token"]["project"]["id"]


def free_pair() -> int:
    """A free port whose neighbour is free too: objects take it."""
    while True:
        port = free_port()
        try:
            import socket

            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port + 1))
            return port
        except OSError:
            continue


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def until(what: Callable[[], bool], within_s: float = 20.0) -> None:
    end_s = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end_s, "it did not come to pass"
        time.sleep(0.02)


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid))

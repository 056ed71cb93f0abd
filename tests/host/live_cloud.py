"""A real `apus up` cloud in a state directory of its own: its processes, its APIs, and what its store says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from apus.cli.places import Cloud, cloud_at
from tests.conftest import free_port

SOURCE: Final = Path(__file__).parents[2] / "src"
START_S: Final = 60.0
_json = msgspec.json


def apus(*words: str, timeout_s: float = 90.0) -> str:
    env = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-m", "apus", *words], env=env, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class LiveCloud:
    def __init__(self, state_dir: Path, http: aiohttp.ClientSession) -> None:
        self.state_dir, self._http = state_dir, http
        self.cloud: Cloud = cloud_at(state_dir)
        self._token = ""
        self.project_id = ""

    # ------------------------------------------------------------------ processes
    def pid_of(self, name: str) -> int | None:
        """Of a process of the cloud, while it lives."""
        supervisor = self.cloud.supervisor_pid()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    stat = (entry / "stat").read_text().rpartition(")")[2].split()
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    named = words[words.index(b"--name") + 1].decode()
                    if int(stat[1]) == supervisor and stat[0] != "Z" and named == name:
                        return int(entry.name)
        return None

    def kill(self, name: str) -> bool:
        pid = self.pid_of(name)
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        return pid is not None

    def guests(self) -> dict[str, tuple[int, str]]:
        """Running QEMU processes of this cloud: pid and start time by the directory of the domain."""
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    stat = (entry / "stat").read_text().rpartition(")")[2].split()
                    if "qemu" in words[0] and stat[0] != "Z":
                        for domain in self.domains():
                            if any(domain in word for word in words):
                                found[domain] = (int(entry.name), stat[19])
        return found

    def domains(self) -> set[str]:
        """Incarnations that have a directory on this machine."""
        directory = self.state_dir / "compute" / "domains"
        return {path.name for path in directory.iterdir()} if directory.exists() else set()

    # ------------------------------------------------------------------ APIs
    async def call(self, method: str, path: str, body: Any = None, *, data: bytes | None = None) -> Any:
        """JSON of the answer.  Raise aiohttp.ClientError or TimeoutError when the cloud does not answer."""
        if not self._token:
            await self.log_in()
        for _ in range(2):
            async with self._http.request(
                method, self.cloud.url() + path, json=body, data=data,
                headers={"X-Auth-Token": self._token, "OpenStack-API-Version": "compute 2.90"},
                timeout=aiohttp.ClientTimeout(total=15),
            ) as reply:  # fmt: skip
                raw = await reply.read()
                if reply.status == 401:
                    await self.log_in()
                    continue
                if reply.status >= 500:
                    raise aiohttp.ClientError(f"{method} {path}: {reply.status} {raw[:300]!r}")
                if reply.status >= 400:
                    raise Refused(reply.status, f"{method} {path}: {reply.status} {raw[:300]!r}")
                return _json.decode(raw) if raw and reply.content_type == "application/json" else raw
        raise aiohttp.ClientError("no token is accepted")

    async def read(self, path: str) -> Any:
        """Asked again until the cloud answers."""
        ends_s = time.monotonic() + START_S
        while True:
            try:
                return await self.call("GET", path)
            except (aiohttp.ClientError, TimeoutError):
                if time.monotonic() > ends_s:
                    raise
                await asyncio.sleep(0.2)

    async def log_in(self) -> None:
        user = {
            "name": "admin",
            "domain": {"id": "default"},
            "password": self.cloud.secrets()["admin_password"],
        }
        auth = {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": "admin", "domain": {"id": "default"}}},
        }
        url = self.cloud.url() + "/identity/v3/auth/tokens"
        async with self._http.post(url, json={"auth": auth}, timeout=aiohttp.ClientTimeout(total=15)) as reply:
            if reply.status != 201:
                raise aiohttp.ClientError(f"no token: {reply.status}")
            self._token = reply.headers["X-Subject-Token"]
            self.project_id = (await reply.json())["token"]["project"]["id"]

    async def servers(self) -> dict[str, Any]:
        answer = await self.call("GET", "/compute/v2.1/servers/detail")
        return {server["id"]: server for server in answer["servers"]}

    # ------------------------------------------------------------------ the store, read past the APIs
    def rows(self, statement: str) -> list[Any]:
        path = self.state_dir / "store" / "apus.sqlite"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as store:
            return store.execute(statement).fetchall()

    def left(self) -> list[str]:
        """What the store holds that is under way, or of no server."""
        left = [f"flow {saga} of {id} is {state}" for saga, id, state in self.rows(
            "SELECT saga, resource_id, state FROM flow WHERE live_key IS NOT NULL"
        )]  # fmt: skip
        live = {id for (id,) in self.rows("SELECT id FROM compute_server WHERE deleted = 0")}
        owned = {
            "claim": "SELECT consumer_id FROM placement_allocation",
            "incarnation": "SELECT server_id FROM compute_incarnation",
            "port": "SELECT device_id FROM network_port WHERE device_id <> ''",
        }
        for what, statement in owned.items():
            left += [f"{what} of {id}, which is no server" for (id,) in self.rows(statement) if id not in live]
        ports = {id for (id,) in self.rows("SELECT id FROM network_port")}
        for table, column in (
            ("network_address", "port_id"),
            ("network_plugged", "id"),
            ("network_membership", "port_id"),
        ):
            ids = [id for (id,) in self.rows(f"SELECT {column} FROM {table}")]
            left += [f"{table} of {id}, which is no port" for id in ids if id not in ports]
        for name, used in self._used():
            left += [f"{name} is used {used}, and has no claim"] if not live and used else []
        return left

    def _used(self) -> list[tuple[str, Any]]:
        found = [json.loads(body) for (body,) in self.rows("SELECT body FROM placement_provider")]
        return [(host["name"], host.get("used", {})) for host in found]


class Refused(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@contextlib.asynccontextmanager
async def live_cloud(state_dir: Path, *options: str) -> AsyncIterator[LiveCloud]:
    apus("up", "--detach", "--state-dir", str(state_dir), "--port", str(_free_pair()), *options)
    try:
        async with aiohttp.ClientSession() as http:
            cloud = LiveCloud(state_dir, http)
            await cloud.log_in()
            limits = {"instances": -1, "cores": -1, "ram": -1}
            await cloud.call("PUT", f"/compute/v2.1/os-quota-sets/{cloud.project_id}", {"quota_set": limits})
            yield cloud
    finally:
        await asyncio.to_thread(apus, "down", "--state-dir", str(state_dir))


def _free_pair() -> int:
    """A port whose next one, for the objects, is free as well."""
    import socket

    while True:
        port = free_port()
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port + 1))
            return port

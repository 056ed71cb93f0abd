"""The whole control process as node/control.py wires it, on simulated hosts and a store in memory, with the object
process beside it, in the running loop.  Requests go straight into the ASGI application: hundreds a second."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from apus.kernel.settings import Settings, dump_settings
from apus.kernel.world import World
from apus.node.control import WiredControl
from apus.node.host import wire_host
from apus.node.http import HttpServer, listen_on
from apus.node.objects import wire_objects
from apus.node.stages import Stages
from apus.platform.bus_local import LocalBus
from apus.platform.clock import SystemClock
from apus.platform.disk import LocalDisk
from apus.platform.migrations import migrate
from apus.platform.process import LocalRunner
from apus.wire.app import Api, App
from tests.conftest import free_port
from tests.stores import open_store

ANSWER_S = 20.0
"""Past this a request hangs."""


class Answer(msgspec.Struct, frozen=True):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class WholeCloud:
    def __init__(self, state_dir: Path, control: WiredControl, apis: Sequence[Api], password: str) -> None:
        self.state_dir, self.control, self.apis, self.password = state_dir, control, apis, password
        self.settings = control.settings

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes | dict[str, Any] | None = None,
        token: str | None = None,
        headers: Mapping[str, str] = {},
        *,
        cut: bool = False,
    ) -> Answer | None:
        """One request; None when the answer never began.  `cut`: the client goes away amid its body."""
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        sent = {"host": f"127.0.0.1:{self.settings.port}", **headers}
        if token is not None:
            sent["x-auth-token"] = token
        if data is not None and "content-length" not in sent:
            sent["content-length"] = str(len(data))
        raw = target.encode("latin-1", "replace")
        path, _, query = raw.partition(b"?")
        scope = {
            "type": "http", "method": method, "path": path.decode("latin-1"), "raw_path": path, "query_string": query,
            "scheme": "http", "http_version": "1.1", "server": ("127.0.0.1", self.settings.port),
            "client": ("127.0.0.1", 1),
            "headers": [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in sent.items()],
        }  # fmt: skip
        return await _answered(self.control.app, scope, data, cut)

    async def made(self, method: str, target: str, body: Any, token: str) -> Any:
        """A request that must work; its JSON."""
        answer = await self.ask(method, target, body, token)
        assert answer is not None
        assert answer.status < 300, (method, target, answer.status, answer.body[:500])
        return json.loads(answer.body) if answer.body else None

    async def login(self, user: str, password: str, project: str) -> str:
        domain = {"id": "default"}
        identity = {
            "methods": ["password"],
            "password": {"user": {"name": user, "domain": domain, "password": password}},
        }
        body = {"auth": {"identity": identity, "scope": {"project": {"name": project, "domain": domain}}}}
        answer = await self.ask("POST", "/identity/v3/auth/tokens", body)
        assert answer is not None
        assert answer.status == 201, answer.body
        return answer.headers["x-subject-token"]


async def _answered(app: Any, scope: dict[str, Any], data: bytes | None, cut: bool) -> Answer | None:
    gone, began = asyncio.Event(), asyncio.Event()
    left = [{"type": "http.request", "body": data or b"", "more_body": cut}]
    head: dict[str, Any] = {}
    parts: list[bytes] = []

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop()
        if not cut:
            await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            head.update(message)
            began.set()
        else:
            parts.append(message.get("body", b""))

    async def run() -> None:
        async with asyncio.timeout(ANSWER_S):
            await app(scope, receive, send)

    task, beginning = asyncio.create_task(run()), asyncio.create_task(began.wait())
    try:
        await asyncio.wait([task, beginning], return_when=asyncio.FIRST_COMPLETED)
        if began.is_set() and any(value == b"text/event-stream" for _, value in head["headers"]):
            await asyncio.wait([task], timeout=0.02)  # it never ends by itself
            gone.set()
        await task
    finally:
        began.set()
        gone.set()
        await beginning
    if not head:
        return None
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in head["headers"]}
    return Answer(head["status"], headers, b"".join(parts))


@contextlib.asynccontextmanager
async def whole_cloud(state_dir: Path, *, sim_hosts: int = 2) -> AsyncIterator[WholeCloud]:
    """Ready when the block begins: APIs, hosts, the default network and flavors (no micro image)."""
    settings = Settings(
        cloud_id="f0220000", port=free_port(), object_port=free_port(), sim_hosts=sim_hosts, network="simulated",
        micro_image_dir=str(state_dir / "none"),
    )  # fmt: skip
    (state_dir / "apus.toml").write_text(dump_settings(settings))
    clock, runner, disk, bus = SystemClock(), LocalRunner(), LocalDisk(), LocalBus()
    store = open_store(None, clock)
    from apus.node.schema import metadata

    await migrate(store, metadata)
    world = World(clock=clock, dice=Random(1), bus=bus, store=store, disk=disk, run=runner)
    stages = Stages(state_dir, "test", time.monotonic())
    control = WiredControl(state_dir, settings, world, stages)
    identity = await control.identity()
    apis = [*control.doors_of(identity), *await control.cloud(identity)]
    control.front(apis, identity)
    assert control.seams is not None
    assert control.read_image is not None
    host = wire_host(state_dir, settings, world, control.seams, control.read_image, stages)
    objects = await wire_objects(state_dir, settings, world, stages, here=True)
    server = HttpServer(objects.app, listen_on("127.0.0.1", settings.objects_at))
    parts = [part for wired in (control, host, objects) for _, part in wired.parts()]
    tasks = [asyncio.create_task(part) for part in (*parts, server.run())]
    for wired in (control, host, objects):
        await wired.begin()
    secrets = json.loads((state_dir / "secrets.json").read_text())
    try:
        yield WholeCloud(state_dir, control, [*apis, *objects.apis()], secrets["admin_password"])
    finally:
        server.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for wired in (objects, host, control):
            await wired.close()
        await bus.close()
        await store.close()
        runner.close()
        disk.close()


__all__ = ["Answer", "App", "WholeCloud", "whole_cloud"]

"""A real server on a loopback port, in a thread of its own, over drives in a directory."""

from __future__ import annotations

import asyncio
import http.client
import random
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from apus.kernel.caller import Caller
from apus.kernel.errors import Unauthenticated, Unavailable
from apus.node.http import HttpServer, listen_on
from apus.platform.process import LocalRunner
from apus.platform.sending import Sender
from apus.services.object.api.routes import swift_apis
from apus.services.object.assembly import ObjectStore, drives_in, open_store
from apus.services.object.service import DEFAULTS, Options
from apus.wire.app import App
from tests.object_store import drive_paths, make_world

T = TypeVar("T")


def caller(project: str, *roles: str, domain: str = "default") -> Caller:
    return Caller(
        user_id=f"u-{project}", user_name=f"n-{project}", project_id=project, project_name=project,
        user_domain_id=domain, project_domain_id=domain, roles=frozenset(roles or ("member", "reader")),
    )  # fmt: skip


class Tokens:
    def __init__(self) -> None:
        self.known = {
            "alice": caller("a"),
            "bob": caller("b"),
            "reader": caller("a", "reader"),
            "namesake": msgspec.structs.replace(caller("b", domain="d"), user_id="u-x", project_id="x"),
            "boss": caller("boss", "admin", "member", "reader"),
        }

    def verify(self, token: str) -> Caller:
        if token not in self.known:
            raise Unauthenticated("test.token", "no")
        return self.known[token]


class Everybody:
    """Plays identity: which projects and users there are."""

    def __init__(self) -> None:
        self.domains: dict[str, str] = {}
        """Of projects."""
        self.ids = {"a", "b", "u-b"}
        self.asked, self.silent = 0, False

    async def project_domain(self, project_id: str) -> str | None:
        self._hear()
        return self.domains.get(project_id)

    async def principals_among(self, ids: Sequence[str]) -> Sequence[str]:
        self._hear()
        return [id for id in ids if id in self.ids]

    def _hear(self) -> None:
        self.asked += 1
        if self.silent:
            raise Unavailable("test.silent", "nobody answers")


class SwiftServer:
    def __init__(
        self, root: Path, options: Options = DEFAULTS, policies: dict[str, int | str] | None = None, drives: int = 4
    ) -> None:
        self.root, self.options, self.policies, self.count = root, options, policies or {}, drives
        self.tokens, self.everybody = Tokens(), Everybody()
        self.store: ObjectStore
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self._ready.wait(20)

    def stop(self) -> None:
        for server in self._servers:
            self.loop.call_soon_threadsafe(server.stop)
        self._thread.join(20)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(20)

    def begin(self) -> list[HttpServer]:
        """Further doors to the same store."""
        return []

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        runner = LocalRunner()
        world = make_world(runner=runner)
        paths = drives_in(drive_paths(self.root, self.count))
        self.store = await open_store(
            world, paths, self.root / "layout.json",
            options=self.options, policies=self.policies, principals=self.everybody,
        )  # fmt: skip
        app = App(swift_apis(self.store.service), self.tokens, dice=random.Random(3))
        listening = listen_on("127.0.0.1", 0)
        self.port = listening.getsockname()[1]
        self.sender = Sender("test", processes=3)  # so many that short ones are for them, too
        servers = [HttpServer(app, listening, self.sender), *self.begin()]
        self._servers = servers
        self._ready.set()
        await asyncio.gather(*(server.run() for server in servers))
        self.sender.close()
        await self.store.close()
        listening.close()
        runner.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        token: str | None = "alice",
        **headers: str,
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["X-Auth-Token"] = token
        connection.request(method, path, body, sent)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, data

    def uploads_left(self) -> list[str]:
        found = list[str]()
        for drive in self.store.drives:
            found += [*drive.copies.rooms[0].large.uploading, *self.run(drive.copies.strays())]
        return found

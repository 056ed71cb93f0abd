"""An App on a loopback port in the test's own loop, and a client that writes what it is told, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from random import Random
from typing import Any

from apus.kernel.caller import Caller
from apus.kernel.errors import Unauthenticated
from apus.kernel.policy import Policy
from apus.node.http import HttpServer, listen_on
from apus.platform.sending import Sender
from apus.wire.app import Api, App
from apus.wire.faults import Faults, errors_fault
from apus.wire.route import Route
from apus.wire.versions import VersionChain

CALLERS: Mapping[str, Caller] = {
    "reader": Caller(user_id="r", project_id="p", roles=frozenset({"reader"})),
    "member": Caller(user_id="m", project_id="p", roles=frozenset({"member", "reader"})),
    "admin": Caller(user_id="a", project_id="p", roles=frozenset({"admin", "member", "reader"})),
}


class Tokens:
    """Tokens that are names."""

    def verify(self, token: str) -> Caller:
        if token not in CALLERS:
            raise Unauthenticated("identity.bad_token", "The token is not one of ours.")
        return CALLERS[token]


def app_of(
    routes: Sequence[Route], policy: Policy, *, service: Any = None, versions: VersionChain | None = None, **more: Any
) -> App:
    faults = more.pop("faults", Faults(errors_fault))
    api = Api(
        name="thing", prefix="/thing", routes=routes, service=service, policy=policy, faults=faults, versions=versions
    )
    return App([api], Tokens(), dice=Random(1), **more)


@contextlib.asynccontextmanager
async def serving(app: Any, sender: Sender | None = None, send_buffer_bytes: int | None = None) -> AsyncIterator[int]:
    """The port that the app listens on."""
    listening = listen_on("127.0.0.1", 0)
    if send_buffer_bytes is not None:  # each connection has that of the socket that it came by
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    server = HttpServer(app, listening, sender)
    running = asyncio.create_task(server.run())
    try:
        yield listening.getsockname()[1]
    finally:
        server.stop()
        await running
        listening.close()


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body


class RawClient:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> RawClient:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def ask(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        given = {"host": "test", **(headers or {})}
        if body is not None:
            given["content-length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        self.writer.write(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1") + (body or b""))
        return await self.answer(method)

    async def head(self) -> tuple[int, dict[str, str]]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        pairs = (line.partition(": ") for line in lines if line)
        return int(first.split()[1]), {name: value for name, _, value in pairs}

    async def answer(self, method: str = "GET") -> Answer:
        status, headers = await self.head()
        body = b""
        if method != "HEAD" and status not in (204, 304):
            if headers.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    body += (await self.reader.readexactly(size + 2))[:-2]
                await self.reader.readexactly(2)
            else:
                body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Answer(status, headers, body)

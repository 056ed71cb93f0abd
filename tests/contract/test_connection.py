"""What the HTTP server adds to the answers and requests that pass through it."""

from __future__ import annotations

import asyncio
import json
from typing import cast

from apus.kernel.policy import Rule
from apus.node.connection import Gathering
from apus.wire.route import ApiRequest, Reply, Route
from tests.contract.raw_http import app_of, serving


class Recorder:
    """A transport that keeps what it is given."""

    def __init__(self) -> None:
        self.calls: list[list[bytes]] = []
        self.closed = False

    def writelines(self, parts: list[bytes]) -> None:
        self.calls.append(parts)

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def get_extra_info(self, name: str) -> None: ...


def test_what_is_written_in_one_turn_goes_out_in_one_call() -> None:
    async def story() -> None:
        recorder = Recorder()
        gathering = Gathering(cast(asyncio.Transport, recorder), asyncio.get_running_loop())
        gathering.write(b"head")
        gathering.write(b"body")
        assert recorder.calls == []
        await asyncio.sleep(0)
        assert recorder.calls == [[b"head", b"body"]]
        gathering.write(b"last")
        gathering.close()
        assert recorder.calls[1:] == [[b"last"]]
        assert recorder.closed
        gathering.write(b"too late")
        await asyncio.sleep(0)
        assert len(recorder.calls) == 2

    asyncio.run(story())


async def _who(request: ApiRequest) -> Reply:
    return Reply([request.scope["client"][0], request.scope["scheme"]], 200)


async def _asked(*headers: str) -> object:
    async with serving(app_of([Route("GET", "/who", _who, "do")], {"do": Rule.PUBLIC})) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write("\r\n".join(["GET /thing/who HTTP/1.1", "Host: x", *headers, "", ""]).encode())
        head = await reader.readuntil(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        body = await reader.readexactly(size)
        writer.close()
        return json.loads(body)


def test_a_proxy_on_this_machine_says_who_its_client_is() -> None:
    assert asyncio.run(_asked()) == ["127.0.0.1", "http"]
    told = asyncio.run(_asked("X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https"))
    assert told == ["192.0.2.7", "https"]

"""What the HTTP server adds to the answers and requests that pass through it."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from apus.kernel.policy import Rule
from apus.node.connection import Gathering
from apus.wire.answer import ANSWER, fields_of
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


_REPLIES: dict[str, Reply] = {
    "json": Reply({"a": 1}),
    "bytes": Reply(b"abc", 201, {"X-Object-Meta-A": "é € \U0001f600", "ETag": '"1"'}, content_type="text/plain"),
    "view": Reply(memoryview(b"abc")),
    "empty": Reply(b""),
    "tab": Reply(b"abc", headers={"x-a": "one\ttwo"}),
    "hostile": Reply(b"abc", headers={"x-a": "one\r\nx-b: two\x00", "x-c": "\x7f"}),
    "sized": Reply(b"", 200, {"Content-Length": "3"}),
    "none": Reply(None, 204, {"content-length": "0"}),
    "unchanged": Reply(b"abc", 304, {"etag": "1"}),
    "wrong": Reply(b"abcd", 200, {"content-length": "3"}),
    "name": Reply(b"abc", 200, {"x: y": "3"}),
}


async def _said(request: ApiRequest) -> Reply:
    return _REPLIES[request.params["what"]]


async def _exchanges(*, wholesale: bool) -> dict[str, bytes]:
    """All that comes back for each request until the connection ends, but the date and the request's id."""
    app = app_of([Route("GET", "/{what}", _said, "do")], {"do": Rule.PUBLIC})
    seen: list[bool] = []

    async def shown(scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen.append(ANSWER in scope.get("extensions", {}))
        await app({**scope, "extensions": scope["extensions"] if wholesale else {}}, receive, send)

    answers: dict[str, bytes] = {}
    async with serving(shown) as port:
        for what in _REPLIES:
            for method in ("GET", "HEAD"):
                if what in ("sized", "wrong") and method == "HEAD":
                    continue
                for line, goes_on in ((f"{method} /thing/{what} HTTP/1.1", 1), (f"{method} /thing/{what} HTTP/1.0", 0)):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(f"{line}\r\nHost: x\r\n\r\n".encode())
                    if goes_on:  # another on the same connection: the first one ended where it said
                        writer.write(b"GET /thing/json HTTP/1.0\r\nHost: x\r\n\r\n")
                    data = await asyncio.wait_for(reader.read(), 10)
                    answers[line] = re.sub(rb"(date|x-openstack-request-id): [^\r]*", rb"\1", data)
                    writer.close()
    assert all(seen)
    return answers


def test_what_is_sent_at_once_is_what_the_server_would_send_piece_by_piece() -> None:
    at_once, in_pieces = asyncio.run(_exchanges(wholesale=True)), asyncio.run(_exchanges(wholesale=False))
    assert at_once == in_pieces
    assert b"x-a: one  x-b: two " in at_once["GET /thing/hostile HTTP/1.1"]
    assert at_once["GET /thing/json HTTP/1.1"].count(b'{"a":1}') == 2
    assert b"connection: close" in at_once["GET /thing/bytes HTTP/1.0"]


@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=12)), max_size=4))
def test_no_header_begins_another(named: list[tuple[str, str]]) -> None:
    headers = [*named, ("content-length", "0")]
    fields = fields_of(headers, 0)
    if fields is not None:
        lines = fields.split(b"\r\n")
        assert lines.pop() == b""
        assert [line.partition(b": ")[0].decode() for line in lines] == [name for name, _ in headers]

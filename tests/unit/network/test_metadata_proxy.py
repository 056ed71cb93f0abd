"""The HTTP of the metadata address: what a guest may send, and what it gets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping

import pytest

from apus.kernel.errors import NotFound, Unavailable
from apus.services.network.drivers.metadata_proxy import MetadataServer

Asked = tuple[str, str, str, str, bytes]


async def exchange(request: bytes) -> tuple[bytes, list[Asked]]:
    asked: list[Asked] = []

    async def handle(
        network_id: str, remote_ip: str, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], bytes]:
        asked.append((network_id, remote_ip, method, path, body))
        if path == "/none":
            raise NotFound("x.none", "nothing")
        if path == "/later":
            raise Unavailable("x.later", "not now")
        return 200, {"content-type": "text/plain"}, path.encode()

    listener = socket.create_server(("127.0.0.1", 0))
    server = await MetadataServer(handle).serve("net", listener)
    reader, writer = await asyncio.open_connection(*listener.getsockname())
    writer.write(request)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    server.close()
    return answer, asked


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"200"),
        (b"HEAD /a HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /none HTTP/1.0\r\n\r\n", b"404"),
        (b"GET /later HTTP/1.0\r\n\r\n", b"503"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 40_000 + b"\r\n\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"z" * 200_000, b"413"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    ],
)
def test_an_answer(request_bytes: bytes, status: bytes) -> None:
    answer, _ = asyncio.run(exchange(request_bytes))
    assert answer.split(b" ")[1] == status


def test_the_handler_learns_who_asked() -> None:
    request = b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
    answer, asked = asyncio.run(exchange(request))
    assert asked == [("net", "127.0.0.1", "POST", "/x", b"hi")]
    assert answer.endswith(b"\r\n\r\n/x")


def test_half_a_request_is_no_request() -> None:
    answer, asked = asyncio.run(exchange(b"GET / HT"))
    assert (answer, asked) == (b"", [])

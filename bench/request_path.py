"""CPU of the floor under every request: a trivial route through uvicorn and wire/app.py.

    python bench/request_path.py [requests]

The server runs in a process of its own; its CPU time is read from /proc before and after.  The client writes raw
requests on kept connections and counts replies, so that it costs less than what it measures.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from random import Random

CONNECTIONS = 8
REQUEST = (
    b"GET /bench/things/0a1b2c3d?limit=5 HTTP/1.1\r\nhost: 127.0.0.1\r\nx-auth-token: secret\r\n"
    b"accept: application/json\r\nuser-agent: bench\r\naccept-encoding: gzip, deflate\r\nconnection: keep-alive\r\n\r\n"
)


def serve(bare: bool) -> None:
    import uvloop

    from apus.kernel.caller import Caller
    from apus.kernel.policy import Rule
    from apus.node.http import HttpServer, listen_on
    from apus.wire.app import Api, App
    from apus.wire.faults import Faults, errors_fault
    from apus.wire.route import ApiRequest, Reply, Route

    caller = Caller(user_id="u", project_id="p", roles=frozenset({"member", "reader"}))

    class Known:
        def verify(self, token: str) -> Caller:
            return caller

    async def show(request: ApiRequest) -> Reply:
        return Reply({"thing": {"id": request.params["id"], "name": "a thing", "limit": request.query("limit")}})

    async def nothing(scope, receive, send):  # type: ignore[no-untyped-def]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"{}"})

    route = Route("GET", "/things/{id}", show, may="bench:show")
    api = Api(
        name="bench", prefix="/bench", routes=(route,), service=None, policy={"bench:show": Rule.READER},
        faults=Faults(errors_fault),
    )  # fmt: skip
    app = nothing if bare else App([api], Known(), dice=Random(1))
    listening = listen_on("127.0.0.1", 0)
    print(listening.getsockname()[1], flush=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(HttpServer(app, listening).run())


async def one(port: int, count: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(count):
        writer.write(REQUEST)
        head = await reader.readuntil(b"\r\n\r\n")
        at = head.index(b"content-length: ") + 16
        await reader.readexactly(int(head[at : head.index(b"\r", at)]))
    writer.close()


async def load(port: int, count: int) -> None:
    await asyncio.gather(*(one(port, count // CONNECTIONS) for _ in range(CONNECTIONS)))


def cpu_s(pid: int) -> float:
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(bare: bool, count: int) -> None:
    argv = [sys.executable, __file__, "--serve", *(["--bare"] if bare else [])]
    server = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=open("/tmp/bench-request-path.log", "w"))
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        asyncio.run(load(port, 2000))
        before, began = cpu_s(server.pid), time.monotonic()
        asyncio.run(load(port, count))
        used, took = cpu_s(server.pid) - before, time.monotonic() - began
        print(f"{'uvicorn alone' if bare else 'uvicorn + App'}: {used / count * 1e6:.0f} us of CPU a request,"
              f" {count / took:.0f} requests/s")  # fmt: skip
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve("--bare" in sys.argv)
    else:
        requests = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
        measure(True, requests)
        measure(False, requests)

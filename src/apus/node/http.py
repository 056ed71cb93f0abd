"""uvicorn inside our own loop: one server per socket, started and stopped by us and not by signals."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The node decides when to stop; signals are its own."""
        yield


def listen_on(bind: str, port: int) -> socket.socket:
    """A listening socket.  Raises OSError when the port is taken."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else asyncio leaves Nagle on
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((bind, port))
    listening.listen(2048)
    listening.setblocking(False)
    return listening


class HttpServer:
    def __init__(self, app: Any, listening: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            http="httptools",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=65,
            timeout_graceful_shutdown=5,
        )
        self._server, self._listening = _Server(config), listening

    async def run(self) -> None:
        """Serve until cancelled or stopped."""
        await self._server.serve(sockets=[self._listening])

    def stop(self) -> None:
        """Finish what is being answered, then end."""
        self._server.should_exit = True

"""uvicorn inside our own loop: one server per socket, started and stopped by us and not by signals.

What it logs are our lines; what one connection does is in `connection.py`.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import traceback
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import uvicorn

from apus.kernel.errors import Unavailable
from apus.kernel.log import get_logger
from apus.node.connection import Connection
from apus.platform.sending import Sender

_QUIET: Final = ("Invalid HTTP request", "ASGI callable returned without completing", "Unsupported upgrade")
"""What a client did, or what the application has logged better."""
_log: Final = get_logger("apus.http")


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The node decides when to stop; signals are its own."""
        yield


class _UvicornLines(logging.Handler):
    """What uvicorn has to say, as our log lines."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().strip()
        if text.startswith(_QUIET):
            return
        error = record.exc_info[1] if record.exc_info else None
        _log.error(text, traceback="".join(traceback.format_exception(error)) if error else None)


def listen_on(bind: str, port: int) -> socket.socket:
    """A listening socket.  Raise Unavailable when the port is taken, or the address is not of this machine."""
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # else asyncio leaves Nagle on
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((bind, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise Unavailable("node.port", f"Port {port} on {bind} cannot be used: {error.strerror}.") from error
    listening.setblocking(False)
    return listening


class HttpServer:
    def __init__(self, app: Any, listening: socket.socket, sender: Sender | None = None) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            http=partial(Connection, sender=sender),  # type: ignore[arg-type]
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=65,
            timeout_graceful_shutdown=5,
        )
        logger = logging.getLogger("uvicorn.error")
        logger.handlers, logger.propagate = [_UvicornLines(logging.WARNING)], False
        self._server, self._listening = _Server(config), listening

    async def run(self) -> None:
        """Serve until cancelled or stopped."""
        await self._server.serve(sockets=[self._listening])

    def stop(self) -> None:
        """Finish what is being answered, then end."""
        self._server.should_exit = True

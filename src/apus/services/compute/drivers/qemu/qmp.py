"""Talks to one QEMU over its QMP socket, briefly: connect, ask, hang up.  Every call has a deadline.

QEMU takes one client of this socket at a time, and a connection that is kept would lock out whoever adopts the
guest after us, so none is.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError

from apus.kernel.errors import Unavailable

CALL_TIMEOUT_S: Final = 10.0
"""QEMU answers in milliseconds; while it is busy with a slow disk it may take seconds."""

logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)


class Refused(Unavailable):
    """QEMU answered that it will not."""


class Monitor:
    def __init__(self, client: QMPClient) -> None:
        self._client = client

    async def execute(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._client.execute(command, dict(arguments or {}))
        except ExecuteError as error:
            raise Refused("compute.qemu_refused", f"QEMU refused {command}: {error}") from None
        except (QMPError, TimeoutError, OSError) as error:
            raise Unavailable("compute.qemu_silent", f"QEMU did not answer {command}: {error!r}") from None

    @contextlib.contextmanager
    def events(self, *names: str) -> Any:
        """A listener for these events; `await listener.get()` gives the next one."""
        listener = EventListener(names)
        self._client.register_listener(listener)
        try:
            yield listener
        finally:
            self._client.remove_listener(listener)


@contextlib.asynccontextmanager
async def monitor(socket_path: str, *, timeout_s: float = CALL_TIMEOUT_S) -> AsyncIterator[Monitor]:
    """Raises Unavailable when nobody listens or nobody answers in time."""
    client = QMPClient("apus")
    try:
        async with asyncio.timeout(timeout_s):
            await client.connect(socket_path)
    except (QMPError, TimeoutError, OSError) as error:
        raise Unavailable("compute.qemu_silent", f"QEMU does not answer: {error!r}") from None
    try:
        yield Monitor(client)
    finally:
        with contextlib.suppress(QMPError, TimeoutError, OSError, EOFError):
            async with asyncio.timeout(timeout_s):
                await client.disconnect()


def hand_over(socket_path: str, handles: Mapping[str, int]) -> None:
    """Give QEMU open files of ours, by the names that it is to know them by.  Blocks: for a thread.

    A connection of its own, since no asyncio transport passes files on every event loop; QEMU keeps what it was given.
    Raise Unavailable when it does not take them.
    """
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as line:
        line.settimeout(CALL_TIMEOUT_S)
        try:
            line.connect(socket_path)
            with line.makefile("rb") as answers:
                answers.readline()  # the greeting
                _ask(line, answers, {"execute": "qmp_capabilities"}, ())
                for name, handle in handles.items():
                    _ask(line, answers, {"execute": "getfd", "arguments": {"fdname": name}}, (handle,))
        except (OSError, ValueError) as error:
            raise Unavailable("compute.qemu_silent", f"QEMU did not take a device: {error!r}") from None


def _ask(line: socket.socket, answers: Any, command: Mapping[str, Any], handles: tuple[int, ...]) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", handles))] if handles else []
    line.sendmsg([json.dumps(command).encode()], rights)
    while True:  # events come in between
        said = json.loads(answers.readline())
        if "error" in said:
            raise ValueError(said["error"])
        if "return" in said:
            return

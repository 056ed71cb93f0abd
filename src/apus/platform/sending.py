"""Hands answers to a process that sends them (`sender.py`), so that a second processor moves the bytes.

It is started when it is first of use, and again, not at once, when it has ended.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
import time
from typing import Final

from apus.kernel.buffers import FilePart
from apus.kernel.log import get_logger
from apus.platform.sender import BLOCK_MAX_BYTES, JOB, JOB_MAX_BYTES, SENT

WORTH_BYTES: Final = 256 << 10
"""Less is sent in the time that it takes to hand it over."""
AGAIN_S: Final = 10.0
"""After one has ended."""

_log: Final = get_logger("apus.http")


class Sender:
    """Of one event loop."""

    def __init__(self, name: str = "", again_s: float = AGAIN_S) -> None:
        """`name`: shown in the list of processes."""
        self._name, self._again_s = name, again_s
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.is_ready = False
        self._not_before_s = 0.0 if len(os.sched_getaffinity(0)) > 1 else float("inf")
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[int]] = {}

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def send(self, connection: int, head: bytes, part: FilePart) -> asyncio.Future[int] | None:
        """How many bytes of both are out in the end; None where that cannot be done here and now.

        `connection`: the handle of a socket that does not block.  The future raises ConnectionError when nobody knows
        how many.
        """
        if part.size_bytes < WORTH_BYTES or part.block_bytes > BLOCK_MAX_BYTES:
            return None
        if not self.is_ready:
            self._start()
            return None
        assert self._control is not None
        sums, number = part.checksums, next(self._numbers)
        try:
            file, offset = part.where()
            job = JOB.pack(number, offset, part.size_bytes, part.block_bytes, len(head), len(sums))
            if len(job) + len(head) + len(sums) > JOB_MAX_BYTES:
                return None
            socket.send_fds(self._control, [job, head, sums], [connection, file])
        except (OSError, ValueError):  # it has much to do, or has just ended; or the file is closed
            return None
        sent = self._waiting[number] = asyncio.get_running_loop().create_future()
        return sent

    def close(self) -> None:
        if self._control is not None:
            self._end()

    def _start(self) -> None:
        if self._process is not None or time.monotonic() < self._not_before_s:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            handle = theirs.fileno()
            command = [sys.executable, "-m", "apus.platform.sender", str(handle), self._name]
            try:
                # In our session: the kernel shares processors between sessions first (sched(7), autogroup).
                self._process = subprocess.Popen(command, pass_fds=[handle])
            except OSError as error:
                ours.close()
                self._not_before_s = time.monotonic() + self._again_s
                _log.warning("no sender", error=str(error))
                return
        ours.setblocking(False)
        self._control = ours
        asyncio.get_running_loop().add_reader(ours.fileno(), self._heard)

    def _heard(self) -> None:
        assert self._control is not None
        try:
            said = self._control.recv(SENT.size)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            _log.warning("the sender has ended")
            self._end()
            return
        number, sent = SENT.unpack(said)
        if not number:
            self.is_ready = True
            return
        waiting = self._waiting.pop(number)
        if not waiting.done():
            waiting.set_result(sent)

    def _end(self) -> None:
        assert self._control is not None
        assert self._process is not None
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()
        self._process.kill()  # it has no state, and may be waited for
        self._process.wait()
        self._control = self._process = None
        self.is_ready, self._not_before_s = False, time.monotonic() + self._again_s
        waiting, self._waiting = self._waiting, {}
        for sent in waiting.values():
            if not sent.done():
                sent.set_exception(ConnectionError("who sent this has ended"))

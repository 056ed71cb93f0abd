"""Hands answers to processes that send them (`sender.py`), so that other processors move the bytes, or sends them here.

One is started when it is first of use, the next when those that run have much to do; and again, not at once, when one
has ended.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
import subprocess
import sys
import time
from typing import Final

from apus.kernel.buffers import FilePart
from apus.kernel.log import get_logger
from apus.platform.cached_pages import HELD_MAX_BYTES, KEEP_S, CachedPages
from apus.platform.piece import Piece
from apus.platform.sender import JOB, JOB_MAX_BYTES, SENT

WORTH_BYTES: Final = 256 << 10
"""Less is sent in the time that it takes to hand it over."""
SHORT_BYTES: Final = HELD_MAX_BYTES
"""So much is soon sent here: others wait for a fifth of a millisecond."""
SOON_BYTES: Final = 2 << 20
"""Who has less to do begins with a short one as soon as we would."""
MUCH_BYTES: Final = 16 << 20
"""With so much to send one is busy for a while, and the next one is asked."""
PROCESSES_MAX: Final = 4
AGAIN_S: Final = 10.0
"""After one has ended."""
_FEW: Final = 2
"""With so many processors a short one is better sent here: who would send it waits for one of them."""

_log: Final = get_logger("apus.http")


def _processes() -> int:
    """As many as there are processors; none where there is just one, which we need."""
    processors = len(os.sched_getaffinity(0))
    return min(processors, PROCESSES_MAX) if processors > 1 else 0


class Sender:
    """Of one event loop."""

    def __init__(self, name: str = "", *, processes: int | None = None, again_s: float = AGAIN_S) -> None:
        """`name`: shown in the list of processes."""
        count = _processes() if processes is None else processes
        self.processes = [SendingProcess(name, again_s) for _ in range(count)]
        self._pages = CachedPages()
        self._look_after: asyncio.TimerHandle | None = None

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.processes if process.pid is not None]

    @property
    def is_ready(self) -> bool:
        return any(process.is_ready for process in self.processes)

    def free_for(self, part: FilePart) -> SendingProcess | None:
        """Who would send this now."""
        if part.size_bytes < WORTH_BYTES or part.block_bytes > HELD_MAX_BYTES:
            return None
        is_short = self.does(part)
        if is_short and len(self.processes) <= _FEW:
            return None
        least: SendingProcess | None = None
        for process in self.processes:
            if not process.is_ready:
                continue
            if process.pending_bytes < (SOON_BYTES if is_short else MUCH_BYTES):
                return process
            if least is None or process.pending_bytes < least.pending_bytes:
                least = process
        if is_short and least is not None:
            return None
        self._begin_another()
        return least

    def does(self, part: FilePart) -> bool:
        """Whether it is little enough for `send`."""
        return part.size_bytes <= SHORT_BYTES and part.block_bytes <= HELD_MAX_BYTES

    def send(self, connection: int, head: bytes, part: FilePart, file: int, offset: int) -> int:
        """As `SendingProcess.send`, by ourselves: what goes out at once."""
        piece = Piece(connection, head, file, offset, part)
        piece.turn(self._pages, len(head) + part.size_bytes)
        if self._look_after is None:
            self._look_after = asyncio.get_running_loop().call_later(KEEP_S, self._close_unused)
        return piece.sent_bytes

    def close(self) -> None:
        for process in self.processes:
            process.close()
        if self._look_after is not None:
            self._look_after.cancel()
        self._pages.close()

    def _close_unused(self) -> None:
        left = self._pages.close_unused()
        self._look_after = asyncio.get_running_loop().call_later(KEEP_S, self._close_unused) if left else None

    def _begin_another(self) -> None:
        """One at a time: perhaps it is all that is needed."""
        if not any(process.is_beginning for process in self.processes):
            for process in self.processes:
                if process.pid is None:
                    process.start()
                    return


class SendingProcess:
    def __init__(self, name: str, again_s: float) -> None:
        self._name, self._again_s = name, again_s
        self._running: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.is_ready = False
        self._not_before_s = 0.0
        self.jobs = 0
        """Given to it so far; the last one's number."""
        self._waiting: dict[int, tuple[asyncio.Future[int], int]] = {}
        """Who waits for a job, and its bytes."""
        self.pending_bytes = 0

    @property
    def pid(self) -> int | None:
        return self._running.pid if self._running is not None else None

    @property
    def is_beginning(self) -> bool:
        return self._running is not None and not self.is_ready

    def send(self, connection: int, head: bytes, part: FilePart, file: int, offset: int) -> asyncio.Future[int] | None:
        """How many bytes of both are out in the end; None where that cannot be done here and now.

        `connection`: the handle of a socket that does not block; `file`, `offset`: where the part begins.  The future
        raises ConnectionError when nobody knows how many.
        """
        if self._control is None:
            return None
        self.jobs += 1
        number, sums = self.jobs, part.checksums
        sizes = part.blocks_bytes, part.size_bytes, part.skip_bytes, part.block_bytes, len(head), len(sums)
        job = JOB.pack(number, offset, *sizes)
        if len(job) + len(head) + len(sums) > JOB_MAX_BYTES:
            return None
        handles = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", (connection, file)))
        try:
            self._control.sendmsg((job, head, sums), (handles,))
        except OSError:  # it has much to do, or has just ended
            return None
        sent: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[number] = sent, part.size_bytes
        self.pending_bytes += part.size_bytes
        return sent

    def close(self) -> None:
        if self._control is not None:
            self._end()

    def start(self) -> None:
        if time.monotonic() < self._not_before_s:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            handle = theirs.fileno()
            command = [sys.executable, "-m", "apus.platform.sender", str(handle), self._name]
            try:
                # In our session: the kernel shares processors between sessions first (sched(7), autogroup).
                self._running = subprocess.Popen(command, pass_fds=[handle])
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
        number, count = SENT.unpack(said)
        if not number:
            self.is_ready = True
            return
        sent, size_bytes = self._waiting.pop(number)
        self.pending_bytes -= size_bytes
        if not sent.done():
            sent.set_result(count)

    def _end(self) -> None:
        assert self._control is not None
        assert self._running is not None
        asyncio.get_running_loop().remove_reader(self._control.fileno())
        self._control.close()
        self._running.kill()  # it has no state, and may be waited for
        self._running.wait()
        self._control = self._running = None
        self.is_ready, self._not_before_s = False, time.monotonic() + self._again_s
        waiting, self._waiting, self.pending_bytes = self._waiting, {}, 0
        for sent, _ in waiting.values():
            if not sent.done():
                sent.set_exception(ConnectionError("who sent this has ended"))

"""A process that sends pieces of files to connections: `python -m apus.platform.sender HANDLE`.

Checking and sending what is long takes longer than all else in its request, and needs nothing but two handles, which
come by a socket (unix(7), SCM_RIGHTS).  This process waits for no drive: who asked is told how much is out, and goes on
from there.  For clients it waits, a moment and for many at once.  So nothing here is missed by anybody, and one that
ends harms nobody's data.  It ends with who started it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from typing import Final, NamedTuple

from apus.platform.cached_pages import KEEP_S, CachedPages
from apus.platform.piece import After, Piece

JOB: Final = struct.Struct("<QQQQIIII")
"""Number, offset in the file, length of all blocks, and of what is sent of them, what is skipped of the first, length
of a block, of the head, and of the checksums; these two come behind."""
SENT: Final = struct.Struct("<QQ")
"""Number, and how many bytes of the head and the piece went out."""
JOB_MAX_BYTES: Final = 96 << 10
"""Room for the checksums of 5 GiB in blocks of 256 KiB: no object is longer."""
READY: Final = SENT.pack(0, 0)
"""What is said first."""

JOBS_MAX: Final = 64
"""At once: each one keeps two handles."""
TURN_BYTES: Final = 1 << 20
"""Of one job, before the next one has its turn."""
PATIENCE_S: Final = 1.0
"""A client that took nothing for so long is given back: slow ones shall not take up the room of others."""

_HANDLES: Final = struct.Struct("ii")


class _Blocks(NamedTuple):
    """Implements `piece.Blocks`."""

    blocks_bytes: int
    size_bytes: int
    skip_bytes: int
    block_bytes: int
    checksums: bytes


class _Job:
    """One piece on its way."""

    def __init__(self, message: memoryview, connection: int, file: int) -> None:
        self.number, offset, blocks, size, skip, block, head, sums = JOB.unpack_from(message)
        sums_at = JOB.size + head
        lies = _Blocks(blocks, size, skip, block, bytes(message[sums_at : sums_at + sums]))
        self.piece = Piece(connection, bytes(message[JOB.size : sums_at]), file, offset, lies)
        self.waits_until_s = 0.0

    def close(self) -> None:
        os.close(self.piece.connection)
        os.close(self.piece.file)


class _Service:
    """What one process does."""

    def __init__(self, control: socket.socket) -> None:
        self._control, self._poll = control, select.epoll()
        self._poll.register(control, select.EPOLLIN)
        self._message = memoryview(bytearray(JOB_MAX_BYTES))
        self._pages = CachedPages()
        self._look_after_s: float | None = None
        """When the pages are looked after next; None: there are none."""
        self._turns: deque[_Job] = deque()
        self._waiting: dict[int, _Job] = {}
        """By their connections; who waits longest is first."""

    def run(self) -> None:
        """Until the other end is closed."""
        self._control.sendall(READY)
        while True:
            if not self._turns and not self._waiting and self._look_after_s is None:
                if not self._receive():
                    return
            elif not self._look():
                return
            if self._turns:
                self._turn(self._turns.popleft())

    def _receive(self) -> bool:
        """One job, given back at once if there is no room for it.  False: the other end is closed."""
        size, ancillary, _, _ = self._control.recvmsg_into([self._message], socket.CMSG_SPACE(_HANDLES.size))
        if not size:
            return False
        handles = [handle for _, _, data in ancillary for (handle,) in struct.iter_unpack("i", data)]
        if len(handles) == 2 and len(self._turns) + len(self._waiting) < JOBS_MAX:  # fewer: we may open no more
            self._turns.append(_Job(self._message[:size], *handles))
            return True
        for handle in handles:
            os.close(handle)
        self._control.sendall(SENT.pack(JOB.unpack_from(self._message)[0], 0))
        return True

    def _look(self) -> bool:
        """Who can go on, who has waited too long, and what is new.  False: the other end is closed."""
        for handle, _ in self._poll.poll(0 if self._turns else PATIENCE_S):
            if handle != self._control.fileno():
                self._turns.append(self._waits_no_more(handle))
            elif not self._receive():
                return False
        now_s = time.monotonic()
        while self._waiting:
            handle, job = next(iter(self._waiting.items()))
            if job.waits_until_s > now_s:
                break
            self._end(self._waits_no_more(handle))
        if self._look_after_s is not None and self._look_after_s <= now_s:
            self._look_after_s = now_s + KEEP_S if self._pages.close_unused() else None
        return True

    def _turn(self, job: _Job) -> None:
        after = job.piece.turn(self._pages, TURN_BYTES)
        if self._look_after_s is None:
            self._look_after_s = time.monotonic() + KEEP_S
        if after is After.GO_ON:
            self._turns.append(job)
        elif after is After.WAIT:
            connection = job.piece.connection
            job.waits_until_s = time.monotonic() + PATIENCE_S
            self._waiting[connection] = job
            self._poll.register(connection, select.EPOLLOUT)
        else:
            self._end(job)

    def _waits_no_more(self, connection: int) -> _Job:
        self._poll.unregister(connection)  # who gave it to us has it open, so closing does not
        return self._waiting.pop(connection)

    def _end(self, job: _Job) -> None:
        job.close()
        self._control.sendall(SENT.pack(job.number, job.piece.sent_bytes))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for who started it, and that one finishes
    with contextlib.suppress(ConnectionError):
        _Service(socket.socket(fileno=int(sys.argv[1]))).run()

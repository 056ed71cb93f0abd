"""A process that sends pieces of files to connections: `python -m apus.platform.sender HANDLE`.

Reading, checking and sending a megabyte takes longer than all else in its request, and needs nothing but two handles,
which come by a socket (unix(7), SCM_RIGHTS).  This process waits for no drive: who asked is told how much is out, and
goes on from there.  For clients it waits, a moment and for many at once.  So nothing here is missed by anybody, and one
that ends harms nobody's data.  It ends with who started it.
"""

from __future__ import annotations

import contextlib
import enum
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from typing import Final

from isal import isal_zlib as zlib

JOB: Final = struct.Struct("<QQQQIIII")
"""Number, offset in the file, length of all blocks, and of what is sent of them, what is skipped of the first, length
of a block, of the head, and of the checksums; these two come behind."""
SENT: Final = struct.Struct("<QQ")
"""Number, and how many bytes of the head and the piece went out."""
JOB_MAX_BYTES: Final = 96 << 10
"""Room for the checksums of 5 GiB in blocks of 256 KiB: no object is longer."""
BLOCK_MAX_BYTES: Final = 1 << 20
READY: Final = SENT.pack(0, 0)
"""What is said first."""

JOBS_MAX: Final = 64
"""At once: each one keeps the block that its client did not take yet."""
TURN_BYTES: Final = 1 << 20
"""Of one job, before the next one has its turn."""
PATIENCE_S: Final = 1.0
"""A client that took nothing for so long is given back: slow ones shall not take up the room of others."""

_HANDLES: Final = struct.Struct("ii")


class _After(enum.Enum):
    """What a job does after its turn."""

    GO_ON = enum.auto()
    WAIT = enum.auto()
    END = enum.auto()


class _Job:
    """One piece on its way."""

    def __init__(self, message: memoryview, connection: int, file: int) -> None:
        numbers = JOB.unpack_from(message)
        self.number, self._offset, self._length, self._left_bytes, self._skip_bytes, self._block_bytes = numbers[:6]
        self.connection, self._file = connection, file
        sums_at, end = JOB.size + numbers[6], JOB.size + numbers[6] + numbers[7]
        self._head, self._checksums = bytes(message[JOB.size : sums_at]), bytes(message[sums_at:end])
        self._read_bytes = 0
        self._checked = memoryview(b"")
        """What is to go out of the block that was read last."""
        self.buffer: bytearray | None = None
        """Where that one is."""
        self.sent_bytes = 0
        self.waits_until_s = 0.0

    def turn(self, buffers: list[bytearray]) -> _After:
        """Until a block is not in the page cache, is not sound, or the connection takes no more."""
        end = self.sent_bytes + TURN_BYTES
        try:
            while self.sent_bytes < end:
                if not self._checked and not self._read(buffers):
                    return _After.END
                # The head alone: a client that gets it with a quarter of a megabyte has to part them again.
                self._head = self._head[self._write(self._head) :] if self._head else b""
                if not self._head:
                    self._checked = self._checked[self._write(self._checked) :]
                if not self._left_bytes and not self._checked:
                    return _After.END
        except BlockingIOError:
            return _After.WAIT
        except OSError:
            return _After.END
        finally:
            if not self._checked and self.buffer is not None:
                buffers.append(self.buffer)
                self.buffer = None
        return _After.GO_ON

    def close(self) -> None:
        os.close(self.connection)
        os.close(self._file)

    def _read(self, buffers: list[bytearray]) -> bool:
        """The next block."""
        if self.buffer is None:
            self.buffer = buffers.pop() if buffers else bytearray(BLOCK_MAX_BYTES)
        block = memoryview(self.buffer)[: min(self._block_bytes, self._length - self._read_bytes)]
        index = self._read_bytes // self._block_bytes
        try:
            count = os.preadv(self._file, (block,), self._offset + self._read_bytes, os.RWF_NOWAIT)
        except OSError:  # not in the page cache, which is an EAGAIN too, but no client's
            return False
        if count != len(block):
            return False
        if zlib.crc32(block).to_bytes(4, "little") != self._checksums[4 * index : 4 * index + 4]:
            return False
        self._read_bytes += len(block)
        self._checked = block[self._skip_bytes :][: self._left_bytes]
        self._left_bytes -= len(self._checked)
        self._skip_bytes = 0
        return True

    def _write(self, data: bytes | memoryview) -> int:
        count = os.write(self.connection, data)
        self.sent_bytes += count
        return count


class _Service:
    """What one process does."""

    def __init__(self, control: socket.socket) -> None:
        self._control, self._poll = control, select.epoll()
        self._poll.register(control, select.EPOLLIN)
        self._message = memoryview(bytearray(JOB_MAX_BYTES))
        self._buffers: list[bytearray] = []
        """Those that no job has."""
        self._turns: deque[_Job] = deque()
        self._waiting: dict[int, _Job] = {}
        """By their connections; who waits longest is first."""

    def run(self) -> None:
        """Until the other end is closed."""
        self._control.sendall(READY)
        while True:
            if not self._turns and not self._waiting:
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
        return True

    def _turn(self, job: _Job) -> None:
        after = job.turn(self._buffers)
        if after is _After.GO_ON:
            self._turns.append(job)
        elif after is _After.WAIT:
            job.waits_until_s = time.monotonic() + PATIENCE_S
            self._waiting[job.connection] = job
            self._poll.register(job.connection, select.EPOLLOUT)
        else:
            self._end(job)

    def _waits_no_more(self, connection: int) -> _Job:
        self._poll.unregister(connection)  # who gave it to us has it open, so closing does not
        return self._waiting.pop(connection)

    def _end(self, job: _Job) -> None:
        if job.buffer is not None:
            self._buffers.append(job.buffer)
        job.close()
        self._control.sendall(SENT.pack(job.number, job.sent_bytes))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for who started it, and that one finishes
    with contextlib.suppress(ConnectionError):
        _Service(socket.socket(fileno=int(sys.argv[1]))).run()

"""A process that sends pieces of files to connections: `python -m apus.platform.sender HANDLE`.

Reading, checking and sending a megabyte takes longer than all else in its request, and needs nothing but two handles,
which come by a socket (unix(7), SCM_RIGHTS).  This process waits for neither drive nor client: who asked is told how
much is out, and goes on from there.  So nothing here has a state, and one that ends harms nobody's data.  It ends with
who started it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
from typing import Final

from isal import isal_zlib as zlib

JOB: Final = struct.Struct("<QQIIII")
"""Number, offset in the file, length, length of a block, of the head, and of the checksums; these two come behind."""
SENT: Final = struct.Struct("<QQ")
"""Number, and how many bytes of the head and the piece went out."""
JOB_MAX_BYTES: Final = 32 << 10
BLOCK_MAX_BYTES: Final = 1 << 20
READY: Final = SENT.pack(0, 0)
"""What is said first."""

_HANDLES: Final = struct.Struct("ii")


def serve(control: socket.socket) -> None:
    """Do what comes, one after the other, until the other end is closed."""
    message, buffer = memoryview(bytearray(JOB_MAX_BYTES)), memoryview(bytearray(BLOCK_MAX_BYTES))
    control.sendall(READY)
    while True:
        size, ancillary, _, _ = control.recvmsg_into([message], socket.CMSG_SPACE(_HANDLES.size))
        if not size:
            return
        number, sent = JOB.unpack_from(message)[0], 0
        if ancillary and len(ancillary[0][2]) == _HANDLES.size:  # else we may open no more
            connection, file = _HANDLES.unpack(ancillary[0][2])
            try:
                sent = _send(connection, file, message[:size], buffer)
            finally:
                os.close(connection)
                os.close(file)
        control.sendall(SENT.pack(number, sent))


def _send(connection: int, file: int, job: memoryview, buffer: memoryview) -> int:
    """Until a block is not in the page cache, is not sound, or the connection takes no more."""
    _, offset, length, block_bytes, head_bytes, checksums_bytes = JOB.unpack_from(job)
    head = job[JOB.size : JOB.size + head_bytes]
    checksums = job[JOB.size + head_bytes : JOB.size + head_bytes + checksums_bytes]
    sent = 0
    for index, at in enumerate(range(0, length, block_bytes)):
        block = buffer[: min(block_bytes, length - at)]
        try:
            if os.preadv(file, (block,), offset + at, os.RWF_NOWAIT) != len(block):
                return sent
            if zlib.crc32(block).to_bytes(4, "little") != checksums[4 * index : 4 * index + 4]:
                return sent
            # The head alone: a client that gets it with a quarter of a megabyte has to part them again.
            for part in (block,) if index else (head, block):
                count = os.write(connection, part)
                sent += count
                if count < len(part):
                    return sent
        except OSError:
            return sent
    return sent


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for who started it, and that one finishes
    with contextlib.suppress(ConnectionError):
        serve(socket.socket(fileno=int(sys.argv[1])))

"""Writes large pieces past the page cache.

Copying into it costs more than all else on the way to a drive, and what is uploaded is seldom read at once.  Only whole
pages that lie in buffers of `kernel/buffers.py` and go to a whole page of the file can take this way; where it is not
possible, or the file system does not know it, they go as all the rest.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Sequence
from typing import Final

PAGE_BYTES: Final = 4096
DIRECT_BYTES: Final = 256 << 10
"""Less than this is likely to be read soon, and cheap to copy."""

_VECTOR_MAX: Final = os.sysconf("SC_IOV_MAX")


class DirectHandle:
    """The second handle of an open file, made when it is first needed.  Blocking, and used by one thread at a time."""

    def __init__(self, of: int) -> None:
        self._of = of
        self._handle: int | None = None
        self._possible = True

    def write(self, data: bytes | memoryview, offset: int) -> int:
        """How many bytes of the beginning were written; 0 when these cannot be written so."""
        if len(data) < DIRECT_BYTES or offset % PAGE_BYTES or not self._possible:
            return 0
        if not (isinstance(data, memoryview) and isinstance(data.obj, mmap.mmap)):
            return 0
        if self._handle is None:
            try:  # by its number: by its name it may be another file by now
                self._handle = os.open(f"/proc/self/fd/{self._of}", os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
            except OSError:
                self._possible = False
                return 0
        written, whole = 0, len(data) - len(data) % PAGE_BYTES
        try:
            while written < whole:
                written += os.pwrite(self._handle, data[written:whole], offset + written)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise
            self._possible = False
        return written

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def write_all(handle: int, direct: DirectHandle, parts: Sequence[bytes | memoryview], offset: int) -> int:
    """Write these one after the other from `offset` on; returns how many bytes that were."""
    at, small = offset, list[memoryview]()
    for part in parts:
        data = memoryview(part)
        if len(data) >= DIRECT_BYTES:
            at = _write_vector(handle, small, at)
            small = []
            written = direct.write(data, at)
            at, data = at + written, data[written:]
        small.append(data)
    return _write_vector(handle, small, at) - offset


def _write_vector(handle: int, parts: list[memoryview], offset: int) -> int:
    for first in range(0, len(parts), _VECTOR_MAX):
        rest = parts[first : first + _VECTOR_MAX]
        while rest:
            written = os.pwritev(handle, rest, offset)
            offset += written
            while rest and written >= len(rest[0]):
                written -= len(rest.pop(0))
            if rest and written:
                rest[0] = rest[0][written:]
    return offset

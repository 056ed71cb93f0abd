"""Bytes of files, from the page cache to a connection without a copy.

Who checks what it sends has to read it, but needs no copy of it.  A range is mapped (mmap(2)), its pages are put into a
pipe, which holds them (vmsplice(2)), are read through the map, and go on from the pipe to the connection (splice(2)).
Pages that are held are neither given up nor read again: what was looked at is what goes out.  Nothing waits for the
drive, since a page that is not in the page cache (mincore(2)) is nobody's here, and so an error of the drive, which for
a map is the end of the process (SIGBUS), comes only to those who read.  (ADR 39 says what is left of that: bytes that
are looked at and not held.)

What was found of some bytes may be noted.  It is told to who holds them again, as long as they are in the very same
memory, where they are locked (mlock2(2)), and nobody has written to the file (ADR 40).

For files that are written once: what is written to a page on its way goes out with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import time
from collections import OrderedDict
from typing import Final, NamedTuple

from apus.platform.memory import limit_bytes

WINDOW_BYTES: Final = 32 << 20
"""Of a file, mapped at once."""
WINDOWS_MAX: Final = 32
"""Pages that were read through a map count as ours while it stays: no more than a GiB."""
KEEP_S: Final = 1.0
"""A window that nobody used for so long is closed: it keeps a file's room after the file is removed, and its mount."""
HELD_MAX_BYTES: Final = 1 << 20
"""At once."""
LOCKED_SHARE: Final = 16
"""Of all memory so much at most is locked: nobody else can have it meanwhile."""
SETTLED_NS: Final = 100_000_000
"""A file that was written to just before may be again without a later time of change: many file systems' clocks go by
the timer's ticks."""

_PAGE_BYTES: Final = mmap.PAGESIZE
_PAGES_MAX: Final = HELD_MAX_BYTES // _PAGE_BYTES + 1
"""That so many bytes lie in, wherever they begin."""
_PIPE_BYTES: Final = 1 << 20
"""It has room for so many pages; for more one has to be root (pipe(7))."""
_PIPES: Final = 2
"""Whatever begins within a page lies in one page more."""
_NONBLOCK: Final = 2  # SPLICE_F_NONBLOCK, fcntl.h
_SET_PIPE_SIZE: Final = 1031  # F_SETPIPE_SZ, of which Python knows from 3.12 on
_NO_RESERVE: Final = 0x4000  # MAP_NORESERVE
_LOCK_ON_FAULT: Final = 1  # MLOCK_ONFAULT: what is used, and no page before

_libc: Final = ctypes.PyDLL(None)  # calls that wait for nothing keep the interpreter
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
_libc.vmsplice.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_ulong, ctypes.c_uint)
_libc.vmsplice.restype = ctypes.c_ssize_t
_libc.mlock2.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint)


class _Range(ctypes.Structure):
    """struct iovec."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Window:
    def __init__(self, file: int, start: int, length: int) -> None:
        # Writable, and so private, since ctypes tells the address of nothing else: nobody writes.
        access = mmap.PROT_READ | mmap.PROT_WRITE
        self._map = mmap.mmap(file, length, mmap.MAP_PRIVATE | _NO_RESERVE, access, offset=start)
        self.start, self.end = start, start + length
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.view = memoryview(self._map).toreadonly()
        self.is_used = True
        self.is_locked = False
        """What was used of it stays in memory."""
        self._changed_ns = 0
        self._notes: dict[tuple[int, int], bytes] = {}
        """By place and length; of the file as it was changed then."""

    def lock(self) -> None:
        """If this user may."""
        self.is_locked = not _libc.mlock2(self.address, self.end - self.start, _LOCK_ON_FAULT)

    def noted(self, place: int, length: int, changed_ns: int) -> bytes | None:
        return self._notes.get((place, length)) if changed_ns == self._changed_ns else None

    def note(self, place: int, length: int, changed_ns: int, found: bytes) -> None:
        if changed_ns != self._changed_ns:
            self._changed_ns = changed_ns
            self._notes.clear()
        self._notes[place, length] = found

    def close(self) -> None:
        self.view.release()
        self._map.close()


class _Pipe:
    def __init__(self, size_bytes: int) -> None:
        self.out, self.into = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.held_bytes = 0
        with contextlib.suppress(OSError):  # this user has many: it stays as it is
            fcntl.fcntl(self.into, _SET_PIPE_SIZE, size_bytes)

    def close(self) -> None:
        os.close(self.out)
        os.close(self.into)


class Held(NamedTuple):
    view: memoryview
    """All bytes that were asked for, until the next call: release it."""
    held_bytes: int
    """So many of them, from `skip` on."""
    noted: bytes | None
    """What was noted of just these bytes."""


class CachedPages:
    """Of one thread."""

    def __init__(self, pipe_bytes: int = _PIPE_BYTES, locked_bytes: int | None = None) -> None:
        """`pipe_bytes`: what is asked for; with less, less is held at once.  `locked_bytes`: at most; None: as there is
        memory."""
        if locked_bytes is None:
            locked_bytes = limit_bytes() // LOCKED_SHARE
        self._locked_max = locked_bytes // (WINDOW_BYTES + HELD_MAX_BYTES)
        self._windows: OrderedDict[tuple[int, int, int], _Window] = OrderedDict()
        """By device, inode and number in the file; who was used last is last."""
        self._pipe_bytes = pipe_bytes
        self._pipes: list[_Pipe] = []
        self._holds = False
        self._resident = ctypes.create_string_buffer(_PAGES_MAX)
        self._range = _Range()
        self._range_at = ctypes.addressof(self._range)
        self._last: tuple[_Window, int, int, int] | None = None
        """Which bytes were held: the window, place and length there, and when the file was changed."""

    def hold(self, file: int, offset: int, length: int, skip: int, count: int) -> Held | None:
        """These bytes of the file; from `skip` on, `count` of them at most are held for `give`.  None where some are
        not in the page cache, or cannot be held.

        `length`: HELD_MAX_BYTES at most.
        """
        assert length <= HELD_MAX_BYTES
        self._last = None
        if self._holds:
            self._let_go()
        try:
            status = os.fstat(file)
            window = self._window(file, status, offset, length)
            if window is None:
                return None
            place, changed_ns = offset - window.start, status.st_ctime_ns
            noted = window.noted(place, length, changed_ns)
            if noted is None and not self._is_resident(window.address + place, length):
                return None
            held = self._put(window.address + place + skip, count)
        except (OSError, ValueError):  # of the file, or there is no room for another handle
            return None
        if not held:
            return None
        self._last = window, place, length, changed_ns
        return Held(window.view[place : place + length], held, noted)

    def note(self, found: bytes) -> None:
        """Of all bytes that `hold` has just shown, each of which was looked at since."""
        assert self._last is not None
        window, place, length, changed_ns = self._last
        if window.is_locked and time.time_ns() - changed_ns > SETTLED_NS:
            window.note(place, length, changed_ns, found)

    def give(self, connection: int) -> int:
        """How much of what is held the connection took.  Raise OSError, BlockingIOError when it takes nothing now."""
        given = 0
        for pipe in self._pipes:
            while pipe.held_bytes:
                try:
                    count = os.splice(pipe.out, connection, pipe.held_bytes, flags=_NONBLOCK)
                except BlockingIOError:
                    if not given:
                        raise
                    return given
                pipe.held_bytes -= count
                given += count
        self._holds = False
        return given

    def close_unused(self) -> bool:
        """What nobody has used since this was last called.  True: something is left."""
        if self._holds:  # who failed left it
            self._let_go()
        for key, window in list(self._windows.items()):
            if not window.is_used:
                del self._windows[key]
                window.close()
            window.is_used = False
        self._last = None
        return bool(self._windows)

    def close(self) -> None:
        while self._windows:
            self._windows.popitem()[1].close()
        self._let_go()

    def _window(self, file: int, status: os.stat_result, offset: int, length: int) -> _Window | None:
        """The one with these bytes; None when the file ends before."""
        if offset + length > status.st_size:
            return None
        key = status.st_dev, status.st_ino, offset // WINDOW_BYTES
        window = self._windows.get(key)
        if window is None or window.end < offset + length:
            if window is not None:  # the file has grown
                self._windows.pop(key).close()
            start = offset // WINDOW_BYTES * WINDOW_BYTES
            window = _Window(file, start, min(WINDOW_BYTES + HELD_MAX_BYTES, status.st_size - start))
            self._windows[key] = window
            if len(self._windows) > WINDOWS_MAX:
                self._windows.popitem(last=False)[1].close()
            if sum(other.is_locked for other in self._windows.values()) < self._locked_max:
                window.lock()
        else:
            self._windows.move_to_end(key)
        window.is_used = True
        return window

    def _is_resident(self, address: int, length: int) -> bool:
        before = address % _PAGE_BYTES
        pages = -(-(before + length) // _PAGE_BYTES)
        if _libc.mincore(address - before, before + length, self._resident):
            return False
        return self._resident.raw.count(b"\1", 0, pages) == pages

    def _put(self, address: int, count: int) -> int:
        """How many of these bytes the pipes have taken."""
        while len(self._pipes) < _PIPES:
            self._pipes.append(_Pipe(self._pipe_bytes))
        held = 0
        for pipe in self._pipes:
            self._range.base, self._range.length = address + held, count - held
            pipe.held_bytes = max(0, _libc.vmsplice(pipe.into, self._range_at, 1, _NONBLOCK))
            held += pipe.held_bytes
            if held == count:
                break
        self._holds = held > 0
        return held

    def _let_go(self) -> None:
        """Of what was not given: only the end of a pipe does so."""
        while self._pipes:
            self._pipes.pop().close()
        self._holds = False

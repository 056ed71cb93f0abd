"""What goes from the page cache to a connection without a copy: which bytes, and what is held for how long."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from apus.platform.cached_pages import HELD_MAX_BYTES, SETTLED_NS, WINDOW_BYTES, WINDOWS_MAX, CachedPages, Held
from apus.platform.piece import After, Piece
from tests.contract.file_parts import BLOCK_BYTES, Part

DATA = os.urandom(4 * HELD_MAX_BYTES)


@contextlib.contextmanager
def _file(path: Path, data: bytes = DATA) -> Iterator[int]:
    path.write_bytes(data)
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


@contextlib.contextmanager
def _pages(pipe_bytes: int | None = None, locked_bytes: int | None = None) -> Iterator[CachedPages]:
    before = len(os.listdir("/proc/self/fd"))
    pages = CachedPages(locked_bytes=locked_bytes) if pipe_bytes is None else CachedPages(pipe_bytes, locked_bytes)
    try:
        yield pages
    finally:
        pages.close()
    assert len(os.listdir("/proc/self/fd")) == before


class _Reader:
    """The other end of a connection, which a thread reads; `came` ends it."""

    def __init__(self) -> None:
        self.ours, self._theirs = socket.socketpair()
        self._came = bytearray()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        while data := self._theirs.recv(1 << 20):
            self._came += data

    def came(self) -> bytes:
        self.ours.close()
        self._thread.join()
        self._theirs.close()
        return bytes(self._came)


def _all_given(pages: CachedPages, file: int, offset: int, length: int) -> bytes:
    """With its first and last bytes looked at, but not sent."""
    reader = _Reader()
    skip = at = min(7, length - 1)
    while at < length:
        held = pages.hold(file, offset, length, at, length - at)
        assert held is not None
        with held.view as view:
            assert view == DATA[offset : offset + length]
        assert 0 < held.held_bytes <= length - at
        at += pages.give(reader.ours.fileno())
    assert not pages.give(reader.ours.fileno())
    came = reader.came()
    assert len(came) == length - skip
    return came


@pytest.mark.parametrize("pipe_bytes", [None, 16 << 10, 1 << 30])
def test_the_bytes_that_were_looked_at_go_out(tmp_path: Path, pipe_bytes: int | None) -> None:
    dice = random.Random(3)
    with _file(tmp_path / "file") as file, _pages(pipe_bytes) as pages:
        ranges = [(0, HELD_MAX_BYTES), (1, HELD_MAX_BYTES), (4095, 2), (len(DATA) - 1, 1), (4096, 4096)]
        ranges += [(dice.randrange(HELD_MAX_BYTES), dice.randint(1, HELD_MAX_BYTES)) for _ in range(20)]
        for offset, length in ranges:
            assert _all_given(pages, file, offset, length) == DATA[offset + min(7, length - 1) : offset + length]


@pytest.mark.parametrize("pipe_bytes", [None, 16 << 10])
@pytest.mark.parametrize("size", [HELD_MAX_BYTES - 77, HELD_MAX_BYTES, HELD_MAX_BYTES + 1, len(DATA)])
@pytest.mark.parametrize("bad_block", [None, 0, 3])
def test_a_piece_is_sent_as_far_as_it_is_sound_and_a_short_one_as_a_whole(
    tmp_path: Path, size: int, bad_block: int | None, pipe_bytes: int | None
) -> None:
    part, reader = Part(tmp_path / "file", DATA[:size], bad_block=bad_block), _Reader()
    sound_bytes = size
    if bad_block is not None:
        sound_bytes = bad_block * BLOCK_BYTES if size > HELD_MAX_BYTES else 0
    with _pages(pipe_bytes) as pages:
        piece = Piece(reader.ours.fileno(), b"head", part.handle, part.offset, part)
        while piece.turn(pages, 1 << 20) is not After.END:
            pass
    assert piece.sent_bytes == (4 + sound_bytes if sound_bytes else 0)
    assert reader.came() == (b"head" + DATA[:sound_bytes] if sound_bytes else b"")
    part.close()


def test_what_is_held_stays_as_it_was_looked_at(tmp_path: Path) -> None:
    reader = _Reader()
    with _pages() as pages:
        with _file(tmp_path / "file") as file:
            held = pages.hold(file, 5, HELD_MAX_BYTES, 0, HELD_MAX_BYTES)
            assert held is not None
            held.view.release()
            (tmp_path / "file").unlink()
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        assert pages.give(reader.ours.fileno()) == held.held_bytes == HELD_MAX_BYTES
    assert reader.came() == DATA[5 : 5 + HELD_MAX_BYTES]


def test_what_was_not_given_is_let_go(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs, _file(tmp_path / "file") as file, _pages() as pages:
        held = pages.hold(file, 0, HELD_MAX_BYTES, 0, HELD_MAX_BYTES)
        assert held is not None
        held.view.release()
        given = pages.give(ours.fileno())  # nobody reads
        assert 0 < given < HELD_MAX_BYTES
        with pytest.raises(BlockingIOError):
            pages.give(ours.fileno())
        assert _all_given(pages, file, 100, 5000) == DATA[107:5100]


def test_nothing_is_waited_for() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as room:  # on a drive: memory has nothing to wait for
        with _file(Path(room) / "file") as file, _pages() as pages:
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            assert pages.hold(file, 0, HELD_MAX_BYTES, 0, HELD_MAX_BYTES) is None
            os.pread(file, HELD_MAX_BYTES, 0)
            assert _all_given(pages, file, 0, 1000) == DATA[7:1000]


def test_what_is_not_there_is_not_held(tmp_path: Path) -> None:
    with _file(tmp_path / "file", DATA[:10_000]) as file, _pages() as pages:
        assert pages.hold(file, 9_000, 1_001, 0, 1) is None
        assert pages.hold(file, 9_000, 1_000, 0, 1) is not None
        os.truncate(tmp_path / "file", 9_999)
        assert pages.hold(file, 9_000, 1_000, 0, 1) is None
    assert CachedPages().hold(file, 0, 1, 0, 1) is None  # it is closed


def test_files_that_grow(tmp_path: Path) -> None:
    with _file(tmp_path / "file", b"") as file, _pages() as pages, (tmp_path / "file").open("ab") as growing:
        for end in range(3000, len(DATA), 300_001):
            growing.write(DATA[growing.tell() : end])
            growing.flush()
            assert _all_given(pages, file, end - 3000, 3000) == DATA[end - 2993 : end]


def test_windows_are_no_more_than_there_is_room_for_and_go_when_nobody_uses_them(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with _file(path) as file, _pages() as pages:
        size = (WINDOWS_MAX + 5) * WINDOW_BYTES
        os.truncate(path, size)
        with path.open("r+b") as writing:
            for start in range(WINDOW_BYTES, size, WINDOW_BYTES):
                writing.seek(start - 5000)
                writing.write(DATA[:10_000])
        assert not _maps(path)
        for start in range(WINDOW_BYTES, size, WINDOW_BYTES):  # across the edge of two
            held = pages.hold(file, start - 5000, 10_000, 0, 10_000)
            assert held is not None
            with held.view as view:
                assert view == DATA[:10_000]
        assert _maps(path) == WINDOWS_MAX
        assert pages.close_unused()
        assert _maps(path) == WINDOWS_MAX
        pages.hold(file, 0, 1, 0, 1)
        assert pages.close_unused()
        assert _maps(path) == 1
        assert not pages.close_unused()
        assert not _maps(path)


NOTE = b"sound"


def _held(pages: CachedPages, file: int, offset: int = 100, length: int = 300_000) -> Held:
    held = pages.hold(file, offset, length, 0, length)
    assert held is not None
    held.view.release()
    return held


def _settle(file: int) -> None:
    """Wait until its time of change can be told from the next one."""
    time.sleep(max(0, os.fstat(file).st_ctime_ns + SETTLED_NS - time.time_ns() + 1) / 1e9)


@pytest.fixture
def drive() -> Iterator[Path]:
    """What is in memory alone is not given up in any case."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as room:
        yield Path(room)


def test_what_was_noted_is_told_of_the_same_bytes_where_they_cannot_be_given_up(drive: Path) -> None:
    with _file(drive / "file") as file, _pages() as pages:
        os.fsync(file)
        _settle(file)
        assert _held(pages, file).noted is None
        pages.note(NOTE)
        assert _held(pages, file, 101).noted is None
        pages.note(b"another")
        assert _held(pages, file, 100, 299_999).noted is None
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        assert [_held(pages, file).noted, _held(pages, file, 101).noted] == [NOTE, b"another"]
        assert _all_given(pages, file, 100, 300_000) == DATA[107:300_100]
        pages.close_unused()
        assert _held(pages, file).noted == NOTE
        pages.close_unused()
        pages.close_unused()
        assert _held(pages, file).noted is None


@pytest.mark.parametrize("how", ["written to", "cut off", "made longer", "moved there"])
def test_a_note_ends_with_any_change_of_the_file(drive: Path, how: str) -> None:
    path, file = drive / "file", -1
    with contextlib.ExitStack() as stack:
        file, pages = stack.enter_context(_file(path)), stack.enter_context(_pages())
        _settle(file)
        _held(pages, file)
        pages.note(NOTE)
        assert _held(pages, file).noted == NOTE
        if how == "moved there":
            (drive / "other").write_bytes(DATA)
            (drive / "other").rename(path)
            file = os.open(path, os.O_RDONLY)
            stack.callback(os.close, file)
        else:
            with path.open("r+b") as writing:
                if how == "written to":
                    writing.write(b"x")
                else:
                    writing.truncate(len(DATA) - 1 if how == "cut off" else len(DATA) + 1)
        assert _held(pages, file).noted is None
        pages.note(b"too early: the next change may look the same")
        assert _held(pages, file).noted is None
        _settle(file)
        _held(pages, file)
        pages.note(NOTE)
        assert _held(pages, file).noted == NOTE


def test_what_is_locked_is_what_was_used_and_no_more_than_there_is_room_for(drive: Path) -> None:
    path = drive / "file"
    with _file(path) as file, _pages(locked_bytes=2 * (WINDOW_BYTES + HELD_MAX_BYTES)) as pages:
        os.truncate(path, 4 * WINDOW_BYTES)
        os.pread(file, HELD_MAX_BYTES, 0)
        _settle(file)
        before_kib = _locked_kib()
        known = []
        for start in (0, WINDOW_BYTES, 2 * WINDOW_BYTES):
            os.pread(file, 300_000, start)
            _held(pages, file, start)
            pages.note(NOTE)
            known.append(_held(pages, file, start).noted)
        assert known == [NOTE, NOTE, None]
        assert 2 * 300_000 >> 10 <= _locked_kib() - before_kib < 8 << 10
    assert _locked_kib() == before_kib


def test_nothing_is_noted_where_nothing_can_be_locked(drive: Path) -> None:
    with _file(drive / "file") as file, _pages(locked_bytes=0) as pages:
        _settle(file)
        _held(pages, file)
        pages.note(NOTE)
        assert _held(pages, file).noted is None


@pytest.mark.parametrize("size", [BLOCK_BYTES, HELD_MAX_BYTES - 77, 3 * HELD_MAX_BYTES + 77])
def test_a_sound_piece_is_checked_again_once_it_was_written_to(drive: Path, size: int) -> None:
    part = Part(drive / "file", DATA[:size])
    _settle(part.handle)
    with _pages() as pages:
        assert _sent(pages, part) == DATA[:size]
        with (drive / "file").open("r+b") as writing:
            writing.seek(part.offset + size - 1)
            writing.write(bytes([DATA[size - 1] ^ 1]))
        short = size <= HELD_MAX_BYTES
        assert _sent(pages, part) == (b"" if short else DATA[: size // BLOCK_BYTES * BLOCK_BYTES])
        with (drive / "file").open("r+b") as writing:
            writing.seek(part.offset + size - 1)
            writing.write(DATA[size - 1 : size])
        assert _sent(pages, part) == DATA[:size]
    part.close()


@pytest.mark.parametrize("length", [BLOCK_BYTES // 2, HELD_MAX_BYTES, 2 * HELD_MAX_BYTES])
def test_a_piece_that_was_found_sound_is_not_looked_at_again(drive: Path, length: int) -> None:
    part = Part(drive / "file", DATA)
    _settle(part.handle)
    piece = part.piece(BLOCK_BYTES + 5, length)
    with _pages() as pages:
        assert _sent(pages, piece) == DATA[BLOCK_BYTES + 5 :][:length]
        looked = []
        pages.note = looked.append  # type: ignore[method-assign]
        assert _sent(pages, piece) == DATA[BLOCK_BYTES + 5 :][:length]
        assert not looked
        piece.checksums = bytes(len(piece.checksums))  # what is there is not what is wanted, whatever was found
        assert _sent(pages, piece) == b""
    part.close()


def _sent(pages: CachedPages, part: Part) -> bytes:
    reader = _Reader()
    piece = Piece(reader.ours.fileno(), b"", part.handle, part.offset, part)
    while piece.turn(pages, 1 << 20) is not After.END:
        pass
    return reader.came()


def _locked_kib() -> int:
    """Of pages, not of what may be used."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Locked:"))


def _maps(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))

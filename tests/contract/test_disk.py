"""What every disk does."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apus.kernel.buffers import BUFFER_BYTES, take_buffer
from apus.kernel.world import Disk
from apus.platform.direct import DIRECT_BYTES, DirectHandle, write_all
from apus.platform.disk import LocalDisk
from apus.sim.disk import SimDisk, SimDrive
from apus.sim.loop import run
from apus.sim.trace import Trace

Story = Callable[[Disk, Path], Coroutine[Any, Any, None]]


@pytest.fixture(params=["local", "simulated"])
def on_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Story], None]]:
    if request.param == "simulated":
        drive = SimDrive(Random(1), Trace())
        yield lambda story: run(story(SimDisk(drive, lambda: 0.0), tmp_path))
    else:
        disk = LocalDisk()
        yield lambda story: asyncio.run(story(disk, tmp_path))
        disk.close()


async def streamed(disk: Disk, path: Path, **how: int) -> list[bytes]:
    return [chunk async for chunk in disk.stream(path, **how)]


def test_what_is_written_is_read(on_disk: Callable[[Story], None]) -> None:
    async def story(disk: Disk, root: Path) -> None:
        path = root / "deep" / "down" / "file"
        writer = await disk.create(path)
        await writer.write(b"0123")
        await writer.write(memoryview(b"456789"))
        await writer.sync()
        await writer.close()
        await writer.close()
        assert await disk.read(path) == b"0123456789"
        assert await disk.read(path, offset=3, length=4) == b"3456"
        assert await disk.read(path, offset=8, length=4) == b"89"
        assert await disk.read(path, offset=20) == b""
        assert await streamed(disk, path, chunk_bytes=4) == [b"0123", b"4567", b"89"]
        assert await streamed(disk, path, offset=1, length=5, chunk_bytes=4) == [b"1234", b"5"]
        with pytest.raises(ValueError):
            await writer.write(b"too late")

    on_disk(story)


def test_create_empties_and_append_goes_on(on_disk: Callable[[Story], None]) -> None:
    async def story(disk: Disk, root: Path) -> None:
        for append, word, expected in (
            (False, b"one", b"one"),
            (True, b"two", b"onetwo"),
            (False, b"x", b"x"),
        ):
            writer = await disk.create(root / "file", append=append)
            await writer.write(word)
            await writer.close()
            assert await disk.read(root / "file") == expected

    on_disk(story)


def test_write_synced_replaces(on_disk: Callable[[Story], None]) -> None:
    async def story(disk: Disk, root: Path) -> None:
        path = root / "some" / "state.json"
        await disk.write_synced(path, b"1" * 100_000)
        await disk.write_synced(path, b"2")
        assert await disk.read(path) == b"2"
        assert await disk.names(path.parent) == ["state.json"]
        await asyncio.gather(*(disk.write_synced(path, str(n).encode() * 1000) for n in range(10, 30)))
        body = await disk.read(path)
        assert body == body[:2] * 1000  # one of them, whole

    on_disk(story)


def test_rename_moves_over_the_target(on_disk: Callable[[Story], None]) -> None:
    async def story(disk: Disk, root: Path) -> None:
        await disk.write_synced(root / "a", b"a")
        await disk.write_synced(root / "b", b"b")
        await disk.rename_synced(root / "a", root / "b")
        assert await disk.read(root / "b") == b"a"
        assert await disk.stat(root / "a") is None
        await disk.rename_synced(root / "b", root / "new" / "c")
        assert await disk.read(root / "new" / "c") == b"a"
        with pytest.raises(FileNotFoundError):
            await disk.rename_synced(root / "a", root / "d")

    on_disk(story)


def test_directories_names_and_stat(on_disk: Callable[[Story], None]) -> None:
    async def story(disk: Disk, root: Path) -> None:
        await disk.make_directory(root / "d" / "e")
        await disk.make_directory(root / "d" / "e")
        await disk.write_synced(root / "d" / "z", b"12345")
        await disk.write_synced(root / "d" / "a", b"")
        assert await disk.names(root / "d") == ["a", "e", "z"]
        assert await disk.names(root / "nothing") == []
        found = await disk.stat(root / "d" / "z")
        assert found is not None
        assert (found.size_bytes, found.is_directory) == (5, False)
        found = await disk.stat(root / "d" / "e")
        assert found is not None
        assert found.is_directory
        assert await disk.stat(root / "nothing") is None
        assert await disk.stat(root / "d" / "z" / "below a file") is None
        assert await disk.free_bytes(root) > 0

    on_disk(story)


def test_remove_takes_all_and_does_not_mind(on_disk: Callable[[Story], None]) -> None:
    async def story(disk: Disk, root: Path) -> None:
        await disk.write_synced(root / "d" / "e" / "f", b"1")
        await disk.write_synced(root / "file", b"1")
        await disk.remove(root / "d")
        await disk.remove(root / "d")
        await disk.remove(root / "file")
        assert await disk.stat(root / "d" / "e" / "f") is None
        assert await disk.stat(root / "d") is None
        assert await disk.stat(root / "file") is None

    on_disk(story)


def test_what_is_absent_is_file_not_found(on_disk: Callable[[Story], None]) -> None:
    async def story(disk: Disk, root: Path) -> None:
        with pytest.raises(FileNotFoundError):
            await disk.read(root / "nothing")
        with pytest.raises(FileNotFoundError):
            await streamed(disk, root / "nothing")

    on_disk(story)


def _is_bad(view: memoryview) -> None:
    raise RuntimeError("bad")


def test_an_open_file_is_written_and_read_at_offsets(on_disk: Callable[[Story], None]) -> None:
    async def story(disk: Disk, root: Path) -> None:
        path = root / "deep" / "log"
        with pytest.raises(FileNotFoundError):
            await disk.open(path)
        file = await disk.open(path, make=True)
        assert file.size_bytes == 0
        await file.write_synced(0, [b"0123", memoryview(b"4567")])
        await file.write_synced(8, [b"x" * 7] * 3000)
        await file.write_synced(2, [b"ab"])
        assert file.size_bytes == 8 + 21_000
        assert await file.read(0, 10) == b"01ab4567xx"
        assert await file.read(21_006, 10) == b"xx"
        assert await file.read(30_000, 10) == b""
        assert file.read_cached(0, 4) in (None, b"01ab")
        assert file.read_cached(21_006, 10) is None
        checked: list[bytes] = []
        view = await file.view(2, 6, lambda view: checked.append(bytes(view)))
        assert [bytes(view)] == checked == [b"ab4567"]
        assert view.readonly
        other = await file.view(21_006, 10, lambda _: None)
        assert (bytes(view), bytes(other)) == (b"ab4567", b"xx")
        cached = file.view_cached(0, 4)
        assert cached is None or (cached.readonly and bytes(cached) == b"01ab")
        assert file.view_cached(21_006, 10) is None
        with pytest.raises(RuntimeError, match="bad"):
            await file.view(0, 4, _is_bad)
        again = await disk.open(path, make=True)
        assert again.size_bytes == 21_008
        reading = [asyncio.ensure_future(again.read(0, 4)) for _ in range(20)]
        await asyncio.sleep(0)
        await again.close()
        await again.close()
        assert await asyncio.gather(*reading) == [b"01ab"] * 20
        with pytest.raises(ValueError):
            await again.read(0, 4)
        await disk.remove(path)
        assert await file.read(0, 4) == b"01ab"  # a name is gone, not what it named
        await file.close()

    on_disk(story)


def test_a_power_cut_tears_what_was_not_synced() -> None:
    path = Path("/log")
    lengths = set[int]()
    for seed in range(50):
        drive = SimDrive(Random(seed), Trace())

        async def story(drive: SimDrive = drive) -> None:
            file = await SimDisk(drive, lambda: 0.0).open(path, make=True)
            await file.write_synced(0, [b"a" * 1000])
            writing = asyncio.create_task(file.write_synced(1000, [b"b" * 4000]))
            while len(drive.files[path].seen) == 1000:
                await asyncio.sleep(0.0001)
            drive.power_cut()
            writing.cancel()
            assert drive.files[path].seen[:1000] == b"a" * 1000
            lengths.add(len(drive.files[path].seen))

        run(story())
    assert {1000, 5000} < lengths


BUFFERED = st.builds(
    lambda fill, size, whole: (fill, (size // 4096 + 1) * 4096 if whole else size, whole),
    st.integers(0, 255),
    st.sampled_from([1, 700, 4096, DIRECT_BYTES, DIRECT_BYTES + 5, BUFFER_BYTES - 4096]),
    st.booleans(),
)


@pytest.mark.parametrize("root", ["/dev/shm", "."], ids=["memory", "here"])
@settings(max_examples=25, deadline=None)
@given(parts=st.lists(BUFFERED, min_size=1, max_size=5))
def test_large_pieces_arrive_whichever_way_they_go(root: str, parts: list[tuple[int, int, bool]]) -> None:
    """Buffers at a page and not, of whole pages and not, among small pieces: in a file that grows, and in place."""
    made = list[bytes | memoryview]()
    for fill, size, whole in parts:
        view = take_buffer()[:size]
        view[:] = bytes([fill]) * size
        made.append(view if whole or fill % 2 else bytes(view))
    expected = b"".join(made)

    async def story(disk: LocalDisk, path: Path) -> None:
        writer = await disk.create(path)
        for part in made:
            await writer.write(part)
        await writer.sync()
        await writer.close()
        assert await disk.read(path) == expected
        file = await disk.open(path)
        await file.write_synced(len(expected), made)
        await file.write_synced(0, made)
        assert file.size_bytes == 2 * len(expected)
        assert await file.read(0, 2 * len(expected)) == 2 * expected
        await file.close()

    disk = LocalDisk()
    with tempfile.TemporaryDirectory(dir=root) as directory:
        asyncio.run(story(disk, Path(directory) / "file"))
    disk.close()


def test_where_the_page_cache_cannot_be_passed_everything_goes_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = take_buffer()
    view[:] = bytes(range(256)) * (BUFFER_BYTES // 256)
    real_open = os.open

    def no_direct(path: str, flags: int, *mode: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "not on this file system")
        return real_open(path, flags, *mode)

    monkeypatch.setattr(os, "open", no_direct)
    handle = real_open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    direct = DirectHandle(handle)
    assert write_all(handle, direct, [view, b"rest"], 0) == BUFFER_BYTES + 4
    direct.close()
    os.close(handle)
    assert (tmp_path / "file").read_bytes() == bytes(view) + b"rest"

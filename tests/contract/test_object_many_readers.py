"""Many who read the same at once, by both doors: whole objects and ranges of them, from volumes and from files, sound
and not; processes beside the server send some of it."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from tests.contract.s3_server import S3Server

READERS = 8
SIZES = {"packed": 700_001, "long": (5 << 20) + 77}
DATA = {name: os.urandom(size) for name, size in SIZES.items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("many"))
    try:
        assert server.ask("PUT", "/v1/AUTH_a/box")[0] == 201
        for name, data in DATA.items():
            assert server.ask("PUT", f"/v1/AUTH_a/box/{name}", data)[0] == 201
        deadline_s = time.monotonic() + 30
        while not server.sender.is_ready:  # it begins when it is first of use
            _read_by_all(server, ["long"] * READERS, whole=True)
            assert time.monotonic() < deadline_s
        yield server
    finally:
        server.stop()


def _read_by_all(server: S3Server, names: list[str], *, whole: bool, turn: int = 0) -> None:
    together = Barrier(len(names))

    def read(reader: int) -> None:
        name = names[reader]
        size, dice = SIZES[name], random.Random(turn * READERS + reader)
        start = 0 if whole else dice.randrange(size)
        end = size if whole else dice.randrange(start, size) + 1
        headers = {} if whole else {"range": f"bytes={start}-{end - 1}"}
        together.wait(20)
        if reader % 2:
            status, said, body = server.ask("GET", f"/v1/AUTH_a/box/{name}", **headers)
        else:
            status, said, body = server.signed("GET", f"/box/{name}", **headers)
        assert status == (200 if whole else 206)
        assert said["content-length"] == str(end - start)
        assert body == DATA[name][start:end]

    with ThreadPoolExecutor(len(names)) as pool:
        list(pool.map(read, range(len(names))))


def _jobs(server: S3Server) -> int:
    return sum(process.jobs for process in server.sender.processes)


@pytest.mark.parametrize("name", SIZES)
def test_whole_objects(server: S3Server, name: str) -> None:
    before = _jobs(server)
    for _ in range(5):
        _read_by_all(server, [name] * READERS, whole=True)
    assert _jobs(server) > before


@pytest.mark.parametrize("name", SIZES)
def test_ranges(server: S3Server, name: str) -> None:
    before = _jobs(server)
    for turn in range(10):
        _read_by_all(server, [name] * READERS, whole=False, turn=turn)
    if name == "long":
        assert _jobs(server) > before


def test_mixed(server: S3Server) -> None:
    for _ in range(5):
        _read_by_all(server, [*SIZES] * (READERS // 2), whole=True)


def test_a_copy_that_rots_is_seen_by_nobody(server: S3Server) -> None:
    files = [path for drive in server.root.rglob("large") for path in drive.rglob("*") if path.is_file()]
    assert len(files) == 3
    for path, at in zip(files[:2], (0, 3 << 20), strict=True):
        _flip(path, at)
    for _ in range(5):
        _read_by_all(server, ["long"] * READERS, whole=True)


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))

"""What an operation costs at 10,000, a million and 100 million objects; of most of them only the indexes are there.

    python -m bench.object_growth [--quick] [--root DIRECTORY]

Simulated: the key index of each drive has as many entries as it would (runs as they come to be, of random hashes, one file
for all drives), and the container has the shards that it would have.  Most shards of the largest have a twentieth of their
names.  No bodies.  Operations are asked by HTTP, by object_store.py with `CONC` connections, on names all over the container,
with the rows made durable as they are while it serves; the CPU is this process's, which serves.  The sizes take turns
at each operation.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, Final

import numpy as np

from apus.kernel.caller import Caller
from apus.kernel.settings import Settings
from apus.node.http import HttpServer, listen_on
from apus.node.main import node_runner
from apus.node.world import open_world
from apus.services.object.api.routes import swift_apis
from apus.services.object.assembly import ObjectStore, drives_in, open_store
from apus.services.object.drivers.sqlite_index import IndexFile
from apus.services.object.drivers.volumes.key_index import KeyIndex
from apus.services.object.drivers.volumes.run import BLOOM_PROBES, ENTRY_BYTES, RunBuilder, open_run
from apus.services.object.logic.shards import ShardMap
from apus.services.object.model import Change, ListingAsk, Row
from apus.wire.app import App
from bench.run import Table, median

ACCOUNT, CONTAINER = "AUTH_bench", "c"
OWNER: Final = (ACCOUNT, CONTAINER)
BODY_BYTES: Final = 4096
LOAD: Final = Path(__file__).parent / "object_store.py"
CONC: Final = 8
OPS: Final = 12_000
"""Enough that rows are made durable as they are all the time, and not by the end of it alone."""
PAGES: Final = 40
ROUNDS: Final = 5
SHARD: Final = 500_000
SPARSE: Final = 10_000_000
"""Of a container of more objects, one shard in `DENSE` has all of its names, and is listed; others have a twentieth."""
DENSE: Final = 40
SLICE: Final = 1 << 20
SIZES: Final = (10_000, 1_000_000, 100_000_000)


class Anybody:
    """Whoever asks is whose account it is."""

    def verify(self, token: str) -> Caller:
        project = ACCOUNT.removeprefix("AUTH_")
        return Caller(
            user_id="u", user_name="u", project_id=project, project_name=project, roles=frozenset(("member", "reader"))
        )


class Grown:
    """One store, as large as that."""

    def __init__(self, size: int, root: Path) -> None:
        self.size, self.root, self.dice = size, root, Random(size)
        self.store: ObjectStore
        self.start_s = 0.0
        self.runs_bytes = 0

    async def open(self) -> None:
        self.opened = await open_world(self.root, Settings(), with_store=False)
        world = self.opened.world
        paths = [self.root / f"d{number}" for number in range(4)]
        for path in paths:
            path.mkdir()
        self.store = await open_store(world, drives_in(paths), self.root / "layout.json")
        await self.store.replicator.run_once()  # after a start every copy is doubted, and readers ask all of them
        await self.store.service.make_container(ACCOUNT, CONTAINER, {})
        await self._fill_keys()
        await self._fill_names()
        app = App(swift_apis(self.store.service), Anybody(), dice=self.dice)
        self.listening = listen_on("127.0.0.1", 0)
        self.server = HttpServer(app, self.listening)
        self.serving = asyncio.create_task(self.server.run())

    async def close(self) -> None:
        self.server.stop()
        await self.serving
        self.listening.close()
        await self.store.close()
        await self.opened.close()

    async def _fill_keys(self) -> None:
        """Three quarters of the objects are on each of four drives."""
        left, number, files = self.size * 3 // 4, 0, list[Path]()
        while left >= 4096:
            count = max(min(left, 4096), left * 3 // 4)
            number += 1
            files.append(self.root / f"{number}.run")
            await asyncio.to_thread(write_run, files[-1], count, number)
            left -= count
        began_s = time.perf_counter()
        for drive in self.store.drives:
            index = key_index(drive)
            for at, path in enumerate(files):
                linked = index._directory / f"{900_000_000 + at:010d}.run"
                linked.parent.mkdir(exist_ok=True)
                os.link(path, linked)
                run = await open_run(self.store.world.disk, linked, index.nodes)
                index.runs.insert(0, run)
                self.runs_bytes += len(run._bloom) + 12 * len(run.first_keys)
        self.start_s = (time.perf_counter() - began_s) / len(self.store.drives)

    async def _fill_names(self) -> None:
        shards, indexes = self.store.service.directory.shards, self.store.service.directory.indexes
        bounds = ["", *(name_of(first) for first in range(SHARD, self.size, SHARD))]
        for number, bound in enumerate(bounds):
            first = number * SHARD + bool(bound)
            step = 20 if self.size > SPARSE and number % DENSE else 1
            rows = range(first, min(self.size, (number + 1) * SHARD + 1), step)
            account, container = shards.index_of(OWNER, bound)
            if not bound:
                for at in range(0, len(rows), 10_000):
                    await indexes.apply(Change(account, container, row_of(rows[at : at + 10_000])))
                continue
            kind, place = indexes.place(account, container)
            target, *others = [
                drive for drive in self.store.drives if drive in self.store.cluster.primaries(place.part)
            ]
            path = target.indexes._places.path(kind, place.hash)
            path.parent.mkdir(parents=True, exist_ok=True)
            await asyncio.to_thread(write_index, path, account, container, rows)
            for other in others:
                copy = other.indexes._places.path(kind, place.hash)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
        if len(bounds) > 1:
            await shards.store(OWNER, ShardMap(3, tuple(bounds)))
            shards.changed(OWNER, bounds)
            await shards.report()

    @property
    def operations(self) -> dict[str, tuple[Callable[[], Awaitable[float]], int]]:
        """By name: what asks for it, and for how many.  In this order, so that the next turn finds no more than this."""
        dense = range(0, self.size, SHARD * (DENSE if self.size > SPARSE else 1))
        pages = [name_of(self.dice.choice(dense) + self.dice.randrange(SHARD - 10_000)) for _ in range(PAGES)]
        return {
            **{op: (partial(self._load, op), OPS) for op in ("put", "get", "head")},
            "page": (partial(self._list, pages if self.size > 10_000 else [""] * PAGES), PAGES),
            "head container": (partial(self._load, "stat"), OPS),
            "delete": (partial(self._load, "delete"), OPS),
        }

    async def measure(self, op: str) -> tuple[float, float]:
        """CPU seconds for 1,000, and operations per second."""
        return await self._run(*self.operations[op])

    async def _load(self, op: str) -> float:
        """By HTTP, on the same names each time; returns the seconds it took."""
        out = self.root / "load.json"
        words = {
            "url": f"http://127.0.0.1:{self.listening.getsockname()[1]}", "token": "any", "storage-path": f"/v1/{ACCOUNT}",
            "container": CONTAINER, "op": op, "size": BODY_BYTES, "count": OPS, "conc": CONC, "prefix": "n-", "span": self.size,
            "out": out,
        }  # fmt: skip
        argv = [str(LOAD), "run", *(word for name, value in words.items() for word in (f"--{name}", str(value)))]
        client = await asyncio.create_subprocess_exec(sys.executable, *argv, stderr=asyncio.subprocess.PIPE)
        _, told = await client.communicate()
        if client.returncode:
            raise SystemExit(told.decode())
        run = json.loads(out.read_bytes())["runs"][0]
        if run["errors"] or run["bad"] or run["n"] != OPS:
            raise SystemExit(f"{op}: {run}")
        return float(run["wall_s"])

    async def _list(self, markers: Sequence[str]) -> float:
        began_s = time.perf_counter()
        for marker in markers:
            rows = await self.store.service.listing(ACCOUNT, CONTAINER, ListingAsk(limit=10_000, marker=marker))
            assert self.size <= 10_000 or len(rows) > 100
        return time.perf_counter() - began_s

    async def _run(self, load: Callable[[], Awaitable[float]], operations: int) -> tuple[float, float]:
        async def flushing() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(over.wait(), 1.0)
                await self.store.updater.run_once()  # to its end: what is cut off here is listed again, later

        over = asyncio.Event()
        beside = asyncio.create_task(flushing())
        cpu_s, took_s = time.process_time(), await load()
        over.set()
        await beside
        began_s = time.perf_counter()
        await self.store.service.shelf.lister.flush()
        await self.store.service.directory.report()  # else who reads next pays for it
        used_s, took_s = time.process_time() - cpu_s, took_s + time.perf_counter() - began_s
        return 1000 * used_s / operations, operations / took_s


def name_of(number: int) -> str:
    return f"n-{number:010d}"


def row_of(numbers: range) -> tuple[Row, ...]:
    stamp = f"{1:016d}-n1"
    return tuple(
        Row(name_of(number), stamp, size_bytes=4096, etag="0" * 32, content_type="application/octet-stream")
        for number in numbers
    )


def write_index(path: Path, account: str, container: str, numbers: range) -> None:
    index = IndexFile(path)
    for at in range(0, len(numbers), 10_000):
        index.apply([Change(account, container, row_of(numbers[at : at + 10_000]))])
    index.close()


def key_index(drive: Any) -> KeyIndex:
    index: KeyIndex = drive.copies.rooms[0]._journal.index
    return index


def write_run(path: Path, count: int, seed: int) -> None:
    """Random hashes, as a merge of runs would leave them."""
    dice, builder = np.random.default_rng(seed), RunBuilder(count)
    bits = np.zeros(len(builder.bloom) * 8, np.bool_)
    slices = -(-count // SLICE)
    width = (1 << 64) // slices
    with path.open("wb") as file:
        for at in range(slices):
            some = count * (at + 1) // slices - count * at // slices
            high = np.sort(dice.integers(at * width, (at + 1) * width - 1, some, dtype=np.uint64))
            low = dice.integers(0, (1 << 64) - 1, some, dtype=np.uint64)
            entries = np.zeros((some, ENTRY_BYTES), np.uint8)
            entries[:, :8] = high.astype(">u8").view(np.uint8).reshape(some, 8)
            entries[:, 8:16] = low.astype(">u8").view(np.uint8).reshape(some, 8)
            step = low | np.uint64(1)
            for probe in range(BLOOM_PROBES):
                bits[(high + np.uint64(probe) * step) % np.uint64(len(bits))] = True
            file.write(builder.add(entries.tobytes()))
        builder.bloom[:] = np.packbits(bits, bitorder="little").tobytes()
        file.write(builder.end())


def grow(table: Table, root: Path, sizes: Sequence[int]) -> None:
    """Served as a node serves."""
    with node_runner() as runner:
        runner.run(growth(table, root, sizes))


async def growth(table: Table, root: Path, sizes: Sequence[int], rounds: int = ROUNDS) -> None:
    """Whether operations per second, and CPU, are within a fifth of each other."""
    grown = [Grown(size, root / str(size)) for size in sizes]
    for one in grown:
        one.root.mkdir(parents=True)
        await one.open()
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for turn in range(rounds):
        for op in grown[0].operations:
            # One after the other: slow minutes of the machine are everybody's.
            for one in grown if turn % 2 else reversed(grown):
                found.setdefault((op, one.size), []).append(await one.measure(op))
    for op in grown[0].operations:
        cpu, rate = [[median([run[at] for run in found[op, one.size]]) for one in grown] for at in (0, 1)]
        told = " · ".join(f"{one.size:,}: {c:.3g} s, {r:.0f}/s" for one, c, r in zip(grown, cpu, rate, strict=True))
        apart = 100 * (max(cpu) / min(cpu) - 1)
        table.add(f"{op}, CPU for 1,000 at each size: apart", apart, "%", "<= 20", apart <= 20, told)
    largest = grown[-1]
    table.add(f"key index of {largest.size:,}, memory for each object and copy",
              largest.runs_bytes / (3 * largest.size), "B", "<= 2", largest.runs_bytes <= 6 * largest.size)  # fmt: skip
    table.add(f"key index of {largest.size:,}, start of a drive", largest.start_s, "s", "<= 5", largest.start_s <= 5)
    for one in grown:
        await one.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the largest")
    parser.add_argument("--root", type=Path, help="where there are 10 GB; else the temporary directory")
    given = parser.parse_args()
    sizes = SIZES[:2] if given.quick else SIZES
    with tempfile.TemporaryDirectory(prefix="apus-growth-", dir=given.root) as root:
        grow(Table(), Path(root), sizes)


if __name__ == "__main__":
    main()

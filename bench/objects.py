"""`make bench-object`: the table of object storage, ours beside its peers, medians of `--rounds`.

    python -m bench.objects [--quick] [--peers swift,ceph,seaweed,nginx] [--only load,disk,list,memory,size,growth,repair]

Everybody is measured by the same client (object_store.py), in turns.  CPU seconds of the server per 1,000 operations
(per GiB for large objects) is the ratio that counts; rates stand beside it.  Peers that are not measured are quoted
from object_peers.py.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.object_growth import SIZES, grow
from bench.object_peers import FIGURES, LIST_CPU_S, MEMORY_MIB, NGINX_MB_S, Known
from bench.object_repair import repair
from bench.object_subjects import OurStore, Subject, fill_swift, our_store, peer
from bench.object_work import fill_index, uploads_at_once
from bench.run import Table, median

PORT = 27300
PARTS = ("load", "disk", "list", "memory", "size", "growth", "repair")
IDLE_S = 8.0
ROOM_BYTES, PEER_ROOM_BYTES = 25 << 30, 9 << 30
"""On the disk: a full one fails an hour later, and takes the figures with it."""
SWIFT_NAMES = 100_000
"""In the container of Swift whose pages are the measure."""


class Work(NamedTuple):
    """One operation of the table; `cpu_s` is what ours may cost, `times` how much faster than a peer it must be."""

    op: str
    size: str
    conc: int
    cpu_s: float
    times: Mapping[str, float] = {}

    @property
    def key(self) -> tuple[str, str, int]:
        return self.op, self.size, self.conc

    @property
    def large(self) -> bool:
        return self.size in ("1M", "64M")


_PUT, _GET = {"swift": 14.0, "ceph": 3.5}, {"swift": 9.0, "ceph": 1.6}
WORKS = (
    Work("put", "4K", 8, 1.0, _PUT),
    Work("put", "4K", 32, 1.0, _PUT),
    Work("get", "4K", 8, 0.35, _GET),
    Work("get", "4K", 32, 0.35, _GET),
    Work("head", "4K", 8, 0.25),
    Work("delete", "4K", 8, 0.8),
    Work("put", "1M", 8, 4.5),
    Work("get", "1M", 8, 0.9),
    Work("put", "64M", 8, 3.5),
    Work("get", "64M", 8, 0.6),
)


class Extent(NamedTuple):
    """How long and how much."""

    rounds: int
    secs: float
    population: int
    deletes: int
    names: int
    """In the container whose page is asked for."""
    upload_s: float
    repaired: int
    """Objects of 64 KiB, of which a drive is lost."""


FULL, QUICK = Extent(5, 5.0, 2000, 2000, 1_000_000, 20.0, 20_000), Extent(3, 2.0, 400, 400, 100_000, 6.0, 2_000)


def populate(subject: Subject, extent: Extent) -> None:
    for size, count in (("4K", extent.population), ("1M", max(64, extent.population // 8)), ("64M", 8)):
        subject.load(
            "fill", "--size", size, "--count", count, "--prefix", f"s{size}-", "--conc", 2 if size == "64M" else 8
        )


def measure(subject: Subject, work: Work, extent: Extent, turn: int) -> Known:
    words: list[object] = ["--op", work.op, "--size", work.size, "--conc", work.conc, "--seed", turn + 1]
    held = extent.population if work.size == "4K" else max(64, extent.population // 8)
    if work.op == "delete":
        prefix = f"d{turn}-"
        subject.load("fill", "--size", work.size, "--count", extent.deletes, "--prefix", prefix)
        words += ["--count", extent.deletes, "--prefix", prefix]
    elif work.size == "64M":
        words += ["--count", 8, "--prefix", "s64M-"]
    elif work.op == "put":
        words += ["--secs", extent.secs, "--prefix", f"p{work.size}c{work.conc}r{turn}-"]
    else:
        words += ["--secs", extent.secs, "--count", held, "--prefix", f"s{work.size}-", "--warm", 1]
    run = subject.load("run", *words)
    cpu = run["server_cpu_s_per_gib"] if work.large else run["server_cpu_s_per_1000"]
    return Known(run["mb_s"] if work.large else run["ops_s"], run["p50_ms"], run["p99_ms"], cpu)


def median_of(runs: Sequence[Known]) -> Known:
    return Known(*(median([run[place] for run in runs]) for place in range(4)))


def load(table: Table, store: OurStore, others: Mapping[str, Subject], extent: Extent) -> dict[str, Any]:
    """The small and large operations, each store in turn.  Of a peer that fails at one, its kept figures stand there."""
    subjects = {"apus": store.subject(), **others}
    for subject in subjects.values():
        populate(subject, extent)
    found: dict[str, dict[tuple[str, str, int], Known]] = {name: {} for name in subjects}
    for work in WORKS:
        runs: dict[str, list[Known]] = {
            name: [] for name in subjects if name != "nginx" or (work.op == "get" and work.large)
        }
        for turn in range(extent.rounds):
            for name in list(runs):
                try:
                    runs[name].append(measure(subjects[name], work, extent, turn))
                except SystemExit as failure:
                    if name == "apus":
                        raise
                    print(f"{name} failed at {work.key}: {failure}", file=sys.stderr, flush=True)
                    del runs[name]
        for name, seen in runs.items():
            found[name][work.key] = median_of(seen)
        measured = {name: found.get(name, {}).get(work.key) for name in FIGURES}
        show(table, work, found["apus"][work.key], measured, found.get("nginx", {}).get(work.key))
        if work.op == "get" and work.large:
            nginx = found["nginx"][work.key].rate if "nginx" in runs else NGINX_MB_S[work.size]
            share = 100 * found["apus"][work.key].rate / nginx
            table.add(
                f"GET {work.size} c8, share of nginx", share, "%", ">= 50", share >= 50, f"nginx {nginx:.0f} MB/s"
            )
    return {name: {" ".join(map(str, key)): run._asdict() for key, run in seen.items()} for name, seen in found.items()}


def show(table: Table, work: Work, ours: Known, measured: Mapping[str, Known | None], plain: Known | None) -> None:
    """Against the peers that were measured in this run, and the kept figures of the others.  `plain`: nginx, whose tail
    is mostly the client's own: both share the processors."""
    what = f"{work.op.upper()} {work.size} c{work.conc}"
    cpu_unit, rate_unit = ("s/GiB", "MB/s") if work.large else ("s/1000", "op/s")
    peers = {name: run or FIGURES[name][work.key] for name, run in measured.items()}
    told = " · ".join(f"{name} {run.cpu_s:g}" for name, run in peers.items())
    slower = [run.cpu_s / FIGURES[name][work.key].cpu_s for name, run in measured.items() if run is not None]
    if slower:  # the bounds are of a quiet machine: what a busy one adds is told, and changes no verdict
        times = median(slower)
        told += f"; they took {times:.2f} x the CPU of a quiet machine, where ours would be {ours.cpu_s / times:.3g}"
    table.add(f"{what}, CPU", ours.cpu_s, cpu_unit, f"<= {work.cpu_s:g}", ours.cpu_s <= work.cpu_s, told)
    told = " · ".join(f"{name} {run.rate:.0f}" for name, run in peers.items())
    must = ", ".join(f">= {times:g} x {name}" for name, times in work.times.items())
    holds = all(ours.rate >= times * peers[name].rate for name, times in work.times.items())
    table.add(f"{what}, rate", ours.rate, rate_unit, must or "-", holds, told)
    if work.conc == 8:
        times, told = ours.p99_ms / ours.p50_ms, f"{ours.p50_ms:g} and {ours.p99_ms:g} ms"
        if plain is not None:
            told += f"; nginx {plain.p99_ms / plain.p50_ms:.2f} x"
        table.add(f"{what}, p99 to p50", times, "x", "<= 3", times <= 3, told)


def disk(table: Table, store: OurStore, figures: Mapping[str, Any]) -> None:
    """Three synced copies as a bare program writes them to the same drives, against our large uploads."""
    script = Path(__file__).parent / "phys_store.py"
    done = subprocess.run(
        [sys.executable, str(script), *map(str, store.drives[:3]), "1"], check=True, capture_output=True, text=True
    )
    bare = {
        run["size"]: run["mb_s"] for run in json.loads(done.stdout)["runs"] if run["mode"] == "write+fsync+rename x3"
    }
    for size in ("1M", "64M"):
        share = 100 * figures["apus"][f"put {size} 8"]["rate"] / bare[size]
        told = f"bare {bare[size]:.0f} MB/s"
        table.add(f"PUT {size} c8, share of three synced copies", share, "%", ">= 80", share >= 80, told)


def listing(table: Table, store: OurStore, others: Mapping[str, Subject], extent: Extent) -> None:
    """A page of 10,000 names out of many, which are put into the index without their objects; Swift's out of 100,000."""
    subject = store.subject()
    subject.load("fill", "--container", "many", "--size", "1", "--count", 1)
    refill(store, "many", extent.names)
    store.wait_for_rest()  # the peer whose pages these are measured against was not just started either
    cpu_s, p50_ms = pages(store.subject(), extent.names + 1)
    swift_s = LIST_CPU_S
    if "swift" in others:
        others["swift"].load("fill", "--container", "many", "--size", "1", "--count", 1)
        fill_swift("many", SWIFT_NAMES)
        swift_s, _ = pages(others["swift"], SWIFT_NAMES + 1)
    what = f"a page of 10,000 names of {extent.names:,}, CPU"
    times = swift_s / max(cpu_s, 1e-6)
    table.add(what, cpu_s, "s", f">= 5 x ({times:.1f} x)", times >= 5, f"swift {swift_s:.3g} s of {SWIFT_NAMES:,}")
    table.add(what.replace("CPU", "p50"), p50_ms, "ms", "-", True)


def pages(subject: Subject, names: int) -> tuple[float, float]:
    """Of one page of the container `many`: CPU seconds, and the p50 in milliseconds."""
    runs = [subject.load("list", "--container", "many", "--page", 10_000) for _ in range(3)]
    assert all(run["objects"] == names for run in runs), runs
    return median([run["server_cpu_s"] / run["pages"] for run in runs]), median([run["p50_ms"] for run in runs])


def refill(store: OurStore, container: str, names: int) -> None:
    """Names for an index, put there while the store is down."""
    account = store.access()["STORAGE_URL"].rpartition("/")[2]
    store.down()
    asyncio.run(fill_index(store.state_dir, account, container, names))
    store.up()


def memory(table: Table, store: OurStore, extent: Extent) -> None:
    time.sleep(IDLE_S)
    idle = sum(store.pss_mib().values())
    told = " · ".join(f"{name} {size:g}" for name, size in MEMORY_MIB.items())
    table.add("memory, idle, PSS", idle, "MiB", "<= 120", idle <= 120, told)
    access = store.access()
    busy = asyncio.run(uploads_at_once(access, extent.upload_s, lambda: sum(store.pss_mib().values())))
    table.add("memory, 64 uploads of 1 GiB at once, PSS", busy, "MiB", "<= 400", busy <= 400)


def size(table: Table, store: OurStore, extent: Extent) -> None:
    """Operations on a container of few names and of many."""
    few, many = "few", "many"
    store.subject().load("fill", "--container", few, "--size", "4K", "--count", 200, "--prefix", "s4K-")
    store.subject().load("fill", "--container", many, "--size", "4K", "--count", 200, "--prefix", "s4K-")
    refill(store, few, 10_000)
    store.wait_for_rest()
    for op in ("put", "get"):
        runs: dict[str, list[Known]] = {few: [], many: []}
        for turn in range(1 + extent.rounds):
            for name in (few, many) if turn % 2 else (many, few):
                words = ["--prefix", f"t{turn}-"] if op == "put" else ["--prefix", "s4K-", "--count", 200]
                run = store.subject().load("run", "--container", name, "--op", op, "--secs", extent.secs, *words)
                if turn:  # the first one warms up
                    runs[name].append(Known(run["ops_s"], run["p50_ms"], run["p99_ms"], run["server_cpu_s_per_1000"]))
        at_few, at_many = median_of(runs[few]), median_of(runs[many])
        share = 100 * abs(at_many.rate / at_few.rate - 1)
        told = f"{at_few.rate:.0f} and {at_many.rate:.0f} op/s; CPU {at_few.cpu_s:g} and {at_many.cpu_s:g} s/1000"
        what = f"{op.upper()} 4K c8 with 10,000 names and {extent.names:,}, difference"
        table.add(what, share, "%", "<= 20", share <= 20, told)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few minutes")
    parser.add_argument("--peers", default="", help="swift,ceph,seaweed,nginx: installed and measured beside ours")
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--drives", default="", help="four directories; else below the temporary directory")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    extent, only = QUICK if given.quick else FULL, given.only.split(",")
    others_count = len(list(filter(None, given.peers.split(","))))
    needed, free = ROOM_BYTES + others_count * PEER_ROOM_BYTES, shutil.disk_usage(tempfile.gettempdir()).free
    if not given.quick and "load" in only and free < needed:
        parser.error(f"{needed >> 30} GiB are needed below {tempfile.gettempdir()}, and {free >> 30} are free")
    table, figures = Table(), {}
    drives = [Path(drive) for drive in given.drives.split(",") if drive]
    with contextlib.ExitStack() as stack:
        others = {name: stack.enter_context(peer(name)) for name in given.peers.split(",") if name}
        store = stack.enter_context(our_store(given.port, drives))
        store.up()
        if "memory" in only:
            memory(table, store, extent)
        if "load" in only:
            figures = load(table, store, others, extent)
            if "disk" in only:
                disk(table, store, figures)
        if "list" in only:
            listing(table, store, others, extent)
            if "size" in only:
                size(table, store, extent)
    if "repair" in only:  # with nothing else to move than what its row says
        with our_store(given.port, [drive / "repair" for drive in drives]) as store:
            store.up()
            repair(table, store, extent.repaired)
    if "growth" in only:
        with tempfile.TemporaryDirectory(prefix="apus-growth-") as root:
            grow(table, Path(root), SIZES[:2] if given.quick else SIZES)
    if given.out:
        given.out.write_text(json.dumps({"extent": extent._asdict(), "rows": table.rows, "figures": figures}, indent=1))
    missed = sum(not row["holds"] for row in table.rows)
    print(f"{len(table.rows) - missed} of {len(table.rows)} hold")


if __name__ == "__main__":
    main()

"""The row of repair: one of four drives is lost, and what it held is made again; then an empty one takes its place."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from apus.cli.places import cloud_at
from bench.cloud import APUS
from bench.object_peers import REPAIR_COPIES_S, REPAIR_CPU_S
from bench.object_subjects import OurStore
from bench.run import Table, median

OBJECT_SIZE = "64K"
LOOK_EVERY_S = 0.3
WITHIN_S = 600.0
FOREGROUND = ("get", "put")
FOREGROUND_S = 4.0
ROUNDS = 3


class Watch:
    """What repair says of itself.  It logs in once: a command for each look would cost the server, and who measures, as much
    as ten copies."""

    def __init__(self, store: OurStore) -> None:
        self._cloud = cloud_at(store.state_dir)
        self._token = self._cloud.admin_token()

    def status(self) -> dict[str, Any]:
        return dict(self._cloud.get("/apus/v1/object/repair", token=self._token)["repair"])


def asked(store: OurStore, *words: str) -> Any:
    done = subprocess.run(
        [*APUS, "object", *words, "--state-dir", str(store.state_dir), "-f", "json"],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)


class Repaired:
    """From the loss, or the return, until what `done` says: wall and CPU seconds, and copies."""

    def __init__(
        self, store: OurStore, watch: Watch, begin: Callable[[], object], done: Callable[[dict[str, Any]], bool]
    ) -> None:
        made, cpu_s, began_s = watch.status()["copies_made"], store.cpu_s(), time.monotonic()
        begin()
        while True:
            found = watch.status()
            self.took_s, self.copies = time.monotonic() - began_s, found["copies_made"] - made
            if self.copies and done(found):
                break
            assert self.took_s < WITHIN_S, found
            time.sleep(LOOK_EVERY_S)
        self.cpu_s = store.cpu_s() - cpu_s


def repair(table: Table, store: OurStore, objects: int) -> None:
    subject, lost = store.subject(), store.drives[3]
    subject.load("fill", "--container", "repaired", "--size", OBJECT_SIZE, "--count", objects, "--prefix", "r-")
    watch = Watch(store)
    _until_idle(watch)
    loss = Repaired(
        store, watch, lambda: lost.rename(lost.with_name("lost")), lambda found: not found["copies_at_risk"]
    )
    shutil.rmtree(lost.with_name("lost"))
    _show(table, f"one of four drives lost, {objects:,} objects of 64 KiB", loss)
    lost.mkdir()
    back = Repaired(
        store, watch, lambda: asked(store, "drive", "adopt", "drive4"), lambda found: found["state"] == "idle"
    )
    _show(table, "an empty drive takes its place", back)
    lost.rename(lost.with_name("lost"))
    found: dict[tuple[str, str], list[float]] = {}
    with _always_short(store, watch):
        for _ in range(ROUNDS):
            for state, word in (("calm", "pause"), ("busy", "resume")):
                asked(store, "repair", word)
                for op in FOREGROUND:
                    found.setdefault((op, state), []).append(_p99(store, op, objects))
    for op in FOREGROUND:
        calm_ms, busy_ms = median(found[op, "calm"]), median(found[op, "busy"])
        told = f"{calm_ms:g} and {busy_ms:g} ms"
        what = f"{op.upper()} 64K c8 p99 during repair, to that while it is paused"
        table.add(what, busy_ms / calm_ms, "x", "<= 2", busy_ms <= 2 * calm_ms, told)


def _show(table: Table, what: str, run: Repaired) -> None:
    rate, cpu_s = run.copies / run.took_s, 1000 * run.cpu_s / run.copies
    times = rate / REPAIR_COPIES_S
    told = f"{run.copies:,} copies in {run.took_s:.1f} s; swift {REPAIR_COPIES_S:.0f}/s"
    table.add(f"{what}: rate", rate, "copies/s", ">= 10 x swift", times >= 10, told)
    told = " · ".join(f"{name} {seconds:g}" for name, seconds in REPAIR_CPU_S.items())
    table.add(f"{what}: CPU", cpu_s, "s/1000", "<= 1", cpu_s <= 1, told)


def _until_idle(watch: Watch) -> None:
    end_s = time.monotonic() + WITHIN_S
    while watch.status()["state"] != "idle":
        assert time.monotonic() < end_s
        time.sleep(0.5)


def _p99(store: OurStore, op: str, objects: int) -> float:
    words = ["--op", op, "--size", OBJECT_SIZE, "--conc", 8, "--secs", FOREGROUND_S, "--container", "repaired"]
    words += ["--prefix", "r-", "--count", objects] if op == "get" else ["--prefix", f"p{time.monotonic_ns()}-"]
    return float(store.subject().load("run", *words)["p99_ms"])


@contextlib.contextmanager
def _always_short(store: OurStore, watch: Watch) -> Iterator[None]:
    """Repair goes on as long as this: what it has made on the stand-ins is lost again whenever it is done."""
    stop = threading.Event()
    lost = store.drives[3]

    def lose_again() -> None:
        while not stop.is_set():
            found = watch.status()
            if found["state"] != "paused" and found["copies_at_risk"] == 0:
                lost.mkdir(exist_ok=True)  # what was under way may have made it again
                asked(store, "drive", "adopt", "drive4")
                shutil.rmtree(lost)
            stop.wait(1)

    thread = threading.Thread(target=lose_again)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()

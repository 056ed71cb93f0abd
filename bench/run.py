"""`make bench`: the table of figures, ours beside the real OpenStack's, medians of `--rounds`.

    python -m bench.run [--rounds 5] [--only start,control,guests] [--peer] [--out figures.json]

Ratios are of server CPU per operation, which noise moves least; latencies and rates are reported beside them.
With `--peer` the real one is installed and measured in the same run; else its figures are those of another day.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from bench import peers
from bench.cloud import BenchCloud, bench_cloud
from bench.guests import measure_guests
from bench.peers import Peer

PORT = 27100
IDLE_S = 8.0
"""After the start, before memory is read."""
CONTROL_PLANE = ("--list-sizes", "100,1000", "--repeat", "5", "--repeat-large", "5", "--samples", "25")


def median(values: list[float]) -> float:
    return statistics.median(values)


class Table:
    """Rows of (what, ours, must be, the real one, holds)."""

    def __init__(self) -> None:
        self.rows: list[dict[str, object]] = []

    def add(self, what: str, ours: float, unit: str, must: str, holds: bool, real: str = "") -> None:
        row = {"what": what, "ours": round(ours, 3), "unit": unit, "must": must, "holds": holds, "real": real}
        self.rows.append(row)
        print(f"{'ok ' if holds else 'NO '} {what:62} {ours:10.3f} {unit:8} must be {must:22} {real}", flush=True)

    def ratio(self, what: str, ours_ms: float, real_ms: float, least: float) -> None:
        times = real_ms / max(ours_ms, 1e-6)
        self.add(what, ours_ms, "ms", f">= {least:g} x ({times:.0f} x)", times >= least, f"real {real_ms:g} ms")


def start_and_memory(table: Table, rounds: int, peer: Peer) -> None:
    fresh, again, memory = [], [], []
    for number in range(rounds):
        with bench_cloud(PORT + 10 * number) as cloud:
            fresh.append(cloud.up())
            time.sleep(IDLE_S)
            memory.append(sum(cloud.pss_mib().values()))
            cloud.down()
            again.append(cloud.up())
    real = f"real {peer.start_s:.1f} s"
    table.add(
        "apus up to the first answer, state directory there", median(again), "s", "<= 1.0", median(again) <= 1.0, real
    )
    table.add("apus up to the first answer, from nothing", median(fresh), "s", "<= 2.0", median(fresh) <= 2.0, real)
    table.add(
        "idle memory, PSS of all processes", median(memory), "MiB", "<= 150", median(memory) <= 150,
        f"real {peer.memory_mib:.0f} MiB",
    )  # fmt: skip


def control_plane(table: Table, rounds: int, peer: Peer) -> None:
    with bench_cloud(PORT + 200, "--sim-hosts", "20") as cloud:
        cloud.up()
        validate(table, cloud, peer)
        figures = cloud.control_plane(*CONTROL_PLANE)
    nova, neutron = figures["nova"], figures["neutron"]
    for size in (100, 1000):
        ours = nova[f"list_{size}"]["detail"]["server_cpu_ms_per_op"]
        table.ratio(f"list {size} servers in detail, CPU", ours, peer.cpu_ms["list", str(size)], 100)
    port = nova["one_port"]
    accepted, real_ms = port["post_server"]["p50_ms"], peer.latency_ms["create_accepted"]
    table.add(
        "create accepted, p50, one port, 1 client", accepted, "ms", "<= 10", accepted <= 10, f"real {real_ms:g} ms"
    )
    boots = port["concurrent_100"]
    table.ratio(
        "100 concurrent creates with a port, CPU a server",
        boots["server_cpu_ms_per_op"], peer.cpu_ms["boot", "one_port"], 100,
    )  # fmt: skip
    seconds = boots["to_all_active_s"]
    table.add(
        "100 concurrent creates with a port, to all ACTIVE", seconds, "s", "<= 2", seconds <= 2,
        f"real {peer.boot_100_s:.0f} s",
    )  # fmt: skip
    for what in ("network", "subnet", "port"):
        table.ratio(f"{what} create, p50", neutron[f"create_{what}"]["p50_ms"], peer.latency_ms[what], 20)
    bulk = neutron["bulk_100_ports"]["server_cpu_ms_per_op"]
    table.ratio("100 ports in one request, CPU a port", bulk, peer.cpu_ms["port", "bulk"], 20)


def validate(table: Table, cloud: BenchCloud, peer: Peer) -> None:
    """Longer than control_plane.py's rounds: the CPU of one validation is below its resolution."""
    for clients in (1, 8):
        for kind in ("same", "distinct"):
            ours = median([cloud.validate_cpu_ms(clients, kind) for _ in range(5)])
            table.ratio(
                f"validate a token, {clients} clients, {kind} tokens, CPU", ours, peer.cpu_ms["validate", kind], 25
            )


def guests(table: Table, rounds: int, peer: Peer) -> None:
    del peer  # the real one runs no guests here
    found = measure_guests(PORT + 300, rounds)
    started, ratio = found["accepted_to_qemu_ms"], found["ssh_cloud_s"] / found["ssh_by_hand_s"]
    table.add("create accepted to QEMU started, image cached, p50", started, "ms", "<= 150", started <= 150)
    table.add(
        "create to SSH login, against the same guest by hand", ratio, "x", "<= 1.15", ratio <= 1.15,
        f"{found['ssh_cloud_s']:.2f} s against {found['ssh_by_hand_s']:.2f} s",
    )  # fmt: skip


PARTS: dict[str, Callable[[Table, int, Peer], None]] = {
    "start": start_and_memory,
    "control": control_plane,
    "guests": guests,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--peer", action="store_true", help="install and measure the real OpenStack in this run")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    table = Table()
    print(f"load before: {os.getloadavg()[0]:.2f}", flush=True)
    peer = peers.measure() if given.peer else peers.KEPT
    for name in given.only.split(","):
        PARTS[name](table, given.rounds, peer)
    if given.out:
        given.out.write_text(json.dumps(table.rows, indent=2) + "\n")
    return 0 if all(row["holds"] for row in table.rows) else 1


if __name__ == "__main__":
    sys.exit(main())

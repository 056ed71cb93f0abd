"""The real OpenStack's figures: those of another day (`KEPT`), or measured anew beside ours (`measure`).

CPU is that of all server processes per operation, in milliseconds; latencies in milliseconds, starts in seconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bench import processes

HERE: Final = Path(__file__).parent
LIST_SIZE: Final = 100
"""What is listed of the real one: 1,000 servers take it half an hour to make, and its cost is linear in their number."""
VALIDATIONS: Final = 400


@dataclasses.dataclass(frozen=True)
class Peer:
    start_s: float
    memory_mib: float
    cpu_ms: Mapping[tuple[str, str], float]
    latency_ms: Mapping[str, float]
    boot_100_s: float


KEPT: Final = Peer(
    start_s=33.6,
    memory_mib=2360,
    cpu_ms={
        ("validate", "same"): 6.1,
        ("validate", "distinct"): 7.8,
        ("list", "100"): 563.0,
        ("list", "1000"): 5630.0,
        ("boot", "one_port"): 1640.0,
        ("port", "bulk"): 93.0,
    },
    latency_ms={"create_accepted": 149.0, "network": 73.0, "subnet": 63.0, "port": 118.0},
    boot_100_s=91.0,
)
"""A quiet run on a machine of this kind.  Machines differ: trust ratios of one run only (`make bench PEER=1`)."""


def measure() -> Peer:
    """Install what is missing (root, the package registries), start it, measure it, stop it.  Twenty minutes."""
    root = Path(os.environ.get("ANCHOR_DIR", Path.home() / ".anchors" / "openstack"))
    env = {**os.environ, "ANCHOR_DIR": str(root)}
    up = ["bash", str(HERE / "openstack_up.sh")]
    if not (root / ".initialised").exists():
        subprocess.run(up, check=True, env=env)
        subprocess.run(["bash", str(HERE / "openstack_down.sh")], check=True, env=env)
    with _running(up, env):
        start_s = _last_timing(root / "run" / "timings", "start to first servers/detail")
        time.sleep(8)
        memory_mib = sum(processes.pss_mib(_pids(root)).values())
        openrc = _openrc(root / "openrc")
        validate = {("validate", kind): _validate(root, openrc, kind) for kind in ("same", "distinct")}
        figures = _control_plane(root, env | openrc)
    nova, neutron = figures["nova"], figures["neutron"]
    listed = nova[f"list_{LIST_SIZE}"]["detail"]["server_cpu_ms_per_op"]
    port = nova["one_port"]
    return Peer(
        start_s=start_s,
        memory_mib=memory_mib,
        cpu_ms={
            **validate,
            ("list", "100"): listed,
            ("list", "1000"): listed * 1000 / LIST_SIZE,
            ("boot", "one_port"): port["concurrent_100"]["server_cpu_ms_per_op"],
            ("port", "bulk"): neutron["bulk_100_ports"]["server_cpu_ms_per_op"],
        },
        latency_ms={
            "create_accepted": port["post_server"]["p50_ms"],
            **{what: neutron[f"create_{what}"]["p50_ms"] for what in ("network", "subnet", "port")},
        },
        boot_100_s=port["concurrent_100"]["to_all_active_s"],
    )


@contextlib.contextmanager
def _running(up: list[str], env: dict[str, str]) -> Iterator[None]:
    subprocess.run([*up, "start"], check=True, env=env)
    try:
        yield
    finally:
        subprocess.run(["bash", str(HERE / "openstack_down.sh")], check=True, env=env)


def _pids(root: Path) -> list[int]:
    roots = [int(path.read_text().split()[0]) for path in (root / "run").glob("*.pid")]
    return [pid for first in roots for pid in processes.tree(first)]


def _validate(root: Path, openrc: Mapping[str, str], kind: str) -> float:
    password = openrc["OS_PASSWORD"]
    return processes.validate_cpu_ms(
        f"{openrc['OS_AUTH_URL']}/auth/tokens", password, lambda: processes.cpu_s(_pids(root)), 1, kind, VALIDATIONS
    )


def _control_plane(root: Path, env: dict[str, str]) -> dict[str, Any]:
    out = root / "run" / "bench.json"
    command = [sys.executable, str(HERE / "control_plane.py"), "--sections", "nova,neutron", "--out", str(out)]
    sizes = ["--list-sizes", str(LIST_SIZE), "--repeat", "3", "--repeat-large", "1", "--samples", "15"]
    pids = ["--server-pids", str(root / "run" / "*.pid")]
    subprocess.run([*command, *sizes, *pids], check=True, env=env, stdout=subprocess.DEVNULL)
    return dict(json.loads(out.read_text()))


def _openrc(path: Path) -> dict[str, str]:
    pairs = path.read_text().replace("export ", "").split()
    return dict(pair.split("=", 1) for pair in pairs)


def _last_timing(path: Path, label: str) -> float:
    """`HH:MM:SS label   1.23 s`, the newest last."""
    line = [line for line in path.read_text().splitlines() if label in line][-1]
    return float(line.split()[-2])

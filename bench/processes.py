"""What processes use, read from /proc: CPU seconds and memory; and one load that is measured so."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path


def tree(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in path.read_text().split():
                yield from tree(int(child))


def pss_mib(pids: Iterable[int]) -> dict[str, float]:
    """Proportional set size by process."""
    sizes = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            size = int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])
            name = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            sizes[f"{pid} {b' '.join(name[1:4]).decode(errors='replace')[-60:]}"] = size / 1024
    return sizes


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds used so far."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def validate_cpu_ms(
    url: str, password: str, used_s: Callable[[], float], clients: int, kind: str, requests: int
) -> float:
    """CPU of the server for one validation at this `/auth/tokens`: the same token, or many tokens in turn."""
    script = Path(__file__).parent / "validate.py"
    command = [sys.executable, str(script), url, str(clients), kind, str(requests)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as load:
        assert load.stdin is not None and load.stdout is not None
        load.stdin.write(password + "\n")
        load.stdin.flush()
        load.stdout.readline()  # tokens are issued
        before_s = used_s()
        load.stdin.write("go\n")
        load.stdin.flush()
        load.stdout.readline()  # all validated
        return (used_s() - before_s) * 1000 / requests

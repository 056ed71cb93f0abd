"""A cloud of ours for a benchmark: started in a directory of its own, measured from outside, stopped by its own command."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

APUS = [sys.executable, "-m", "apus"]


class BenchCloud:
    def __init__(self, root: Path, port: int, *options: str) -> None:
        self.state_dir, self.port, self.options = root / "state", port, options
        self.env = {**os.environ, "OS_CLIENT_CONFIG_FILE": str(self.state_dir / "clouds.yaml")}

    def up(self) -> float:
        """Start it; returns the seconds from the command's start to the first answer of the API."""
        began_s = time.monotonic()
        command = [*APUS, "up", "--detach", "--state-dir", str(self.state_dir), "--port", str(self.port), *self.options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        answered_s = None
        while answered_s is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", "/identity/v3")
                if connection.getresponse().status == 200:
                    answered_s = time.monotonic() - began_s
            if answered_s is None:
                if process.poll() not in (None, 0):
                    raise SystemExit(f"apus up failed with {process.returncode}")
                time.sleep(0.002)
        if process.wait() != 0:
            raise SystemExit(f"apus up failed with {process.returncode}")
        self.ready_s = time.monotonic() - began_s
        return answered_s

    def down(self) -> None:
        subprocess.run([*APUS, "down", "--state-dir", str(self.state_dir)], check=True, stdout=subprocess.DEVNULL)

    def pids(self) -> list[int]:
        """All processes of this cloud: the supervisor's tree, and whatever names the state directory."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    command = (entry / "cmdline").read_bytes().decode(errors="replace")
                    if str(self.state_dir) in command and int(entry.name) != os.getpid():
                        found.append(int(entry.name))
        return found

    def pss_mib(self) -> dict[str, float]:
        """Proportional set size by process."""
        sizes = {}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
                size = int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])
                name = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                sizes[f"{pid} {b' '.join(name[1:4]).decode(errors='replace')[-60:]}"] = size / 1024
        return sizes

    def pid_file(self) -> Path:
        """The supervisor's pid, for control_plane.py's CPU count of the whole tree."""
        path = self.state_dir / "run" / "bench.pid"
        path.write_text((self.state_dir / "run" / "supervisor.lock").read_text())
        return path

    def cpu_s(self) -> float:
        """CPU seconds that all processes of this cloud have used so far."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def validate_cpu_ms(self, clients: int, kind: str, requests: int = 4000) -> float:
        """CPU of the server for one validation: the same token, or many tokens in turn."""
        script = Path(__file__).parent / "validate.py"
        command = [sys.executable, str(script), str(self.port), str(clients), kind, str(requests)]
        secrets = json.loads((self.state_dir / "secrets.json").read_text())
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self.env) as load:
            assert load.stdin is not None and load.stdout is not None
            load.stdin.write(secrets["admin_password"] + "\n")
            load.stdin.flush()
            load.stdout.readline()  # tokens are issued
            before_s = self.cpu_s()
            load.stdin.write("go\n")
            load.stdin.flush()
            load.stdout.readline()  # all validated
            used_s = self.cpu_s() - before_s
        return used_s * 1000 / requests

    def control_plane(self, *arguments: str) -> dict[str, object]:
        """Run the load script against it."""
        out = self.state_dir / "bench.json"
        script = Path(__file__).parent / "control_plane.py"
        command = [sys.executable, str(script), "--server-pids", str(self.pid_file())]
        password = json.loads((self.state_dir / "secrets.json").read_text())["admin_password"]
        env = self.env | {
            "OS_AUTH_URL": f"http://127.0.0.1:{self.port}/identity/v3",
            "OS_USERNAME": "admin",
            "OS_PASSWORD": password,
            "OS_PROJECT_NAME": "admin",
            "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_ID": "default",
        }
        subprocess.run([*command, "--out", str(out), *arguments], check=True, env=env, stdout=subprocess.DEVNULL)
        return dict(json.loads(out.read_text()))


@contextlib.contextmanager
def bench_cloud(port: int, *options: str) -> Iterator[BenchCloud]:
    root = Path(tempfile.mkdtemp(prefix="apus-bench."))
    cloud = BenchCloud(root, port, *options)
    try:
        yield cloud
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            cloud.down()
        shutil.rmtree(root, ignore_errors=True)

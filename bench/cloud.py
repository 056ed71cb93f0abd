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

from bench import processes

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
        return processes.pss_mib(self.pids())

    def pid_file(self) -> Path:
        """The supervisor's pid, for control_plane.py's CPU count of the whole tree."""
        path = self.state_dir / "run" / "bench.pid"
        path.write_text((self.state_dir / "run" / "supervisor.lock").read_text())
        return path

    def cpu_s(self) -> float:
        """CPU seconds that all processes of this cloud have used so far."""
        return processes.cpu_s(self.pids())

    def validate_cpu_ms(self, clients: int, kind: str, requests: int = 4000) -> float:
        """CPU of the server for one validation: the same token, or many tokens in turn."""
        url = f"http://127.0.0.1:{self.port}/identity/v3/auth/tokens"
        password = json.loads((self.state_dir / "secrets.json").read_text())["admin_password"]
        return processes.validate_cpu_ms(url, password, self.cpu_s, clients, kind, requests)

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

"""What object_store.py is pointed at: a store of ours, or a peer that its script installs and starts."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.cloud import BenchCloud

HERE = Path(__file__).parent
REST_CPU_S, REST_WITHIN_S = 0.3, 120.0
ANCHORS = Path(os.environ.get("ANCHOR_DIR", Path.home() / "anchors"))


class Subject:
    """A running store: how the client reaches it, and the pid files of its server."""

    def __init__(self, name: str, reach: Sequence[str], pids: str) -> None:
        self.name, self._reach, self.pids = name, list(reach), pids

    def load(self, command: str, *words: object) -> dict[str, Any]:
        """Run the client once; the figures of its run."""
        argv = [sys.executable, str(HERE / "object_store.py"), command, *self._reach, "--pids", self.pids]
        argv += [str(word) for word in words]
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{self.name}: {done.stderr[-2000:]}")
        run: dict[str, Any] = json.loads(done.stdout)["runs"][0]
        if run.get("errors") or run.get("bad"):
            raise SystemExit(f"{self.name}: {run}")
        return run


class OurStore(BenchCloud):
    """`apus up --only object`, and who may use it."""

    def __init__(self, root: Path, port: int, drives: Sequence[Path]) -> None:
        self.drives = list(drives) or [root / "drives" / f"d{number}" for number in range(1, 5)]
        super().__init__(root, port, "--only", "object", "--drives", ",".join(map(str, self.drives)))

    def access(self) -> dict[str, str]:
        words = shlex.split((self.state_dir / "object.env").read_text(), comments=True)
        return dict(word.split("=", 1) for word in words)

    def wait_for_rest(self) -> None:
        """Until what a start brings with it is done: it does little of its own accord any more."""
        end_s = time.monotonic() + REST_WITHIN_S
        used_s = self.cpu_s()
        while time.monotonic() < end_s:
            time.sleep(1.0)
            used_s, before_s = self.cpu_s(), used_s
            if used_s - before_s < REST_CPU_S:
                return
        raise SystemExit(f"apus is not at rest after {REST_WITHIN_S:g} s")

    def subject(self) -> Subject:
        known = self.access()
        reach = ["--api", "swift", "--url", known["APUS_URL"], "--user", known["ST_USER"]]
        reach.append(f"--key={known['ST_KEY']}")  # it may begin with a dash
        return Subject("apus", reach, str(self.pid_file()))


@contextlib.contextmanager
def our_store(port: int, drives: Sequence[Path] = ()) -> Iterator[OurStore]:
    root = Path(tempfile.mkdtemp(prefix="apus-objects."))
    store = OurStore(root, port, drives)
    try:
        yield store
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            store.down()
        shutil.rmtree(root, ignore_errors=True)


_S3 = ["--api", "s3", "--access", "ANCHORACCESS", "--secret", "anchorsecret", "--url"]
_PEERS = {
    "swift": (["--api", "swift", "--url", "http://127.0.0.1:8085"], "swift/run/*.pid"),
    "ceph": ([*_S3, "http://127.0.0.1:7480"], "ceph/run/*.pid"),
    "seaweed": ([*_S3, "http://127.0.0.1:8333"], "seaweed/run/*.pid"),
    "nginx": (
        ["--api", "swift", "--url", "http://127.0.0.1:7490", "--token", "none", "--storage-path", "/files",
         "--plain-etags"],
        "nginx/run/nginx.pid",
    ),
}  # fmt: skip


def fill_swift(container: str, names: int) -> None:
    """Names for a container of the running Swift that is there."""
    home = ANCHORS / "swift"
    words = [str(home / "venv/bin/python"), str(HERE / "swift_names.py"), str(home / "dev"), "AUTH_test", container]
    subprocess.run([*words, str(names)], check=True, stdout=sys.stderr)


@contextlib.contextmanager
def peer(name: str) -> Iterator[Subject]:
    """Installed if need be (as root, from Debian's and Python's registries), started, and stopped at the end."""
    reach, pids = _PEERS[name]
    env = {**os.environ, "ANCHOR_DIR": str(ANCHORS)}
    subprocess.run([str(HERE / f"{name}_up.sh")], check=True, env=env, stdout=sys.stderr)
    try:
        yield Subject(name, reach, str(ANCHORS / pids))
    finally:
        subprocess.run([str(HERE / f"{name}_down.sh")], check=False, env=env, stdout=sys.stderr)

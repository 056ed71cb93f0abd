"""The supervisor of one machine: starts the node's processes, restarts what dies, stops all of it on SIGTERM.

It imports next to nothing (it is resident for ever) and knows nothing of clouds.  Guests are not its children: they
outlive it.  A process that keeps dying is restarted ever more slowly, never given up.

    python -m apus.node.supervisor STATE_DIR NAME=ROLES …
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from pathlib import Path

RESTART_FIRST_S = 0.1
RESTART_MAX_S = 30.0
CALM_S = 60.0
"""A process that lived this long starts afresh with the quick restarts."""
STOP_S = 20.0
"""What a process has to end by itself before it is killed."""
LOG_MAX_BYTES = 64 << 20


class Child:
    def __init__(self, name: str, argv: list[str], log_path: Path) -> None:
        self.name, self.argv, self.log_path = name, argv, log_path
        self.pid = 0
        self.started_s = 0.0
        self.pause_s = RESTART_FIRST_S
        self.due_s = 0.0

    def start(self) -> None:
        log = os.open(self.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        null = os.open(os.devnull, os.O_RDONLY)
        actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        self.pid = os.posix_spawn(
            self.argv[0], self.argv, os.environ, file_actions=actions, setsigmask=[], setsigdef=[signal.SIGTERM]
        )
        os.close(log)
        os.close(null)
        self.started_s = time.monotonic()

    def died(self, status: int) -> None:
        lived_s = time.monotonic() - self.started_s
        self.pause_s = RESTART_FIRST_S if lived_s > CALM_S else min(RESTART_MAX_S, self.pause_s * 2)
        self.due_s = time.monotonic() + self.pause_s
        say(f"{self.name} (pid {self.pid}) ended with status {os.waitstatus_to_exitcode(status)}")
        with (self.log_path.parent.parent / "run" / "stages.jsonl").open("a") as stages:
            stages.write(f'{{"process": "{self.name}", "stage": "died", "at_s": {lived_s:.3f}}}\n')
        self.pid = 0


def say(text: str) -> None:
    print(time.strftime("%Y-%m-%dT%H:%M:%S"), text, flush=True)


def reap(children: list[Child]) -> None:
    for child in children:
        if child.pid:
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                child.died(status)


def stop(children: list[Child]) -> None:
    for child in children:
        if child.pid:
            os.kill(child.pid, signal.SIGTERM)
    end_s = time.monotonic() + STOP_S
    while any(child.pid for child in children) and time.monotonic() < end_s:
        signal.sigtimedwait({signal.SIGCHLD}, 0.5)
        reap(children)
    for child in children:
        if child.pid:
            say(f"{child.name} did not end within {STOP_S:g} s and is killed")
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)


def rotate(path: Path) -> None:
    """Keep one older log.  Writers append, so cutting the file under them is safe."""
    if path.exists() and path.stat().st_size > LOG_MAX_BYTES:
        path.with_suffix(".log.1").write_bytes(path.read_bytes())
        os.truncate(path, 0)


def supervise(state_dir: Path, roles: dict[str, str]) -> int:
    (state_dir / "run").mkdir(parents=True, exist_ok=True)
    (state_dir / "log").mkdir(parents=True, exist_ok=True)
    lock = os.open(state_dir / "run" / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"another supervisor runs this cloud already ({state_dir})")
        return 3
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    signals = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    children = [
        Child(
            name,
            [sys.executable, "-m", "apus.node.main", str(state_dir), "--roles", role, "--name", name],
            state_dir / "log" / f"{name}.log",
        )
        for name, role in roles.items()
    ]
    while True:
        now_s = time.monotonic()
        for child in children:
            if not child.pid and now_s >= child.due_s:
                rotate(child.log_path)
                child.start()
        heard = signal.sigtimedwait(signals, 0.1 if any(not child.pid for child in children) else 5.0)
        reap(children)
        for child in children:
            rotate(child.log_path)
        if heard is not None and heard.si_signo in (signal.SIGTERM, signal.SIGINT):
            stop(children)
            os.unlink(state_dir / "run" / "supervisor.lock")
            return 0


if __name__ == "__main__":
    sys.exit(supervise(Path(sys.argv[1]), dict(item.split("=", 1) for item in sys.argv[2:])))

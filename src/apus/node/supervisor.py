"""The supervisor of one machine: starts the node's processes, restarts what dies, stops all of it on SIGTERM.

It imports next to nothing (it is resident for ever) and knows nothing of clouds.  Guests are not its children: they
outlive it.  A process that keeps dying is restarted ever more slowly, never given up.

    python -m apus.node.supervisor STATE_DIR NAME=ROLES …
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import sys
import time
from pathlib import Path

RESTART_FIRST_S = 0.1
RESTART_MAX_S = 4.0
"""A start costs less than a second of CPU: one that never succeeds takes a fifth of a core, and nobody waits long."""
CALM_S = 5.0
"""A process that lived this long had started well, and begins afresh with the quick restarts."""
STOP_S = 20.0
"""What a process has to end by itself before it is killed."""
LOG_MAX_BYTES = 64 << 20
LOCK_TRIES = 10
COPY_BYTES = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


class Child:
    def __init__(self, name: str, argv: list[str], log_path: Path) -> None:
        self.name, self.argv, self.log_path = name, argv, log_path
        self.pid = 0
        self.started_s = 0.0
        self.pause_s = RESTART_FIRST_S
        self.due_s = 0.0

    def start(self) -> None:
        """A machine that cannot start it now (no memory, no disk) is asked again later."""
        self.started_s = time.monotonic()
        opened = []
        try:
            log = os.open(self.log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            opened.append(log)
            null = os.open(os.devnull, os.O_RDONLY)
            opened.append(null)
            actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
            self.pid = os.posix_spawn(
                self.argv[0], self.argv, os.environ, file_actions=actions, setsigmask=[], setsigdef=[signal.SIGTERM]
            )
        except OSError as error:
            self.ended(f"cannot be started: {error}")
        finally:
            for number in opened:
                os.close(number)

    def died(self, status: int) -> None:
        self.ended(f"(pid {self.pid}) ended with status {os.waitstatus_to_exitcode(status)}")
        self.pid = 0

    def ended(self, how: str) -> None:
        lived_s = time.monotonic() - self.started_s
        self.pause_s = RESTART_FIRST_S if lived_s > CALM_S else min(RESTART_MAX_S, self.pause_s * 2)
        self.due_s = time.monotonic() + self.pause_s
        say(f"{self.name} {how}")
        stages = self.log_path.parent.parent / "run" / "stages.jsonl"
        with contextlib.suppress(OSError), stages.open("a") as lines:  # who waits for the start sees it
            lines.write(f'{{"process": "{self.name}", "stage": "died", "at_s": {lived_s:.3f}}}\n')


def say(text: str) -> None:
    with contextlib.suppress(OSError):  # a full disk must not end the one who restarts the others
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
    try:
        if path.stat().st_size <= LOG_MAX_BYTES:
            return
    except FileNotFoundError:
        return
    older = path.with_suffix(".log.1")
    try:
        with path.open("rb") as source, open(os.open(older, _NEW, 0o600), "wb") as target:
            while part := source.read(COPY_BYTES):
                target.write(part)
    except OSError as error:  # a full disk: then the room counts for more than the older lines
        say(f"{older} cannot be kept: {error}")
        older.unlink(missing_ok=True)
    os.truncate(path, 0)


def _locked(lock: int) -> bool:
    """Take the lock.  `apus status` holds it for a moment when it looks, so one refusal says nothing."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.05)
    return False


def node_commands(state_dir: Path, roles: dict[str, str]) -> dict[str, list[str]]:
    """Each process by name: a node with these roles, which ends when this supervisor does."""
    parent = str(os.getpid())
    start = [sys.executable, "-m", "apus.node.main", str(state_dir)]
    return {name: [*start, "--roles", role, "--name", name, "--parent", parent] for name, role in roles.items()}


def supervise(state_dir: Path, commands: dict[str, list[str]]) -> int:
    """Run until SIGTERM or SIGINT.  Exit code 3: another supervisor has this state directory."""
    (state_dir / "run").mkdir(parents=True, exist_ok=True)
    (state_dir / "log").mkdir(parents=True, exist_ok=True)
    lock = os.open(state_dir / "run" / "supervisor.lock", os.O_RDWR | os.O_CREAT, 0o600)
    if not _locked(lock):
        say(f"another supervisor runs this cloud already ({state_dir})")
        return 3
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    signals = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    children = [Child(name, argv, state_dir / "log" / f"{name}.log") for name, argv in commands.items()]
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
            os.ftruncate(lock, 0)  # and not removed: who waits for this file would lock one that is gone
            return 0


if __name__ == "__main__":
    where = Path(sys.argv[1])
    sys.exit(supervise(where, node_commands(where, dict(item.split("=", 1) for item in sys.argv[2:]))))

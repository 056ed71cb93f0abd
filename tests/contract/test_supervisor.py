"""The supervisor as a process, over a child that does what it is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from apus.kernel.errors import Invalid
from apus.kernel.settings import Settings
from apus.node import supervisor
from apus.node.secrets import load_secrets, write_clouds_yaml, write_private
from apus.node.stages import Stages
from apus.node.supervisor import Child, rotate

CHILD = "import os,time; print('born', os.getpid(), os.getppid(), flush=True); time.sleep(60)"
CRASH = "print('born', flush=True); raise SystemExit(7)"
STUBBORN = "import signal,time; signal.signal(15, signal.SIG_IGN); print('born', flush=True); time.sleep(60)"
RUN = """
import sys, json
from pathlib import Path
from apus.node import supervisor
supervisor.STOP_S = 0.5
sys.exit(supervisor.supervise(Path(sys.argv[1]), json.loads(sys.argv[2])))
"""
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    running = []

    def begin(**children: str) -> subprocess.Popen[str]:
        commands = {name: [sys.executable, "-c", code] for name, code in children.items()}
        source = str(Path(supervisor.__file__).parents[2])
        begun = subprocess.Popen(
            [sys.executable, "-c", RUN, str(tmp_path), json.dumps(commands)],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": source},
        )  # fmt: skip
        running.append(begun)
        return begun

    yield begin
    for process in running:
        process.terminate()
        process.wait(10)


def until(what: Callable[[], bool], within_s: float = 15.0) -> None:
    end_s = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < end_s, "it did not come to pass"
        time.sleep(0.02)


def births(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines() if line.startswith("born")] if path.exists() else []


def is_there(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_it_restarts_what_dies_and_stops_all(tmp_path: Path, start: Start) -> None:
    running, log = start(one=CHILD, two=CHILD), tmp_path / "log" / "one.log"
    until(lambda: bool(births(log)) and bool(births(tmp_path / "log" / "two.log")))
    first = int(births(log)[0][1])
    assert int(births(log)[0][2]) == running.pid
    assert log.stat().st_mode & 0o777 == 0o600
    os.kill(first, signal.SIGKILL)
    until(lambda: len(births(log)) == 2)
    pids = [int(births(log)[1][1]), int(births(tmp_path / "log" / "two.log")[0][1])]
    running.send_signal(signal.SIGTERM)
    assert running.wait(10) == 0
    assert not any(is_there(pid) for pid in [first, *pids])


def test_what_keeps_dying_is_restarted_ever_more_slowly(tmp_path: Path, start: Start) -> None:
    running, log = start(one=CRASH), tmp_path / "log" / "one.log"
    began_s, times = time.monotonic(), []
    for count in range(1, 4):
        until(lambda count=count: len(births(log)) >= count)
        times.append(time.monotonic() - began_s)
    assert times[2] - times[1] > times[1] - times[0] > 0.1
    running.terminate()
    said = running.communicate(timeout=10)[0]
    assert "ended with status 7" in said


def test_what_does_not_end_is_killed(tmp_path: Path, start: Start) -> None:
    running = start(one=STUBBORN)
    until(lambda: bool(births(tmp_path / "log" / "one.log")))
    running.terminate()
    said = running.communicate(timeout=10)[0]
    assert "is killed" in said
    assert running.returncode == 0


def test_there_is_one_supervisor_and_the_next_may_follow(tmp_path: Path, start: Start) -> None:
    first = start(one=CHILD)
    until(lambda: bool(births(tmp_path / "log" / "one.log")))
    assert (tmp_path / "run" / "supervisor.lock").read_text() == f"{first.pid}\n"
    second = start(one=CHILD)
    assert second.wait(10) == 3
    first.terminate()
    assert first.wait(10) == 0
    third = start(one=CHILD)
    until(lambda: len(births(tmp_path / "log" / "one.log")) == 2)
    assert third.poll() is None


def test_what_cannot_be_started_now_is_tried_again(tmp_path: Path) -> None:
    child = Child("one", [str(tmp_path / "absent")], tmp_path / "one.log")
    child.start()
    assert child.pid == 0
    assert child.due_s > time.monotonic()


def test_logs_are_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LOG_MAX_BYTES", 10)
    log = tmp_path / "one.log"
    rotate(log)
    log.write_text("short")
    rotate(log)
    assert log.read_text() == "short"
    log.write_text("longer than ten bytes")
    rotate(log)
    assert log.read_text() == ""
    older = tmp_path / "one.log.1"
    assert older.read_text() == "longer than ten bytes"
    assert older.stat().st_mode & 0o777 == 0o600


# ---------------------------------------------------------------------- the rest of the shell: secrets and stages
def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    known = load_secrets(tmp_path)
    assert load_secrets(tmp_path) == known
    path = tmp_path / "secrets.json"
    assert path.stat().st_mode & 0o777 == 0o600
    kept = json.loads(path.read_text())
    del kept["demo_password"]
    write_private(path, json.dumps(kept))
    later = load_secrets(tmp_path)
    assert (later.admin_password, later.cluster_key) == (known.admin_password, known.cluster_key)
    assert later.demo_password != known.demo_password
    path.write_text("{")
    with pytest.raises(Invalid, match=r"secrets\.json"):
        load_secrets(tmp_path)


def test_processes_that_start_together_have_the_same_secrets(tmp_path: Path) -> None:
    code = "import sys, pathlib, apus.node.secrets as s; print(s.load_secrets(pathlib.Path(sys.argv[1])))"
    env = os.environ | {"PYTHONPATH": str(Path(supervisor.__file__).parents[2])}
    argv = [sys.executable, "-c", code, str(tmp_path)]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=env) for _ in range(3)]
    assert len({process.communicate(timeout=20)[0] for process in both}) == 1


def test_a_private_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_private(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_clouds_yaml_holds_any_region(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    path = tmp_path / "clouds.yaml"
    write_clouds_yaml(path, "http://127.0.0.1:1", Settings(region='R: "x" # é'), load_secrets(tmp_path))
    clouds = yaml.safe_load(path.read_text())["clouds"]
    assert clouds["apus-admin"]["region_name"] == 'R: "x" # é'
    assert path.stat().st_mode & 0o777 == 0o600


def test_stages_are_lines(tmp_path: Path) -> None:
    Stages(tmp_path, "control", time.monotonic()).reached("ready")
    (line,) = (tmp_path / "run" / "stages.jsonl").read_text().splitlines()
    assert json.loads(line)["stage"] == "ready"

"""What a runner of programs does, on the real machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import uvloop

from apus.kernel.world import ProcessRef
from apus.platform.process import LocalRunner

WithRunner = Callable[[Callable[[LocalRunner], Awaitable[None]]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def with_runner(request: pytest.FixtureRequest) -> WithRunner:
    """On both loops: production has uvloop, whose pipes and children differ in places."""

    def run(story: Callable[[LocalRunner], Awaitable[None]]) -> None:
        async def tell() -> None:
            runner = LocalRunner()
            async with asyncio.timeout(20):
                await story(runner)
            runner.close()

        with asyncio.Runner(loop_factory=request.param) as loop:
            loop.run(tell())

    return run


async def until_dead(runner: LocalRunner, process: ProcessRef) -> None:
    while runner.alive(process):
        await asyncio.sleep(0.005)


def test_run_gives_code_and_output(with_runner: WithRunner) -> None:
    async def story(runner: LocalRunner) -> None:
        done = await runner.run(
            ["sh", "-c", 'cat; echo "$WORD" >&2; exit 3'], stdin=b"hello", timeout_s=5, env={"WORD": "there"}
        )
        assert (done.exit_code, done.stdout, done.stderr) == (3, b"hello", b"there\n")
        ignored = await runner.run(["true"], stdin=b"x" * 1_000_000, timeout_s=5)
        assert ignored.exit_code == 0

    with_runner(story)


def test_run_ends_what_takes_too_long_with_its_children(with_runner: WithRunner) -> None:
    async def story(runner: LocalRunner) -> None:
        before_s = time.monotonic()
        with pytest.raises(TimeoutError, match="sh did not end within"):
            await runner.run(["sh", "-c", "sleep 30 & sleep 30"], timeout_s=0.2)
        assert time.monotonic() - before_s < 5

    with_runner(story)


def test_run_of_nothing_is_file_not_found(with_runner: WithRunner) -> None:
    async def story(runner: LocalRunner) -> None:
        with pytest.raises(FileNotFoundError):
            await runner.run(["/nowhere/at/all"], timeout_s=1)
        with pytest.raises(FileNotFoundError):
            await runner.spawn(["/nowhere/at/all"], log_path=Path("/dev/null"))

    with_runner(story)


def test_a_spawned_program_lives_and_is_killed_once(with_runner: WithRunner, tmp_path: Path) -> None:
    async def story(runner: LocalRunner) -> None:
        process = await runner.spawn(
            ["sh", "-c", "pwd; exec sleep 60"], log_path=tmp_path / "logs" / "log", cwd=tmp_path
        )
        assert runner.alive(process)
        assert os.getsid(process.pid) == process.pid
        while not (tmp_path / "logs" / "log").read_text():
            await asyncio.sleep(0.005)
        impostor = ProcessRef(process.pid, process.started_ticks + 1)
        assert not runner.alive(impostor)
        await runner.kill(impostor, signal.SIGKILL)
        assert runner.alive(process)
        await runner.kill(process, signal.SIGKILL)
        await until_dead(runner, process)
        await runner.kill(process, signal.SIGKILL)
        assert not Path(f"/proc/{process.pid}").exists()  # reaped, no zombie
        assert not runner.alive(ProcessRef(2**22 + 1, 1))

    with_runner(story)
    assert (tmp_path / "logs" / "log").read_text() == f"{tmp_path}\n"


_FIRST_THREAD_ENDS = """
import ctypes, os, sys, threading, time

def wait():
    while os.path.exists(sys.argv[1]):
        time.sleep(0.005)
    os._exit(0)

threading.Thread(target=wait).start()
SYS_exit = 60 if os.uname().machine == "x86_64" else 93
ctypes.CDLL(None).syscall(SYS_exit, 0)
"""


def test_a_process_lives_as_long_as_its_last_thread(with_runner: WithRunner, tmp_path: Path) -> None:
    """As a killed QEMU does for a moment, still with the locks of its images."""

    async def story(runner: LocalRunner) -> None:
        stays = tmp_path / "stays"
        stays.touch()
        argv = [sys.executable, "-c", _FIRST_THREAD_ENDS, str(stays)]
        process = await runner.spawn(argv, log_path=tmp_path / "log")
        status = Path(f"/proc/{process.pid}/status")
        while "Z (zombie)" not in status.read_text():
            await asyncio.sleep(0.005)
        assert runner.alive(process)
        stays.unlink()
        await until_dead(runner, process)

    with_runner(story)


def test_the_log_is_appended_to(with_runner: WithRunner, tmp_path: Path) -> None:
    async def story(runner: LocalRunner) -> None:
        for word in ("one", "two"):
            process = await runner.spawn(["echo", word], log_path=tmp_path / "log")
            await until_dead(runner, process)

    with_runner(story)
    assert (tmp_path / "log").read_text() == "one\ntwo\n"


def test_a_spawned_program_outlives_its_parent(with_runner: WithRunner, tmp_path: Path) -> None:
    parent = """
import asyncio, sys
from pathlib import Path
from apus.platform.process import LocalRunner

async def main():
    process = await LocalRunner().spawn(["sleep", "60"], log_path=Path(sys.argv[1]))
    print(process.pid, process.started_ticks)

asyncio.run(main())
"""

    async def story(runner: LocalRunner) -> None:
        done = await runner.run(
            [sys.executable, "-c", parent, str(tmp_path / "log")],
            timeout_s=15,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")},
        )
        process = ProcessRef(*map(int, done.stdout.split()))
        assert runner.alive(process)
        await runner.kill(process, signal.SIGKILL)
        await until_dead(runner, process)

    with_runner(story)


def test_threads_run_beside_the_loop(with_runner: WithRunner) -> None:
    async def story(runner: LocalRunner) -> None:
        assert await runner.in_thread(lambda: 6 * 7) == 42
        with pytest.raises(ZeroDivisionError):
            await runner.in_thread(lambda: 1 // 0)

    with_runner(story)

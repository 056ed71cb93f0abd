"""Programs on this machine.

A spawned program has a session of its own and no pipe to us, so it outlives us.  A child that has ended stays
a zombie until its parent asks for it: it counts as dead, and asking here is what reaps it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal as signals
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from apus.kernel.world import Completed, ProcessRef
from apus.platform.threads import Threads

T = TypeVar("T")

THREADS_MAX = 8
"""For hashing and checksums: more than the cores would only wait for each other."""
OUTPUT_BYTES_MAX = 64 << 20
"""A program that prints more has lost its way, and would take our memory with it."""


def started_ticks(pid: int) -> int | None:
    """When the process started, or None when there is none or it is a zombie.

    A killed process whose first thread has ended may have others that have not: until they have, its files are open
    and its locks are held, so it lives.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name, field 2, is in parentheses and may hold anything; what follows the last one is regular.
    fields = text[text.rindex(")") + 2 :].split()
    state, threads, started = fields[0], int(fields[17]), int(fields[19])
    return None if state in "ZXx" and threads <= 1 else started


class LocalRunner:
    def __init__(self) -> None:
        self._threads = Threads(THREADS_MAX, "apus-work")
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    async def in_thread(self, work: Callable[[], T]) -> T:
        return await self._threads.run(work)

    def close(self) -> None:
        """Spawned programs go on."""
        self._threads.close()

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(timeout_s):
                stdout, stderr = await _communicate(process, stdin)
        except BaseException as error:
            # The whole session goes: a grandchild that holds the pipe would keep us waiting for its end.
            _kill_session(process.pid)
            await process.wait()
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"{argv[0]} did not end within {timeout_s:g} s") from None
            raise
        assert process.returncode is not None
        return Completed(process.returncode, stdout, stderr)

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        handles: Sequence[int] = (),
    ) -> ProcessRef:
        def start() -> subprocess.Popen[bytes]:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            with log_path.open("ab") as log:
                return subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=env,
                    cwd=cwd,
                    pass_fds=handles,
                    start_new_session=True,
                )

        child = await self.in_thread(start)
        self._reap()
        self._children[child.pid] = child
        # One that has ended already is a zombie until we reap it, so its entry is there.
        ticks = _ticks_of_child(child.pid)
        return ProcessRef(child.pid, ticks)

    def alive(self, process: ProcessRef) -> bool:
        self._reap()
        return started_ticks(process.pid) == process.started_ticks

    async def kill(self, process: ProcessRef, signal: int) -> None:
        try:
            handle = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return
        try:
            # The handle is to one process for good: what is checked is what is killed.
            if started_ticks(process.pid) == process.started_ticks:
                signals.pidfd_send_signal(handle, signal)
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)

    def _reap(self) -> None:
        for pid, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[pid]


def _ticks_of_child(pid: int) -> int:
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text[text.rindex(")") + 2 :].split()[19])


def _kill_session(pid: int) -> None:
    try:
        os.killpg(pid, signals.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


async def _communicate(process: asyncio.subprocess.Process, stdin: bytes) -> tuple[bytes, bytes]:
    async def feed() -> None:
        assert process.stdin is not None
        # It may not want all of it; where asyncio says BrokenPipeError, uvloop says RuntimeError.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, RuntimeError):
            process.stdin.write(stdin)
            await process.stdin.drain()
            process.stdin.close()

    async def collect(stream: asyncio.StreamReader | None) -> bytes:
        assert stream is not None
        parts: list[bytes] = []
        total = 0
        while part := await stream.read(1 << 16):
            total += len(part)
            if total > OUTPUT_BYTES_MAX:
                raise OverflowError(f"a program printed more than {OUTPUT_BYTES_MAX} bytes")
            parts.append(part)
        return b"".join(parts)

    _, stdout, stderr, _ = await asyncio.gather(
        feed(), collect(process.stdout), collect(process.stderr), process.wait()
    )
    return stdout, stderr

"""Programs of a simulated machine: coroutines that live and die.

They belong to the machine: the process that spawned them may be killed and they go on, until the power fails.
A program stands under its name (`argv[0]`) in the machine's table; what it does with the world is its own affair.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import signal as signals
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TypeVar

from apus.kernel.world import Completed, ProcessRef
from apus.sim.life import Life
from apus.sim.trace import Trace

T = TypeVar("T")


@dataclasses.dataclass(slots=True, eq=False)
class SimProcess:
    """What a program is given; it returns its exit code."""

    argv: Sequence[str]
    stdin: bytes = b""
    env: Mapping[str, str] = dataclasses.field(default_factory=dict)
    stdout: bytearray = dataclasses.field(default_factory=bytearray)
    stderr: bytearray = dataclasses.field(default_factory=bytearray)
    on_signal: dict[int, Callable[[], None]] = dataclasses.field(default_factory=dict)
    """A signal that is not in here ends the program; SIGKILL always does."""


Program = Callable[[SimProcess], Awaitable[int]]


class SimMachine:
    """The process table of one machine."""

    def __init__(self, dice: Random, trace: Trace, *, name: str = "machine", start_delay_max_s: float = 0.02) -> None:
        self.programs: dict[str, Program] = {}
        self.dice, self.trace, self.name = dice, trace, name
        self.start_delay_max_s = start_delay_max_s
        self.running: dict[ProcessRef, tuple[SimProcess, asyncio.Task[int]]] = {}
        self._pids = itertools.count(1000)

    def start(self, process: SimProcess) -> tuple[ProcessRef, asyncio.Task[int]]:
        program = self.programs[process.argv[0]]
        loop = asyncio.get_running_loop()
        ref = ProcessRef(next(self._pids), int(loop.time() * 100))
        task = loop.create_task(self._live(program, process))
        self.running[ref] = (process, task)
        self.trace.note("started", self.name, ref.pid, process.argv[0])
        task.add_done_callback(lambda done: self._ended(ref, done))
        return ref, task

    async def _live(self, program: Program, process: SimProcess) -> int:
        try:
            return await program(process)
        except Exception as error:  # as an interpreter would report it: a program's failure is not ours
            process.stderr += repr(error).encode()
            return 1

    def _ended(self, ref: ProcessRef, task: asyncio.Task[int]) -> None:
        self.running.pop(ref, None)
        self.trace.note("ended", self.name, ref.pid, "killed" if task.cancelled() else task.result())

    def signal(self, ref: ProcessRef, signal: int) -> None:
        found = self.running.get(ref)
        if found is None:
            return
        process, task = found
        if signal in process.on_signal and signal != signals.SIGKILL:
            process.on_signal[signal]()
        else:
            del self.running[ref]
            task.cancel()

    def power_cut(self) -> None:
        for ref in list(self.running):
            self.signal(ref, signals.SIGKILL)


class SimRunner:
    """The machine's programs as one process sees them."""

    def __init__(self, machine: SimMachine, life: Life | None = None) -> None:
        self._machine = machine
        self._life = life or Life(machine.name)

    async def _begin(self, argv: Sequence[str]) -> None:
        await self._life.pause(self._machine.dice.uniform(0, self._machine.start_delay_max_s))
        if argv[0] not in self._machine.programs:
            raise FileNotFoundError(f"{argv[0]} is not on the simulated {self._machine.name}")

    async def run(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout_s: float, env: Mapping[str, str] | None = None
    ) -> Completed:
        await self._begin(argv)
        process = SimProcess(argv, stdin, env or {})
        ref, task = self._machine.start(process)
        done, _ = await asyncio.wait([task], timeout=timeout_s)
        self._life.check()
        if not done:
            self._machine.signal(ref, signals.SIGKILL)
            raise TimeoutError(f"{argv[0]} did not end within {timeout_s:g} s")
        code = -signals.SIGKILL if task.cancelled() else task.result()
        return Completed(code, bytes(process.stdout), bytes(process.stderr))

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        handles: Sequence[int] = (),
    ) -> ProcessRef:
        await self._begin(argv)
        ref, _ = self._machine.start(SimProcess(argv, env=env or {}))
        return ref

    def alive(self, process: ProcessRef) -> bool:
        return process in self._machine.running

    async def kill(self, process: ProcessRef, signal: int) -> None:
        self._life.check()
        self._machine.signal(process, signal)

    async def in_thread(self, work: Callable[[], T]) -> T:
        await self._life.pause(self._machine.dice.uniform(0, self._machine.start_delay_max_s))
        return work()

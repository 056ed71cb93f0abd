"""The seams to the outside: time, chance, bus, store, disk and processes, as Protocols and one object.

Production and simulation differ in the `World` that they are given and nowhere else.  Everything that reads a
clock, draws a number, opens a file, starts a process or talks to another part of the cloud does it through here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Protocol, TypeVar

from apus.kernel.sql import Dialect, Rows

T = TypeVar("T")


class Clock(Protocol):
    def now_s(self) -> float:
        """Seconds since the Unix epoch, UTC.  May step; use it for stamps, never for durations."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back, for durations and deadlines within one process."""
        ...

    async def sleep(self, duration_s: float) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Completed:
    """A program that ran to its end."""

    exit_code: int
    stdout: bytes
    stderr: bytes


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessRef:
    """A process, once: the start time tells it from a later one that got the same pid."""

    pid: int
    started_ticks: int
    """Field 22 of /proc/PID/stat."""


class Runner(Protocol):
    """Starts programs from argument lists (never through a shell)."""

    async def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float,
        env: Mapping[str, str] | None = None,
    ) -> Completed:
        """Run to the end; kill and raise TimeoutError after `timeout_s`; raise FileNotFoundError if absent."""
        ...

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        log_path: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        handles: Sequence[int] = (),
    ) -> ProcessRef:
        """Start a program in a session of its own that outlives us, stdout and stderr appended to `log_path`.

        `handles`: open files of ours that it has too, by the same numbers.
        """
        ...

    def alive(self, process: ProcessRef) -> bool: ...

    async def kill(self, process: ProcessRef, signal: int) -> None:
        """Send the signal if it is still that process; already gone is fine."""
        ...

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run a blocking call on a bounded pool of threads (password hashing, checksums)."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Stat:
    size_bytes: int
    modified_s: float
    is_directory: bool


class FileWriter(Protocol):
    async def write(self, data: bytes | memoryview) -> None: ...

    async def sync(self) -> None:
        """Return when everything written so far is on stable storage."""
        ...

    async def close(self) -> None: ...


class OpenFile(Protocol):
    """One file, read and written at offsets by many at once."""

    @property
    def size_bytes(self) -> int:
        """When it was opened, and after our own writes."""
        ...

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """The bytes, if they come without waiting for the drive; None if they do not, or are not all there."""
        ...

    async def read(self, offset: int, length: int) -> bytes:
        """Shorter than `length` at the end of the file."""
        ...

    def view_cached(self, offset: int, length: int) -> memoryview | None:
        """As `read_cached`, of at most BUFFER_BYTES and in a buffer that is used again once no view of it is left."""
        ...

    async def view(self, offset: int, length: int, check: Callable[[memoryview], None]) -> memoryview:
        """As `read`, in such a buffer.  `check` is called where the bytes are still warm: it may run in another
        thread, and what it raises is raised here."""
        ...

    @property
    def handle(self) -> int | None:
        """Its number among the process's open files, for who uses it at once; None where it has none.  Raise ValueError
        when it is closed."""
        ...

    async def write_synced(self, offset: int, parts: Sequence[bytes | memoryview]) -> None:
        """Write these one after the other; return when they are on stable storage."""
        ...

    async def close(self) -> None:
        """Those who read now still get their bytes."""
        ...


class Disk(Protocol):
    """Files with stated durability.  What was not synced may be lost or torn by a power cut, also when renamed."""

    async def read(self, path: Path, *, offset: int = 0, length: int | None = None) -> bytes:
        """Raise FileNotFoundError if absent.  Shorter than `length` at the end of the file."""
        ...

    def stream(
        self, path: Path, *, offset: int = 0, length: int | None = None, chunk_bytes: int = 1 << 18
    ) -> AsyncIterator[bytes]: ...

    async def create(self, path: Path, *, append: bool = False) -> FileWriter:
        """Open for writing, made if absent, emptied unless `append`; parent directories are made."""
        ...

    async def open(self, path: Path, *, make: bool = False) -> OpenFile:
        """Open for reading and writing in place.  Raise FileNotFoundError if absent, unless `make`."""
        ...

    async def write_synced(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        """Replace the file so that after any crash it is the old one or the new one, whole."""
        ...

    async def rename_synced(self, source: Path, target: Path) -> None:
        """Rename over the target, and sync the target's directory."""
        ...

    async def remove(self, path: Path) -> None:
        """Remove a file, or a directory with all in it; already gone is fine."""
        ...

    async def make_directory(self, path: Path) -> None: ...

    async def names(self, path: Path) -> Sequence[str]:
        """Names in a directory, sorted; none if it is absent."""
        ...

    async def stat(self, path: Path) -> Stat | None: ...

    async def free_bytes(self, path: Path) -> int: ...


Handler = Callable[[bytes], Awaitable[bytes]]
Listener = Callable[[str, bytes], Awaitable[None]]


class Subscription(Protocol):
    async def stop(self) -> None: ...


class Bus(Protocol):
    """Hints and questions, never the truth: at most once, unordered, bounded.

    Subjects are dotted words; in `listen` a `*` stands for one word and a final `>` for the rest.
    """

    async def publish(self, subject: str, body: bytes = b"") -> None:
        """Tell whoever listens now.  Never blocks on a listener, never raises because nobody hears."""
        ...

    async def listen(self, subject: str, listener: Listener) -> Subscription:
        """An empty body may also mean that messages were lost, and comes with the subject as it is written here."""
        ...

    async def ask(self, subject: str, body: bytes, *, timeout_s: float) -> bytes:
        """Ask one answerer; raise Unavailable when none answers in time."""
        ...

    async def answer(self, subject: str, handler: Handler) -> Subscription:
        """Answer questions; several answerers of one subject share them."""
        ...

    async def close(self) -> None: ...


class Transaction(Protocol):
    """What a transaction function may do.  It is plain, never awaits, and may be run again from the start."""

    @property
    def dialect(self) -> Dialect:
        """Which engine: for migrations, and for what one engine promises and the other does not."""
        ...

    @property
    def now_s(self) -> float: ...

    def execute(self, statement: str, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] = ()) -> Rows:
        """Run SQL with `:name` parameters; once for each of a list of them.  Raise Taken."""
        ...

    def after_commit(self, hint: Callable[[], None]) -> None:
        """Call when, and only when, this transaction has committed.  Hints only: it may be lost with the process."""
        ...

    def hint(self, subject: str) -> None:
        """An empty message on the bus once this has committed, where there is one; see kernel/hints.py."""
        ...

    @property
    def hinted(self) -> Collection[str]:
        """Subjects of its hints so far."""
        ...


class Store(Protocol):
    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run the function in a transaction; returns after the commit is durable.

        An exception of the function rolls it back and is raised here.  The engine may run the function more than
        once (serialization conflicts); only the last run counts.
        """
        ...

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run the function on one consistent snapshot, which holds every write acknowledged before."""
        ...

    async def close(self) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    """All of the outside that a part of the cloud may touch."""

    clock: Clock
    dice: Random
    bus: Bus
    store: Store
    disk: Disk
    run: Runner

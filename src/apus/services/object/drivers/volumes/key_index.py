"""Which version of what is where on this drive: recent entries in memory, the others in sorted runs.

The journal is the only one that changes it.  `flush` moves what is in memory to a new run, and joins runs of like size
so that there are few; both go on beside readers and the journal.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from apus.kernel.world import World
from apus.services.object.drivers.volumes.run import (
    ABSENT,
    COLD,
    ENTRY_BYTES,
    Cold,
    Entry,
    Nodes,
    Run,
    RunBuilder,
    open_run,
    unpack_entry,
)
from apus.services.object.logic.merge import Fingerprint, digest_of, fingerprint
from apus.services.object.logic.ring import part_of

MERGE_RUNS: Final = 4
"""So many runs of like size become one."""

SLICE: Final = 64
"""Entries that are packed at once, in a third of a millisecond: who packs keeps the interpreter, and requests wait."""
PAUSE_S: Final = 0.005
"""Between two of them."""

SEEN_MAX: Final = 4096
"""Entries of runs that are remembered, a megabyte or so: what is asked for once is often asked for again."""

_UNKNOWN: Final = Entry(0, 0, 0, 0, "", "")


class KeyIndex:
    def __init__(
        self, world: World, directory: Path, part_power: int, nodes: Nodes, mark: Fingerprint = fingerprint
    ) -> None:
        """`mark`: one entry's part in the digest of a partition."""
        self.part_power, self.nodes = part_power, nodes
        self.runs: list[Run] = []
        """Newest first."""
        self.recent: dict[bytes, Entry | None] = {}
        self.parts: dict[int, tuple[int, int]] = {}
        """How many versions a partition has, and the digest of them."""
        self._flushing: dict[bytes, Entry | None] = {}
        self._seen: dict[bytes, Entry] = {}
        """What runs say, of none that is in memory."""
        self._world, self._directory, self._mark = world, directory, mark
        self._last_run = 0

    async def open(self, runs: Sequence[str], named: Sequence[str] = ()) -> None:
        """Raise IndexDamaged or FileNotFoundError unless all of these are there and whole.

        `named`: what the last manifest names, trusted or not.  Until the next is saved no other run may be called so.
        """
        self._last_run = max((int(name[:10]) for name in named), default=0)
        for name in runs:
            self.runs.append(await open_run(self._world.disk, self._directory / name, self.nodes))
        for name in await self._world.disk.names(self._directory):
            if name.endswith((".run", ".run.new")):
                if name not in runs:
                    await self._world.disk.remove(self._directory / name)
                self._last_run = max(self._last_run, int(name[:10]))

    def glance(self, path_hash: bytes) -> Entry | Cold | None:
        """The entry, None when there is none, or COLD when it takes the drive to say."""
        found = self._in_memory(path_hash)
        if found is not _UNKNOWN:
            return found
        seen = self._seen.get(path_hash)
        if seen is not None:
            return seen
        for run in self.runs:
            entry = run.find_cached(path_hash)
            if entry is COLD:
                return COLD
            if isinstance(entry, Entry):
                return None if entry.flags & ABSENT else self._saw(path_hash, entry)
        return None

    async def find(self, path_hash: bytes) -> Entry | None:
        while True:
            found = self.glance(path_hash)
            if not isinstance(found, Cold):
                return found
            runs = list(self.runs)
            for run in runs:
                entry = await run.find(path_hash)
                if entry is not None:
                    break
            if runs == self.runs and self._in_memory(path_hash) is _UNKNOWN:  # nothing came in between
                return None if entry is None or entry.flags & ABSENT else entry

    def set(self, path_hash: bytes, before: Entry | None, after: Entry | None) -> None:
        """`before` is what `find` says now."""
        self.recent[path_hash] = after
        self._seen.pop(path_hash, None)
        if before is not None and after is not None and before.version == after.version:
            return
        text = path_hash.hex()
        part = part_of(text, self.part_power)
        count, digest = self.parts.get(part, (0, 0))
        if before is not None:
            count, digest = count - 1, digest ^ self._mark(text, before.version)
        if after is not None:
            count, digest = count + 1, digest ^ self._mark(text, after.version)
        if count:
            self.parts[part] = count, digest
        else:
            self.parts.pop(part, None)

    async def versions(self, part: int) -> dict[str, tuple[str, str]]:
        """Version by hash, of one partition."""
        return {path_hash.hex(): entry.version async for path_hash, entry in self.entries(part)}

    async def entries(self, part: int) -> AsyncIterator[tuple[bytes, Entry]]:
        """All of one partition, as they are when this begins."""
        width = 64 - self.part_power
        low, high = part << width, (part + 1) << width
        found: dict[bytes, Entry | None] = {}
        while True:
            runs = list(self.runs)
            found.clear()
            for run in reversed(runs):
                data = await run.between(low, high)
                for at in range(0, len(data), ENTRY_BYTES):
                    path_hash, entry = unpack_entry(self.nodes, data[at : at + ENTRY_BYTES])
                    found[path_hash] = entry
            if runs == self.runs:
                break
        first, last = low.to_bytes(8, "big"), (high - 1).to_bytes(8, "big")
        for table in (self._flushing, self.recent):
            found.update((key, entry) for key, entry in table.items() if first <= key[:8] <= last)
        for path_hash in sorted(found):
            entry = found[path_hash]
            if entry is not None:
                yield path_hash, entry

    def freeze(self) -> None:
        """What is in memory now goes into the next run."""
        assert not self._flushing
        self._flushing, self.recent = self.recent, {}

    async def flush(self) -> None:
        """Write what is frozen; when that fails, all is as before."""
        try:
            if self._flushing:
                path = self._next_path()
                await self._world.disk.write_synced(path, await self._built(self._flushing))
                run = await open_run(self._world.disk, path, self.nodes)
                self.runs, self._flushing = [run, *self.runs], {}
        finally:
            if self._flushing:
                self.recent, self._flushing = {**self._flushing, **self.recent}, {}

    async def _built(self, entries: Mapping[bytes, Entry | None]) -> bytes:
        """A run of these."""
        builder, hashes, parts = RunBuilder(len(entries)), sorted(entries), []
        for first in range(0, len(hashes), SLICE):
            if first:
                await self._world.clock.sleep(PAUSE_S)
            some = [(path_hash, entries[path_hash]) for path_hash in hashes[first : first + SLICE]]
            parts.append(await self._world.run.in_thread(partial(builder.take, self.nodes, some)))
        return b"".join([*parts, builder.end()])

    async def merge(self) -> list[Run]:
        """Join the newest runs when there are many of like size; returns those that are no longer needed."""
        count, total = 0, 0
        for run in self.runs:
            if count and run.count > 2 * total:
                break
            count, total = count + 1, total + run.count
        if count < MERGE_RUNS:
            return []
        from apus.services.object.drivers.volumes.run_merge import merge_runs  # numpy: 20 MiB that few drives need

        old, path = self.runs[:count], self._next_path()
        await merge_runs(self._world.disk, self._world.run.in_thread, old, path, oldest=count == len(self.runs))
        merged = await open_run(self._world.disk, path, self.nodes)
        self.runs = [merged, *self.runs[count:]]
        return old

    async def forget(self, runs: list[Run]) -> None:
        for run in runs:
            await run.close()
            await self._world.disk.remove(run.path)

    async def count_parts(self) -> None:
        """Counts and digests from the entries: when they were kept for other partitions, or not at all."""
        self.parts.clear()
        for part in range(1 << self.part_power):
            versions = await self.versions(part)
            if versions:
                self.parts[part] = len(versions), digest_of(versions.items(), self._mark)

    async def close(self) -> None:
        for run in self.runs:
            await run.close()

    def _saw(self, path_hash: bytes, entry: Entry) -> Entry:
        if len(self._seen) >= SEEN_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[path_hash] = entry
        return entry

    def _in_memory(self, path_hash: bytes) -> Entry | None:
        entry = self.recent.get(path_hash, _UNKNOWN)
        return self._flushing.get(path_hash, _UNKNOWN) if entry is _UNKNOWN else entry

    def _next_path(self) -> Path:
        self._last_run += 1
        return self._directory / f"{self._last_run:010d}.run"

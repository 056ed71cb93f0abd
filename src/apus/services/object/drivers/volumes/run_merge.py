"""Several runs made one, a slice of the keys at a time, so that memory is bounded whatever their size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from apus.kernel.world import Disk
from apus.services.object.drivers.volumes.run import (
    ABSENT,
    BLOOM_PROBES,
    ENTRY_BYTES,
    PAGE_ENTRIES,
    Run,
    RunBuilder,
)

SLICE_ENTRIES: Final = 1 << 17
"""What is in memory at a time, of each run."""

_DTYPE: Final = np.dtype(
    [("hi", ">u8"), ("lo", ">u8"), ("rest", "V32"), ("nodes", "V4"), ("flags", "<u2"), ("pad", "V2")]
)
assert _DTYPE.itemsize == ENTRY_BYTES

InThread = Callable[[Callable[[], bytes]], Awaitable[bytes]]


async def merge_runs(disk: Disk, in_thread: InThread, runs: Sequence[Run], target: Path, *, oldest: bool) -> None:
    """Write one run with the newest entry of each hash; `runs` are newest first.

    With the oldest run among them, hashes that are absent need no entry any more.
    """
    builder = RunBuilder(sum(run.count for run in runs))
    writing = target.with_name(f"{target.name}.new")
    file = await disk.create(writing)
    try:
        for low, high in _slices(runs):
            pieces = [await run.between(low, high) for run in runs]
            await file.write(await in_thread(lambda pieces=pieces: _merged(builder, pieces, oldest)))  # type: ignore[misc]
        await file.write(await in_thread(builder.end))
        await file.sync()
    finally:
        await file.close()
    await disk.rename_synced(writing, target)


def _slices(runs: Sequence[Run]) -> Iterator[tuple[int, int]]:
    largest = max(runs, key=lambda run: run.count)
    low = 0
    for high in largest.first_keys[SLICE_ENTRIES // PAGE_ENTRIES :: SLICE_ENTRIES // PAGE_ENTRIES]:
        if high > low:
            yield low, high
            low = high
    yield low, 1 << 64


def _merged(builder: RunBuilder, pieces: Sequence[bytes], oldest: bool) -> bytes:
    entries = _newest(pieces, oldest)
    bloom = np.frombuffer(builder.bloom, np.uint8)
    high, low = entries["hi"].astype(np.uint64), entries["lo"].astype(np.uint64) | np.uint64(1)
    for probe in range(BLOOM_PROBES):
        place = (high + np.uint64(probe) * low) % np.uint64(len(bloom) * 8)
        np.bitwise_or.at(bloom, place >> np.uint64(3), np.uint8(1) << (place & np.uint64(7)).astype(np.uint8))
    return builder.add(entries.tobytes())


def _newest(pieces: Sequence[bytes], oldest: bool) -> np.ndarray[Any, np.dtype[Any]]:
    joined = np.frombuffer(b"".join(pieces), _DTYPE)
    ages = np.concatenate([np.full(len(piece) // ENTRY_BYTES, age, np.uint32) for age, piece in enumerate(pieces)])
    order = np.lexsort((ages, joined["lo"].astype(np.uint64), joined["hi"].astype(np.uint64)))
    joined = joined[order]
    if len(joined) > 1:
        again = (joined["hi"][1:] == joined["hi"][:-1]) & (joined["lo"][1:] == joined["lo"][:-1])
        joined = joined[np.concatenate([[True], ~again])]
    return joined[joined["flags"] & ABSENT == 0] if oldest else joined

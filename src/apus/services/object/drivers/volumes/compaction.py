"""Gives back the room of what is dead: what lives in a volume is appended to the log again, and the volume removed.

It moves like any other write, so a crash at any moment leaves the old record, the new one or both.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

from apus.kernel.world import World
from apus.services.object.drivers.volumes.files import Volumes
from apus.services.object.drivers.volumes.journal import Drop, Journal, Lose, Put, Wish
from apus.services.object.drivers.volumes.record import DROP, VOLUME_HEADER_BYTES, Record
from apus.services.object.drivers.volumes.recovery import scan

DEAD_SHARE: Final = 0.5
SMALL_SHARE: Final = 1 / 8
"""Each start begins a volume: so many times smaller than a full one, and several of them are joined."""

SMALL_MAX: Final = 8
MOVE_BYTES: Final = 2 << 20
"""What is moved at a time; then compaction rests for as long as that took."""


def most_wasteful(volumes: Volumes) -> int | None:
    """The volume that is worth compacting most."""
    closed = {number: usage for number, usage in volumes.usage.items() if number != volumes.active}
    share = {number: usage.dead_bytes / max(1, usage.total_bytes) for number, usage in closed.items()}
    wasteful = [number for number in closed if share[number] >= DEAD_SHARE]
    if wasteful:
        return max(wasteful, key=lambda number: share[number])
    small = [number for number in closed if closed[number].total_bytes < volumes.volume_bytes * SMALL_SHARE]
    return min(small) if len(small) > SMALL_MAX else None


async def compact(world: World, journal: Journal, number: int) -> int:
    """Move all that lives and remove the volume; returns how many bytes were moved."""
    volumes = journal.volumes
    moving: list[Wish] = []
    held = moved = 0
    began_s = world.clock.monotonic_s()
    async with aclosing(scan(volumes, number, VOLUME_HEADER_BYTES)) as records:
        async for offset, record, data in records:
            wish = await _wish(journal, number, offset, record, data)
            if wish is not None:
                moving.append(wish)
                held += record.length
            if held >= MOVE_BYTES:
                await asyncio.gather(*(journal.submit(wish) for wish in moving))
                moved, moving, held = moved + held, [], 0
                await world.clock.sleep(world.clock.monotonic_s() - began_s)
                began_s = world.clock.monotonic_s()
    await asyncio.gather(*(journal.submit(wish) for wish in moving))
    if volumes.usage[number].live_bytes > 0:
        await _lose_rest(journal, number)
    await volumes.remove(number)
    return moved + held


async def _wish(journal: Journal, number: int, offset: int, record: Record, data: memoryview) -> Wish | None:
    if record.kind == DROP:
        older = any(other < number for other in journal.volumes.usage)
        return Drop(record.hash, record.dropped, carried=True) if older else None
    entry = await journal.index.find(record.hash)
    if entry is None or (entry.volume, entry.offset) != (number, offset):
        return None
    unlisted = record.hash in journal.unlisted
    return Put(record.hash, record.head, bytes(data), record.path, unlisted=unlisted, replaces=entry)


async def _lose_rest(journal: Journal, number: int) -> None:
    """What could not be read is repaired from other drives."""
    for part in list(journal.index.parts):
        async for path_hash, entry in journal.index.entries(part):
            if entry.volume == number:
                await journal.submit(Lose(path_hash, entry))

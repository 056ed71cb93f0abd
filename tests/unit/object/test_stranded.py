"""The mark of what stand-ins alone have: there before who strands something is answered, gone only when nothing is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from apus.services.object.stranded import StrandedMark
from tests.object_store import awaited
from tests.sim.object_disk import FaultyDisk

ROOT = Path("/state")
MARK = ROOT / "stranded"


@awaited
async def test_it_is_durable_once_set_and_found_by_the_next() -> None:
    disk = FaultyDisk()
    mark = StrandedMark(disk, MARK)
    assert not await mark.load()
    await mark.set()
    disk.power_cut()
    assert await StrandedMark(disk, MARK).load()
    await mark.clear(lambda: False)
    assert await StrandedMark(disk, MARK).load()
    await mark.clear(lambda: True)
    assert not await StrandedMark(disk, MARK).load()


@awaited
async def test_what_the_last_process_left_can_be_cleared() -> None:
    disk = FaultyDisk()
    await StrandedMark(disk, MARK).set()
    mark = StrandedMark(disk, MARK)
    await mark.clear(lambda: True)
    assert MARK in disk.files, "it has not looked yet"
    assert await mark.load()
    await mark.clear(lambda: True)
    assert MARK not in disk.files


@awaited
async def test_one_that_could_not_be_written_is_written_again() -> None:
    disk = FaultyDisk()
    mark = StrandedMark(disk, MARK)
    disk.read_only.add(ROOT)
    with pytest.raises(OSError, match=r"read.only"):
        await mark.set()
    disk.read_only.clear()
    await mark.set()
    assert MARK in disk.synced


@awaited
async def test_one_that_could_not_be_removed_is_removed_later_and_may_be_set_meanwhile() -> None:
    disk = _Stubborn()
    mark = StrandedMark(disk, MARK)
    await mark.set()
    with pytest.raises(OSError, match="it stays"):
        await mark.clear(lambda: True)
    disk.files.pop(MARK)
    disk.synced.pop(MARK)  # or was it removed, and only not said so?
    await mark.set()
    assert MARK in disk.synced
    disk.is_stubborn = False
    await mark.clear(lambda: True)
    assert MARK not in disk.files


class _Stubborn(FaultyDisk):
    is_stubborn = True

    async def remove(self, path: Path) -> None:
        if self.is_stubborn:
            raise OSError("it stays")
        await super().remove(path)


class _SlowDisk(FaultyDisk):
    """Each call lets others go on."""

    async def write_synced(self, path: Path, data: bytes, *, mode: int = 0o600) -> None:
        await asyncio.sleep(0)
        await super().write_synced(path, data, mode=mode)
        await asyncio.sleep(0)

    async def remove(self, path: Path) -> None:
        await asyncio.sleep(0)
        await super().remove(path)
        await asyncio.sleep(0)


@pytest.mark.parametrize("seed", range(30))
@awaited
async def test_whoever_was_answered_while_something_is_stranded_finds_it_set(seed: int) -> None:
    dice, disk, stranded = Random(seed), _SlowDisk(), 0
    mark = StrandedMark(disk, MARK)

    async def strands() -> None:
        nonlocal stranded
        for _ in range(20):
            stranded += 1
            await mark.set()
            for _ in range(dice.randrange(4)):
                assert MARK in disk.synced
                await asyncio.sleep(0)
            stranded -= 1
            for _ in range(dice.randrange(4)):
                await asyncio.sleep(0)

    async def looks() -> None:
        while True:
            await mark.clear(lambda: not stranded)
            await asyncio.sleep(0)

    looking = asyncio.create_task(looks())
    await asyncio.gather(*(strands() for _ in range(3)))
    await asyncio.sleep(0.01)
    looking.cancel()
    assert MARK not in disk.files

"""The key index on a real disk: what was in memory is found in the run that it became, piece by piece."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from apus.services.object.drivers.volumes.key_index import MERGE_RUNS, SEEN_MAX, SLICE, KeyIndex
from apus.services.object.drivers.volumes.run import Entry, Nodes
from apus.services.object.logic.merge import make_stamp
from tests.object_store import awaited, make_world


@awaited
async def test_a_run_that_was_packed_in_pieces_has_every_entry(tmp_path: Path) -> None:
    dice = Random(5)
    index = KeyIndex(make_world(), tmp_path, 4, Nodes())
    entries: dict[bytes, Entry | None] = {
        dice.randbytes(16): Entry(1, number * 100, 100, 40, make_stamp(number + 1, f"n{number % 3}"), "")
        for number in range(3 * SLICE + 7)
    }
    for path_hash, entry in entries.items():
        index.set(path_hash, None, entry)
    gone = next(iter(entries))
    index.set(gone, entries[gone], None)
    entries[gone] = None
    index.freeze()
    await index.flush()
    assert not index.recent
    assert [run.count for run in index.runs] == [len(entries)]
    for path_hash, entry in entries.items():
        assert index.runs[0].says(path_hash)
        assert await index.find(path_hash) == entry
    absent = [dice.randbytes(16) for _ in range(1000)]
    assert [await index.find(path_hash) for path_hash in absent] == [None] * len(absent)
    assert sum(index.runs[0].says(path_hash) for path_hash in absent) < 50
    found = [versions for part in range(16) if (versions := await index.versions(part))]
    assert sum(map(len, found)) == len(entries) - 1
    await index.close()


@pytest.mark.parametrize("seed", range(20))
@awaited
async def test_what_was_seen_in_a_run_is_never_older_than_what_was_set(tmp_path: Path, seed: int) -> None:
    dice = Random(seed)
    index = KeyIndex(make_world(), tmp_path, 4, Nodes())
    truth: dict[bytes, Entry | None] = {}
    hashes = [dice.randbytes(16) for _ in range(40)]
    flushes = 0
    for ticks in range(1, 400):
        path_hash = dice.choice(hashes)
        act = dice.random()
        if act < 0.3:
            after = None if dice.random() < 0.3 else Entry(1, ticks, 100, 40, make_stamp(ticks, "n1"), "")
            index.set(path_hash, truth.get(path_hash), after)
            truth[path_hash] = after
        elif act < 0.36:
            index.freeze()
            during = dice.choice(hashes)
            assert await index.find(during) == truth.get(during) == index.glance(during)
            index.set(during, truth.get(during), None)
            truth[during] = None
            await index.flush()
            flushes += 1
            await index.forget(await index.merge())
        else:
            assert await index.find(path_hash) == truth.get(path_hash) == index.glance(path_hash)
    assert flushes > MERGE_RUNS
    await index.close()


@awaited
async def test_only_so_many_are_remembered(tmp_path: Path) -> None:
    dice, index = Random(6), KeyIndex(make_world(), tmp_path, 4, Nodes())
    entry = Entry(1, 100, 100, 40, make_stamp(1, "n1"), "")
    hashes = [dice.randbytes(16) for _ in range(SEEN_MAX + 10)]
    for path_hash in hashes:
        index.set(path_hash, None, entry)
    index.freeze()
    await index.flush()
    for path_hash in hashes:
        assert await index.find(path_hash) == entry  # a run may be written past the page cache: this fills it
    for _ in range(2):
        assert all(index.glance(path_hash) == entry for path_hash in hashes)
    assert len(index._seen) == SEEN_MAX
    await index.close()

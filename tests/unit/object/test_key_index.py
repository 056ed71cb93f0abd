"""The key index on a real disk: what was in memory is found in the run that it became, piece by piece."""

from __future__ import annotations

from pathlib import Path
from random import Random

from apus.services.object.drivers.volumes.key_index import SLICE, KeyIndex
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

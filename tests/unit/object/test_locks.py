"""Locks of versions: what a retention may become, and that not even a deleted account takes a locked version along."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apus.kernel.errors import Forbidden
from apus.services.object.assembly import drives_in, open_store
from apus.services.object.engine import Intent
from apus.services.object.logic.locks import (
    COMPLIANCE,
    GOVERNANCE,
    MODES,
    Default,
    Retention,
    check_change,
    is_locked,
    retention_headers,
)
from apus.services.object.logic.uploads import parts_container
from apus.services.object.logic.versions import version_of
from tests.object_store import FixedClock, all_of, awaited, chunks, drive_paths, make_world

retentions = st.none() | st.builds(Retention, st.sampled_from(MODES), st.integers(0, 100).map(float))


def headers_of(retention: Retention | None) -> dict[str, str]:
    return {name: value for name, value in retention_headers(retention).items() if value}


@given(retentions, st.lists(st.tuples(retentions, st.booleans()), max_size=6), st.integers(0, 100))
def test_no_way_round(first: Retention | None, changes: list[tuple[Retention | None, bool]], now_s: int) -> None:
    """Whatever is changed: who could not delete the version before cannot after, unless he may bypass."""
    headers = headers_of(first)
    for after, bypass in changes:
        before = is_locked(headers, now_s), is_locked(headers, now_s, bypass=True)
        try:
            check_change(headers, after, now_s, bypass=bypass)
        except Forbidden:
            continue
        headers = headers_of(after)
        assert bypass or not before[0] or is_locked(headers, now_s)
        assert not before[1] or is_locked(headers, now_s, bypass=True)


def test_compliance_gives_way_to_nobody() -> None:
    for mode, gives_way in ((GOVERNANCE, True), (COMPLIANCE, False)):
        headers = headers_of(Retention(mode, 10.0))
        assert is_locked(headers, 9.9)
        assert is_locked(headers, 9.9, bypass=True) is not gives_way
        assert not is_locked(headers, 10.0)


@awaited
async def test_an_account_goes_and_its_locked_versions_stay(tmp_path: Path) -> None:
    clock = FixedClock(1_000_000.0)
    store = await open_store(make_world(clock=clock), drives_in(drive_paths(tmp_path, 3)), tmp_path / "layout.json")
    objects = store.service
    await objects.make_container("AUTH_a", "c", {})
    await objects.set_versioning("AUTH_a", "c", "enabled")
    await objects.set_locking("AUTH_a", "c", Default(COMPLIANCE, 1_000))
    head = await objects.put(Intent("AUTH_a", "c", "o", "text/plain", {}), chunks(b"x"))
    whole = Intent("AUTH_a", "c", "parts", "text/plain", {})
    upload = await objects.uploads.find("AUTH_a", "c", "parts", await objects.uploads.begin(whole))
    await objects.uploads.put_part(upload, 1, whole, chunks(b"part"))
    parts = await objects.uploads.parts(upload, "c")
    in_parts = await objects.uploads.finish(upload, whole, list(parts.values()))
    await objects.delete_account("AUTH_a")
    clock.at_s += 500
    await store.reaper.run_once()
    await store.sweeper.run_once()
    found = await objects.find("AUTH_a", "c", "parts", version_id=version_of(in_parts))
    assert found is not None
    opened = await objects.open_parts(found)
    assert await all_of(opened.stream(0, 4)) == b"part"
    with pytest.raises(Forbidden):
        await objects.delete("AUTH_a", "c", "o", version_id=version_of(head), bypass=True)
    clock.at_s += 501
    await store.reaper.run_once()
    await store.reaper.run_once()
    assert await objects.find("AUTH_a", "c", "o", version_id=version_of(head)) is None
    assert not [row for row in await objects.directory.rows("AUTH_a", parts_container("c"), "", 9) if not row.gone]
    await store.close()

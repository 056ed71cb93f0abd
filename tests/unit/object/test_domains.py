"""Of which domain an account is: what is kept, what identity says, and for how long that is believed."""

from __future__ import annotations

from pathlib import Path

from apus.services.object.assembly import drives_in, open_store
from apus.services.object.domains import UNKNOWN_S
from apus.services.object.logic.account_access import DOMAIN
from tests.contract.swift_server import Everybody, caller
from tests.object_store import FixedClock, awaited, drive_paths, make_world


@awaited
async def test_identity_is_asked_once_and_again_while_it_does_not_know(tmp_path: Path) -> None:
    clock, everybody = FixedClock(1_000_000.0), Everybody()
    drives = drives_in(drive_paths(tmp_path, 3))
    store = await open_store(make_world(clock=clock), drives, tmp_path / "layout.json", principals=everybody)
    domains = store.service.domains
    for silent in (False, True):
        everybody.silent = silent
        assert [await domains.of("AUTH_p"), await domains.of("AUTH_p")] == ["", ""]
        clock.at_s += UNKNOWN_S
    assert everybody.asked == 2
    everybody.silent, everybody.domains["p"] = False, "d"
    assert await domains.of("AUTH_p") == "d"
    clock.at_s += 1e9
    assert await domains.of("AUTH_p") == "d"
    assert everybody.asked == 3
    assert await domains.of(".s3") == ""
    assert everybody.asked == 3, "what is hidden is no project's"
    await store.close()


@awaited
async def test_an_account_that_is_gone_does_not_come_back_by_what_it_learns(tmp_path: Path) -> None:
    store = await open_store(make_world(), drives_in(drive_paths(tmp_path, 3)), tmp_path / "layout.json")
    objects, owner = store.service, caller("p", domain="d")
    await objects.domains.learn("AUTH_p", owner)
    assert await objects.directory.head("AUTH_p") is None
    await objects.make_container("AUTH_p", "c", {})
    await objects.domains.learn("AUTH_p", caller("other"))
    assert await objects.domains.of("AUTH_p") == ""
    head = await objects.directory.known("AUTH_p", "")
    await objects.delete_account("AUTH_p")
    objects.directory._cache["AUTH_p", ""] = objects.cluster.world.clock.monotonic_s(), head
    await objects.domains.learn("AUTH_p", owner)
    gone = await objects.directory.head("AUTH_p")
    assert gone is not None
    assert not gone.exists
    await objects.make_container("AUTH_p", "c", {}, caller=owner)
    made = await objects.directory.head("AUTH_p")
    assert made is not None
    assert made.metadata == {DOMAIN: "d"}
    await store.close()

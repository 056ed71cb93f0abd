"""Repair in virtual time: how soon it starts, how fast it goes, and whether it knows how long it will take."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from apus.services.object.pace import Wish
from apus.services.object.repair_status import repair_status
from apus.services.object.repairs import Key, Repairs, Urgency
from apus.sim.loop import run
from tests.sim.running_store import LOST, ROOT, running


def test_a_lost_drive_is_noticed_and_its_copies_are_made_elsewhere_within_a_second() -> None:
    async def story() -> None:
        async with running() as one:
            await one.fill(40)
            await one.until(one.is_whole, 60)
            one.disk.away.add(LOST)

            async def begun() -> bool:
                return bool(one.cluster.pace.copied)

            assert await one.until(begun, 5) < 1.0

            async def safe() -> bool:
                return await one.lacking() == 0

            await one.until(safe, 30)
            status = await repair_status(one.cluster)
            assert (status.copies_at_risk, status.drives_away) == (0, ("drive1",))
            assert status.state in ("waiting", "repairing")

    run(story())


@pytest.mark.parametrize("away_s", [0.6, 7.0, 40.0])
@pytest.mark.parametrize("how", ["as it was", "old", "empty"])
def test_a_drive_that_returns_is_whole_again_without_waiting_for_a_scan(away_s: float, how: str) -> None:
    async def story() -> None:
        async with running() as one:
            await one.fill(20)
            await one.until(one.is_whole, 60)
            before = one.disk.snapshot(LOST)
            await one.fill(40)
            await one.until(one.is_whole, 60)
            one.disk.away.add(LOST)
            await asyncio.sleep(away_s)
            if how == "old":
                one.disk.restore(LOST, before)
            elif how == "empty":
                one.wipe()
            one.disk.away.discard(LOST)
            made = one.cluster.pace.copied

            async def begun() -> bool:
                return one.cluster.pace.copied > made or await one.is_whole()

            assert await one.until(begun, 5) < 1.0
            assert await one.until(one.is_whole, 10) < 3.0
            counts = [len(await drive.copies.census()) for drive in one.store.drives]
            assert all(counts)

    run(story())


def test_time_left_is_right_within_a_fifth() -> None:
    async def story() -> None:
        async with running() as one:
            await one.fill(400, 60_000)
            await one.until(one.is_whole, 60)
            one.cluster.pace.set(Wish(cap_bytes_s=1 << 20))
            one.disk.away.add(LOST)
            told: list[tuple[float, float]] = []
            began_s = one.now_s
            while not told or await one.lacking():
                await asyncio.sleep(0.5)
                status = await repair_status(one.cluster)
                if status.seconds_left and one.now_s - began_s > 3:
                    told.append((one.now_s, status.seconds_left))
            ended_s = one.now_s
            assert ended_s - began_s > 10
            long = [(at_s, left_s) for at_s, left_s in told if ended_s - at_s > 2]
            assert len(long) > 10
            for at_s, left_s in long:
                assert left_s == pytest.approx(ended_s - at_s, rel=0.2, abs=0.6), (at_s, left_s, ended_s)

    run(story())


def test_repair_is_paused_resumed_and_capped() -> None:
    async def story() -> None:
        async with running() as one:
            await one.fill(200, 60_000)
            await one.until(one.is_whole, 60)
            one.cluster.pace.set(Wish(paused=True))
            one.disk.away.add(LOST)
            await asyncio.sleep(60)
            status = await repair_status(one.cluster)
            assert (status.state, one.cluster.pace.copied, status.seconds_left) == ("paused", 0, None)
            assert status.copies_at_risk == status.copies_to_make > 100
            one.cluster.pace.set(Wish(cap_bytes_s=1 << 20))
            began_s = one.now_s
            while await one.lacking():
                await asyncio.sleep(0.1)
            took_s = one.now_s - began_s
            assert one.cluster.pace.copied * 65_536 / took_s == pytest.approx(1 << 20, rel=0.1)

    run(story())


def test_what_has_one_copy_left_is_repaired_first() -> None:
    async def story() -> None:
        async with running(5) as one:
            await one.fill(100)
            await one.until(one.is_whole, 60)
            one.cluster.pace.set(Wish(paused=True))
            one.disk.away |= {LOST, ROOT / "d2"}
            await asyncio.sleep(2)
            alone = (await repair_status(one.cluster)).versions_alone
            assert alone
            one.cluster.pace.set(Wish(cap_bytes_s=1 << 20))
            while (await repair_status(one.cluster)).versions_alone:
                await asyncio.sleep(0.05)
            assert one.cluster.pace.copied < 2.5 * alone + 40
            assert await one.lacking() > 0

    run(story())


def test_what_one_hiccup_put_aside_does_not_wait_for_the_scan() -> None:
    """A drive that fails for a moment, just when everything is looked at."""

    async def story() -> None:
        async with running() as one:
            await one.fill(40)
            await one.until(one.is_whole, 60)
            drive = one.store.drives[0]
            one.cluster.failed(drive, OSError("for a moment"))
            one.cluster.doubt_everything()
            assert await one.until(one.is_whole, 60) < 3.0

    run(story())


def test_a_full_drive_is_not_asked_all_the_time() -> None:
    async def story() -> None:
        async with running() as one:
            one.disk.full.add(LOST)
            await asyncio.sleep(2)
            await one.fill(40)
            await asyncio.sleep(30)
            looked = 0
            settle = one.store.replicator.settle

            async def counted(key: Key) -> None:
                nonlocal looked
                looked += 1
                await settle(key)

            one.store.replicator.settle = counted  # type: ignore[method-assign]
            await asyncio.sleep(60)
            assert looked < 8 * one.cluster.ring.parts
            one.disk.full.clear()
            await one.until(one.is_whole, 70)

    run(story())


@pytest.mark.parametrize(("whole", "rests_s"), [(True, [2, 2, 2, 2, 2]), (False, [2, 4, 8, 16, 30])])
def test_only_what_cannot_be_repaired_is_left_alone_for_longer_each_time(whole: bool, rests_s: list[float]) -> None:
    """A busy partition is told of during each look: that it was overtaken says nothing against the drives."""

    async def story() -> None:
        now_s = asyncio.get_running_loop().time
        repairs = Repairs([("objects", 1)], now_s)
        looks_s = list[float]()
        while len(looks_s) < 6:
            repairs.ripen()
            try:
                room, part = key = await asyncio.wait_for(repairs.next(), 0.25)
            except TimeoutError:
                continue
            looks_s.append(now_s())
            mark = repairs.mark(room, part)
            repairs.add(room, part, Urgency.DOUBT)
            if whole:
                repairs.done(room, part, mark)
            repairs.put_back(key, mark, waits=False)
        assert [round(after - before) for before, after in pairwise(looks_s)] == rests_s

    run(story())


def test_a_drive_that_turns_read_only_before_it_was_compared_is_one_that_fails() -> None:
    """It holds all that it should, and that cannot be written down on it."""

    async def story() -> None:
        async with running() as one:
            await one.fill(20)
            await one.until(one.is_whole, 60)
            await one.store.set_pace(Wish(paused=True))
            one.disk.away.add(LOST)
            await asyncio.sleep(2)
            one.disk.away.discard(LOST)
            await asyncio.sleep(2)
            assert not one.cluster.is_away(one.cluster.drives["drive1"])
            one.disk.read_only.add(LOST)
            await one.store.set_pace(Wish())
            await asyncio.sleep(20)
            await one.store.drive_watch.settle("drive1")
            assert one.cluster.is_away(one.cluster.drives["drive1"])
            one.disk.read_only.discard(LOST)
            await one.until(one.is_whole, 10)

    run(story())

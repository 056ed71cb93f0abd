"""The simulated world keeps its own promises: one seed is one history, and what it breaks it breaks as told."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apus.kernel.errors import Unavailable
from apus.kernel.world import World
from apus.sim.clock import EPOCH_S, SimClock
from apus.sim.disk import SimDisk, SimDrive
from apus.sim.loop import Deadlock, run
from apus.sim.process import SimProcess
from apus.sim.trace import Trace
from apus.sim.world import SimWorld, simulate
from tests.contract.test_store import METADATA, number_of, put

FILE = Path("/var/state")


def test_99_minutes_of_sleeping_tasks_take_no_time() -> None:
    async def sleep_all() -> float:
        await asyncio.gather(*(asyncio.sleep(minute * 60) for minute in range(100)))
        return asyncio.get_running_loop().time()

    before_s = time.perf_counter()
    assert run(sleep_all()) == pytest.approx(99 * 60)
    assert time.perf_counter() - before_s < 0.5


def test_a_deadlock_is_an_error() -> None:
    with pytest.raises(Deadlock):
        run(asyncio.Event().wait())


def test_threads_are_refused() -> None:
    with pytest.raises(AssertionError, match="thread"):
        run(asyncio.to_thread(lambda: None))


async def busy_node(world: World) -> None:
    """Uses every part of the world, for ever."""
    count = 0

    async def hear(subject: str, body: bytes) -> None:
        nonlocal count
        count += 1
        await world.disk.write_synced(FILE, str(count).encode())

    async def answer(body: bytes) -> bytes:
        await world.clock.sleep(world.dice.random() / 100)
        return body

    await world.bus.listen("news.>", hear)
    await world.bus.answer("echo", answer)
    while True:
        await world.clock.sleep(world.dice.uniform(0.1, 2))
        await world.bus.publish("news.today", b"x")
        try:
            await world.bus.ask("echo", b"?", timeout_s=1)
            await world.store.write(put(f"{world.dice.random()}", 1))
            await world.run.spawn(["sleeper"], log_path=FILE)
        except Unavailable:
            continue


async def sleeper(process: SimProcess) -> int:
    await asyncio.sleep(3)
    return 0


async def rough_story(sim: SimWorld) -> None:
    await sim.database.engine.create_schema(METADATA)
    sim.network.faults.lost = sim.network.faults.repeated = 0.1
    sim.database.faults.refused = sim.database.faults.answer_lost = 0.05
    names = ["a", "b", "c"]
    for name in names:
        sim.host(name, drift=0.01).machine.programs["sleeper"] = sleeper
        sim.host(name).start(busy_node)
    for _ in range(12):
        await asyncio.sleep(sim.dice.uniform(1, 5))
        host = sim.host(sim.dice.choice(names))
        mishap = sim.dice.randrange(4)
        if mishap == 0:
            await host.crash()
            host.start(busy_node)
        elif mishap == 1:
            await host.power_cut()
            host.start(busy_node)
        elif mishap == 2:
            sim.network.isolate(host.name)
        else:
            sim.network.heal()


@pytest.mark.parametrize("seed", range(5))
def test_one_seed_is_one_trace(seed: int) -> None:
    first, second = simulate(seed, rough_story), simulate(seed, rough_story)
    assert first.count > 100
    assert first.digest() == second.digest()
    assert first.digest() != simulate(seed + 1000, rough_story).digest()


def test_the_trace_does_not_depend_on_the_process() -> None:
    code = "from tests.sim.test_sim import *; print(simulate(7, rough_story).digest())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."])}
    root = Path(__file__).parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**environment, "PYTHONHASHSEED": hash_seed},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1


def test_clocks_drift_and_step() -> None:
    async def story() -> None:
        fast = SimClock(drift=0.1, offset_s=-5)
        await asyncio.sleep(100)
        assert fast.now_s() == pytest.approx(EPOCH_S - 5 + 110)
        fast.step(-50)
        assert fast.now_s() == pytest.approx(EPOCH_S - 55 + 110)
        assert fast.monotonic_s() == pytest.approx(110)
        await fast.sleep(11)
        assert asyncio.get_running_loop().time() == pytest.approx(110)

    run(story())


def test_a_cut_link_is_cut_in_one_direction() -> None:
    async def story(sim: SimWorld) -> None:
        heard: dict[str, list[bytes]] = {"a": [], "b": []}
        worlds = {name: sim.host(name).world() for name in heard}
        for name, world in worlds.items():

            async def hear(subject: str, body: bytes, name: str = name) -> None:
                heard[name].append(body)

            await world.bus.listen("x", hear)
        sim.network.cut("a", "b")
        await worlds["a"].bus.publish("x", b"from a")
        await worlds["b"].bus.publish("x", b"from b")
        await asyncio.sleep(1)
        assert sorted(heard["a"]) == [b"from a", b"from b"]
        assert heard["b"] == [b"from b"]
        sim.network.heal()
        await worlds["a"].bus.publish("x", b"again")
        await asyncio.sleep(1)
        assert heard["b"] == [b"from b", b"again"]

    simulate(1, story)


def test_messages_are_lost_repeated_and_reordered() -> None:
    async def story(sim: SimWorld) -> None:
        sim.network.faults.lost = sim.network.faults.repeated = 0.2
        heard: list[int] = []
        here, there = sim.host("a").world(), sim.host("b").world()

        async def hear(subject: str, body: bytes) -> None:
            heard.append(int(body))

        await there.bus.listen("x", hear)
        for number in range(300):
            await here.bus.publish("x", str(number).encode())
        await asyncio.sleep(1)
        assert len(set(heard)) < 300
        assert len(set(heard)) < len(heard)
        assert heard != sorted(heard)

    simulate(1, story)


def test_a_crash_is_not_a_cancellation() -> None:
    """What a `finally` does must not happen after a kill."""

    async def story(sim: SimWorld) -> None:
        await sim.database.engine.create_schema(METADATA)

        async def main(world: World) -> None:
            try:
                await world.clock.sleep(1000)
            finally:
                await world.disk.write_synced(FILE, b"tidied up")
                await world.store.write(put("tidied", 1))

        host = sim.host("a")
        host.start(main)
        await asyncio.sleep(1)
        await host.crash()
        assert not host.is_up
        assert host.drive.files == {}
        assert await sim.database.engine.read(number_of("tidied")) is None

    simulate(1, story)


def test_programs_outlive_a_crash_and_not_a_power_cut() -> None:
    async def story(sim: SimWorld) -> None:
        host = sim.host("a")
        asked: list[int] = []

        async def guest(process: SimProcess) -> int:
            process.on_signal[signal.SIGTERM] = lambda: asked.append(signal.SIGTERM)
            process.stdout += process.stdin.upper()
            await asyncio.sleep(float(process.argv[1]))
            return 4

        host.machine.programs["guest"] = guest
        world = host.world()
        done = await world.run.run(["guest", "1"], stdin=b"abc", timeout_s=5)
        assert (done.exit_code, done.stdout) == (4, b"ABC")
        with pytest.raises(TimeoutError):
            await world.run.run(["guest", "100"], timeout_s=5)
        with pytest.raises(FileNotFoundError):
            await world.run.run(["nothing"], timeout_s=5)
        process = await world.run.spawn(["guest", "1000"], log_path=FILE)
        await asyncio.sleep(0.1)
        await host.crash()
        world = host.world()
        assert world.run.alive(process)
        await world.run.kill(process, signal.SIGTERM)
        assert asked == [signal.SIGTERM]
        assert world.run.alive(process)
        await host.power_cut()
        assert not host.world().run.alive(process)

    simulate(1, story)


def test_the_store_refuses_and_loses_answers_and_runs_again() -> None:
    async def story(sim: SimWorld) -> None:
        await sim.database.engine.create_schema(METADATA)
        faults = sim.database.faults
        faults.refused, faults.answer_lost, faults.run_again = 0.3, 0.3, 0.5
        store, runs, told, hints = sim.host("a").world().store, 0, [], []
        for number in range(100):

            def work(tx: object, number: int = number) -> None:
                nonlocal runs
                runs += 1
                put(f"k{number}", number)(tx)  # type: ignore[arg-type]
                tx.after_commit(lambda: hints.append(number))  # type: ignore[attr-defined]

            try:
                await store.write(work)
                told.append(number)
            except Unavailable:
                continue
        kept = [n for (n,) in await sim.database.engine.read(lambda tx: tx.execute("SELECT number FROM thing"))]
        assert set(told) < set(kept)
        assert len(kept) < 100
        assert runs > len(kept)
        assert hints == told
        sim.database.unreachable["a"] = None
        with pytest.raises(Unavailable, match="unreachable from a"):
            await store.read(number_of("k1"))
        assert await sim.host("b").world().store.read(number_of("nothing")) is None

    simulate(1, story)


@given(
    st.integers(),
    st.lists(
        st.tuples(st.sampled_from(["write", "sync", "replace", "remove", "cut"]), st.binary(max_size=3000)), max_size=12
    ),
)
@settings(max_examples=150, deadline=None)
def test_a_power_cut_keeps_what_was_synced(seed: int, moves: list[tuple[str, bytes]]) -> None:
    """The log keeps its synced beginning, and the replaced file is always one of its versions, whole."""

    async def story() -> None:
        drive = SimDrive(Random(seed), Trace())
        disk = SimDisk(drive, lambda: 0.0)
        log, state = Path("/d/log"), Path("/d/state")
        writer = await disk.create(log)
        written = synced = b""
        version: bytes | None = None
        before: bytes | None = None
        for move, data in moves:
            if move == "write":
                await writer.write(data)
                written += data
            elif move == "sync":
                await writer.sync()
                synced = written
            elif move == "replace":
                await disk.write_synced(state, data)
                version = before = data
            elif move == "remove":
                await disk.remove(state)
                version = None
            else:
                drive.power_cut()
                found = await disk.read(log)
                assert found[: len(synced)] == synced
                assert len(found) <= len(written)
                written = synced = found
                found_state = await disk.read(state) if await disk.stat(state) else None
                assert found_state in (version, before)
                version = before = found_state

    run(story())


def test_disks_fill_refuse_and_rot() -> None:
    async def story() -> None:
        drive = SimDrive(Random(1), Trace(), capacity_bytes=1000)
        disk = SimDisk(drive, lambda: 0.0)
        await disk.write_synced(FILE, b"x" * 900)
        with pytest.raises(OSError, match="full"):
            await disk.write_synced(FILE, b"y" * 200)
        assert await disk.read(FILE) == b"x" * 900
        assert await disk.free_bytes(FILE) == 100
        drive.flip_bit(FILE)
        rotten = await disk.read(FILE)
        assert sum((mine ^ ord("x")).bit_count() for mine in rotten) == 1
        drive.faults.refused = 1.0
        with pytest.raises(OSError, match="refused"):
            await disk.read(FILE)

    run(story())


def test_what_was_not_synced_is_torn_now_and_then() -> None:
    async def story() -> None:
        fates = set()
        for seed in range(60):
            drive = SimDrive(Random(seed), Trace())
            disk = SimDisk(drive, lambda: 0.0)
            writer = await disk.create(FILE)
            await writer.write(b"a" * 1000)
            await writer.sync()
            await writer.write(b"b" * 2000)
            drive.power_cut()
            found = await disk.read(FILE)
            assert found[:1000] == b"a" * 1000
            if b"\0" in found:
                fates.add("a sector missing")
            else:
                fates.add({1000: "forgotten", 3000: "kept"}.get(len(found), "cut short"))
        assert fates == {"forgotten", "kept", "cut short", "a sector missing"}

    run(story())

"""How long an event takes to whoever follows them: in virtual time, across a bus, and with the bus's messages lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from apus.kernel.events import emit
from apus.kernel.hints import HintingStore, Hints
from apus.kernel.table import metadata
from apus.kernel.world import Transaction
from apus.sim.world import SimWorld, simulate
from apus.skins.apus.events import LOOK_EVERY_S, EventStreams

EVENTS = 40


class Follower:
    """The request of a client that stays."""

    async def read(self) -> bytes:
        return b""

    async def gone(self) -> None:
        await asyncio.Event().wait()


async def latencies(sim: SimWorld, *, lost: bool) -> list[float]:
    """Seconds from the commit to the client, of events that come one at a time and in bursts."""
    await sim.database.engine.create_schema(metadata)
    writer, reader = sim.host("control-1").world(), sim.host("control-2").world()
    if lost:
        sim.network.cut("control-1", "control-2")
    hints = Hints(writer.bus)
    store = HintingStore(writer.store, hints)
    publishing = asyncio.ensure_future(hints.run())
    now_s, written, took = asyncio.get_running_loop().time, dict[str, float](), list[float]()
    stream = await EventStreams(reader).open(cast(Any, Follower()), None, "p", None)

    async def follow(chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            for line in chunk.decode().splitlines():
                if line.startswith("event: ") and not line.endswith("theirs"):
                    took.append(now_s() - written[line.removeprefix("event: ")])
            if len(took) == EVENTS:
                return

    following = asyncio.ensure_future(follow(stream))
    await asyncio.sleep(1)
    for number in range(EVENTS):
        await store.write(lambda tx: emit(tx, "t.theirs", "r", "q"))

        def write(tx: Transaction, kind: str = f"t.n{number}") -> None:
            emit(tx, kind, "r", "p")
            written[kind] = now_s()

        await store.write(write)
        await asyncio.sleep(sim.dice.choice((0.0, 0.0, 3.0)))
    await asyncio.wait_for(following, 60)
    publishing.cancel()
    return took


@pytest.mark.parametrize("seed", range(5))
def test_a_hint_wakes_a_stream_at_once(seed: int) -> None:
    async def story(sim: SimWorld) -> None:
        took = await latencies(sim, lost=False)
        assert max(took) < 0.2, took
        assert sorted(took)[len(took) // 2] < 0.05

    simulate(seed, story)


def test_without_hints_a_stream_looks_by_itself() -> None:
    async def story(sim: SimWorld) -> None:
        took = await latencies(sim, lost=True)
        assert 0.2 < max(took) < LOOK_EVERY_S + 0.2

    simulate(1, story)

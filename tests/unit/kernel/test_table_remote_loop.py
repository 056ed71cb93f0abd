"""Paging of record tables, Protocols across the bus, and the reconciling loop."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import msgspec
import pytest

from apus.kernel.errors import Conflict, NotFound, Unavailable
from apus.kernel.loop import Mailbox, drive
from apus.kernel.record import Record, changed
from apus.kernel.remote import client, serve
from apus.kernel.table import Query, RecordTable, metadata
from apus.platform.bus_local import LocalBus
from tests.flow.virtual import VirtualClock, memory_world, run_virtual


class Item(Record, frozen=True, kw_only=True):
    name: str
    size: int | None = None
    colour: str = "red"


ITEMS = RecordTable("test_item", Item, columns=("name", "size"), unique=(("name",),))
SIZES = [3, None, 1, 2, None, 3]


async def items() -> Any:
    world = await memory_world()
    await world.store.create_schema(metadata)  # type: ignore[attr-defined]
    made = [
        Item(id=f"i{n}", name=f"n{n}", size=size, colour="blue" if n % 2 else "red") for n, size in enumerate(SIZES)
    ]
    await world.store.write(lambda tx: ITEMS.insert_many(tx, made))
    return world


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("descending", [False, True])
def test_pages_show_each_record_once_in_order_on_both_paths(in_memory: bool, descending: bool) -> None:
    async def story() -> None:
        world = await items()
        matches = (lambda item: True) if in_memory else None

        async def page(limit: int | None, marker: str | None) -> list[str]:
            query = Query(matches=matches, sort=(("size", descending),), limit=limit, marker=marker)
            return [item.id for item in await world.store.read(lambda tx: ITEMS.page(tx, query))]

        whole = await page(None, None)
        sizes = [SIZES[int(id[1])] for id in whole]
        assert sizes == ([3, 3, 2, 1, None, None] if descending else [None, None, 1, 2, 3, 3])
        seen: list[str] = []
        while True:
            part = await page(2, seen[-1] if seen else None)
            if not part:
                break
            seen += part
        assert seen == whole
        with pytest.raises(NotFound):
            await page(2, "nothing")

    run_virtual(story())


def test_put_is_a_compare_and_swap_and_names_are_unique() -> None:
    async def story() -> None:
        world = await items()
        old = await world.store.read(lambda tx: ITEMS.require(tx, "i0"))
        new = await world.store.write(lambda tx: ITEMS.put(tx, changed(old, size=9)))
        assert new.generation == 2
        with pytest.raises(Conflict):
            await world.store.write(lambda tx: ITEMS.put(tx, changed(old, size=8)))
        with pytest.raises(Conflict):
            await world.store.write(lambda tx: ITEMS.insert(tx, Item(id="x", name="n1")))
        assert await world.store.read(lambda tx: ITEMS.count(tx, size=[9, 2])) == 2
        assert await world.store.read(lambda tx: len(ITEMS.find(tx, size=None))) == 2

    run_virtual(story())


class Point(msgspec.Struct, frozen=True):
    x: int


class Maths(Protocol):
    async def double(self, point: Point, times: int = 1) -> Point: ...

    async def refuse(self) -> None: ...


class RealMaths:
    async def double(self, point: Point, times: int = 1) -> Point:
        return Point(point.x * 2**times)

    async def refuse(self) -> None:
        raise Conflict("maths.no", "no", details={"why": "because"})


def test_a_protocol_across_the_bus() -> None:
    async def story() -> None:
        bus = LocalBus()
        far: Maths = client(bus, "maths", Maths, timeout_s=1.0)  # type: ignore[type-abstract]
        with pytest.raises(Unavailable):
            await far.double(Point(1))
        await serve(bus, "maths", Maths, RealMaths())
        assert await far.double(Point(3), times=2) == Point(12)
        with pytest.raises(Conflict) as refused:
            await far.refuse()
        assert (refused.value.code, refused.value.details) == ("maths.no", {"why": "because"})
        await bus.close()

    run_virtual(story())


class Counting:
    name, period_s = "counting", 10.0

    def __init__(self) -> None:
        self.settled: list[str] = []

    async def keys(self) -> list[str]:
        return ["a", "b"]

    async def settle(self, key: str) -> None:
        self.settled.append(key)
        if key == "b":
            raise ZeroDivisionError


def test_a_loop_scans_hears_hints_and_survives_a_failing_key() -> None:
    async def story() -> None:
        loop, mailbox = Counting(), Mailbox()
        task = asyncio.create_task(drive(loop, mailbox, VirtualClock()))
        await asyncio.sleep(1)
        assert loop.settled == ["a", "b"]
        mailbox.kick("c")
        mailbox.kick("c")
        await asyncio.sleep(1)
        assert loop.settled == ["a", "b", "c"]
        await asyncio.sleep(10)
        assert loop.settled == ["a", "b", "c", "a", "b"]
        task.cancel()

    run_virtual(story())

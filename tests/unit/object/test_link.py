"""Calls to a drive whose host is silent, in virtual time."""

from __future__ import annotations

import asyncio
import errno
from typing import Any, cast

from apus.services.object.drivers.remote.channel import GREET_S, Channel
from apus.services.object.drivers.remote.link import RETRY_S, Link
from apus.services.object.model import DriveTrouble
from apus.sim.loop import run


def test_one_waits_for_a_host_that_is_silent_and_not_all_who_ask() -> None:
    dials = list[float]()

    async def story() -> None:
        clock = asyncio.get_running_loop().time

        async def dial() -> Channel:
            dials.append(clock())
            await asyncio.sleep(GREET_S)
            raise DriveTrouble(errno.ETIMEDOUT, "no greeting")

        async def refused() -> float:
            began_s = clock()
            try:
                await link.call("copies.parts")
            except DriveTrouble:
                return round(clock() - began_s, 6)
            raise AssertionError("it was answered")

        link = Link(dial, cast(Any, None), lambda seen: None)
        assert await asyncio.gather(refused(), refused()) == [GREET_S, GREET_S]  # nobody knows yet
        assert await refused() == 0
        for _ in range(3):
            await asyncio.sleep(RETRY_S)
            assert sorted(await asyncio.gather(*(refused() for _ in range(4)))) == [0, 0, 0, GREET_S]
        assert len(dials) == 4

    run(story())

"""Work on threads: who waits gets what came of it, and who was cancelled does not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from apus.platform.threads import Tell, Threads, tell_waiter


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads(1, "test")
    yield threads
    threads.close()


def test_the_waiter_gets_the_result_or_the_error(threads: Threads) -> None:
    async def story() -> None:
        assert await threads.run(lambda: threading.current_thread().name) != threading.current_thread().name
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)
        with pytest.raises(SystemExit):  # of one job, not of its thread
            await threads.run(lambda: (_ for _ in ()).throw(SystemExit(3)))
        assert await threads.run(lambda: 7) == 7

    asyncio.run(story())


def test_what_has_not_begun_is_not_done_for_nobody(threads: Threads) -> None:
    async def story() -> None:
        begun, hold, done = threading.Event(), threading.Event(), list[str]()

        def work() -> None:
            begun.set()
            hold.wait()
            done.append("first")

        first = asyncio.create_task(threads.run(work))
        second = asyncio.create_task(threads.run(lambda: done.append("second")))
        await asyncio.sleep(0)
        begun.wait(10)
        for task in (first, second):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        hold.set()
        await threads.run(lambda: None)
        assert done == ["first"]  # a thread cannot be stopped

    asyncio.run(story())


def test_the_end_is_told_though_nobody_waits(threads: Threads) -> None:
    async def story() -> None:
        hold, ended = threading.Event(), asyncio.Event()

        def on_end(done: asyncio.Future[bool], tell: Tell) -> None:
            tell_waiter(done, tell)
            ended.set()

        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        threads.begin(hold.wait, done, on_end)
        done.cancel()
        hold.set()
        async with asyncio.timeout(10):
            await ended.wait()

    asyncio.run(story())


def test_a_loop_that_has_gone_is_not_told() -> None:
    threads, hold = Threads(1, "test"), threading.Event()

    async def leave() -> None:
        threads.begin(hold.wait, asyncio.get_running_loop().create_future())

    asyncio.run(leave())
    hold.set()
    threads.close()

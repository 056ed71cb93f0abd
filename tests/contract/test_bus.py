"""What every bus does."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from apus.kernel.errors import Unavailable
from apus.platform.bus_local import PENDING_MAX, LocalBus
from apus.platform.bus_nats import NatsBus
from apus.platform.bus_unix import UnixBus, UnixHub
from apus.platform.subjects import BODY_BYTES_MAX, hears
from apus.sim.bus import SimBus, SimNetwork
from apus.sim.loop import SimLoop
from apus.sim.trace import Trace


@dataclasses.dataclass(frozen=True)
class OpenBus:
    """Opens one kind of bus on the loop that it needs."""

    make: Callable[[], Any]
    loop: Callable[[], asyncio.AbstractEventLoop] | None = None


class JoinedBus(UnixBus):
    """A joined process and its hub."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.local = LocalBus()
        self.hub = UnixHub(self.local, path)

    async def open(self) -> None:
        await self.hub.start()
        self.running = asyncio.create_task(self.run())
        while not self.send("stop", 0):
            await asyncio.sleep(0.001)

    async def close(self) -> None:
        await super().close()
        self.running.cancel()
        await self.hub.close()
        await self.local.close()


@pytest.fixture(params=["local", "unix", "simulated", pytest.param("nats", marks=pytest.mark.nats)])
def open_bus(request: pytest.FixtureRequest) -> OpenBus:
    if request.param == "nats":
        url = request.getfixturevalue("nats").url
        return OpenBus(lambda: NatsBus(url))
    if request.param == "unix":
        path = request.getfixturevalue("tmp_path") / "bus.sock"
        return OpenBus(lambda: JoinedBus(path))
    if request.param == "simulated":
        return OpenBus(lambda: SimBus(SimNetwork(Random(1), Trace()), "a"), SimLoop)
    return OpenBus(LocalBus)


def with_bus(open_bus: OpenBus, story: Callable[[Any], Awaitable[None]]) -> None:
    async def run() -> None:
        bus = open_bus.make()
        if isinstance(bus, (NatsBus, JoinedBus)):
            await bus.open()
        try:
            async with asyncio.timeout(20):
                await story(bus)
        finally:
            await bus.close()

    with asyncio.Runner(loop_factory=open_bus.loop) as runner:
        runner.run(run())


class Heard:
    """A listener that remembers, and can be waited for."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._came = asyncio.Event()

    async def __call__(self, subject: str, body: bytes) -> None:
        self.messages.append((subject, body))
        self._came.set()

    async def wait_for(self, count: int) -> None:
        while len(self.messages) < count:
            self._came.clear()
            await self._came.wait()


@pytest.mark.parametrize(
    ("pattern", "subject", "is_heard"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.b.c", "a.b", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*.c", "a.b.c", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        (">", "a", True),
        ("b.>", "a.b", False),
    ],
)
def test_patterns(pattern: str, subject: str, is_heard: bool) -> None:
    assert hears(pattern, subject) is is_heard


def test_listeners_hear_what_they_listen_to(open_bus: OpenBus) -> None:
    async def story(bus: Any) -> None:
        exact, star, rest = Heard(), Heard(), Heard()
        await bus.listen("host.h1.kick", exact)
        await bus.listen("host.*.kick", star)
        await bus.listen("host.>", rest)
        await bus.publish("host.h1.kick", b"1")
        await bus.publish("host.h2.kick", b"2")
        await bus.publish("host.h2.other.deep", b"3")
        await bus.publish("else.where", b"4")
        await asyncio.gather(exact.wait_for(1), star.wait_for(2), rest.wait_for(3))
        assert exact.messages == [("host.h1.kick", b"1")]
        assert sorted(star.messages) == [("host.h1.kick", b"1"), ("host.h2.kick", b"2")]
        assert len(rest.messages) == 3

    with_bus(open_bus, story)


def test_a_failing_listener_harms_neither_itself_nor_others(open_bus: OpenBus) -> None:
    async def story(bus: Any) -> None:
        heard, calls = Heard(), Heard()

        async def fail(subject: str, body: bytes) -> None:
            await calls(subject, body)
            raise RuntimeError("on purpose")

        await bus.listen("a", fail)
        await bus.listen("a", heard)
        for _ in range(3):
            await bus.publish("a")
        await asyncio.gather(heard.wait_for(3), calls.wait_for(3))

    with_bus(open_bus, story)


def test_publishing_does_not_wait_for_a_slow_listener(open_bus: OpenBus) -> None:
    async def story(bus: Any) -> None:
        never = asyncio.Event()
        heard = Heard()

        async def slow(subject: str, body: bytes) -> None:
            await never.wait()

        await bus.listen("a", slow)
        await bus.listen("a", heard)
        for number in range(500):
            await bus.publish("a", str(number).encode())
        await heard.wait_for(500)

    with_bus(open_bus, story)


def test_who_stopped_hears_no_more(open_bus: OpenBus) -> None:
    async def story(bus: Any) -> None:
        first, second = Heard(), Heard()
        subscription = await bus.listen("a", first)
        await bus.listen("a", second)
        await bus.publish("a", b"1")
        await asyncio.gather(first.wait_for(1), second.wait_for(1))
        await subscription.stop()
        await bus.publish("a", b"2")
        await second.wait_for(2)
        assert len(first.messages) == 1

    with_bus(open_bus, story)


def test_questions_are_answered(open_bus: OpenBus) -> None:
    async def story(bus: Any) -> None:
        async def double(body: bytes) -> bytes:
            return body * 2

        await bus.answer("twice.*", double)
        assert await bus.ask("twice.please", b"ab", timeout_s=5) == b"abab"
        answers = await asyncio.gather(*(bus.ask("twice.x", b"%d." % n, timeout_s=5) for n in range(50)))
        assert answers == [b"%d." % n * 2 for n in range(50)]
        large = b"x" * 500_000
        assert await bus.ask("twice.x", large, timeout_s=5) == large * 2

    with_bus(open_bus, story)


def test_several_answerers_share_the_questions(open_bus: OpenBus) -> None:
    async def story(bus: Any) -> None:
        def named(name: bytes) -> Callable[[bytes], Awaitable[bytes]]:
            async def answer(body: bytes) -> bytes:
                return name

            return answer

        await bus.answer("who", named(b"a"))
        second = await bus.answer("who", named(b"b"))
        names = [await bus.ask("who", b"", timeout_s=5) for _ in range(40)]
        assert set(names) == {b"a", b"b"}
        await second.stop()
        assert {await bus.ask("who", b"", timeout_s=5) for _ in range(10)} == {b"a"}

    with_bus(open_bus, story)


def test_no_answer_is_unavailable(open_bus: OpenBus) -> None:
    async def story(bus: Any) -> None:
        async def silent(body: bytes) -> bytes:
            await asyncio.Event().wait()
            return b""

        async def fail(body: bytes) -> bytes:
            raise RuntimeError("on purpose")

        with pytest.raises(Unavailable):
            await bus.ask("nobody.there", b"", timeout_s=1)
        await bus.answer("silent", silent)
        with pytest.raises(Unavailable):
            await bus.ask("silent", b"", timeout_s=0.05)
        await bus.answer("fail", fail)
        with pytest.raises(Unavailable):
            await bus.ask("fail", b"", timeout_s=5)

    with_bus(open_bus, story)


def test_wrong_subjects_are_refused(open_bus: OpenBus) -> None:
    async def story(bus: Any) -> None:
        for wrong in ("", "a..b", "a b", "a.*", "a.>", ".a", "x" * 600):
            with pytest.raises(ValueError):
                await bus.publish(wrong)
        with pytest.raises(ValueError):
            await bus.listen("a.>.b", Heard())
        with pytest.raises(ValueError):
            await bus.publish("a", b"x" * (BODY_BYTES_MAX + 1))
        with pytest.raises(ValueError):
            await bus.ask("a", b"x" * (BODY_BYTES_MAX + 1), timeout_s=1)

    with_bus(open_bus, story)


def test_close_ends_everything(open_bus: OpenBus) -> None:
    async def story(bus: Any) -> None:
        async def silent(body: bytes) -> bytes:
            await asyncio.Event().wait()
            return b""

        await bus.answer("silent", silent)
        asking = asyncio.create_task(bus.ask("silent", b"", timeout_s=30))
        await asyncio.sleep(0.05)
        await bus.close()
        with pytest.raises(Unavailable):
            await asking
        await bus.publish("a")  # nobody hears, nobody minds
        await bus.close()

    with_bus(open_bus, story)


def test_the_local_bus_bounds_what_a_slow_listener_is_behind() -> None:
    async def story(bus: Any) -> None:
        gate = asyncio.Event()
        heard = Heard()

        async def slow(subject: str, body: bytes) -> None:
            await gate.wait()
            await heard(subject, body)

        await bus.listen("a", slow)
        for number in range(PENDING_MAX + 100):
            await bus.publish("a", str(number).encode())
        gate.set()
        await heard.wait_for(PENDING_MAX)
        assert heard.messages[-1][1] == str(PENDING_MAX + 99).encode()

    async def run() -> None:
        bus = LocalBus()
        await story(bus)
        await bus.close()

    asyncio.run(run())

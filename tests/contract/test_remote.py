"""A Protocol over the bus is the Protocol: the same results, the same errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from apus.kernel import errors
from apus.kernel.errors import CloudError, Conflict, Invalid, NotFound, TooLarge, Unavailable
from apus.kernel.remote import client, methods_of, serve
from apus.platform.bus_local import LocalBus
from apus.platform.bus_unix import UnixBus, UnixHub


class Thing(msgspec.Struct, frozen=True):
    name: str
    data: bytes = b""


class Asked(Protocol):
    async def ping(self) -> None: ...


class Things(Asked, Protocol):
    async def many(self, names: Sequence[str], count: int = 2, *, loud: bool = False) -> Sequence[Thing]: ...

    async def maybe(self, name: str | None) -> Thing | None: ...

    async def fail(self, kind: str) -> None: ...

    async def hang(self) -> None: ...

    def plain(self) -> int: ...


class Busier(Conflict):
    """A service's own kind of Conflict."""


class RealThings:
    async def ping(self) -> None:
        return None

    async def many(self, names: Sequence[str], count: int = 2, *, loud: bool = False) -> Sequence[Thing]:
        return [Thing(name.upper() if loud else name, b"\0\xff") for name in names] * count

    async def maybe(self, name: str | None) -> Thing | None:
        return None if name is None else Thing(name)

    async def fail(self, kind: str) -> None:
        if kind == "Bug":
            raise RuntimeError("a bug")
        if kind == "Busier":
            raise Busier("thing.busier", "busier")
        family: type[CloudError] = getattr(errors, kind)
        if issubclass(family, Invalid):
            raise family("thing.wrong", "wrong", field="names", details={"a": [1]})
        raise family("thing.failed", "shown", hidden="hidden", details={"a": [1]})

    async def hang(self) -> None:
        await asyncio.Event().wait()


Story = Callable[[Any], Awaitable[None]]


@pytest.fixture(params=["local", "unix"])
def over_bus(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Story], None]:
    async def run(story: Story) -> None:
        local = LocalBus()
        hub, joined = UnixHub(local, tmp_path / "bus.sock"), UnixBus(tmp_path / "bus.sock")
        await hub.start()
        running = asyncio.create_task(joined.run())
        await serve(local, "things", Things, RealThings())
        bus = joined if request.param == "unix" else local
        while request.param == "unix" and not joined.send("stop", 0):
            await asyncio.sleep(0.001)
        async with asyncio.timeout(20):
            await story(client(bus, "things", Things, timeout_s=0.3))  # type: ignore[type-abstract]
        running.cancel()
        await joined.close()
        await hub.close()
        await local.close()

    return lambda story: asyncio.run(run(story))


def test_arguments_defaults_and_results_cross(over_bus: Callable[[Story], None]) -> None:
    async def story(things: Any) -> None:
        assert await things.ping() is None
        assert await things.many(["a"]) == [Thing("a", b"\0\xff")] * 2
        assert await things.many(("a", "b"), count=1, loud=True) == [Thing("A", b"\0\xff"), Thing("B", b"\0\xff")]
        assert await things.maybe(None) is None
        assert await things.maybe("x") == Thing("x")
        with pytest.raises(TypeError):
            await things.many()

    over_bus(story)


def test_errors_cross_as_themselves(over_bus: Callable[[Story], None]) -> None:
    async def story(things: Any) -> None:
        for name, kind in vars(errors).items():
            if isinstance(kind, type) and issubclass(kind, CloudError):
                with pytest.raises(kind) as caught:
                    await things.fail(name)
                assert type(caught.value) is kind
                assert caught.value.details == {"a": [1]}
                assert not caught.value.hidden
                if isinstance(caught.value, (Invalid, TooLarge)):
                    assert caught.value.field == "names"
        with pytest.raises(Conflict) as busier:
            await things.fail("Busier")
        assert busier.value.code == "thing.busier"
        with pytest.raises(Unavailable):
            await things.fail("Bug")
        with pytest.raises(NotFound):
            await things.fail("NotFound")

    over_bus(story)


def test_silence_is_unavailable(over_bus: Callable[[Story], None]) -> None:
    async def story(things: Any) -> None:
        with pytest.raises(Unavailable):
            await things.hang()

    over_bus(story)


def test_only_coroutine_methods_cross() -> None:
    assert list(methods_of(Things)) == ["ping", "many", "maybe", "fail", "hang"]


def test_a_joined_process_comes_back_to_a_new_hub(tmp_path: Path) -> None:
    path = tmp_path / "bus.sock"

    async def double(body: bytes) -> bytes:
        return body * 2

    async def run() -> None:
        joined, heard = UnixBus(path), asyncio.Queue[bytes]()

        async def hear(subject: str, body: bytes) -> None:
            heard.put_nowait(body)

        await joined.listen("news.>", hear)
        await joined.answer("twice", double)
        with pytest.raises(Unavailable):
            await joined.ask("twice", b"", timeout_s=1)
        running = asyncio.create_task(joined.run())
        for _ in range(3):
            local = LocalBus()
            hub = UnixHub(local, path)
            await hub.start()
            reply = None
            while reply is None:
                try:
                    reply = await local.ask("twice", b"ab", timeout_s=1)
                except Unavailable:
                    await asyncio.sleep(0.01)
            assert reply == b"abab"
            await local.publish("news.today", b"1")
            assert await heard.get() == b"1"
            await hub.close()
            await local.close()
        running.cancel()
        await joined.close()

    async def limited() -> None:
        async with asyncio.timeout(20):
            await run()

    asyncio.run(limited())


@pytest.mark.parametrize("garbage", [b"\xff" * 8, b"\0\0\0\1\xc1", b"\0\0\0\1\x01", b"\0\0\0\3\x92\xa1x", b"\0\0"])
def test_a_guest_that_speaks_nonsense_harms_nobody(
    tmp_path: Path, garbage: bytes, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "bus.sock"

    async def run() -> None:
        local = LocalBus()
        hub = UnixHub(local, path)
        await hub.start()
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(garbage)
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await hub.close()
        await local.close()

    asyncio.run(run())
    assert "Traceback" not in capfd.readouterr().err
    assert not caplog.records


def test_a_path_too_long_for_a_socket_is_said(tmp_path: Path) -> None:
    async def run() -> None:
        with pytest.raises(Unavailable, match="bus"):
            await UnixHub(LocalBus(), tmp_path / ("x" * 200)).start()

    asyncio.run(run())

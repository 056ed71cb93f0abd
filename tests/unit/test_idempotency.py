"""A keyed request is done once: answered again, killed between commit and answer, or sent twice at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import pickle
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from apus.kernel import once
from apus.kernel.errors import Conflict
from apus.kernel.ids import new_id
from apus.kernel.once import KEPT_FOR_S, OnceStore, keyed
from apus.kernel.policy import Rule
from apus.kernel.record import changed
from apus.kernel.table import RecordTable
from apus.kernel.world import Transaction, World
from apus.services.image.model import Debris as Thing
from apus.wire.app import Api, App
from apus.wire.faults import Faults, errors_fault
from apus.wire.idempotency import PurgeReplays, StoreReplays
from apus.wire.route import ApiRequest, Reply, Route
from tests.doubles import Client, KnownTokens, memory_world, run

THINGS = RecordTable("testonce_thing", Thing)


class Killed(BaseException):
    """The process ends here."""


class MortalStore:
    """Dies after (or before) the n-th commit from now."""

    def __init__(self, store: Any) -> None:
        self._store, self.dies_after, self.dies_before = store, -1, -1

    async def write(self, work: Callable[[Transaction], Any]) -> Any:
        self.dies_before -= 1
        if self.dies_before == 0:
            raise Killed
        result = await self._store.write(work)
        self.dies_after -= 1
        if self.dies_after == 0:
            raise Killed
        return result

    async def read(self, work: Callable[[Transaction], Any]) -> Any:
        return await self._store.read(work)

    async def close(self) -> None:
        await self._store.close()


class Things:
    def __init__(self, world: World) -> None:
        self.world, self.calls, self.slow = world, 0, 0.0

    async def create(self, name: str) -> Thing:
        """Two transactions: the second could be lost."""
        self.calls += 1
        thing = Thing(id=new_id(self.world.dice), image_id=name, after_s=0.0)
        made = await self.world.store.write(lambda tx: THINGS.insert(tx, thing))
        await asyncio.sleep(self.slow)
        return await self.world.store.write(lambda tx: THINGS.put(tx, changed(made, after_s=made.after_s + 1)))


async def create(request: ApiRequest) -> Reply:
    name = str(request.body["name"])
    if name == "bad":
        raise Conflict("test.bad", "never")
    thing = await request.service.create(name)
    return Reply({"id": thing.id, "parts": thing.after_s}, headers={"Location": f"/things/{thing.id}"})


async def raw(request: ApiRequest) -> Reply:
    thing = await request.service.create((await request.read()).decode())
    return Reply(thing.id.encode(), content_type="text/plain")


ROUTES = (
    Route("POST", "/things", to=create, may="thing:create", takes=dict[str, Any], status=201),
    Route("POST", "/raw", to=raw, may="thing:create", status=201),
)


class Room:
    def __init__(self, world: World, mortal: MortalStore) -> None:
        self.world, self.mortal = world, mortal
        self.new_process()

    def new_process(self) -> None:
        self.things = Things(self.world)
        api = Api(
            name="t", prefix="/t", routes=ROUTES, service=self.things, policy={"thing:create": Rule.MEMBER},
            faults=Faults(errors_fault),
        )  # fmt: skip
        app = App([api], KnownTokens(), dice=self.world.dice, replays=StoreReplays(self.world.store))
        self.ask = Client(app)

    async def post(
        self, name: str = "a", key: str | None = "key-1", token: str = "alice", path: str = "/t/things"
    ) -> Any:
        headers = {"Idempotency-Key": key} if key is not None else {}
        body: Any = {"name": name} if path == "/t/things" else name.encode()
        return await self.ask("POST", path, body, token=token, headers=headers)

    async def count(self) -> int:
        return int(await self.world.store.read(lambda tx: THINGS.count(tx)))


@contextlib.asynccontextmanager
async def room() -> AsyncIterator[Room]:
    mortal: list[MortalStore] = []

    def wrap(store: Any) -> Any:
        mortal.append(MortalStore(store))
        return OnceStore(mortal[0])

    async with memory_world(wrap=wrap) as world:
        yield Room(world, mortal[0])


def test_answered_again() -> None:
    async def story() -> None:
        async with room() as cloud:
            first, again = await cloud.post(), await cloud.post()
            assert (first.status, again.status) == (201, 201)
            assert first.json == again.json
            assert first.headers["location"] == again.headers["location"]
            assert "idempotent-replayed" not in first.headers
            assert again.headers["idempotent-replayed"] == "true"
            assert (await cloud.count(), cloud.things.calls) == (1, 1)
            assert (await cloud.post(key="key-2")).json != first.json
            assert (await cloud.post(token="bob")).json != first.json, "a key is its project's"
            assert (await cloud.post(key=None)).json != first.json
            first, again = await cloud.post(key="raw", path="/t/raw"), await cloud.post(key="raw", path="/t/raw")
            assert first.body == again.body
            assert again.headers["content-type"] == "text/plain"

    run(story())


def test_another_request_with_the_key() -> None:
    async def story() -> None:
        async with room() as cloud:
            await cloud.post()
            other = await cloud.post(name="b")
            assert other.status == 422
            assert other.json["errors"][0]["code"] == "wire.key_reused"
            assert (await cloud.post(path="/t/raw")).status == 422
            for key in ("", " ", "x" * 256, "a\tb"):
                assert (await cloud.post(key=key)).status == 400
            assert await cloud.count() == 1

    run(story())


@pytest.mark.parametrize("commits", [1, 2, 3])
@pytest.mark.parametrize("when", ["dies_after", "dies_before"])
@pytest.mark.parametrize("path", ["/t/things", "/t/raw"])
def test_killed_at_every_commit(when: str, commits: int, path: str) -> None:
    """First and second write of the handler, and the write of its answer."""

    async def story() -> None:
        async with room() as cloud:
            setattr(cloud.mortal, when, commits)
            with pytest.raises(Killed):
                await cloud.post(path=path)
            made = await cloud.count()
            cloud.new_process()
            retried = await cloud.post(path=path)
            assert retried.status == 201
            assert await cloud.count() == 1
            assert made == (0 if (when, commits) == ("dies_before", 1) else 1)
            thing = (await cloud.world.store.read(lambda tx: THINGS.find(tx)))[0]
            assert thing.after_s == 1, "done once, whatever happened"
            assert thing.id in retried.body.decode()
            third = await cloud.post(path=path)
            assert third.body == retried.body

    run(story())


def test_two_at_the_same_time() -> None:
    async def story() -> None:
        async with room() as cloud:
            cloud.things.slow = 0.02
            answers = await asyncio.gather(*(cloud.post() for _ in range(5)))
            assert {one.status for one in answers} == {201}
            assert len({one.body for one in answers}) == 1
            assert (await cloud.count(), cloud.things.calls) == (1, 1)
            assert sum("idempotent-replayed" in one.headers for one in answers) == 4

    run(story())


def test_two_processes_at_the_same_time() -> None:
    """No lock is shared; the transactions are what keeps it single."""

    async def story() -> None:
        async with room() as cloud:
            cloud.things.slow = 0.02
            first, old = asyncio.ensure_future(cloud.post()), cloud.things
            await asyncio.sleep(0.005)
            cloud.new_process()
            cloud.things.slow = 0.02
            answers = [await cloud.post(), await first]
            assert old is not cloud.things
            assert len({one.body for one in answers}) == 1
            assert await cloud.count() == 1

    run(story())


def test_refused_requests_may_be_tried_again() -> None:
    async def story() -> None:
        async with room() as cloud:
            assert (await cloud.post(name="bad")).status == 409
            assert (await cloud.post(name="bad")).status == 409
            assert (await cloud.post()).status == 201, "nothing was written under the key"

    run(story())


def test_tasks_of_others_are_not_the_requests() -> None:
    """A flow that a request starts inherits its context, and must not count as the request."""

    async def story() -> None:
        async with memory_world(wrap=OnceStore) as world:
            with keyed("s", "k", b"d") as request:
                await asyncio.create_task(world.store.write(lambda tx: None))  # type: ignore[arg-type]
                assert request.done_count == 0
                await world.store.write(lambda tx: None)
                assert request.done_count == 1
            await world.store.write(lambda tx: None)
            assert request.done_count == 1

    run(story())


def test_kept_for_a_day() -> None:
    async def story() -> None:
        async with room() as cloud:
            first = await cloud.post()
            purge = PurgeReplays(cloud.world)
            cloud.world.clock.ahead_s = KEPT_FOR_S - 60  # type: ignore[attr-defined]
            await purge.settle("all")
            assert (await cloud.post()).json == first.json
            cloud.world.clock.ahead_s = KEPT_FOR_S + 60  # type: ignore[attr-defined]
            for key in await purge.keys():
                await purge.settle(key)
            assert (await cloud.post()).json != first.json

    run(story())


def test_rows_cannot_run_code() -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (print, ("run",))

    with pytest.raises(pickle.UnpicklingError):
        once._unpack(pickle.dumps(Evil()))
    assert once._pack(lambda: None) == once._LOST
    with pytest.raises(Conflict, match="answer was lost"):
        once._unpack(once._LOST)


def test_what_services_return_is_kept() -> None:
    """Records, enums, tuples, and flows with their raw input."""
    from apus.kernel.flow import Flow
    from apus.services.image.model import Image, Visibility

    image = Image(id="i", project_id=None, created_at_s=1.0, updated_at_s=2.0, visibility=Visibility.PUBLIC)
    flow = Flow(id="f", saga="s", version=1, resource_type="t", resource_id="r")
    for value in (None, 1, "a", [image], (image, {"x": {1, 2}}), flow, frozenset({"a"})):
        assert once._unpack(once._pack(value)) == value, value

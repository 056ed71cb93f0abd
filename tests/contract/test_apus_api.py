"""Our own API over a real socket: the event stream, operations, explanations, hosts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aiohttp
import msgspec
import uvicorn

from apus.kernel import events
from apus.kernel.caller import Caller
from apus.kernel.errors import Conflict, NotFound
from apus.kernel.flow import PENDING, FlowRunner, Run, Saga, Step, Wait
from apus.kernel.world import World
from apus.services.compute.contract import ServerFacts, SshAddress
from apus.services.placement.contract import Claim, Explanation, Host, HostReport, Inventory, Need, Refusal
from apus.skins.apus.events import EventStreams
from apus.skins.apus.routes import ROUTES, ApusDoor, apus_api
from apus.wire.app import App
from tests.doubles import ALICE, BOB, KnownTokens, memory_world, run


class WrittenPlacement:
    """PlacementService with two hosts and one decision."""

    def __init__(self) -> None:
        refusal = Refusal(filter="memory", hosts=2, hint="the largest free is 512 MiB", names=("h1", "h2"))
        self.explanations = {
            "server-1": Explanation(
                subject_id="server-1", project_id=ALICE.project_id, at_s=1.5, need=Need(resources={"VCPU": 1}),
                hosts_seen=2, chosen=None, refusals=(refusal,), would_fit="512 MiB",
            )
        }  # fmt: skip

    async def explain(self, subject_id: str) -> Explanation | None:
        return self.explanations.get(subject_id)

    async def hosts(self) -> Sequence[Host]:
        return [
            Host(
                id=name, name=name, availability_zone="nova", inventories={"VCPU": Inventory(total=4)},
                used={"VCPU": 1}, traits=("A",), enabled=True, disabled_reason=None, heard_at_s=2.0,
            )
            for name in ("h2", "h1")
        ]  # fmt: skip

    async def claim(self, consumer_id: str, need: Need, project_id: str, user_id: str, avoid: Sequence[str]) -> Claim:
        raise NotImplementedError

    async def release(self, consumer_id: str) -> None: ...

    async def report_host(self, report: HostReport) -> None: ...

    async def host_heard(self, host: str) -> None: ...

    async def enable_host(self, host: str, enabled: bool, reason: str | None) -> None: ...

    async def forget_host(self, host: str) -> None: ...

    async def zone_hosts(self, zones: Mapping[str, str]) -> None: ...

    async def claims(self) -> Sequence[Claim]:
        return []


class WrittenCompute:
    """ComputeService with one server of Alice's."""

    async def ssh_address(self, caller: Caller, server_id: str) -> SshAddress:
        if server_id != "server-1" or caller.project_id != ALICE.project_id:
            raise NotFound("compute.server.not_found", f"Instance {server_id} could not be found.")
        return SshAddress("127.0.0.1", 22001)

    async def server_facts(self, server_id: str) -> ServerFacts | None:
        raise NotImplementedError

    async def metadata_for(self, server_id: str) -> Mapping[str, bytes] | None:
        raise NotImplementedError

    async def keep_password(self, server_id: str, password: str) -> None:
        raise NotImplementedError


class Cloud:
    def __init__(self, world: World, flows: FlowRunner, url: str, http: aiohttp.ClientSession) -> None:
        self.world, self.flows, self.url, self.http = world, flows, url, http

    async def ask(self, path: str, token: str | None = "alice", method: str = "GET", body: Any = None) -> Any:
        headers = {"X-Auth-Token": token} if token else {}
        async with self.http.request(method, f"{self.url}/apus{path}", headers=headers, json=body) as response:
            return response.status, await response.json()

    async def emit(self, kind: str, resource_id: str, project_id: str | None) -> None:
        await self.world.store.write(lambda tx: events.emit(tx, kind, resource_id, project_id))

    @contextlib.asynccontextmanager
    async def stream(self, query: str = "", token: str = "alice", **headers: str) -> AsyncIterator[AsyncIterator[Any]]:
        sent = {"X-Auth-Token": token, **headers}
        async with self.http.get(f"{self.url}/apus/v1/events{query}", headers=sent) as response:
            assert response.status == 200, await response.text()
            assert response.headers["content-type"] == "text/event-stream"
            yield _events(response)


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Any]:
    """(id, kind, data) of each event; a comment is given as text."""
    block: dict[str, str] = {}
    async for raw in response.content:
        line = raw.decode().rstrip("\n")
        if line.startswith(":"):
            yield line
        elif line:
            name, _, value = line.partition(": ")
            block[name] = value
        elif block:
            if "data" in block:
                yield int(block["id"]), block["event"], json.loads(block["data"])
            block = {}


@contextlib.asynccontextmanager
async def cloud() -> AsyncIterator[Cloud]:
    async with memory_world() as world:
        flows = FlowRunner(world, "test")
        for saga in (GOOD, STICKY, PARKED):
            flows.register(saga, None)
        streams = EventStreams(world, look_every_s=0.02, heartbeat_s=0.1)
        door = ApusDoor(world, flows, WrittenPlacement(), WrittenCompute(), streams=streams)
        app = App([apus_api(door)], KnownTokens(), dice=world.dice)
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="off"))
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        async with asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.005)
            port = server.servers[0].sockets[0].getsockname()[1]
            async with aiohttp.ClientSession() as http:
                yield Cloud(world, flows, f"http://127.0.0.1:{port}", http)
            server.should_exit = True
            await serving


class Nothing(msgspec.Struct, frozen=True):
    pass


async def _fine(run: Run[Any, Any]) -> str:
    return "made"


async def _refused(run: Run[Any, Any]) -> None:
    raise Conflict("test.refused", "the disk is on fire")


async def _never(run: Run[Any, Any]) -> Any:
    return PENDING


GOOD = Saga(
    "test.good", version=1, input=Nothing, steps=(Step("first", do=_fine), Step("second", do=_fine, pivot=True))
)
STICKY = Saga(
    "test.sticky", version=1, input=Nothing, steps=(Step("go", do=_fine, pivot=True), Step("fail", do=_refused))
)
PARKED = Saga(
    "test.parked", version=1, input=Nothing, steps=(Step("go", do=_fine), Wait("word", until=_never, within_s=50))
)


async def _start(cloud: Cloud, saga: Saga, resource_id: str) -> str:
    flow = await cloud.world.store.write(
        lambda tx: cloud.flows.start(
            tx, saga, Nothing(), resource_type="thing", resource_id=resource_id, project_id=ALICE.project_id,
            caller=msgspec.structs.replace(ALICE, request_id="req-of-alice"),
        )
    )  # fmt: skip
    return flow.id


async def _first(stream: AsyncIterator[Any], count: int) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(5):
        async for item in stream:
            if not isinstance(item, str):
                found.append(item)
                if len(found) == count:
                    break
    return found


def test_events() -> None:
    async def story() -> None:
        async with cloud() as it:
            await it.emit("t.one", "r1", ALICE.project_id)
            await it.emit("t.theirs", "r2", BOB.project_id)
            await it.emit("t.system", "r3", None)
            await it.emit("t.two", "r4", ALICE.project_id)
            async with it.stream("?after=0") as stream:
                first = await _first(stream, 2)
                assert [kind for _, kind, _ in first] == ["t.one", "t.two"]
                assert first[0][2]["project_id"] == ALICE.project_id
                await it.emit("t.live", "r5", ALICE.project_id)
                assert (await _first(stream, 1))[0][1] == "t.live"
            async with it.stream(**{"Last-Event-ID": str(first[0][0])}) as stream:
                assert [kind for _, kind, _ in await _first(stream, 2)] == ["t.two", "t.live"]
            async with it.stream("?after=0&resource_id=r4") as stream:
                assert [kind for _, kind, _ in await _first(stream, 1)] == ["t.two"]
            async with it.stream("?after=0&all_projects=1", token="admin") as stream:
                assert len(await _first(stream, 5)) == 5
            async with it.stream() as stream:  # from now on, and a heartbeat in the quiet
                async with asyncio.timeout(5):
                    comments = [item async for item in _until(stream, ": still here")]
                assert comments[-1] == ": still here"
            for query, status in (("?all_projects=1", 403), ("?after=x", 400), ("?after=-1", 400)):
                assert (await it.ask(f"/v1/events{query}"))[0] == status

    run(story())


async def _until(stream: AsyncIterator[Any], last: str) -> AsyncIterator[Any]:
    async for item in stream:
        yield item
        if item == last:
            return


def test_streams_end_with_their_client() -> None:
    async def story() -> None:
        async with memory_world() as world:
            streams = EventStreams(world, look_every_s=0.01)
            door = ApusDoor(world, FlowRunner(world, "t"), WrittenPlacement(), WrittenCompute(), streams=streams)
            app = App([apus_api(door)], KnownTokens(), dice=world.dice)
            from tests.doubles import Client

            async with asyncio.timeout(5):
                got = await Client(app)("GET", "/apus/v1/events?after=0", leaves=True)
            assert got.status == 200
            assert streams._open == 0

    run(story())


def test_operations() -> None:
    async def story() -> None:
        async with cloud() as it:
            good, sticky, parked = [
                await _start(it, saga, f"r{index}") for index, saga in enumerate((GOOD, STICKY, PARKED))
            ]
            for flow_id in (good, sticky):
                await it.flows.advance_to_rest(flow_id)
            status, body = await it.ask(f"/v1/operations/{good}")
            assert status == 200
            operation = body["operation"]
            assert (operation["state"], operation["waiting_for"]) == ("succeeded", None)
            assert [(one["name"], one["state"]) for one in operation["steps"]] == [
                ("first", "done"),
                ("second", "done"),
            ]
            assert all(one["seconds"] is not None for one in operation["steps"])
            body = (await it.ask(f"/v1/operations/{parked}"))[1]
            assert body["operation"]["waiting_for"]["what"] == "go"
            assert body["operation"]["waiting_for"]["deadline"] is not None
            body = (await it.ask(f"/v1/operations/{sticky}"))[1]
            assert body["operation"]["state"] == "stuck"
            assert "on fire" in body["operation"]["reason"]
            listed = (await it.ask("/v1/operations?limit=2"))[1]["operations"]
            assert len(listed) == 2
            assert len((await it.ask("/v1/operations?state=stuck"))[1]["operations"]) == 1
            assert len((await it.ask("/v1/operations?resource_id=r0"))[1]["operations"]) == 1
            assert (await it.ask("/v1/operations", token="bob"))[1]["operations"] == []
            assert len((await it.ask("/v1/operations?all_projects=1", token="admin"))[1]["operations"]) == 3
            assert (await it.ask(f"/v1/operations/{good}", token="bob"))[0] == 404
            for path, status in (
                ("?state=odd", 400), ("?limit=0", 400), ("?limit=x", 400), ("/none", 404), ("?all_projects=1", 403),
                ("?all_projects=perhaps", 400),
            ):  # fmt: skip
                assert (await it.ask(f"/v1/operations{path}"))[0] == status, path
            path = f"/v1/operations/{sticky}"
            assert (await it.ask(f"{path}/resume", method="POST"))[0] == 403
            assert (await it.ask(f"{path}/abandon", "admin", "POST", {}))[0] == 400
            assert (await it.ask(f"/v1/operations/{good}/resume", "admin", "POST"))[0] == 409
            assert (await it.ask(f"{path}/resume", "admin", "POST"))[1]["operation"]["state"] == "running"
            await it.flows.advance_to_rest(sticky)
            status, body = await it.ask(f"{path}/abandon", "admin", "POST", {"reason": "burnt"})
            assert (status, body["operation"]["reason"]) == (200, "abandoned: burnt")

    run(story())


def test_explanations_and_hosts() -> None:
    async def story() -> None:
        async with cloud() as it:
            status, body = await it.ask("/v1/explain/server-1")
            assert status == 200
            assert body["explanation"]["refusals"] == [
                {"filter": "memory", "hosts": 2, "hint": "the largest free is 512 MiB"}
            ]
            assert "h1" not in json.dumps(body)
            body = (await it.ask("/v1/explain/server-1", token="admin"))[1]
            assert body["explanation"]["refusals"][0]["names"] == ["h1", "h2"]
            assert (await it.ask("/v1/explain/server-1", token="bob"))[0] == 404
            assert (await it.ask("/v1/explain/none"))[0] == 404
            await _start(it, GOOD, "server-1")
            assert (await it.ask("/v1/explain/req-of-alice"))[1]["explanation"]["subject_id"] == "server-1"
            assert (await it.ask("/v1/explain/req-of-alice", token="bob"))[0] == 404
            hosts = (await it.ask("/v1/hosts", token="admin"))[1]["hosts"]
            assert [host["name"] for host in hosts] == ["h1", "h2"]
            assert hosts[0]["resources"]["VCPU"]["used"] == 1
            assert (await it.ask("/v1/hosts"))[0] == 403
            for path in ("", "/", "/v1"):
                status, body = await it.ask(path, token=None)
                assert (status, body["versions"][0]["id"]) == (200, "v1.0")
            for route in ROUTES:
                if route.path.startswith("/v1/"):
                    path = route.path.replace("{id}", "x")
                    status, body = await it.ask(path, None, route.method)
                    if path != "/v1/":
                        assert (status, body["errors"][0]["status"]) == (401, 401)

    run(story())


def test_where_a_server_is_reached() -> None:
    async def story() -> None:
        async with cloud() as apus:
            status, body = await apus.ask("/v1/servers/server-1/access")
            assert (status, body) == (200, {"access": {"ssh": {"address": "127.0.0.1", "port": 22001}}})
            assert (await apus.ask("/v1/servers/server-1/access", "bob"))[0] == 404
            assert (await apus.ask("/v1/servers/server-1/access", None))[0] == 401

    run(story())


def test_status() -> None:
    async def story() -> None:
        async with cloud() as it:
            for index, saga in enumerate((GOOD, STICKY, PARKED)):
                flow_id = await _start(it, saga, f"r{index}")
                if saga is not PARKED:
                    await it.flows.advance_to_rest(flow_id)
            assert (await it.ask("/v1/status"))[0] == 403
            status, body = await it.ask("/v1/status", token="admin")
            assert status == 200
            assert (body["operations"]["stuck"], body["operations"]["succeeded"]) == (1, 1)
            (stuck,) = body["stuck"]
            assert (stuck["resource_id"], "on fire" in stuck["reason"]) == ("r1", True)
            assert [(host["name"], host["up"]) for host in body["hosts"]] == [("h1", False), ("h2", False)]
            assert body["version"]
            assert body["up_s"] < 60

    run(story())

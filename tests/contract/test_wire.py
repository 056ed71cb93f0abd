"""What every API promises over HTTP, asked of a real server, byte for byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import pytest

from apus.kernel.errors import Conflict, NotFound, Unavailable
from apus.kernel.policy import Rule
from apus.wire.metrics import Metrics, metrics_api
from apus.wire.route import ApiRequest, Reply, Route
from apus.wire.versions import Change, VersionChain
from tests.contract.raw_http import RawClient, app_of, serving

MIB = 1 << 20


class Wanted(msgspec.Struct):
    name: str
    count: int = 1


class WantedBody(msgspec.Struct):
    thing: Wanted


class Fixture:
    """What the handlers share with the tests."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.sent = 0


async def show(request: ApiRequest) -> Reply:
    return Reply({"thing": {"id": request.params["id"], "queries": list(request.queries), "new": True}})


async def create(request: ApiRequest) -> Reply:
    return Reply({"thing": msgspec.to_builtins(request.body.thing)}, 201)


async def fail(request: ApiRequest) -> Reply:
    raise {
        "conflict": Conflict("thing.busy", "The thing is busy.", hidden="inner word"),
        "missing": NotFound("thing.missing", "There is no thing."),
        "away": Unavailable("thing.away", "Come again."),
    }.get(request.params["how"]) or RuntimeError("inner word")


async def unencodable(request: ApiRequest) -> Reply:
    return Reply({"thing": object()})


async def echo_header(request: ApiRequest) -> Reply:
    return Reply(None, 204, {"Location": f"/thing/{request.params['id']}", "X-Name": request.query("name") or ""})


async def count(request: ApiRequest) -> Reply:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
    return Reply({"size": size})


async def refuse(request: ApiRequest) -> Reply:
    raise Conflict("thing.refused", "Not this one.")


async def download(request: ApiRequest) -> Reply:
    service: Fixture = request.service

    async def chunks() -> AsyncIterator[bytes]:
        try:
            for _ in range(int(request.query("mib") or "1")):
                yield b"x" * MIB
                service.sent += MIB
        finally:
            service.gone.set()

    length = {"Content-Length": str(MIB)} if request.query("sized") else {}
    return Reply(stream=chunks(), headers=length, content_type="application/octet-stream")


async def waits(request: ApiRequest) -> Reply:
    service: Fixture = request.service

    async def chunks() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            service.gone.set()

    return Reply(stream=chunks())


async def breaks(request: ApiRequest) -> Reply:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"begun"
        raise Unavailable("thing.disk", "The disk is gone.", hidden="inner word")

    return Reply(stream=chunks())


async def echo(request: ApiRequest) -> Reply:
    return Reply(stream=request.stream())


ROUTES = (
    Route("GET", "/things/{id}", show, may="thing:show"),
    Route("POST", "/things", create, may="thing:create", takes=WantedBody),
    Route("GET", "/fail/{how}", fail, may="thing:show"),
    Route("GET", "/unencodable", unencodable, may="thing:show"),
    Route("GET", "/echo/{id}", echo_header, may="thing:show"),
    Route("PUT", "/count", count, may="thing:show"),
    Route("PUT", "/refuse", refuse, may="thing:show"),
    Route("GET", "/download", download, may="thing:show"),
    Route("GET", "/waits", waits, may="thing:show"),
    Route("GET", "/breaks", breaks, may="thing:show"),
    Route("PUT", "/both", echo, may="thing:show"),
    Route("GET", "/newer/{id}", show, may="thing:show", since=(1, 5)),
)
POLICY = {"thing:show": Rule.READER, "thing:create": Rule.MEMBER, "thing:admin": Rule.ADMIN}
VERSIONS = VersionChain(
    "thing",
    (1, 1),
    (1, 9),
    (
        Change((1, 3), "show", down=lambda view: {"thing": {k: v for k, v in view["thing"].items() if k != "new"}}),
        Change((1, 3), "create", up=lambda body: {"thing": {"name": body["label"]}} if "label" in body else body),
    ),
    legacy_header="x-thing-version",
)
READER = {"x-auth-token": "reader"}
MEMBER = {"x-auth-token": "member"}

Story = Callable[[RawClient, Fixture], Awaitable[None]]


def over_http(story: Story, **more: Any) -> None:
    async def run() -> None:
        fixture = Fixture()
        app = app_of(ROUTES, POLICY, service=fixture, **more)
        async with asyncio.timeout(20), serving(app) as port, RawClient(port) as client:
            await story(client, fixture)

    asyncio.run(run())


def logged(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_refusals_have_their_status_and_headers_and_the_connection_lives_on(capfd: pytest.CaptureFixture[str]) -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        asked = await client.ask("GET", "/thing/things/1")
        assert asked.status == 401
        assert asked.headers["www-authenticate"] == 'Keystone uri="http://test/identity"'
        assert (await client.ask("GET", "/thing/things/1", {"x-auth-token": "stolen"})).status == 401
        assert (await client.ask("POST", "/thing/things", READER, b"{}")).status == 403
        assert (await client.ask("GET", "/nowhere")).status == 404
        assert (await client.ask("GET", "/thing/nowhere")).status == 404
        assert (await client.ask("GET", "/thingish/things/1")).status == 404
        assert (await client.ask("POST", "/thing/things/", MEMBER, b"{}")).status == 404  # a thing without a name
        wrong = await client.ask("PATCH", "/thing/things/1", READER)
        assert wrong.status == 405
        assert wrong.headers["allow"] == "GET, HEAD"
        away = await client.ask("GET", "/thing/fail/away", READER)
        assert (away.status, away.headers["retry-after"]) == (503, "1")
        assert (await client.ask("POST", "/thing/things", MEMBER, b"x" * (MIB + 1))).status == 413
        assert (await client.ask("GET", "/thing/things/1", READER)).status == 200

    over_http(story)
    assert "Traceback" not in capfd.readouterr().err


def test_a_bug_of_ours_is_logged_with_its_id_and_shows_nothing_inner(capfd: pytest.CaptureFixture[str]) -> None:
    ids = []

    async def story(client: RawClient, fixture: Fixture) -> None:
        for path in ("/thing/fail/bug", "/thing/unencodable"):
            answer = await client.ask("GET", path, READER)
            assert answer.status == 500
            assert b"inner word" not in answer.body
            ids.append(answer.headers["x-openstack-request-id"])
            assert ids[-1].encode() in answer.body
        conflict = await client.ask("GET", "/thing/fail/conflict", READER)
        assert conflict.status == 409
        assert b"inner word" not in conflict.body

    over_http(story)
    lines = logged(capfd.readouterr().err)
    assert [line["request_id"] for line in lines if line["event"] == "unhandled"] == ids
    assert any(line.get("hidden") == "inner word" for line in lines)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b"[1]", "Expected object"),
        (b'{"thing": 1}', "thing: Expected object, got int"),
        (b'{"thing": {"name": 1}}', "thing.name: Expected str, got int"),
        (b'{"thing": {"name": "a", "count": "b"}}', "thing.count"),
        (b"[" * 100_000, "400"),
        (b'{"thing": {"name": "\\ud800"}}', "not valid JSON"),
        (b'{"thing": {"name": "a", "count": 1e999}}', "400"),
    ],
)
@pytest.mark.parametrize("versions", [None, VERSIONS], ids=["plain", "versioned"])
def test_wrong_bodies_name_the_field(body: bytes, says: str, versions: VersionChain | None) -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        answer = await client.ask("POST", "/thing/things", MEMBER, body)
        assert answer.status == 400
        assert says in answer.body.decode()

    over_http(story, versions=versions)


@pytest.mark.parametrize(
    "target",
    [
        "/thing/things/%FF", "/thing/things/%", "/thing/things/%zz", "/thing/things/%00", "/thing/things/%2F..%2F",
        "/thing/things/x?a=%FF&b=%zz&c=%00", "/thing/things/x?%", "/thing/things/x?&&==&a&b=", "/thing//things//x",
        "//", "/", "/thing", "/thing/", "/thing/things/", "/thing/things/\xe4", "/thing/things/x?q=\xe4",
        "http://else.where/thing/things/x", "/thing/things/" + "y" * 60_000,
    ],
)  # fmt: skip
def test_no_path_and_no_query_is_an_error_of_ours(target: str) -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        answer = await client.ask("GET", target, READER)
        assert answer.status in (200, 400, 404, 405)

    over_http(story)


@pytest.mark.parametrize("line", [b"OPTIONS * HTTP/1.1", b"GET *x HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"nonsense"])
def test_strange_request_lines_are_refused(line: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        client.writer.write(line + b"\r\nhost: x\r\n\r\n")
        status, _ = await client.head()
        assert 400 <= status < 500

    over_http(story)
    assert "Traceback" not in capfd.readouterr().err


def test_a_value_cannot_begin_another_header() -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        answer = await client.ask("GET", "/thing/echo/a%0d%0aSet-Cookie:%20x?name=b%0D%0A%0D%0Ac%7f%E2%82%AC", READER)
        assert answer.status == 204
        assert "set-cookie" not in answer.headers
        assert answer.headers["location"] == "/thing/a  Set-Cookie: x"

    over_http(story)


def test_head_has_the_length_and_no_body() -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        full = await client.ask("GET", "/thing/things/1", READER)
        head = await client.ask("HEAD", "/thing/things/1", READER)
        assert head.status == 200
        assert int(head.headers["content-length"]) == len(full.body)
        sized = await client.ask("HEAD", "/thing/download?sized=1", READER)
        assert int(sized.headers["content-length"]) == MIB
        assert (await client.ask("HEAD", "/thing/nowhere", READER)).status == 404
        assert (await client.ask("GET", "/thing/things/1", READER)).status == 200

    over_http(story)


def test_streams_go_in_both_directions() -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        assert len((await client.ask("GET", "/thing/download?sized=1", READER)).body) == MIB
        assert len((await client.ask("GET", "/thing/download?mib=3", READER)).body) == 3 * MIB
        sent = await client.ask("PUT", "/thing/count", READER, b"y" * 3 * MIB)
        assert json.loads(sent.body) == {"size": 3 * MIB}
        client.writer.write(b"PUT /thing/count HTTP/1.1\r\nx-auth-token: reader\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(10):
            client.writer.write(b"1000\r\n" + b"z" * 0x1000 + b"\r\n")
        client.writer.write(b"0\r\n\r\n")
        assert json.loads((await client.answer()).body) == {"size": 10 * 0x1000}
        assert (await client.ask("PUT", "/thing/both", READER, b"w" * MIB)).body == b"w" * MIB

    over_http(story)


def test_a_client_that_asks_first_is_told_to_go_on_or_is_refused_and_let_go() -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        head = b"PUT /thing/%s HTTP/1.1\r\nx-auth-token: reader\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"
        client.writer.write(head % b"count")
        assert (await client.head())[0] == 100
        client.writer.write(b"12345")
        assert json.loads((await client.answer()).body) == {"size": 5}
        client.writer.write(head % b"refuse")
        refused = await client.answer()
        assert (refused.status, refused.headers["connection"]) == (409, "close")
        assert await client.reader.read() == b""

    over_http(story)


def test_a_refused_body_does_not_spoil_the_connection() -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        assert (await client.ask("PUT", "/thing/refuse", READER, b"GET /evil HTTP/1.1\r\n\r\n" * 50_000)).status == 409
        assert (await client.ask("GET", "/thing/things/1", READER)).status == 200

    over_http(story)


@pytest.mark.parametrize("path", ["download?mib=1000", "waits"])
def test_a_reply_ends_when_its_client_goes(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        client.writer.write(f"GET /thing/{path} HTTP/1.1\r\nx-auth-token: reader\r\n\r\n".encode())
        await client.reader.readuntil(b"\r\n\r\n")
        await client.reader.read(5)
        client.writer.transport.abort()
        await fixture.gone.wait()
        assert fixture.sent < 100 * MIB

    over_http(story)
    assert "Traceback" not in capfd.readouterr().err


def test_a_client_that_goes_while_it_sends_is_no_error(capfd: pytest.CaptureFixture[str]) -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        client.writer.write(b"PUT /thing/count HTTP/1.1\r\nx-auth-token: reader\r\ncontent-length: 100\r\n\r\nhalf")
        await client.writer.drain()
        await asyncio.sleep(0.05)
        client.writer.transport.abort()
        await asyncio.sleep(0.05)

    over_http(story)
    err = capfd.readouterr().err
    assert "Traceback" not in err
    assert any(line["event"] == "client gone" for line in logged(err))


def test_a_reply_that_breaks_ends_early_and_says_so_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        client.writer.write(b"GET /thing/breaks HTTP/1.1\r\nx-auth-token: reader\r\n\r\n")
        rest = await client.reader.read()
        assert b"begun" in rest
        assert not rest.endswith(b"0\r\n\r\n")
        assert b"disk" not in rest

    over_http(story)
    (line,) = [line for line in logged(capfd.readouterr().err) if line["event"] == "a reply ended early"]
    assert line["code"] == "thing.disk"


def test_a_head_without_end_is_cut() -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        client.writer.write(b"GET /thing/things/1 HTTP/1.1\r\n")
        for _ in range(40):
            client.writer.write(b"x-filler: " + b"y" * 8000 + b"\r\n")
        assert (await client.head())[0] == 431

    over_http(story)


def test_versions_are_negotiated_and_echoed() -> None:
    async def story(client: RawClient, fixture: Fixture) -> None:
        async def ask(headers: dict[str, str], target: str = "/thing/things/1") -> Any:
            return await client.ask("GET", target, {**READER, **headers})

        def version(answer: Any) -> tuple[str, str]:
            return answer.headers["openstack-api-version"], answer.headers["x-thing-version"]

        plain = await ask({})
        assert version(plain) == ("thing 1.1", "1.1")
        assert plain.headers["vary"] == "OpenStack-API-Version, x-thing-version"
        assert "new" not in json.loads(plain.body)["thing"]
        latest = await ask({"openstack-api-version": "thing latest"})
        assert version(latest) == ("thing 1.9", "1.9")
        assert "new" in json.loads(latest.body)["thing"]
        assert version(await ask({"openstack-api-version": "other 2.7, thing 1.4"})) == ("thing 1.4", "1.4")
        assert version(await ask({"x-thing-version": "1.2"})) == ("thing 1.2", "1.2")
        assert version(await ask({"openstack-api-version": "other 9.9"})) == ("thing 1.1", "1.1")
        for beyond in ("thing 1.10", "thing 2.0", "thing 1.0"):
            assert (await ask({"openstack-api-version": beyond})).status == 406
        for malformed in ("thing", "thing 1", "thing a.b", "thing 1.2.3", "thing 1." + "9" * 5000, "thing 01.2"):
            assert (await ask({"openstack-api-version": malformed})).status == 400
        assert (await ask({"x-thing-version": "1.4"}, "/thing/newer/1")).status == 404
        assert (await ask({"x-thing-version": "latest"}, "/thing/newer/1")).status == 200

    over_http(story, versions=VERSIONS)


def test_metrics_count_what_was_answered() -> None:
    metrics = Metrics(lambda: 0.0)

    async def story(client: RawClient, fixture: Fixture) -> None:
        for _ in range(3):
            await client.ask("GET", "/thing/things/1", READER)
        await client.ask("GET", "/thing/fail/missing", READER)

    over_http(story, metrics=metrics)

    async def flows() -> dict[str, float]:
        return {"running": 2.0}

    metrics.watch("apus_flows", "Flows by state.", "state", flows)
    metrics.round("reap", 0.25)
    text = asyncio.run(metrics.text()).decode()
    assert 'apus_http_requests_total{service="thing",operation="show",status="200"} 3' in text
    assert 'apus_http_requests_total{service="thing",operation="fail",status="404"} 1' in text
    assert 'apus_http_request_seconds_count{service="thing",operation="show"} 3' in text
    assert 'apus_http_request_seconds_bucket{service="thing",operation="show",le="+Inf"} 3' in text
    assert 'apus_flows{state="running"} 2' in text
    assert 'apus_loop_round_seconds{loop="reap"} 0.25' in text


def test_metrics_are_for_this_machine_and_for_administrators() -> None:
    from random import Random

    from apus.wire.app import App
    from tests.contract.raw_http import Tokens

    async def ask(client: str, token: str | None) -> int:
        statuses = []

        async def send(message: Any) -> None:
            statuses.append(message.get("status"))

        headers = [(b"x-auth-token", token.encode())] if token else []
        scope = {
            "type": "http", "method": "GET", "raw_path": b"/metrics", "query_string": b"", "headers": headers,
            "client": (client, 1234),
        }  # fmt: skip
        await App([metrics_api(Metrics(lambda: 0.0))], Tokens(), dice=Random(1))(scope, None, send)
        return int(statuses[0])

    assert asyncio.run(ask("127.0.0.1", None)) == 200
    assert asyncio.run(ask("::1", None)) == 200
    assert asyncio.run(ask("192.0.2.1", None)) == 403
    assert asyncio.run(ask("192.0.2.1", "reader")) == 403
    assert asyncio.run(ask("192.0.2.1", "admin")) == 200

"""X-Consistency at both doors: what is asked, what is got, and a clear refusal where it cannot be."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.s3_server import S3Server

BOX = "/v1/AUTH_a/box"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[S3Server]:
    server = S3Server(tmp_path)
    try:
        assert request(server, "PUT", BOX)[0] == 201
        server.run(server.store.replicator.run_once())
        yield server
    finally:
        server.stop()


def request(
    server: S3Server, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    status, told, got = server.ask(method, path, body or b"", **(headers or {}))
    return status, {name.lower(): value for name, value in told.items()}, got


def drives_away(server: S3Server, *numbers: int) -> None:
    for number in numbers:
        path = server.root / f"d{number}"
        path.rename(path.with_name(f"away{number}"))
    look(server)


def look(server: S3Server) -> None:
    """What its fence would notice within a second, each drive notices now."""
    for drive in server.store.drives:
        with contextlib.suppress(OSError):
            server.run(drive.look(write=False))


def hold(server: S3Server, name: str) -> list[int]:
    """The numbers of the drives whose copies of this object count."""
    place = server.store.cluster.place("AUTH_a", "box", name)
    return [int(name.removeprefix("drive")) for name in server.store.cluster.ring.primaries(place.part)]


def test_an_answer_says_what_it_got_and_how_old_it_may_be(server: S3Server) -> None:
    _, headers, _ = request(server, "PUT", f"{BOX}/one", body=b"1")
    assert headers["x-consistency"] == "eventual"
    token = headers["x-consistency-token"]
    for level in ("eventual", "read-your-writes", "strong"):
        asked = {"X-Consistency": level, "X-Consistency-Token": token}
        for method in ("GET", "HEAD"):
            status, headers, _ = request(server, method, f"{BOX}/one", headers=asked)
            assert (status, headers["x-consistency"], headers["x-consistency-age"]) == (200, level, "0")
            assert "x-consistency-token" not in headers
        status, headers, _ = request(server, "GET", f"{BOX}/none", headers=asked)
        assert (status, headers["x-consistency"]) == (404, level)
    status, headers, _ = request(server, "DELETE", f"{BOX}/one", headers={"X-Consistency": "strong"})
    assert (status, headers["x-consistency"]) == (204, "strong")
    assert headers["x-consistency-token"] > token
    status, headers, _ = request(server, "GET", BOX)
    assert (status, headers["x-consistency"]) == (204, "eventual")
    assert float(headers["x-consistency-age"]) >= 0


@pytest.mark.parametrize(
    ("path", "headers", "said"),
    [
        (f"{BOX}/one", {"X-Consistency": "perfect"}, "eventual, read-your-writes, strong"),
        (f"{BOX}/one", {"X-Consistency": "read-your-writes", "X-Consistency-Token": "mine"}, "none of ours"),
        (BOX, {"X-Consistency": "strong"}, "listings are eventual"),
        ("/v1/AUTH_a", {"X-Consistency": "read-your-writes"}, "listings are eventual"),
    ],
)
def test_what_cannot_be_is_refused(server: S3Server, path: str, headers: dict[str, str], said: str) -> None:
    status, _, body = request(server, "GET", path, headers=headers)
    assert status == 400
    assert said in body.decode()


def test_strong_reads_go_on_while_a_quorum_lives_and_then_refuse(server: S3Server) -> None:
    request(server, "PUT", f"{BOX}/one", body=b"1")
    server.run(server.store.replicator.run_once())
    first, second, _third = hold(server, "one")
    strong = {"X-Consistency": "strong"}
    drives_away(server, first)
    assert request(server, "GET", f"{BOX}/one", headers=strong)[0] == 200
    drives_away(server, second)
    status, _, body = request(server, "GET", f"{BOX}/one", headers=strong)
    assert status == 503
    assert b"1 of 3 copies" in body
    assert request(server, "PUT", f"{BOX}/one", body=b"2", headers=strong)[0] == 503
    assert request(server, "GET", f"{BOX}/one")[0] == 200
    for number in (first, second):
        (server.root / f"away{number}").rename(server.root / f"d{number}")
    look(server)
    server.run(server.store.replicator.run_once())
    assert request(server, "GET", f"{BOX}/one", headers=strong)[2] == b"1"


def test_a_token_finds_the_write_on_whichever_drive_it_is(server: S3Server) -> None:
    request(server, "PUT", f"{BOX}/one", body=b"old")
    server.run(server.store.replicator.run_once())
    first, *_ = hold(server, "one")
    drives_away(server, first)
    _, headers, _ = request(server, "PUT", f"{BOX}/one", body=b"new")
    (server.root / f"away{first}").rename(server.root / f"d{first}")
    look(server)
    asked = {"X-Consistency": "read-your-writes", "X-Consistency-Token": headers["x-consistency-token"]}
    status, _, body = request(server, "GET", f"{BOX}/one", headers=asked)
    assert (status, body) == (200, b"new")
    _, headers, _ = request(server, "GET", f"{BOX}/one")
    assert float(headers["x-consistency-age"]) > 0, "copies are known to differ"


def test_s3_speaks_of_it_too(server: S3Server) -> None:
    s3 = server.client("alice")
    s3.meta.events.register(
        "before-sign.s3", lambda request, **_: request.headers.add_header("X-Consistency", "strong")
    )
    answer = s3.put_object(Bucket="box", Key="one", Body=b"1")
    told = answer["ResponseMetadata"]["HTTPHeaders"]
    assert told["x-consistency"] == "strong"
    assert told["x-consistency-token"]
    answer = s3.get_object(Bucket="box", Key="one")
    assert answer["ResponseMetadata"]["HTTPHeaders"]["x-consistency-age"] == "0"
    with pytest.raises(s3.exceptions.ClientError, match="listings are eventual"):
        s3.list_objects_v2(Bucket="box")

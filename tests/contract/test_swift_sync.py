"""Containers that are each other's copies in two clusters, over real sockets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apus.kernel.errors import Invalid
from apus.services.object.logic.sync import is_signed, parse_realms, parse_target, signature, url_of
from apus.services.object.service import Options
from tests.contract.swift_server import SwiftServer

CONFIGURATION = "[realm]\nkey = secret\nkey2 = older\ncluster_here = {here}/v1/\ncluster_There = {there}/v1\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SwiftServer, SwiftServer]]:
    realms = parse_realms("[realm]\nkey = secret\n")
    servers = [SwiftServer(tmp_path_factory.mktemp("swift"), Options(realms=realms)) for _ in range(2)]
    here, there = (f"http://127.0.0.1:{server.port}" for server in servers)
    realms.update(parse_realms(CONFIGURATION.format(here=here, there=there)))
    yield servers[0], servers[1]
    for server in servers:
        server.stop()


def sync(*servers: SwiftServer) -> None:
    for server in servers:
        server.run(server.store.syncer.run_once())


def test_two_ways(pair: tuple[SwiftServer, SwiftServer]) -> None:
    here, there = pair
    big = bytes(range(256)) * 10_000
    here.ask("PUT", "/v1/AUTH_a/c", X_Container_Sync_To="//realm/THERE/AUTH_b/d", X_Container_Sync_Key="k")
    there.ask("PUT", "/v1/AUTH_b/d", token="bob", X_Container_Sync_To="//Realm/here/AUTH_a/c", X_Container_Sync_Key="k")
    here.ask("PUT", "/v1/AUTH_a/c/%C3%BC%20x", big, X_Object_Meta_K="v", Content_Type="a/b")
    there.ask("PUT", "/v1/AUTH_b/d/o", b"there", token="bob")
    sync(here, there)
    status, headers, body = there.ask("GET", "/v1/AUTH_b/d/%C3%BC%20x", token="bob")
    assert (status, body, headers["x-object-meta-k"], headers["content-type"]) == (200, big, "v", "a/b")
    assert headers["x-timestamp"] == here.ask("HEAD", "/v1/AUTH_a/c/%C3%BC%20x")[1]["x-timestamp"]
    assert here.ask("GET", "/v1/AUTH_a/c/o")[2] == b"there"
    listed = [
        here.ask("GET", "/v1/AUTH_a/c?format=json")[2],
        there.ask("GET", "/v1/AUTH_b/d?format=json", token="bob")[2],
    ]
    assert listed[0] == listed[1]
    # Changes and deletions travel, and do not come back.
    there.ask("PUT", "/v1/AUTH_b/d/o", b"newer", token="bob")
    here.ask("DELETE", "/v1/AUTH_a/c/%C3%BC%20x")
    sync(there, here, there, here)
    assert here.ask("GET", "/v1/AUTH_a/c/o")[2] == b"newer"
    assert there.ask("GET", "/v1/AUTH_b/d", token="bob")[2] == b"o\n"
    sent = len(here.store.syncer._done)
    sync(here, there)
    assert len(here.store.syncer._done) == sent
    here.ask("POST", "/v1/AUTH_a/c", X_Remove_Container_Sync_To="x")
    assert here.run(here.store.syncer.keys()) == []


def test_what_is_not_signed_is_refused(pair: tuple[SwiftServer, SwiftServer]) -> None:
    here, _ = pair
    here.ask("PUT", "/v1/AUTH_a/s", X_Container_Sync_Key="k")
    path, now = "/v1/AUTH_a/s/o", "2000000000.00000"
    for key, timestamp, method, realm in (
        ("wrong", now, "PUT", "realm"), ("k", now, "DELETE", "realm"), ("k", now, "PUT", "other"), ("", now, "PUT", "realm"),
    ):  # fmt: skip
        signed = f"{realm} n {signature(method, path, timestamp, 'n', 'secret', key)}"
        sent = {"X_Container_Sync_Auth": signed, "X_Timestamp": timestamp}
        assert here.ask("PUT", path, b"x", token=None, **sent)[0] == 401
    signed = f"realm n {signature('PUT', path, 'soon', 'n', 'secret', 'k')}"
    assert here.ask("PUT", path, b"x", token=None, X_Container_Sync_Auth=signed, X_Timestamp="soon")[0] == 400
    signed = f"realm n {signature('PUT', path, now, 'n', 'older', 'k')}"
    assert here.ask("PUT", path, b"x", token=None, X_Container_Sync_Auth=signed, X_Timestamp=now)[0] == 201
    for bad in ("http://x/v1/a/c", "//realm/none/a/c", "//none/here/a/c", "//realm/here/a"):
        assert here.ask("POST", "/v1/AUTH_a/s", X_Container_Sync_To=bad)[0] == 400
    assert b'"container_sync"' in here.ask("GET", "/info", token=None)[2]


def test_a_cluster_that_is_away_is_asked_again(pair: tuple[SwiftServer, SwiftServer], tmp_path: Path) -> None:
    realms = parse_realms("[r]\nkey = k\ncluster_away = http://127.0.0.1:9/v1\n")
    server = SwiftServer(tmp_path, Options(realms=realms))
    try:
        server.ask("PUT", "/v1/AUTH_a/c", X_Container_Sync_To="//r/away/AUTH_a/c", X_Container_Sync_Key="k")
        server.ask("PUT", "/v1/AUTH_a/c/o", b"x")
        sync(server)
        assert not server.store.syncer._done
        realms.update(parse_realms(f"[r]\nkey = secret\ncluster_away = http://127.0.0.1:{pair[0].port}/v1\n"))
        pair[0].ask("PUT", "/v1/AUTH_a/away", X_Container_Sync_Key="k")
        server.ask("POST", "/v1/AUTH_a/c", X_Container_Sync_To="//r/away/AUTH_a/away")
        pair[0].store.service.options.realms.update(realms)  # type: ignore[attr-defined]
        sync(server)
        assert pair[0].ask("GET", "/v1/AUTH_a/away/o")[2] == b"x"
    finally:
        server.stop()


def test_realms() -> None:
    realms = parse_realms(CONFIGURATION.format(here="http://h", there="https://t:1"))
    assert url_of("//realm/there/a/c", realms, "o \u00fc/x") == ("https://t:1/v1/a/c/o%20%C3%BC/x", realms["REALM"])
    assert url_of("//realm/gone/a/c", realms, "o") is None
    assert parse_target("//r/c/a/b") == ("R", "C", "a", "b")
    for bad in ("key = x", "[r]\n", "[r]\nkey = k\ncluster_x = ftp://x"):
        with pytest.raises(Invalid):
            parse_realms(bad)


@given(st.text(max_size=30))
def test_any_header_is_judged(text: str) -> None:
    realms = parse_realms(CONFIGURATION.format(here="http://h", there="https://t:1"))
    assert not is_signed(text, "PUT", "/v1/a/c/o", "1", realms, "k")

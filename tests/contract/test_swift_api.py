"""The Swift API over real sockets: statuses, headers and bodies as its reference gives them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import swiftclient

from apus.services.object.engine import LONG_FROM_BYTES, LONG_MAX
from apus.services.object.model import STRIDE_BYTES
from tests.contract.swift_server import SwiftServer

BIG = bytes(range(256)) * 12_289  # three strides and a bit


@pytest.mark.parametrize(
    ("method", "path", "token", "status"),
    [
        ("GET", "/info", None, 200),
        ("HEAD", "/healthcheck", None, 200),
        ("GET", "/crossdomain.xml", None, 200),
        ("GET", "/v1", "alice", 412),
        ("PUT", "/v1/", None, 412),
        ("GET", "/v1//box", "alice", 404),
        ("GET", "/v1//c/o", "alice", 404),
        ("PUT", "/v1/AUTH_a//o", "alice", 404),
        ("GET", "/v1///o", None, 404),
        ("GET", "/info/more", "alice", 404),
        ("GET", "/recon/none", "boss", 404),
        ("PUT", "/v1/AUTH_a/%00", "alice", 412),
        ("PUT", "/v1/AUTH_a/%ff", "alice", 412),
        ("LINK", "/v1/AUTH_a/c", "alice", 405),
        ("POST", "/healthcheck", None, 405),
        ("GET", "/recon/time", None, 401),
        ("GET", "/recon/time", "alice", 403),
        ("GET", "/v1/AUTH_a", None, 401),
        ("GET", "/v1/AUTH_a", "alice", 200),
    ],
)
def test_each_answer_names_its_transaction(
    swift: SwiftServer, method: str, path: str, token: str | None, status: int
) -> None:
    """Those too that a path gets which names no account, and those that no handler sees."""
    swift.ask("PUT", "/v1/AUTH_a/any")
    got, headers, _ = swift.ask(method, path, token=token)
    assert got == status
    trans_id, digits = headers["x-trans-id"], headers["x-openstack-request-id"].removeprefix("req-").replace("-", "")
    assert re.fullmatch("tx[0-9a-f]{21}-[0-9a-f]{10}", trans_id)
    assert trans_id[2:23] == digits[:21], "one can be found by the other"
    assert abs(int(trans_id[24:], 16) - time.time()) < 60


def test_containers(swift: SwiftServer) -> None:
    assert swift.ask("HEAD", "/v1/AUTH_a/none")[0] == 404
    status, headers, body = swift.ask(
        "PUT", "/v1/AUTH_a/box", X_Container_Meta_Colour="r\u00e9d".encode().decode("latin-1")
    )
    assert (status, body) == (201, b"")
    assert swift.ask("PUT", "/v1/AUTH_a/box")[0] == 202
    status, headers, body = swift.ask("HEAD", "/v1/AUTH_a/box")
    assert (status, headers["content-length"], body) == (204, "0", b"")
    assert headers["x-container-object-count"] == headers["x-container-bytes-used"] == "0"
    assert headers["x-container-meta-colour"].encode("latin-1").decode() == "r\u00e9d"
    assert swift.ask("POST", "/v1/AUTH_a/box", X_Remove_Container_Meta_Colour="x")[0] == 204
    assert "x-container-meta-colour" not in swift.ask("HEAD", "/v1/AUTH_a/box")[1]
    swift.ask("PUT", "/v1/AUTH_a/box/o", b"x")
    status, _, body = swift.ask("DELETE", "/v1/AUTH_a/box")
    assert status == 409
    assert b"conflict" in body
    assert swift.ask("DELETE", "/v1/AUTH_a/box/o")[0] == 204
    assert swift.ask("DELETE", "/v1/AUTH_a/box")[0] == 204
    assert swift.ask("DELETE", "/v1/AUTH_a/box")[0] == 404
    assert swift.ask("PUT", "/v1/AUTH_a/box/o", b"x")[0] == 404
    assert swift.ask("POST", "/v1/AUTH_a/box")[0] == 404
    assert swift.ask("PUT", "/v1/AUTH_a/box")[0] == 201
    assert swift.ask("DELETE", "/v1/AUTH_a/box")[0] == 204


def test_an_object_and_its_headers(swift: SwiftServer, base: str) -> None:
    data, path = b"hello", base + "/a%20b/%C3%A9"
    status, headers, body = swift.ask(
        "PUT", path, data, Content_Type="text/x", X_Object_Meta_K="v", Content_Disposition="inline",
        Content_Encoding="none", ETag=hashlib.md5(data).hexdigest(),
    )  # fmt: skip
    assert (status, body) == (201, b"")
    assert headers["etag"] == hashlib.md5(data).hexdigest()
    assert headers["last-modified"].endswith("GMT")
    status, headers, body = swift.ask("GET", path)
    assert (status, body) == (200, data)
    assert headers["content-type"] == "text/x"
    assert headers["x-object-meta-k"] == "v"
    assert headers["content-disposition"] == "inline"
    assert headers["content-encoding"] == "none"
    assert headers["accept-ranges"] == "bytes"
    assert float(headers["x-timestamp"]) > 1e9
    status, headers, body = swift.ask("HEAD", path)
    assert (status, headers["content-length"], body) == (200, "5", b"")
    swift.ask("POST", path, X_Object_Meta_Blank="", X_Remove_Object_Meta_K="x")
    headers = swift.ask("HEAD", path)[1]
    assert headers["x-object-meta-blank"] == ""
    assert "x-object-meta-k" not in headers
    status, _, body = swift.ask("POST", path, X_Object_Meta_New="n")
    assert status == 202
    assert b"accepted" in body
    headers = swift.ask("HEAD", path)[1]
    assert headers["x-object-meta-new"] == "n"
    assert "x-object-meta-k" not in headers
    assert headers["content-type"] == "text/x"
    assert swift.ask("DELETE", path)[0] == 204
    for method in ("GET", "HEAD", "DELETE", "POST"):
        assert swift.ask(method, path)[0] == 404


@pytest.mark.parametrize("size", [0, 1, 100_000, 300_000, 1 << 20, len(BIG)])
def test_sizes(swift: SwiftServer, base: str, size: int) -> None:
    data = BIG[:size]
    assert swift.ask("PUT", base + "/o", data)[0] == 201
    for _ in range(4):  # the first read of each copy brings it into the page cache
        status, headers, body = swift.ask("GET", base + "/o")
        assert (status, body, headers["content-length"]) == (200, data, str(size))
    assert headers["etag"] == hashlib.md5(data).hexdigest()
    assert not swift.uploads_left()


@pytest.mark.parametrize("size", [LONG_FROM_BYTES - 1, LONG_FROM_BYTES, LONG_FROM_BYTES + 5])
def test_long_bodies(swift: SwiftServer, base: str, size: int) -> None:
    """More of them at once than have long strides; and some that break off, whose place is free again."""
    data = os.urandom(size)
    count = LONG_MAX + 2
    for _ in range(count):
        connection = raw(swift, f"PUT {base}/off HTTP/1.1\r\nContent-Length: {size}\r\n")
        connection.sendall(data[: 3 << 20])
        connection.close()
    wait_until(lambda: not swift.uploads_left())
    with ThreadPoolExecutor(count) as pool:
        assert set(pool.map(lambda n: swift.ask("PUT", f"{base}/{n}", data)[0], range(count))) == {201}
    for number in range(count):
        status, headers, body = swift.ask("GET", f"{base}/{number}")
        assert (status, body == data, headers["etag"]) == (200, True, hashlib.md5(data).hexdigest())
    wrong = swift.ask("PUT", base + "/wrong", data, ETag=hashlib.md5(data[1:]).hexdigest())
    assert (wrong[0], swift.ask("GET", base + "/wrong")[0]) == (422, 404)
    assert not swift.uploads_left()


def test_ranges(swift: SwiftServer, base: str) -> None:
    swift.ask("PUT", base + "/o", BIG)
    for text, start, end in (("5-9", 5, 10), ("1048570-1048580", 1048570, 1048581), ("-7", len(BIG) - 7, len(BIG))):
        status, headers, body = swift.ask("GET", base + "/o", Range=f"bytes={text}")
        assert (status, body) == (206, BIG[start:end])
        assert headers["content-range"] == f"bytes {start}-{end - 1}/{len(BIG)}"
    status, headers, _ = swift.ask("GET", base + "/o", Range=f"bytes={len(BIG)}-")
    assert (status, headers["content-range"]) == (416, f"bytes */{len(BIG)}")
    status, headers, body = swift.ask("GET", base + "/o", Range="bytes=0-1,600000-600001")
    assert status == 206
    boundary = headers["content-type"].partition("boundary=")[2]
    parts = body.split(b"--" + boundary.encode())
    assert parts[1].endswith(b"\r\n\r\n" + BIG[:2] + b"\r\n")
    assert parts[2].endswith(BIG[600000:600002] + b"\r\n")
    assert parts[3] == b"--"
    assert swift.ask("GET", base + "/o", Range="bytes=x")[0] == 200


def test_conditions(swift: SwiftServer, base: str) -> None:
    etag, path = hashlib.md5(b"x").hexdigest(), base + "/o"
    assert swift.ask("PUT", path, b"x", If_None_Match="*")[0] == 201
    assert swift.ask("PUT", path, b"y", If_None_Match="*")[0] == 412
    assert swift.ask("PUT", path, b"y", If_None_Match=etag)[0] == 400
    assert swift.ask("GET", path, If_Match=etag)[0] == 200
    assert swift.ask("GET", path, If_Match="other")[0] == 412
    assert swift.ask("GET", path, If_None_Match=f'"{etag}"')[0] == 304
    modified = swift.ask("HEAD", path)[1]["last-modified"]
    assert swift.ask("GET", path, If_Modified_Since=modified)[0] == 304
    assert swift.ask("GET", path, If_Unmodified_Since="Thu, 01 Jan 1998 00:00:00 GMT")[0] == 412
    assert swift.ask("GET", path, If_Modified_Since="nonsense")[0] == 200


def test_of_many_who_put_if_absent_one_does(swift: SwiftServer, base: str) -> None:
    with ThreadPoolExecutor(6) as clients:
        answers = clients.map(
            lambda number: swift.ask("PUT", f"{base}/o", b"%d" % number * 100_000, If_None_Match="*"), range(6)
        )
        statuses = [status for status, _, _ in answers]
    assert sorted(statuses) == [201, 412, 412, 412, 412, 412]
    assert swift.ask("GET", f"{base}/o")[2] == b"%d" % statuses.index(201) * 100_000


def test_a_delete_under_a_condition(swift: SwiftServer, base: str) -> None:
    assert swift.ask("PUT", f"{base}/o", b"x")[0] == 201
    status, _, body = swift.ask("DELETE", f"{base}/o", If_Match="other")
    assert (status, b"<h1>Precondition Failed</h1>" in body) == (412, True)
    assert swift.ask("DELETE", f"{base}/o", If_Match=hashlib.md5(b"x").hexdigest())[0] == 204


def test_listings(swift: SwiftServer, base: str) -> None:
    for name in ("a", "dir/one", "dir/sub/two", "z&lt", "\u00e9"):
        assert (
            swift.ask("PUT", base + "/" + name.encode().decode("latin-1").replace("\u00c3\u00a9", "%C3%A9"), b"xy")[0]
            == 201
        )
    status, headers, body = swift.ask("GET", base)
    assert (status, body.decode()) == (200, "a\ndir/one\ndir/sub/two\nz&lt\n\u00e9\n")
    assert headers["x-container-object-count"] == "5"
    assert headers["x-container-bytes-used"] == "10"

    def names(query: str) -> list[str]:
        status, _, body = swift.ask("GET", f"{base}?format=json&{query}")
        assert status == 200
        return [row.get("name") or row["subdir"] for row in json.loads(body)]

    assert names("delimiter=/") == ["a", "dir/", "z&lt", "\u00e9"]
    assert names("prefix=dir/&delimiter=/") == ["dir/one", "dir/sub/"]
    assert names("marker=dir/one&end_marker=z") == ["dir/sub/two"]
    assert names("limit=2") == ["a", "dir/one"]
    assert names("reverse=on&limit=2") == ["\u00e9", "z&lt"]
    assert names("path=dir") == ["dir/one"]
    status, headers, body = swift.ask("GET", base + "?delimiter=/", Accept="application/xml")
    assert headers["content-type"] == "application/xml; charset=utf-8"
    assert b'<subdir name="dir/"><name>dir/</name></subdir>' in body
    assert b"<name>z&amp;lt</name>" in body
    row = json.loads(swift.ask("GET", base + "?format=json&limit=1")[2])[0]
    assert row["hash"] == hashlib.md5(b"xy").hexdigest()
    assert (row["bytes"], len(row["last_modified"])) == (2, 26)
    assert swift.ask("GET", base + "?limit=10001")[0] == 412
    assert swift.ask("GET", base + "?prefix=none")[0] == 204
    assert swift.ask("GET", base + "?prefix=%FF")[0] == 400


def test_account(swift: SwiftServer, base: str) -> None:
    swift.ask("PUT", base + "/o", b"12345")
    status, headers, body = swift.ask("GET", "/v1/AUTH_a?format=json&prefix=" + base.rpartition("/")[2])
    assert status == 200
    (row,) = json.loads(body)
    assert (row["count"], row["bytes"]) == (1, 5)
    assert int(headers["x-account-object-count"]) >= 1
    assert swift.ask("POST", "/v1/AUTH_a", X_Account_Meta_Who="me")[0] == 204
    assert swift.ask("HEAD", "/v1/AUTH_a")[1]["x-account-meta-who"] == "me"
    assert swift.ask("HEAD", "/v1/AUTH_b", token="bob")[0] == 204
    assert swift.ask("PUT", "/v1/AUTH_a")[0] == 403
    assert swift.ask("PUT", "/v1/AUTH_made", token="boss")[0] == 201


def test_a_deleted_account_is_reaped(swift: SwiftServer) -> None:
    for path in ("/v1/AUTH_r", "/v1/AUTH_r/c", "/v1/AUTH_r/c/o"):
        assert swift.ask("PUT", path, b"x" if path.endswith("o") else None, token="boss")[0] == 201
    assert swift.ask("DELETE", "/v1/AUTH_r", token="boss")[0] == 204
    assert swift.ask("GET", "/v1/AUTH_r", token="boss")[0] == 404
    swift.run(swift.store.reaper.run_once())
    assert swift.ask("GET", "/v1/AUTH_r/c/o", token="boss")[0] == 404
    assert swift.ask("GET", "/v1/AUTH_r/c", token="boss")[0] == 404


def test_rights(swift: SwiftServer, base: str) -> None:
    path = base + "/o"
    swift.ask("PUT", path, b"x")
    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        assert swift.ask(method, path, b"" if method == "PUT" else None, token="bob")[0] == 403
        assert swift.ask(method, path, b"" if method == "PUT" else None, token=None)[0] == 401
        assert swift.ask(method, path, token="wrong", Content_Length="0")[0] == 401
    assert swift.ask("GET", path, token="reader")[0] == 200
    assert swift.ask("PUT", path, b"", token="reader")[0] == 403
    assert swift.ask("GET", "/v1/AUTH_a/nowhere", token="bob")[0] == 403
    swift.ask("POST", base, X_Container_Read=".r:*")
    assert swift.ask("GET", path, token=None)[0] == 200
    assert swift.ask("GET", base, token=None)[0] == 401
    swift.ask("POST", base, X_Container_Read=".r:*,.rlistings")
    assert swift.ask("GET", base, token=None)[0] == 200
    assert "x-container-read" not in swift.ask("HEAD", base, token=None)[1]
    swift.ask("POST", base, X_Container_Read="b:*", X_Container_Write="b:u-b")
    assert swift.ask("GET", path, token="bob")[0] == 200
    assert swift.ask("PUT", path, b"new", token="bob")[0] == 201
    assert swift.ask("GET", path, token=None)[0] == 401
    assert swift.ask("POST", base, X_Container_Write=".r:*")[0] == 400
    assert swift.ask("GET", "/v1/.expiring", token="boss")[0] == 403


def test_copy(swift: SwiftServer, base: str) -> None:
    swift.ask("PUT", base + "/o", b"data", X_Object_Meta_K="v", Content_Type="text/x")
    name = base.rpartition("/")[2]
    status, headers, _ = swift.ask("COPY", base + "/o", Destination=f"{name}/copy", X_Object_Meta_N="n")
    assert (status, headers["x-copied-from"]) == (201, f"{name}/o")
    headers = swift.ask("HEAD", base + "/copy")[1]
    assert (headers["x-object-meta-k"], headers["x-object-meta-n"], headers["content-type"]) == ("v", "n", "text/x")
    status = swift.ask("PUT", base + "/copy2", b"", X_Copy_From=f"/{name}/o", X_Fresh_Metadata="true")[0]
    assert status == 201
    assert "x-object-meta-k" not in swift.ask("HEAD", base + "/copy2")[1]
    assert swift.ask("COPY", base + "/o", Destination="bad")[0] == 412
    assert swift.ask("COPY", base + "/none", Destination=f"{name}/x")[0] == 404


def test_expiry(swift: SwiftServer, base: str) -> None:
    path = base + "/o"
    assert swift.ask("PUT", path, b"x", X_Delete_At="100")[0] == 400
    assert swift.ask("PUT", path, b"x", X_Delete_After="soon")[0] == 400
    assert swift.ask("PUT", path, b"x", X_Delete_After="99")[0] == 201
    assert int(swift.ask("HEAD", path)[1]["x-delete-at"]) > time.time() + 30
    assert swift.ask("PUT", path, b"x", X_Delete_After="1")[0] == 201
    deadline = time.monotonic() + 10
    while swift.ask("GET", path)[0] == 200:
        assert time.monotonic() < deadline
    assert swift.ask("GET", base)[2] == b"o\n"
    swift.run(swift.store.expirer.run_once())
    assert swift.ask("GET", base)[0] == 204
    assert swift.ask("PUT", path, b"x", X_Delete_After="1")[0] == 201
    while swift.ask("GET", path)[0] == 200:
        assert time.monotonic() < deadline
    assert swift.ask("DELETE", path)[0] == 404  # and the container can be deleted at once
    assert swift.ask("DELETE", base)[0] == 204


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("PUT", "/" + "n" * 1025, {}, 400),
        ("PUT", "/%FF", {}, 412),
        ("PUT", "/a%00b", {}, 412),
        ("PUT", "/o", {"ETag": "0" * 32}, 422),
        ("PUT", "/o", {"ETag": "zz"}, 422),
        ("PUT", "/o", {"X-Object-Meta-": "x"}, 400),
        ("PUT", "/o", {"X-Object-Meta-" + "k" * 129: "x"}, 400),
        ("PUT", "/o", {"X-Object-Meta-K": "x" * 257}, 400),
        ("PUT", "/o", {"X-Object-Meta-K": "\xff"}, 400),
        ("PUT", "/o", {"Content-Length": str(6 << 30)}, 413),
        ("PATCH", "/o", {}, 405),
    ],
)
def test_bad_requests(
    swift: SwiftServer, base: str, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    assert swift.ask(method, base + path, None if "Content-Length" in headers else b"x", **headers)[0] == status
    assert swift.ask("GET", base)[0] == 204
    assert not swift.uploads_left()


def test_names_with_odd_slashes(swift: SwiftServer, base: str) -> None:
    for name in ("//a", "a//b", "..", "../x", "a/./b", "%2F", "%2e%2e"):
        assert swift.ask("PUT", f"{base}/{name}", name.encode())[0] == 201
        assert swift.ask("GET", f"{base}/{name}")[2] == name.encode()
    assert swift.ask("PUT", "/v1/AUTH_a/" + "c" * 257)[0] == 400
    assert swift.ask("GET", base + "/")[0] == 200


def raw(swift: SwiftServer, head: str) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", swift.port), timeout=10)
    connection.sendall((head + "X-Auth-Token: alice\r\nHost: x\r\n\r\n").encode())
    return connection


def wait_until(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_expect_continue(swift: SwiftServer, base: str) -> None:
    connection = raw(swift, f"PUT {base}/o HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n")
    assert connection.recv(100).startswith(b"HTTP/1.1 100")
    connection.sendall(b"hello")
    assert connection.recv(1000).startswith(b"HTTP/1.1 201")
    connection.close()
    connection = raw(swift, f"PUT {base}-no/o HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n")
    assert connection.recv(1000).startswith(b"HTTP/1.1 404")
    connection.close()


def test_chunked(swift: SwiftServer, base: str) -> None:
    connection = raw(swift, f"PUT {base}/o HTTP/1.1\r\nTransfer-Encoding: chunked\r\n")
    connection.sendall(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert connection.recv(1000).startswith(b"HTTP/1.1 201")
    connection.close()
    assert swift.ask("GET", base + "/o")[2] == b"abcde"
    connection = raw(swift, f"PUT {base}/o HTTP/1.1\r\n")
    assert connection.recv(1000).startswith(b"HTTP/1.1 411")
    connection.close()


@pytest.mark.parametrize("sent", [10, 2_000_000])
def test_nothing_is_left_of_a_client_that_went_away(swift: SwiftServer, base: str, sent: int) -> None:
    connection = raw(swift, f"PUT {base}/o HTTP/1.1\r\nContent-Length: {len(BIG)}\r\n")
    connection.sendall(BIG[:sent])
    if sent > STRIDE_BYTES:
        wait_until(lambda: bool(swift.uploads_left()))  # else it goes away before anything has begun
    connection.close()
    wait_until(lambda: not swift.uploads_left())
    assert swift.ask("GET", base + "/o")[0] == 404
    assert swift.ask("GET", base)[0] == 204


def test_info_and_health(swift: SwiftServer) -> None:
    assert swift.ask("GET", "/healthcheck", token=None)[::2] == (200, b"OK")
    status, _, body = swift.ask("GET", "/info", token=None)
    assert status == 200
    assert json.loads(body)["swift"]["max_file_size"] == 5368709122


def test_swiftclient(swift: SwiftServer, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{swift.port}/v1/AUTH_a"
    client = swiftclient.Connection(preauthurl=url, preauthtoken="alice", retries=0)
    client.put_container("via-client", headers={"X-Container-Meta-A": "1"})
    assert client.put_object("via-client", "\u00fc/x", BIG, content_type="a/b") == hashlib.md5(BIG).hexdigest()
    headers, body = client.get_object("via-client", "\u00fc/x")
    assert body == BIG
    assert headers["content-type"] == "a/b"
    client.put_object("via-client", "stream", iter([b"one", b"two"]), chunk_size=3)
    assert client.get_object("via-client", "stream")[1] == b"onetwo"
    assert [row["name"] for row in client.get_container("via-client", full_listing=True)[1]] == ["stream", "\u00fc/x"]
    client.copy_object("via-client", "stream", destination="/via-client/copy")
    assert "via-client" in [row["name"] for row in client.get_account()[1]]
    assert "swift" in client.get_capabilities(f"http://127.0.0.1:{swift.port}/info")
    for name in ("stream", "copy", "\u00fc/x"):
        client.delete_object("via-client", name)
    client.delete_container("via-client")
    with pytest.raises(swiftclient.ClientException, match="404"):
        client.head_container("via-client")

"""Versions of both kinds, and symbolic links, over real sockets."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest

from tests.contract.swift_server import SwiftServer


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def rows(swift: SwiftServer, path: str) -> list[Any]:
    status, _, body = swift.ask("GET", path)
    assert status == 200
    return list(json.loads(body))


def test_object_versioning(swift: SwiftServer, base: str) -> None:
    path = base + "/o"
    assert "x-versions-enabled" not in swift.ask("HEAD", base)[1]
    assert swift.ask("PUT", path, b"zero")[1].get("x-object-version-id") is None
    assert swift.ask("POST", base, X_Versions_Enabled="true")[0] == 204
    assert swift.ask("HEAD", base)[1]["x-versions-enabled"] == "True"
    first = swift.ask("PUT", path, b"first")[1]["x-object-version-id"]
    second = swift.ask("PUT", path, b"second", Content_Type="a/b")[1]["x-object-version-id"]
    status, headers, body = swift.ask("GET", path)
    assert (body, headers["x-object-version-id"], headers["content-type"]) == (b"second", second, "a/b")
    status, headers, body = swift.ask("GET", f"{path}?version-id={first}")
    assert (status, body, headers["x-object-version-id"]) == (200, b"first", first)
    assert swift.ask("GET", path + "?version-id=null")[2] == b"zero"
    shown = rows(swift, base + "?versions&format=json")
    assert [(row["version_id"], row["is_latest"], row["bytes"]) for row in shown] == [
        (second, True, 6), (first, False, 5), ("null", False, 4),
    ]  # fmt: skip
    assert [row["name"] for row in rows(swift, base + "?format=json")] == ["o"]
    row = rows(swift, base + "?format=json")[0]
    assert (row["hash"], row["version_symlink"]) == (md5(b"second"), True)
    assert swift.ask("GET", row["symlink_path"])[2] == b"second"
    assert row["symlink_path"] == f"{path}?version-id={second}"
    shown = swift.ask("GET", base + "?format=xml")[2].decode()
    assert re.findall("<([a-z_]+)>", shown) == ["object", "name", "hash", "bytes", "content_type", "last_modified"]
    headers = swift.ask("HEAD", base)[1]
    assert (headers["x-container-object-count"], headers["x-container-bytes-used"]) == ("1", "15")
    status, headers, _ = swift.ask("DELETE", path)
    marker = headers["x-object-version-id"]
    assert (status, swift.ask("GET", path)[0]) == (204, 404)
    status, headers, _ = swift.ask("GET", f"{path}?version-id={marker}")
    assert (status, headers["x-object-version-id"]) == (404, marker)
    shown = rows(swift, base + "?versions&format=json&limit=1")
    assert shown[0]["content_type"] == "application/x-deleted;swift_versions_deleted=1"
    assert (shown[0]["is_latest"], shown[0]["hash"]) == (True, md5(b""))
    shown = rows(swift, f"{base}?versions&format=json&limit=1&marker=o&version_marker={marker}")
    assert shown[0]["version_id"] == second
    assert swift.ask("PUT", f"{path}?version-id={first}", b"")[1]["x-object-version-id"] == first
    assert swift.ask("GET", path)[2] == b"first"
    assert swift.ask("DELETE", base)[0] == 409
    status, headers, _ = swift.ask("DELETE", f"{path}?version-id={second}")
    assert (status, headers["x-object-current-version-id"]) == (204, first)
    assert swift.ask("GET", f"{path}?version-id={second}")[0] == 404
    swift.ask("POST", base, X_Versions_Enabled="false")
    assert swift.ask("HEAD", base)[1]["x-versions-enabled"] == "False"
    assert "x-object-version-id" not in swift.ask("PUT", path, b"plain")[1]
    assert swift.ask("GET", f"{path}?version-id={first}")[2] == b"first"
    assert [row["name"] for row in rows(swift, "/v1/AUTH_a?format=json")].count(base.rpartition("/")[2]) == 1
    assert b"\0" not in swift.ask("GET", "/v1/AUTH_a?reverse=1")[2]
    for row in rows(swift, base + "?versions&format=json"):
        assert swift.ask("DELETE", f"{path}?version-id={row['version_id']}")[0] == 204
    assert swift.ask("DELETE", base)[0] == 204


def test_a_version_of_a_manifest_goes_with_its_own_segments(swift: SwiftServer, base: str) -> None:
    box = base.rpartition("/")[2]
    swift.ask("PUT", base + "-s")
    swift.ask("POST", base, X_Versions_Enabled="true")
    versions = []
    for name in ("a", "b"):
        swift.ask("PUT", f"{base}-s/{name}", name.encode())
        manifest = json.dumps([{"path": f"/{box}-s/{name}"}]).encode()
        status, headers, _ = swift.ask("PUT", base + "/slo?multipart-manifest=put", manifest)
        assert status == 201
        versions.append(headers["x-object-version-id"])
    path = f"{base}/slo?multipart-manifest=delete&version-id="
    status, _, body = swift.ask("DELETE", path + versions[0], Accept="application/json")
    assert (status, json.loads(body)["Number Deleted"], json.loads(body)["Errors"]) == (200, 2, [])
    assert [row["version_id"] for row in rows(swift, base + "?versions&format=json")] == [versions[1]]
    assert (swift.ask("GET", base + "/slo")[2], swift.ask("GET", base + "-s/a")[0]) == (b"b", 404)
    report = json.loads(swift.ask("DELETE", path + versions[0], Accept="application/json")[2])
    assert (report["Number Deleted"], report["Errors"], swift.ask("GET", base + "/slo")[2]) == (0, [], b"b")


def test_a_copy_of_a_version(swift: SwiftServer, base: str) -> None:
    box = base.rpartition("/")[2]
    swift.ask("POST", base, X_Versions_Enabled="true")
    first = swift.ask("PUT", base + "/o", b"first", X_Object_Meta_K="v")[1]["x-object-version-id"]
    swift.ask("PUT", base + "/o", b"second")
    assert swift.ask("PUT", base + "/copy", b"", X_Copy_From=f"{box}/o?version-id={first}")[0] == 201
    headers, body = swift.ask("GET", base + "/copy")[1:]
    assert (body, headers["x-object-meta-k"]) == (b"first", "v")
    assert headers["x-object-version-id"] != first


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/o?version-id=../x", 400),
        ("GET", "/o?version-id=", 400),
        ("DELETE", "/o?version-id=x", 400),
        ("PUT", "/o?version-id=" + "0" * 16 + "-n1", 404),
        ("DELETE", "/o?version-id=" + "0" * 16 + "-n1", 404),
        ("GET", "?versions&version_marker=" + "0" * 16 + "-n1", 400),
        ("GET", "?versions&marker=o&version_marker=x", 400),
    ],
)
def test_bad_versions(swift: SwiftServer, base: str, method: str, path: str, status: int) -> None:
    assert swift.ask(method, base + path, b"" if method == "PUT" else None)[0] == status


def test_stack_of_versions(swift: SwiftServer, base: str) -> None:
    box = base.rpartition("/")[2]
    assert swift.ask("POST", base, X_Versions_Location=box + "-old")[0] == 204
    assert swift.ask("HEAD", base)[1]["x-versions-location"] == box + "-old"
    assert swift.ask("PUT", base + "/o", b"1")[0] == 201
    assert swift.ask("PUT", base + "/o", b"2")[0] == 412  # there is no place for the first
    swift.ask("PUT", base + "-old")
    for data in (b"2", b"3"):
        assert swift.ask("PUT", base + "/o", data, X_Object_Meta_N=data.decode())[0] == 201
    kept = swift.ask("GET", base + "-old")[2].decode().split()
    assert len(kept) == 2
    assert all(re.fullmatch(r"001o/\d{10}\.\d{5}", name) for name in kept)
    for expected in (b"2", b"1"):
        assert swift.ask("DELETE", base + "/o")[0] == 204
        assert swift.ask("GET", base + "/o")[2] == expected
    assert swift.ask("GET", base + "-old")[0] == 204
    assert swift.ask("DELETE", base + "/o")[0] == 204
    assert swift.ask("DELETE", base + "/o")[0] == 404
    assert swift.ask("POST", base, X_Versions_Enabled="true")[0] == 400
    assert swift.ask("POST", base, X_Remove_Versions_Location="x")[0] == 204
    assert "x-versions-location" not in swift.ask("HEAD", base)[1]
    assert swift.ask("POST", base, X_Versions_Enabled="true")[0] == 204
    assert swift.ask("POST", base, X_Versions_Location="x")[0] == 400


def test_history_of_versions(swift: SwiftServer, base: str) -> None:
    box = base.rpartition("/")[2]
    swift.ask("PUT", base + "-old")
    swift.ask("POST", base, X_History_Location=box + "-old")
    assert swift.ask("HEAD", base)[1]["x-history-location"] == box + "-old"
    swift.ask("PUT", base + "/o", b"1")
    swift.ask("PUT", base + "/o", b"2")
    assert swift.ask("DELETE", base + "/o")[0] == 204
    assert swift.ask("GET", base + "/o")[0] == 404
    kept = rows(swift, base + "-old?format=json")
    assert [row["hash"] for row in kept] == [md5(b"1"), md5(b"2"), md5(b"")]
    assert kept[2]["content_type"] == "application/x-deleted;swift_versions_deleted=1"
    assert swift.ask("POST", base, X_History_Location="x", X_Versions_Location="y")[0] == 400
    assert swift.ask("POST", base, X_Versions_Location=box + "-old")[0] == 204
    assert swift.ask("DELETE", base + "/o")[0] == 204  # takes the mark away and brings the last one back
    assert swift.ask("GET", base + "/o")[2] == b"2"


def test_symlinks(swift: SwiftServer, base: str) -> None:
    box = base.rpartition("/")[2]
    swift.ask("PUT", base + "/target", b"data", Content_Type="a/b", X_Object_Meta_K="v")
    assert swift.ask("PUT", base + "/link", b"", X_Symlink_Target=f"{box}/target")[0] == 201
    status, headers, body = swift.ask("GET", base + "/link")
    assert (status, body, headers["content-type"], headers["x-object-meta-k"]) == (200, b"data", "a/b", "v")
    assert headers["content-location"] == base + "/target"
    assert swift.ask("GET", base + "/link", Range="bytes=1-2")[2] == b"at"
    status, headers, body = swift.ask("GET", base + "/link?symlink=get")
    assert (status, body, headers["content-type"]) == (200, b"", "application/symlink")
    assert headers["x-symlink-target"] == f"{box}/target"
    row = {row["name"]: row for row in rows(swift, base + "?format=json")}["link"]
    assert (row["symlink_path"], row["bytes"], row["content_type"]) == (base + "/target", 0, "application/symlink")
    status, headers, _ = swift.ask("POST", base + "/link", X_Object_Meta_L="l")
    assert (status, headers["location"]) == (307, base + "/target")
    headers = swift.ask("HEAD", base + "/link?symlink=get")[1]
    assert (headers["x-object-meta-l"], headers["x-symlink-target"]) == ("l", f"{box}/target")
    # Chains, loops, and what is not there.
    swift.ask("PUT", base + "/2", b"", X_Symlink_Target=f"{box}/link")
    swift.ask("PUT", base + "/3", b"", X_Symlink_Target=f"{box}/2")
    assert swift.ask("GET", base + "/2")[2] == b"data"
    status, _, body = swift.ask("GET", base + "/3")
    assert (status, b"Too many levels" in body) == (409, True)
    assert swift.ask("PUT", base + "/x", b"", X_Symlink_Target=f"{box}/x")[0] == 400
    assert swift.ask("PUT", base + "/x", b"body", X_Symlink_Target=f"{box}/target")[0] == 400
    assert swift.ask("PUT", base + "/x", b"", X_Symlink_Target="nothing")[0] == 412
    swift.ask("PUT", base + "/x", b"", X_Symlink_Target=f"{box}/none")
    assert swift.ask("GET", base + "/x")[0] == 404
    # Copies follow, unless they are of the link.
    swift.ask("COPY", base + "/link", Destination=f"{box}/copy")
    assert "x-symlink-target" not in swift.ask("HEAD", base + "/copy?symlink=get")[1]
    swift.ask("COPY", base + "/link?symlink=get", Destination=f"{box}/copy")
    headers = swift.ask("HEAD", base + "/copy?symlink=get")[1]
    assert (headers["x-symlink-target"], headers.get("x-symlink-target-account")) == (f"{box}/target", None)
    swift.ask("COPY", base + "/link?symlink=get", Destination=f"{box}/copy", X_Symlink_Target_Account="AUTH_b")
    headers = swift.ask("HEAD", base + "/copy?symlink=get")[1]
    assert (headers["x-symlink-target"], headers["x-symlink-target-account"]) == (f"{box}/target", "AUTH_b")
    bad = {"Destination": f"{box}/copy", "X_Symlink_Target_Account": "a/b"}
    assert swift.ask("COPY", base + "/link?symlink=get", **bad)[0] == 400
    assert swift.ask("DELETE", base + "/link")[0] == 204
    assert swift.ask("GET", base + "/target")[0] == 200


def test_static_symlinks(swift: SwiftServer, base: str) -> None:
    box, etag = base.rpartition("/")[2], md5(b"data")
    link = {"X_Symlink_Target": f"{box}/target"}
    swift.ask("PUT", base + "/target", b"data")
    assert swift.ask("PUT", base + "/s", b"", X_Symlink_Target_Etag="0" * 32, **link)[0] == 409
    assert swift.ask("PUT", base + "/s", b"", X_Symlink_Target_Etag=etag, **link)[0] == 201
    headers = swift.ask("HEAD", base + "/s?symlink=get")[1]
    assert (headers["x-symlink-target-etag"], headers["x-symlink-target-bytes"]) == (etag, "4")
    row = {row["name"]: row for row in rows(swift, base + "?format=json")}["s"]
    assert (row["symlink_etag"], row["symlink_bytes"]) == (etag, 4)
    manifest = json.dumps([{"path": f"/{box}/s", "etag": etag}, {"path": f"/{box}/s"}]).encode()
    assert swift.ask("PUT", base + "/slo?multipart-manifest=put", manifest)[0] == 201
    assert swift.ask("GET", base + "/slo")[2] == b"datadata"
    swift.ask("PUT", base + "/target", b"other")
    status, _, body = swift.ask("GET", base + "/s")
    assert (status, b"does not match" in body) == (409, True)
    assert swift.ask("GET", base + "/slo")[0] == 409

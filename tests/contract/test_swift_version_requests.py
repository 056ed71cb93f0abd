"""What Swift's own functional tests found wrong with our versions, each once, over real sockets."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from tests.contract.swift_server import SwiftServer

MARKER = "application/x-deleted;swift_versions_deleted=1"


@pytest.fixture
def base(swift: SwiftServer, request: pytest.FixtureRequest) -> str:
    path = "/v1/AUTH_a/" + re.sub("[^a-z0-9_]", "-", request.node.name)
    assert swift.ask("PUT", path, X_Versions_Enabled="true")[0] == 201
    return path


def listed(swift: SwiftServer, path: str) -> list[Any]:
    status, headers, body = swift.ask("GET", path)
    assert status == 200, body
    assert headers["content-type"].startswith("application/json")
    return list(json.loads(body))


def test_versions_are_listed_as_json_alone(swift: SwiftServer, base: str) -> None:
    swift.ask("PUT", base + "/o", b"1")
    assert [row["name"] for row in listed(swift, base + "?versions")] == ["o"]
    assert swift.ask("GET", base + "?versions", Accept="text/html, */*;q=0.1")[0] == 200
    for form in ("plain", "xml"):
        assert swift.ask("GET", f"{base}?versions&format={form}")[0] == 406
    for accepted in ("text/plain", "application/xml", "text/xml, image/png"):
        assert swift.ask("GET", base + "?versions", Accept=accepted)[0] == 406


def test_versions_are_listed_backwards_too(swift: SwiftServer, base: str) -> None:
    swift.ask("PUT", base + "/plain", b"0", X_Versions_Enabled="true")
    for name in ("a", "b/1", "b/2", "c"):
        for text in (b"1", b"2", b"3"):
            swift.ask("PUT", f"{base}/{name}", text)
    swift.ask("DELETE", base + "/a")
    swift.ask("DELETE", base + "/none")
    swift.ask("POST", base, X_Versions_Enabled="false")
    swift.ask("PUT", base + "/c", b"plain")
    whole = listed(swift, base + "?versions")
    back = base + "?versions&reverse=true"
    assert listed(swift, back) == whole[::-1]
    assert len(whole) == 4 + 3 + 3 + 4 + 1 + 1
    for limit in (1, 2, 5):
        found, more = list[Any](), listed(swift, f"{back}&limit={limit}")
        while more:
            found += more
            last = more[-1]
            marker = f"marker={last['name'].replace('/', '%2F')}&version_marker={last['version_id']}"
            more = listed(swift, f"{back}&limit={limit}&{marker}")
        assert found == whole[::-1]
    assert listed(swift, back + "&marker=b/2&end_marker=a") == [
        row for row in whole[::-1] if "a" < row["name"] < "b/2"
    ]  # fmt: skip
    assert listed(swift, base + "?versions&end_marker=b/2") == [row for row in whole if row["name"] < "b/2"]
    shown = [row.get("subdir") or row["name"] for row in listed(swift, back + "&delimiter=/")]
    assert list(dict.fromkeys(shown)) == ["plain", "none", "c", "b/", "a"]


def test_a_delete_of_nothing_tells_its_marker(swift: SwiftServer, base: str) -> None:
    status, headers, _ = swift.ask("DELETE", base + "/o")
    assert status == 404
    (row,) = listed(swift, base + "?versions")
    assert (row["version_id"], row["content_type"]) == (headers["x-object-version-id"], MARKER)
    status, headers, _ = swift.ask("HEAD", f"{base}/o?version-id={row['version_id']}")
    assert (status, headers["content-type"]) == (404, MARKER)


def test_ids_of_versions(swift: SwiftServer, base: str) -> None:
    swift.ask("PUT", base + "/o", b"1")
    for version_id, status in (("null", 400), ("bad", 400), ("1234567890.12345", 404)):
        assert swift.ask("PUT", f"{base}/o?version-id={version_id}", b"")[0] == status
    swift.ask("POST", base, X_Versions_Enabled="false")
    headers = swift.ask("PUT", base + "/o", b"2")[1]
    assert "x-object-version-id" not in headers


def test_older_versions_are_for_who_may_all(swift: SwiftServer, base: str) -> None:
    version_id = swift.ask("PUT", base + "/o", b"1")[1]["x-object-version-id"]
    assert swift.ask("POST", base, X_Container_Read="b:*", X_Container_Write="b:*")[0] == 204
    assert swift.ask("GET", base + "/o", token="bob")[2] == b"1"
    for method in ("GET", "DELETE"):
        assert swift.ask(method, f"{base}/o?version-id={version_id}", token="bob")[0] == 403
    assert swift.ask("GET", f"{base}/o?version-id={version_id}", token="reader")[2] == b"1"


@pytest.fixture
def archive(swift: SwiftServer, base: str) -> str:
    """A container whose old versions go to it."""
    assert swift.ask("PUT", base + "-archive")[0] == 201
    assert swift.ask("PUT", base + "-current", X_Versions_Location=base.rpartition("/")[2] + "-archive")[0] == 201
    return base + "-archive"


def test_a_dynamic_manifest_is_archived(swift: SwiftServer, base: str, archive: str) -> None:
    current = base + "-current"
    swift.ask("PUT", base + "/s/1", b"segment")
    manifest = base.rpartition("/")[2] + "/s/"
    swift.ask("PUT", current + "/o", b"", X_Object_Manifest=manifest)
    swift.ask("PUT", current + "/o", b"new")
    (kept,) = swift.ask("GET", archive)[2].decode().split()
    assert swift.ask("HEAD", f"{archive}/{kept}")[1]["x-object-manifest"] == manifest
    swift.ask("DELETE", current + "/o")
    assert swift.ask("GET", current + "/o")[2] == b"segment"


def test_a_delete_with_the_id_null_is_a_delete(swift: SwiftServer, base: str, archive: str) -> None:
    for text in (b"1", b"2"):
        swift.ask("PUT", base + "-current/o", text)
    assert swift.ask("DELETE", base + "-current/o?version-id=null")[0] == 204
    assert swift.ask("GET", base + "-current/o")[2] == b"1"


def test_each_delete_takes_one_mark_of_a_delete(swift: SwiftServer, base: str, archive: str) -> None:
    path, name = base + "-current/o", archive.rpartition("/")[2]
    for text in (b"1", b"2"):
        swift.ask("PUT", path, text)
    swift.ask("POST", base + "-current", X_History_Location=name)
    assert swift.ask("DELETE", path)[0] == 204
    assert swift.ask("DELETE", path)[0] == 404
    swift.ask("POST", base + "-current", X_Versions_Location=name)
    assert len(swift.ask("GET", archive)[2].split()) == 4
    for left, found in ((3, 404), (1, 200)):
        assert swift.ask("DELETE", path)[0] == 204
        assert len(swift.ask("GET", archive)[2].split()) == left
        assert swift.ask("GET", path)[0] == found
    assert swift.ask("GET", path)[2] == b"2"


def test_what_expires_is_the_current_link(swift: SwiftServer, base: str) -> None:
    at_s = int(time.time()) + 1000
    headers = swift.ask("PUT", base + "/o", b"1", X_Delete_At=str(at_s))[1]
    version = f"{base}/o?version-id={headers['x-object-version-id']}"
    assert swift.ask("HEAD", base + "/o")[1]["x-delete-at"] == str(at_s)
    assert "x-delete-at" not in swift.ask("HEAD", version)[1]
    assert swift.ask("POST", base + "/o", X_Delete_At=str(at_s + 1), X_Object_Meta_A="b")[0] == 202
    headers = swift.ask("HEAD", base + "/o")[1]
    assert (headers["x-delete-at"], headers["x-object-meta-a"]) == (str(at_s + 1), "b")
    headers = swift.ask("HEAD", version)[1]
    assert ("x-delete-at" in headers, headers["x-object-meta-a"]) == (False, "b")
    swift.ask("POST", base + "/o", X_Delete_After="0")
    assert swift.ask("GET", base + "/o")[0] == 404
    assert swift.ask("GET", version)[2] == b"1"
    assert swift.ask("DELETE", version)[0] == 204
    assert listed(swift, base + "?versions") == []


def test_what_is_current_tells_where_it_stays(swift: SwiftServer, base: str) -> None:
    version_id = swift.ask("PUT", base + "/o", b"1")[1]["x-object-version-id"]
    swift.ask("PUT", base + "/l", b"", X_Symlink_Target=base.rpartition("/")[2] + "/o")
    for name in ("o", "l"):
        assert swift.ask("GET", f"{base}/{name}")[1]["content-location"] == f"{base}/o?version-id={version_id}"

"""What Swift's own functional tests found wrong with large objects and links, each once, over real sockets."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.swift_server import SwiftServer

PUT, GET = "?multipart-manifest=put", "?multipart-manifest=get"


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


@pytest.fixture
def base(swift: SwiftServer, base: str) -> str:
    """A container with the segments a, b and c."""
    for size, name in ((3, "a"), (4, "b"), (1, "c")):
        swift.ask("PUT", f"{base}/{name}", name.encode() * size)
    return base


def put(swift: SwiftServer, path: str, base: str, names: str = "abc", **headers: str) -> tuple[int, bytes]:
    box = base.rpartition("/")[2]
    items = [{"path": f"/{box}/{name}"} for name in names]
    status, _, body = swift.ask("PUT", path + PUT, json.dumps(items).encode(), **headers)
    return status, body


def row(swift: SwiftServer, base: str, name: str) -> dict[str, Any]:
    rows = json.loads(swift.ask("GET", f"{base}?format=json&prefix={name}")[2])
    return next(row for row in rows if row["name"] == name)


def test_the_etag_of_a_manifest_is_that_of_its_list(swift: SwiftServer, base: str) -> None:
    assert put(swift, base + "/o", base)[0] == 201
    _, headers, listed = swift.ask("GET", base + "/o" + GET)
    assert headers["etag"] == md5(listed) == headers["x-manifest-etag"]
    slo_etag = swift.ask("HEAD", base + "/o")[1]["etag"]
    shown = row(swift, base, "o")
    assert (shown["hash"], shown["slo_etag"]) == (md5(listed), slo_etag)
    _, headers, raw = swift.ask("GET", base + "/o" + GET + "&format=raw")
    assert (headers["content-type"], headers["etag"]) == ("application/octet-stream", md5(raw))


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_parts_by_their_numbers(swift: SwiftServer, base: str, method: str) -> None:
    put(swift, base + "/o", base)
    whole = swift.ask("HEAD", base + "/o")[1]
    for number, where, data in ((1, "0-2", b"aaa"), (2, "3-6", b"bbbb"), (3, "7-7", b"c")):
        status, headers, body = swift.ask(method, f"{base}/o?part-number={number}")
        assert (status, body) == (206, data if method == "GET" else b"")
        assert (headers["content-range"], headers["content-length"]) == (f"bytes {where}/8", str(len(data)))
        assert (headers["x-parts-count"], headers["etag"]) == ("3", whole["etag"])
    status, headers, body = swift.ask(method, base + "/o?part-number=4")
    assert (status, headers["content-range"], headers["x-parts-count"]) == (416, "bytes */8", "3")
    assert headers["x-static-large-object"] == "True"
    assert body == (b"The requested part number is not satisfiable" if method == "GET" else b"")
    for bad in ("0", "-1", "x", ""):
        assert swift.ask(method, f"{base}/o?part-number={bad}")[0] == 400
    assert swift.ask(method, base + "/o?part-number=1", Range="bytes=0-1")[0] == 400
    assert swift.ask(method, base + "/a?part-number=7")[0] == 200  # no manifest: nothing to count


def test_a_copy_of_one_part(swift: SwiftServer, base: str) -> None:
    put(swift, base + "/o", base)
    box = base.rpartition("/")[2]
    assert swift.ask("COPY", base + "/o?part-number=2", Destination=f"{box}/p")[0] == 201
    assert swift.ask("GET", base + "/p")[2] == b"bbbb"
    assert swift.ask("PUT", base + "/q?part-number=1", b"", X_Copy_From=f"{box}/o")[0] == 201
    assert swift.ask("GET", base + "/q")[2] == b"aaa"
    assert swift.ask("COPY", base + "/o?part-number=4", Destination=f"{box}/p")[0] == 400


def test_a_manifest_does_not_list_itself(swift: SwiftServer, base: str) -> None:
    status, body = put(swift, base + "/b", base)
    assert (status, body) == (400, b"Manifest object name 'b' cannot be included in the manifest")
    assert swift.ask("GET", base + "/b")[2] == b"bbbb"


def test_a_segment_that_may_not_be_read_is_a_conflict(swift: SwiftServer, base: str) -> None:
    assert swift.ask("PUT", base + "-shown", X_Container_Read="b:*")[0] == 201
    put(swift, base + "-shown/o", base)
    assert swift.ask("GET", base + "-shown/o", token="bob")[0] == 409
    swift.ask("POST", base, X_Container_Read="b:*")
    assert swift.ask("GET", base + "-shown/o", token="bob")[2] == b"aaabbbbc"


def test_a_copied_manifest_needs_its_segments_there(swift: SwiftServer, base: str) -> None:
    put(swift, base + "/o", base)
    box = base.rpartition("/")[2]
    assert swift.ask("PUT", f"/v1/AUTH_b/{box}", token="bob", X_Container_Write="a:*")[0] == 201
    there = {"Destination": f"{box}/o", "Destination_Account": "AUTH_b"}
    status, _, body = swift.ask("COPY", base + "/o" + GET, **there)
    assert (status, body.count(b"403 Forbidden")) == (400, 3)
    swift.ask("POST", f"/v1/AUTH_b/{box}", token="bob", X_Container_Read="a:*")
    for name, data in (("a", b"aaa"), ("b", b"bbbb"), ("c", b"c")):
        swift.ask("PUT", f"/v1/AUTH_b/{box}/{name}", data, token="bob")
    assert swift.ask("COPY", base + "/o" + GET, **there)[0] == 201
    assert swift.ask("GET", f"/v1/AUTH_b/{box}/o", token="bob")[2] == b"aaabbbbc"
    assert swift.ask("COPY", base + "/o" + GET, Destination=f"{box}/same")[0] == 201
    assert swift.ask("HEAD", base + "/same")[1]["etag"] == swift.ask("HEAD", base + "/o")[1]["etag"]


def test_reports_name_paths_as_they_were_sent(swift: SwiftServer, base: str) -> None:
    items = json.dumps([{"path": "no-such/segment"}]).encode()
    status, _, body = swift.ask("PUT", base + "/o" + PUT + "&heartbeat=on", items, Accept="application/json")
    report = json.loads(body)
    assert (status, report["Errors"]) == (202, [["no-such/segment", "404 Not Found"]])
    assert report["Response Body"].startswith("Bad Request\nThe server could not comply")


def test_static_links_to_manifests(swift: SwiftServer, base: str) -> None:
    put(swift, base + "/o", base, Content_Type="a/b")
    manifest, slo = (swift.ask("HEAD", base + "/o" + query)[1]["etag"] for query in (GET, ""))
    target = base.rpartition("/")[2] + "/o"
    assert swift.ask("PUT", base + "/l", b"", X_Symlink_Target=target, X_Symlink_Target_Etag=slo)[0] == 409
    assert swift.ask("PUT", base + "/l", b"", X_Symlink_Target=target, X_Symlink_Target_Etag=manifest)[0] == 201
    assert swift.ask("GET", base + "/l")[2] == b"aaabbbbc"
    shown = row(swift, base, "l")
    assert (shown["hash"], shown["slo_etag"], shown["symlink_etag"]) == (md5(b""), slo, manifest)
    assert (shown["content_type"], shown["symlink_bytes"]) == ("a/b", 8)


def test_static_links_in_a_row_name_what_is_behind_them(swift: SwiftServer, base: str) -> None:
    box, etag = base.rpartition("/")[2], md5(b"aaa")
    said = {"X_Symlink_Target_Etag": etag}
    for name, target in (("one", "a"), ("two", "one")):
        assert swift.ask("PUT", f"{base}/{name}", b"", X_Symlink_Target=f"{box}/{target}", **said)[0] == 201
    assert swift.ask("GET", base + "/two")[2] == b"aaa"
    bad = {"X_Symlink_Target_Etag": md5(b"")}
    assert swift.ask("PUT", base + "/three", b"", X_Symlink_Target=f"{box}/two", **bad)[0] == 409
    assert swift.ask("PUT", base + "/one", b"", X_Symlink_Target=f"{box}/b")[0] == 201
    assert swift.ask("GET", base + "/two")[0] == 409


def test_broken_links_tell_where_they_lead(swift: SwiftServer, base: str) -> None:
    box = base.rpartition("/")[2]
    swift.ask("PUT", base + "/l", b"", X_Symlink_Target=f"{box}/none")
    swift.ask("PUT", base + "/s", b"", X_Symlink_Target=f"{box}/a", X_Symlink_Target_Etag=md5(b"aaa"))
    swift.ask("PUT", base + "/a", b"other")
    for name, status, target in (("l", 404, "none"), ("s", 409, "a")):
        found, headers, _ = swift.ask("GET", f"{base}/{name}")
        assert (found, headers["content-location"]) == (status, f"{base}/{target}")
    swift.ask("PUT", base + "/n", b"", X_Symlink_Target="no-container/o")
    found, headers, _ = swift.ask("GET", base + "/n")
    assert (found, headers["content-location"]) == (404, "/v1/AUTH_a/no-container/o")
    swift.ask("PUT", base + "-shown", X_Container_Read="b:*")
    swift.ask("PUT", base + "-shown/l", b"", X_Symlink_Target=f"{box}/a")
    found, headers, _ = swift.ask("GET", base + "-shown/l", token="bob")
    assert (found, headers["content-location"]) == (403, base + "/a")
    status, headers, _ = swift.ask("POST", base + "/s", X_Object_Meta_A="b")
    assert (status, headers["x-symlink-target-etag"]) == (307, md5(b"aaa"))
    status, _, body = swift.ask("POST", base + "/a", X_Symlink_Target="c/o")
    assert (status, body) == (400, b"A PUT request is required to set a symlink target")


def test_conditions_of_links_tell_where_they_lead(swift: SwiftServer, base: str) -> None:
    swift.ask("PUT", base + "/l", b"", X_Symlink_Target=base.rpartition("/")[2] + "/a")
    status, headers, _ = swift.ask("GET", base + "/l", If_Match="other")
    assert (status, headers["content-location"]) == (412, base + "/a")


def test_of_many_who_put_a_manifest_if_absent_one_does(swift: SwiftServer, base: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(put, swift, base + "/o", base, If_None_Match="*") for _ in range(16)]
        found = sorted(one.result()[0] for one in asked)
    assert found == [201] + 15 * [412]
    assert swift.ask("GET", base + "/o")[2] == b"aaabbbbc"


@pytest.mark.parametrize("said", ["\u00fc/%25/", "%C3%BC/%25/"])
def test_dynamic_manifests_of_any_name(swift: SwiftServer, base: str, said: str) -> None:
    assert swift.ask("PUT", "/v1/AUTH_a/%C3%BC")[0] in (201, 202)
    swift.ask("PUT", "/v1/AUTH_a/%C3%BC/%25/1", b"data")
    header = said.encode().decode("latin-1")
    assert swift.ask("PUT", base + "/o", b"", X_Object_Manifest=header)[0] == 201
    assert swift.ask("GET", base + "/o")[2] == b"data"
    assert swift.ask("HEAD", base + "/o")[1]["x-object-manifest"] == header


def test_a_manifest_with_a_wrong_etag(swift: SwiftServer, base: str) -> None:
    status, body = put(swift, base + "/o", base, ETag="bad")
    assert status == 422
    items = json.dumps([{"path": base.rpartition("/")[2] + "/a"}]).encode()
    status, _, body = swift.ask(
        "PUT", base + "/o" + PUT + "&heartbeat=on", items, ETag="bad", Accept="application/json"
    )
    assert (status, json.loads(body)["Response Status"]) == (202, "422 Unprocessable Entity")


def test_a_link_shows_the_version_it_leads_to(swift: SwiftServer, base: str) -> None:
    swift.ask("POST", base, X_Versions_Enabled="true")
    version_id = swift.ask("PUT", base + "/o", b"data")[1]["x-object-version-id"]
    swift.ask("PUT", base + "/l", b"", X_Symlink_Target=base.rpartition("/")[2] + "/o")
    assert swift.ask("HEAD", base + "/l")[1]["x-object-version-id"] == version_id


def test_a_link_that_is_copied_leads_to_its_new_account(swift: SwiftServer, base: str) -> None:
    box = base.rpartition("/")[2]
    swift.ask("PUT", base + "/l", b"", X_Symlink_Target=f"{box}/a")
    assert swift.ask("PUT", f"/v1/AUTH_b/{box}", token="bob", X_Container_Write="a:*")[0] == 201
    there = {"Destination": f"{box}/l", "Destination_Account": "AUTH_b"}
    assert swift.ask("COPY", base + "/l?symlink=get", **there)[0] == 201
    status, headers, _ = swift.ask("GET", f"/v1/AUTH_b/{box}/l", token="bob")
    assert (status, headers["content-location"]) == (404, f"/v1/AUTH_b/{box}/a")

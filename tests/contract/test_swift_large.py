"""Large objects, static and dynamic, over real sockets, with raw requests and the real clients."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import openstack.connection
import pytest
from keystoneauth1 import session, token_endpoint
from swiftclient.service import SwiftService, SwiftUploadObject

from tests.contract.swift_server import SwiftServer


def md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def put_slo(swift: SwiftServer, path: str, manifest: Any, query: str = "", **headers: str) -> tuple[int, Any, bytes]:
    body = manifest if isinstance(manifest, bytes) else json.dumps(manifest).encode()
    return swift.ask("PUT", f"{path}?multipart-manifest=put{query}", body, **headers)


def test_static(swift: SwiftServer, base: str) -> None:
    box = base.rpartition("/")[2]
    one, two = b"1" * 300_000, b"2" * 10
    swift.ask("PUT", base + "/one", one)
    swift.ask("PUT", base + "/two", two)
    manifest = [
        {"path": f"/{box}/one", "etag": md5(one), "size_bytes": len(one)},
        {"path": f"{box}/two", "range": "2-4"},
        {"data": base64.b64encode(b"inline").decode()},
    ]
    whole = one + two[2:5] + b"inline"
    etag = md5(f"{md5(one)}{md5(two)}:2-4;{md5(b'inline')}".encode())
    status, headers, body = put_slo(
        swift, base + "/slo", manifest, ETag=etag, Content_Type="a/b", X_Object_Meta_K="v", X_Static_Large_Object="no"
    )
    assert (status, headers["etag"], body) == (201, f'"{etag}"', b"")
    status, headers, body = swift.ask("GET", base + "/slo")
    assert (status, body, headers["content-length"]) == (200, whole, str(len(whole)))
    assert headers["etag"] == f'"{etag}"'
    assert headers["x-static-large-object"] == "True"
    assert (headers["content-type"], headers["x-object-meta-k"]) == ("a/b", "v")
    assert not [name for name in headers if "sysmeta" in name]
    assert swift.ask("HEAD", base + "/slo")[1]["content-length"] == str(len(whole))
    at = len(one) - 3
    assert swift.ask("GET", base + "/slo", Range=f"bytes={at}-{at + 7}")[::2] == (206, whole[at : at + 8])
    assert swift.ask("GET", base + "/slo", Range="bytes=-6,0-0")[2].count(b"inline") == 1
    assert swift.ask("GET", base + "/slo", If_None_Match=f'"{etag}"')[0] == 304
    rows = {row["name"]: row for row in json.loads(swift.ask("GET", base + "?format=json")[2])}
    assert (rows["slo"]["bytes"], rows["slo"]["slo_etag"]) == (len(whole), f'"{etag}"')
    status, headers, body = swift.ask("GET", base + "/slo?multipart-manifest=get")
    shown = json.loads(body)
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert headers["etag"] == md5(body)
    assert (shown[0]["name"], shown[0]["hash"], shown[0]["bytes"]) == (f"/{box}/one", md5(one), len(one))
    assert shown[1]["range"] == "2-4"
    raw = swift.ask("GET", base + "/slo?multipart-manifest=get&format=raw")[2]
    assert put_slo(swift, base + "/again", raw)[1]["etag"] == f'"{etag}"'
    swift.ask("POST", base + "/slo", X_Object_Meta_New="n")
    headers = swift.ask("HEAD", base + "/slo")[1]
    assert (headers["x-object-meta-new"], headers["x-static-large-object"]) == ("n", "True")
    # A copy is of what reading gives, or of the list.
    assert swift.ask("COPY", base + "/slo", Destination=f"{box}/flat")[0] == 201
    headers = swift.ask("HEAD", base + "/flat")[1]
    assert (headers["etag"], "x-static-large-object" in headers) == (md5(whole), False)
    assert swift.ask("COPY", base + "/slo?multipart-manifest=get", Destination=f"{box}/list")[0] == 201
    assert swift.ask("HEAD", base + "/list")[1]["etag"] == f'"{etag}"'
    assert swift.ask("COPY", base + "/slo", Destination=f"{box}/part", Range="bytes=0-9")[0] == 201
    assert swift.ask("GET", base + "/part")[2] == one[:10]
    swift.ask("DELETE", base + "/two")
    assert swift.ask("GET", base + "/slo", Range="bytes=0-9")[0] == 206
    status, _, body = swift.ask("GET", base + "/slo", Range=f"bytes={len(one)}-")
    assert status == 409
    assert b"two" in body
    status, _, body = swift.ask("DELETE", base + "/slo?multipart-manifest=delete", Accept="application/json")
    assert status == 200
    report = json.loads(body)
    assert (report["Number Deleted"], report["Number Not Found"], report["Errors"]) == (2, 1, [])
    assert swift.ask("GET", base + "/one")[0] == 404


def test_nested(swift: SwiftServer, base: str) -> None:
    box = base.rpartition("/")[2]
    swift.ask("PUT", base + "/s", b"0123456789")
    put_slo(swift, base + "/inner", [{"path": f"/{box}/s", "range": "-4"}, {"path": f"/{box}/s"}])
    inner = swift.ask("HEAD", base + "/inner")[1]["etag"].strip('"')
    manifest = [{"path": f"/{box}/inner", "etag": inner, "size_bytes": 14}, {"path": f"/{box}/inner", "range": "3-5"}]
    assert put_slo(swift, base + "/outer", manifest)[0] == 201
    assert swift.ask("GET", base + "/outer")[2] == b"67890123456789901"
    assert json.loads(swift.ask("GET", base + "/outer?multipart-manifest=get")[2])[0]["sub_slo"] is True
    report = swift.ask("DELETE", base + "/outer?multipart-manifest=delete")[2].decode()
    assert "Number Deleted: 3\n" in report
    assert swift.ask("GET", base)[0] == 204


@pytest.mark.parametrize(
    ("manifest", "status", "said"),
    [
        (b"{", 400, "valid JSON"),
        (b"{}", 400, "must be a list"),
        ([], 400, "at least one object-backed"),
        ([{"data": "eA=="}], 400, "at least one object-backed"),
        ([1, {"path": "/c/o", "x": 1}], 400, "Index 0: not a JSON object\nIndex 1: extraneous keys x"),
        ([{"path": "/c"}], 400, "/container/object"),
        ([{"path": "/c/o\0"}], 400, "/container/object"),
        ([{"path": "/c/o", "size_bytes": -1}], 400, "size_bytes"),
        ([{"path": "/c/o", "range": "0-1,2-3"}], 400, "range"),
        ([{"path": "/c/o", "data": "eA=="}], 400, "other keys"),
        ([{"data": "!"}], 400, "base64"),
        ([{"path": "/none/o"}], 400, "/none/o, 404 Not Found"),
        ([{"path": "/c/o"}] * 1001, 413, "1000"),
        (b" " * (9 << 20), 413, "8388608"),
    ],
)
def test_bad_manifests(swift: SwiftServer, base: str, manifest: Any, status: int, said: str) -> None:
    got, _, body = put_slo(swift, base + "/slo", manifest)
    assert got == status
    assert said in body.decode()
    assert swift.ask("GET", base)[0] == 204


def test_wrong_segments_are_named(swift: SwiftServer, base: str) -> None:
    box = base.rpartition("/")[2]
    swift.ask("PUT", base + "/s", b"data")
    swift.ask("PUT", base + "/empty", b"")
    wrong = [
        {"path": f"/{box}/s", "etag": "0" * 32},
        {"path": f"/{box}/s", "size_bytes": 5},
        {"path": f"/{box}/s", "range": "9-"},
        {"path": f"/{box}/empty"},
        {"path": f"/{box}/no ne"},
    ]
    status, headers, body = put_slo(swift, base + "/slo", wrong, Accept="application/json")
    assert (status, headers["content-type"]) == (400, "application/json; charset=utf-8")
    assert json.loads(body)["Errors"] == [
        [f"/{box}/s", "Etag Mismatch"], [f"/{box}/s", "Size Mismatch"], [f"/{box}/s", "Unsatisfiable Range"],
        [f"/{box}/empty", "Too Small; each segment must be at least 1 byte."], [f"/{box}/no%20ne", "404 Not Found"],
    ]  # fmt: skip
    status, _, body = put_slo(swift, base + "/slo", wrong, "&heartbeat=on", Accept="application/json")
    assert status == 202
    assert json.loads(body)["Response Status"] == "400 Bad Request"
    assert put_slo(swift, base + "/slo", [{"path": f"/{box}/s"}], ETag="0" * 32)[0] == 422
    assert swift.ask("HEAD", base + "/slo")[0] == 404
    status, _, body = put_slo(swift, base + "/slo", [{"path": f"/{box}/s"}], "&heartbeat=on", Accept="application/json")
    report = json.loads(body)
    assert (report["Response Status"], report["Errors"]) == ("201 Created", [])
    assert report["Etag"] == swift.ask("HEAD", base + "/slo")[1]["etag"]


def test_dynamic(swift: SwiftServer, base: str) -> None:
    box = base.rpartition("/")[2]
    for name in ("p/2", "p/1", "q"):
        swift.ask("PUT", f"{base}/{name}", name.encode() * 3)
    assert swift.ask("PUT", base + "/dlo", b"", X_Object_Manifest=f"{box}/p/")[0] == 201
    status, headers, body = swift.ask("GET", base + "/dlo")
    assert (status, body) == (200, b"p/1p/1p/1p/2p/2p/2")
    etag = md5((md5(b"p/1" * 3) + md5(b"p/2" * 3)).encode())
    assert (headers["etag"], headers["x-object-manifest"]) == (f'"{etag}"', f"{box}/p/")
    assert swift.ask("HEAD", base + "/dlo")[1]["content-length"] == "18"
    assert swift.ask("GET", base + "/dlo", Range="bytes=8-9")[::2] == (206, b"1p")
    assert swift.ask("GET", base + "/dlo?multipart-manifest=get")[2] == b""
    swift.ask("PUT", base + "/p/3", b"!")
    assert swift.ask("GET", base + "/dlo")[2].endswith(b"!")
    assert swift.ask("PUT", base + "/bad", b"", X_Object_Manifest="nothing")[0] == 400
    swift.ask("COPY", base + "/dlo?multipart-manifest=get", Destination=f"{box}/dlo2")
    assert swift.ask("HEAD", base + "/dlo2")[1]["x-object-manifest"] == f"{box}/p/"
    swift.ask("COPY", base + "/dlo", Destination=f"{box}/flat")
    assert "x-object-manifest" not in swift.ask("HEAD", base + "/flat")[1]
    swift.ask("POST", base + "/dlo", X_Object_Meta_A="b")  # without the header it is an object as any other
    assert swift.ask("GET", base + "/dlo")[2] == b""


def test_a_manifest_gives_no_rights(swift: SwiftServer, base: str) -> None:
    """Whoever may write here could otherwise read what he may not."""
    swift.ask("PUT", base + "-secret")
    swift.ask("PUT", base + "-secret/s", b"secret")
    box = base.rpartition("/")[2]
    swift.ask("POST", base, X_Container_Write="b:u-b", X_Container_Read="b:u-b")
    status, _, body = swift.ask("PUT", base + "/dlo", b"", token="bob", X_Object_Manifest=f"{box}-secret/s")
    assert status == 201
    assert swift.ask("GET", base + "/dlo", token="bob")[0] == 403
    manifest = json.dumps([{"path": f"/{box}-secret/s"}]).encode()
    status, _, body = swift.ask("PUT", base + "/slo?multipart-manifest=put", manifest, token="bob")
    assert (status, b"403 Forbidden" in body) == (400, True)
    put_slo(swift, base + "/slo", [{"path": f"/{box}-secret/s"}])
    assert swift.ask("GET", base + "/slo", token="bob")[0] == 409
    assert swift.ask("GET", base + "/slo")[2] == b"secret"
    assert swift.ask("PUT", base + "/link", b"", token="bob", X_Symlink_Target=f"{box}-secret/s")[0] == 201
    assert swift.ask("GET", base + "/link", token="bob")[0] == 403


def test_swift_upload(swift: SwiftServer, base: str, tmp_path: Path) -> None:
    """`swift upload --segment-size`, both ways, and `swift delete`."""
    box, data = base.rpartition("/")[2], bytes(range(256)) * 1_000
    (tmp_path / "big").write_bytes(data)
    url = f"http://127.0.0.1:{swift.port}/v1/AUTH_a"
    options = {"os_storage_url": url, "os_auth_token": "alice", "auth_version": "3", "retries": 0}
    with SwiftService(options=options) as service:
        for name, slo in (("static", True), ("dynamic", False)):
            upload = SwiftUploadObject(str(tmp_path / "big"), object_name=name)
            done = list(service.upload(box, [upload], {"segment_size": 100_000, "use_slo": slo, "changed": False}))
            assert all(item["success"] for item in done), done
            header = "x-static-large-object" if slo else "x-object-manifest"
            assert header in swift.ask("HEAD", f"{base}/{name}")[1]
            assert swift.ask("GET", f"{base}/{name}")[2] == data
        out = list(service.download(box, ["static"], {"out_file": str(tmp_path / "out")}))
        assert all(item["success"] for item in out), out
        assert (tmp_path / "out").read_bytes() == data
        assert all(item["success"] for item in service.delete(box, ["static", "dynamic"]))
    assert swift.ask("GET", base + "_segments")[0] == 204


def sdk(swift: SwiftServer, token: str = "alice", account: str = "AUTH_a") -> openstack.connection.Connection:
    url = f"http://127.0.0.1:{swift.port}/v1/{account}"
    auth = token_endpoint.Token(url, token)
    return openstack.connection.Connection(session=session.Session(auth), object_store_endpoint_override=url)


def test_openstacksdk(swift: SwiftServer, base: str, tmp_path: Path) -> None:
    box, data = base.rpartition("/")[2], bytes(range(256)) * 1_000
    (tmp_path / "big").write_bytes(data)
    connection = sdk(swift)
    connection.create_object(box, "slo", str(tmp_path / "big"), segment_size=100_000, use_slo=True, k="v")
    assert swift.ask("HEAD", base + "/slo")[1]["x-static-large-object"] == "True"
    assert connection.object_store.download_object("slo", container=box) == data
    assert connection.delete_object(box, "slo")

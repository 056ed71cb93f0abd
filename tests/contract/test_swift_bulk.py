"""Bulk uploads and deletes, quotas, and the ACLs of accounts, over real sockets."""

from __future__ import annotations

import io
import json
import tarfile
from typing import Any

import pytest

from tests.contract.swift_server import SwiftServer


def packed(mode: str, content: dict[str, bytes], **pax: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size, info.pax_headers = len(data), pax
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def report(answer: tuple[int, dict[str, str], bytes]) -> Any:
    assert answer[0] == 200
    return json.loads(answer[2])


JSON = {"Accept": "application/json"}


@pytest.mark.parametrize("form", ["tar", "tar.gz", "tar.bz2"])
def test_archives(swift: SwiftServer, base: str, form: str) -> None:
    mode = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2"}[form]
    content = {"./a.txt": b"one", "d/\u00fc": b"x" * 3_000_000, "empty": b""}
    pax = {"SCHILY.xattr.user.meta.colour": "red"}
    told = report(swift.ask("PUT", f"{base}/pre?extract-archive={form}", packed(mode, content, **pax), **JSON))
    assert (told["Number Files Created"], told["Errors"], told["Response Status"]) == (3, [], "200 OK")
    status, headers, body = swift.ask("GET", base + "/pre/a.txt")
    assert (status, body, headers["content-type"], headers["x-object-meta-colour"]) == (
        200,
        b"one",
        "text/plain",
        "red",
    )
    assert swift.ask("HEAD", base + "/pre/d/%C3%BC")[1]["content-length"] == "3000000"


def test_an_archive_makes_containers(swift: SwiftServer, base: str) -> None:
    box = base.rpartition("/")[2]
    archive = packed("w", {f"{box}-new/o": b"1", "alone": b"2", f"{box}/{'n' * 1025}": b"3", "c" * 257 + "/o": b"4"})
    told = report(swift.ask("PUT", "/v1/AUTH_a?extract-archive=tar", archive, **JSON))
    assert told["Number Files Created"] == 1
    assert [status for _, status in told["Errors"]] == ["412 Precondition Failed", "400 Bad Request", "400 Bad Request"]
    assert swift.ask("GET", base + "-new/o")[2] == b"1"
    assert swift.ask("PUT", "/v1/AUTH_a?extract-archive=tar", archive, token=None)[0] == 401
    told = report(swift.ask("PUT", base + "?extract-archive=tar", archive, token="bob", **JSON))
    assert {status for _, status in told["Errors"]} == {"403 Forbidden", "400 Bad Request"}


@pytest.mark.parametrize("data", [b"", b"x" * 5_000, packed("w", {"a": b"1" * 9_000})[:4_000], b"\x1f\x8b"])
def test_bad_archives(swift: SwiftServer, base: str, data: bytes) -> None:
    form = "tar.gz" if data.startswith(b"\x1f") else "tar"
    told = report(swift.ask("PUT", f"{base}?extract-archive={form}", data, **JSON))
    assert told["Response Status"] == "400 Bad Request"
    assert "Invalid Tar File" in told["Response Body"]
    assert swift.ask("GET", base)[0] == 204
    assert not swift.uploads_left()
    assert swift.ask("PUT", base + "?extract-archive=zip", data)[0] == 400


def test_bulk_delete(swift: SwiftServer, base: str) -> None:
    box = base.rpartition("/")[2]
    for name in ("a", "%C3%BC%20b"):
        swift.ask("PUT", f"{base}/{name}", b"x")
    names = f"/{box}/a\n{box}/%C3%BC%20b\n\n/{box}/none\n/{box}-none\n{box}/%FF\n/{box}\n".encode()
    told = report(swift.ask("POST", "/v1/AUTH_a?bulk-delete", names, **JSON))
    assert (told["Number Deleted"], told["Number Not Found"]) == (3, 2)
    assert told["Errors"] == [[f"{box}/%FF", "412 Precondition Failed"]]
    assert swift.ask("HEAD", base)[0] == 404
    told = report(swift.ask("DELETE", "/v1/AUTH_a?bulk-delete", b"", **JSON))
    assert (told["Response Status"], told["Response Body"]) == ("400 Bad Request", "Invalid bulk delete.")
    assert swift.ask("POST", "/v1/AUTH_a?bulk-delete", b"/c/o\n" * 10_001)[0] == 413
    assert swift.ask("POST", "/v1/AUTH_a?bulk-delete", b"x" * 9_000)[0] == 400
    told = report(swift.ask("POST", "/v1/AUTH_a?bulk-delete", b"/c/o", token="bob", **JSON))
    assert told["Errors"] == [["/c/o", "403 Forbidden"]]
    text = swift.ask("POST", "/v1/AUTH_a?bulk-delete", b"/c/o")[2].decode()
    assert text == "Number Deleted: 0\nNumber Not Found: 1\nResponse Body: \nResponse Status: 200 OK\nErrors:\n"
    xml = swift.ask("POST", "/v1/AUTH_a?bulk-delete", b"/c/o", Accept="application/xml")[2]
    assert b"<number_not_found>1</number_not_found>" in xml


def test_container_quotas(swift: SwiftServer, base: str) -> None:
    assert swift.ask("POST", base, X_Container_Meta_Quota_Bytes="10", X_Container_Meta_Quota_Count="2")[0] == 204
    for bad in ({"X_Container_Meta_Quota_Bytes": "x"}, {"X_Container_Meta_Quota_Count": "-1"}):
        assert swift.ask("POST", base, **bad)[0] == 400
    assert swift.ask("PUT", base + "/1", b"x" * 8)[0] == 201
    status, _, body = swift.ask("PUT", base + "/2", b"xxx")
    assert (status, body) == (413, b"Upload exceeds quota.")
    assert swift.ask("PUT", base + "/2", iter([b"x", b"xx"]))[0] == 413  # type: ignore[arg-type]
    box = base.rpartition("/")[2]
    assert swift.ask("COPY", base + "/1", Destination=f"{box}/2")[0] == 413
    assert swift.ask("PUT", base + "/2", b"xx")[0] == 201
    assert swift.ask("PUT", base + "/3", b"")[0] == 413
    assert not swift.uploads_left()
    swift.ask("POST", base, X_Remove_Container_Meta_Quota_Bytes="1", X_Container_Meta_Quota_Count="")
    assert swift.ask("PUT", base + "/3", b"xxx")[0] == 201


def test_account_quotas(swift: SwiftServer) -> None:
    assert swift.ask("PUT", "/v1/AUTH_b/c", token="bob")[0] == 201
    assert swift.ask("POST", "/v1/AUTH_b", token="bob", X_Account_Meta_Quota_Bytes="1")[0] == 403
    assert swift.ask("POST", "/v1/AUTH_b", token="boss", X_Account_Meta_Quota_Bytes="x")[0] == 400
    assert swift.ask("POST", "/v1/AUTH_b", token="boss", X_Account_Meta_Quota_Bytes="5")[0] == 204
    assert swift.ask("PUT", "/v1/AUTH_b/c/1", b"xxx", token="bob")[0] == 201
    assert swift.ask("PUT", "/v1/AUTH_b/c/2", b"xxx", token="bob")[0] == 413
    assert swift.ask("POST", "/v1/AUTH_b", token="bob", X_Remove_Account_Meta_Quota_Bytes="1")[0] == 403
    assert swift.ask("POST", "/v1/AUTH_b", token="boss", X_Remove_Account_Meta_Quota_Bytes="1")[0] == 204
    assert swift.ask("PUT", "/v1/AUTH_b/c/2", b"xxx", token="bob")[0] == 201
    assert swift.ask("POST", "/v1/AUTH_b", token="bob", X_Account_Quota_Count="1")[0] == 403
    assert (
        swift.ask("POST", "/v1/AUTH_b", token="boss", X_Account_Quota_Count="2", X_Account_Quota_Bytes="99")[0] == 204
    )
    headers = swift.ask("HEAD", "/v1/AUTH_b", token="bob")[1]
    assert (headers["x-account-quota-count"], headers["x-account-quota-bytes"]) == ("2", "99")
    assert swift.ask("PUT", "/v1/AUTH_b/c/3", b"", token="bob")[0] == 413
    assert swift.ask("POST", "/v1/AUTH_b", token="boss", X_Remove_Account_Quota_Count="x")[0] == 204
    assert swift.ask("PUT", "/v1/AUTH_b/c/3", b"", token="bob")[0] == 201


def test_account_acls(swift: SwiftServer, base: str) -> None:
    swift.ask("PUT", base + "/o", b"data")

    def let(**levels: list[str]) -> int:
        text = json.dumps({name.replace("_", "-"): value for name, value in levels.items()})
        return swift.ask("POST", "/v1/AUTH_a", X_Account_Access_Control=text)[0]

    def bob(method: str, path: str, **headers: str) -> int:
        return swift.ask(method, path, b"" if method == "PUT" else None, token="bob", **headers)[0]

    assert let(read_only=["b:n-b"]) == 204
    assert [bob("GET", path) for path in ("/v1/AUTH_a", base, base + "/o")] == [200, 200, 200]
    assert [bob("PUT", base + "/x"), bob("PUT", base + "-x"), bob("POST", "/v1/AUTH_a")] == [403, 403, 403]
    assert "x-account-access-control" not in swift.ask("HEAD", "/v1/AUTH_a", token="bob")[1]
    assert let(read_write=["u-b"]) == 204
    assert [bob("PUT", base + "/x"), bob("PUT", base + "-x"), bob("POST", "/v1/AUTH_a")] == [201, 201, 403]
    assert bob("POST", base, X_Container_Read=".r:*", X_Container_Meta_K="v") == 204
    headers = swift.ask("HEAD", base)[1]
    assert (headers["x-container-meta-k"], "x-container-read" in headers) == ("v", False)
    assert let(admin=["b"]) == 204
    assert bob("POST", "/v1/AUTH_a", X_Account_Meta_K="v") == 204
    assert swift.ask("HEAD", "/v1/AUTH_a")[1]["x-account-access-control"] == '{"admin":["b"]}'
    for bad in ("x", "[]", '{"owner":["b"]}', '{"admin":"b"}'):
        assert swift.ask("POST", "/v1/AUTH_a", X_Account_Access_Control=bad)[0] == 400
    assert let() == 204
    assert bob("GET", base) == 403
    assert swift.ask("GET", base, token=None)[0] == 401

"""Temporary URLs and form uploads, over real sockets."""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from swiftclient.utils import generate_temp_url

from tests.contract.swift_server import SwiftServer

LATER = int(time.time()) + 600


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwiftServer]:
    server = SwiftServer(tmp_path_factory.mktemp("swift"))
    assert (
        server.ask("POST", "/v1/AUTH_a", X_Account_Meta_Temp_URL_Key="old", X_Account_Meta_Temp_URL_Key_2="secret")[0]
        == 204
    )
    yield server
    server.stop()


def signed(path: str, method: str = "GET", key: str = "secret", expires: int = LATER, first: str = "") -> str:
    signature = hmac.new(key.encode(), f"{first}{method}\n{expires}\n{path}".encode(), "sha256").hexdigest()
    return f"temp_url_sig={signature}&temp_url_expires={expires}"


def test_reading(swift: SwiftServer, base: str) -> None:
    path = base + "/d/\u00fc"
    asked = quote(path)
    swift.ask("PUT", asked, b"data", X_Object_Meta_Secret="s", X_Object_Meta_Public_P="p")
    status, headers, body = swift.ask("GET", f"{asked}?{signed(path)}", token=None)
    assert (status, body) == (200, b"data")
    assert headers["content-disposition"] == "attachment; filename=\"%C3%BC\"; filename*=UTF-8''%C3%BC"
    assert "x-object-meta-secret" not in headers
    assert headers["x-object-meta-public-p"] == "p"
    assert headers["expires"].endswith("GMT")
    assert swift.ask("HEAD", f"{asked}?{signed(path)}", token=None)[0] == 200
    assert swift.ask("GET", f"{asked}?{signed(path)}&inline", token=None)[1]["content-disposition"] == "inline"
    shown = swift.ask("GET", f"{asked}?{signed(path)}&filename=my%20x", token=None)[1]["content-disposition"]
    assert shown == "attachment; filename=\"my x\"; filename*=UTF-8''my%20x"
    for query in (
        signed(path, "PUT"), signed(path, key="wrong"), signed(path, expires=99), signed(path + "x"),
        "temp_url_sig=x", f"temp_url_expires={LATER}", signed(path)[:-1] + "x",
    ):  # fmt: skip
        assert swift.ask("GET", f"{asked}?{query}", token=None)[0] == 401
        assert swift.ask("GET", f"{asked}?{query}")[0] == 401
    assert swift.ask("DELETE", f"{asked}?{signed(path)}", token=None)[0] == 401


def test_writing(swift: SwiftServer, base: str) -> None:
    path = base + "/o"
    assert swift.ask("PUT", f"{path}?{signed(path, 'PUT')}", b"new", token=None)[0] == 201
    assert swift.ask("HEAD", f"{path}?{signed(path, 'PUT')}", token=None)[0] == 200
    for header in ("X_Object_Manifest", "X_Symlink_Target"):
        assert swift.ask("PUT", f"{path}?{signed(path, 'PUT')}", b"", token=None, **{header: "c/o"})[0] == 400
    assert swift.ask("DELETE", f"{path}?{signed(path, 'DELETE')}", token=None)[0] == 204


def test_prefix_and_addresses(swift: SwiftServer, base: str) -> None:
    swift.ask("PUT", base + "/p/o", b"data")
    swift.ask("PUT", base + "/q", b"data")
    query = signed(f"prefix:{base}/p/") + "&temp_url_prefix=p/"
    assert swift.ask("GET", f"{base}/p/o?{query}", token=None)[0] == 200
    assert swift.ask("GET", f"{base}/q?{query}", token=None)[0] == 401
    for network, status in (("127.0.0.0/8", 200), ("10.0.0.0/8", 401), ("x", 401)):
        query = signed(base + "/q", first=f"ip={network}\n") + f"&temp_url_ip_range={network}"
        assert swift.ask("GET", f"{base}/q?{query}", token=None)[0] == status


def test_a_container_key_reaches_no_further(swift: SwiftServer, base: str) -> None:
    swift.ask("POST", base, X_Container_Meta_Temp_URL_Key="own")
    swift.ask("PUT", base + "-other")
    swift.ask("PUT", base + "-other/s", b"secret")
    swift.ask("PUT", base + "/o", b"data")
    box = base.rpartition("/")[2]
    swift.ask("PUT", base + "/dlo", b"", X_Object_Manifest=f"{box}-other/s")
    assert swift.ask("GET", f"{base}/o?{signed(base + '/o', key='own')}", token=None)[0] == 200
    assert swift.ask("GET", f"{base}/dlo?{signed(base + '/dlo', key='own')}", token=None)[0] == 401
    assert swift.ask("GET", f"{base}/dlo?{signed(base + '/dlo')}", token=None)[2] == b"secret"
    assert swift.ask("HEAD", base)[1]["x-container-meta-temp-url-key"] == "own"
    assert "x-container-meta-temp-url-key" not in swift.ask("HEAD", base, token="reader")[1]
    assert "x-account-meta-temp-url-key" not in swift.ask("HEAD", "/v1/AUTH_a", token="reader")[1]


def test_urls_of_swiftclient(swift: SwiftServer, base: str) -> None:
    swift.ask("PUT", base + "/o", b"data")
    for digest in ("sha1", "sha256", "sha512"):
        for iso in (False, True):
            url = generate_temp_url(base + "/o", 600, "secret", "GET", iso8601=iso, digest=digest)
            assert swift.ask("GET", url, token=None)[2] == b"data"


def post_form(
    swift: SwiftServer, path: str, files: dict[str, bytes], **fields: str
) -> tuple[int, dict[str, str], bytes]:
    fields = {"max_file_size": "1000", "max_file_count": "2", "expires": str(LATER), **fields}
    key = fields.pop("key", "secret")
    message = "\n".join(
        [path, fields.get("redirect", ""), fields["max_file_size"], fields["max_file_count"], fields["expires"]]
    )
    fields.setdefault("signature", hmac.new(key.encode(), message.encode(), hashlib.sha256).hexdigest())
    body = b"".join(
        b'--xx\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value.encode())
        for name, value in fields.items()
    )
    for name, data in files.items():
        head = f'--xx\r\nContent-Disposition: form-data; name="f"; filename="{name}"\r\nContent-Type: a/b\r\n\r\n'
        body += head.encode() + data + b"\r\n"
    kind = "multipart/form-data; boundary=xx"
    return swift.ask("POST", path, body + b"--xx--\r\n", token=None, Content_Type=kind)


def test_forms(swift: SwiftServer, base: str) -> None:
    assert post_form(swift, base, {"\u00fc 1": b"one", "2": b"", "": b""})[0] == 201
    status, headers, body = swift.ask("GET", base + "/" + quote("\u00fc 1"))
    assert (status, body, headers["content-type"]) == (200, b"one", "a/b")
    status, headers, _ = post_form(
        swift, base + "/pre/fix-", {"x": b"x"}, redirect="http://x/y?a=b", x_delete_after="99"
    )
    assert (status, headers["location"]) == (303, "http://x/y?a=b&status=201&message=")
    assert "x-delete-at" in swift.ask("HEAD", base + "/pre/fix-x")[1]


@pytest.mark.parametrize(
    ("fields", "files", "status", "said"),
    [
        ({"key": "wrong"}, {"x": b"x"}, 401, "FormPost: Invalid Signature"),
        ({"expires": "99"}, {"x": b"x"}, 401, "FormPost: Form Expired"),
        ({"expires": "soon"}, {"x": b"x"}, 400, "expires not an integer"),
        ({"max_file_count": "1"}, {"x": b"x", "y": b"y"}, 400, "count exceeded"),
        ({"max_file_size": "3"}, {"y": b"yyyy"}, 413, "size exceeded"),
        ({}, {}, 400, "no files"),
        ({}, {"n" * 1025: b"x"}, 400, "length"),
    ],
)  # fmt: skip
def test_bad_forms(
    swift: SwiftServer, base: str, fields: dict[str, str], files: dict[str, bytes], status: int, said: str
) -> None:
    got, _, body = post_form(swift, base, files, **fields)
    assert got == status
    assert said in body.decode()
    assert b"y" not in swift.ask("GET", base)[2]
    assert not swift.uploads_left()
    got, headers, _ = post_form(swift, base, files, redirect="http://x/", **fields)
    if status == 401:
        assert got == 401
    else:
        assert said in parse_qs(urlsplit(headers["location"]).query)["message"][0]
    kind = "multipart/form-data; boundary=xx"
    assert swift.ask("POST", base, b"--xx\r\nnothing", token=None, Content_Type=kind)[0] == 400


def test_directories_of_a_site(swift: SwiftServer, base: str) -> None:
    for name in ("dir/obj", "dir/sub/obj", "other"):
        swift.ask("PUT", f"{base}/{name}", b"data")

    def visit(path: str, prefix: str, more: str = "") -> tuple[int, dict[str, str], str]:
        query = f"temp_url_prefix={prefix}&" + signed(f"prefix:{base}/{prefix}") + more
        status, headers, body = swift.ask("GET", f"{base}{path}?{query}", token=None)
        return status, headers, body.decode()

    assert [visit(path, "")[0] for path in ("", "/", "/dir/")] == [401, 401, 404]  # no site
    swift.ask("POST", base, X_Container_Meta_Web_Listings="true")
    status, headers, _ = visit("", "")
    assert (status, headers["location"].partition("?")[0]) == (301, f"http://127.0.0.1:{swift.port}{base}/")
    assert "temp_url_sig=" in headers["location"]
    status, headers, body = visit("/", "")
    assert status == 200
    assert "content-disposition" not in headers
    assert re.search(r'<a href="./dir/\?temp_url_prefix=&amp;temp_url_expires=\d+&amp;temp_url_sig=\w+">dir/</a>', body)
    assert "../" not in body
    status, _, body = visit("/dir/", "dir/", "&inline")
    assert status == 200
    assert re.search(r'<a href="./obj\?temp_url_prefix=dir/&amp;[^"]+&amp;inline">obj</a>', body)
    assert "../" not in body
    assert 'href="../?' in visit("/dir/sub/", "dir/")[2]
    assert [visit(path, "dir/")[0] for path in ("", "/", "/other", "/none/")] == [401, 401, 401, 401]
    assert visit("/dir/obj", "dir/")[2] == "data"
    assert swift.ask("GET", f"{base}/?{signed(base + '/')}", token=None)[0] == 401  # no prefix

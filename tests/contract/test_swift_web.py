"""Containers as web sites, pages of other origins, and what Swift says of itself, over real sockets."""

from __future__ import annotations

import time
from pathlib import Path

from apus.services.object.service import Options
from tests.contract.swift_server import SwiftServer


def visit(swift: SwiftServer, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return swift.ask("GET", path, token=None, **headers)


def test_a_site(swift: SwiftServer, base: str) -> None:
    swift.ask(
        "POST",
        base,
        X_Container_Read=".r:*",
        X_Container_Meta_Web_Index="index.html",
        X_Container_Meta_Web_Error="error.html",
    )
    for name in ("index.html", "404error.html", "401error.html", "sub/index.html", "bare/page"):
        swift.ask("PUT", f"{base}/{name}", name.encode(), Content_Type="text/html")
    status, headers, _ = visit(swift, base)
    assert (status, headers["location"]) == (301, f"http://127.0.0.1:{swift.port}{base}/")
    assert visit(swift, base + "/")[::2] == (200, b"index.html")
    status, headers, _ = visit(swift, base + "/sub")
    assert (status, headers["location"]) == (301, f"http://127.0.0.1:{swift.port}{base}/sub/")
    assert visit(swift, base + "/sub/")[2] == b"sub/index.html"
    assert visit(swift, base + "/none")[::2] == (404, b"404error.html")
    assert visit(swift, base + "/bare/")[::2] == (404, b"404error.html")
    assert swift.ask("GET", base + "/")[2].startswith(b"401error.html\n")  # who has a token sees the container
    assert swift.ask("GET", base + "/", X_Web_Mode="true")[2] == b"index.html"
    assert swift.ask("HEAD", base + "/", token=None)[1]["content-length"] == "10"
    swift.ask("PUT", base + "/dir", b"", Content_Type="application/directory")
    swift.ask("PUT", base + "/dir/index.html", b"inside")
    assert visit(swift, base + "/dir")[0] == 301
    swift.ask("POST", base, X_Container_Read="")
    assert visit(swift, base + "/sub/")[0] == 401


def test_listings(swift: SwiftServer, base: str) -> None:
    swift.ask("POST", base, X_Container_Read=".r:*,.rlistings", X_Container_Meta_Web_Listings="true")
    for name in ("a<b", "d/x", "d/e/y"):
        swift.ask("PUT", f"{base}/{name}", b"12345", Content_Type="text/x")
    status, headers, body = visit(swift, base + "/")
    page = body.decode()
    assert (status, headers["content-type"]) == (200, "text/html; charset=UTF-8")
    assert f"<title>Listing of {base}/</title>" in page
    assert '<a href="./a%3Cb">a&lt;b</a>' in page
    assert '<a href="./d/">d/</a>' in page
    assert "type-text type-x" in page
    page = visit(swift, base + "/d/")[2].decode()
    assert '<a href="../">../</a>' in page
    assert '<a href="./x">x</a></td><td class="colsize">5</td>' in page
    swift.ask("POST", base, X_Container_Meta_Web_Listings_CSS="s.css", X_Container_Meta_Web_Listings_Label="my<site")
    page = visit(swift, base + "/d/")[2].decode()
    assert '<link rel="stylesheet" type="text/css" href="../s.css" />' in page
    assert "<title>Listing of my&lt;site/d/</title>" in page
    assert visit(swift, base + "/none/")[0] == 404
    swift.ask("POST", base, X_Container_Read=".r:*")
    assert visit(swift, base + "/")[0] == 401


def test_origins(swift: SwiftServer, base: str) -> None:
    here, other = "http://here.example", "http://other.example"
    swift.ask(
        "POST", base, X_Container_Meta_Access_Control_Allow_Origin=f"{here} http://x", X_Container_Read=".r:*",
        X_Container_Meta_Access_Control_Max_Age="60", X_Container_Meta_Access_Control_Expose_Headers="X-More",
    )  # fmt: skip
    swift.ask("PUT", base + "/o", b"data", X_Object_Meta_K="v")
    asked = {"Access_Control_Request_Method": "PUT", "Access_Control_Request_Headers": "x-auth-token"}
    status, headers, _ = swift.ask("OPTIONS", base + "/o", token=None, Origin=here, **asked)
    assert (status, headers["access-control-allow-origin"], headers["access-control-max-age"]) == (200, here, "60")
    assert headers["access-control-allow-headers"] == "x-auth-token"
    assert "COPY" in headers["access-control-allow-methods"]
    assert swift.ask("OPTIONS", base + "/o", token=None, Origin=other, **asked)[0] == 401
    asked["Access_Control_Request_Method"] = "TRACE"
    assert swift.ask("OPTIONS", base + "/o", token=None, Origin=here, **asked)[0] == 401
    assert swift.ask("OPTIONS", base, token=None)[1]["allow"] == "GET, HEAD, PUT, POST, DELETE, OPTIONS"
    assert swift.ask("OPTIONS", "/v1/AUTH_a", token=None)[0] == 200
    status, headers, _ = visit(swift, base + "/o", Origin=here)
    assert (status, headers["access-control-allow-origin"], headers["vary"]) == (200, here, "Origin")
    exposed = headers["access-control-expose-headers"].split(", ")
    assert {"x-object-meta-k", "etag", "x-more"} <= set(exposed)
    assert "access-control-allow-origin" not in visit(swift, base + "/o", Origin=other)[1]
    assert visit(swift, base + "/none", Origin=here)[1]["access-control-allow-origin"] == here  # errors too
    swift.ask("POST", base, X_Container_Meta_Access_Control_Allow_Origin="*")
    assert visit(swift, base + "/o", Origin=other)[1]["access-control-allow-origin"] == "*"


def test_what_swift_says_of_itself(swift: SwiftServer) -> None:
    status, headers, body = swift.ask("GET", "/crossdomain.xml", token=None)
    assert (status, headers["content-type"]) == (200, "application/xml")
    assert b"cross-domain-policy" in body
    for what in ("version", "time", "ringmd5", "devices", "unmounted", "async"):
        assert swift.ask("GET", f"/recon/{what}", token="boss")[0] == 200
    assert swift.ask("GET", "/recon/async", token="boss")[2] == b'{"async_pending":0}'
    assert swift.ask("GET", "/recon/none", token="boss")[0] == 404
    assert swift.ask("GET", "/recon/time")[0] == 403
    assert swift.ask("GET", "/recon/time", token=None)[0] == 401


def test_rates(tmp_path: Path) -> None:
    server = SwiftServer(tmp_path, Options(container_writes_per_s=20.0))
    try:
        server.ask("PUT", "/v1/AUTH_a/c")
        began_s = time.monotonic()
        for number in range(5):
            assert server.ask("PUT", f"/v1/AUTH_a/c/{number}", b"")[0] == 201
        assert time.monotonic() - began_s >= 0.19
        server.store.service.rates._next_s["AUTH_a", "c"] += 60
        status, headers, body = server.ask("PUT", "/v1/AUTH_a/c/o", b"")
        assert (status, body) == (498, b"Slow down")
        assert "x-trans-id" in headers
        assert server.ask("GET", "/v1/AUTH_a/c/1")[0] == 200
    finally:
        server.stop()

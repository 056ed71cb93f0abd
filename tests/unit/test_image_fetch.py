"""web-download's driver against a real server on loopback, and the addresses that it never reaches."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from aiohttp import web

from apus.kernel.errors import Invalid, Unavailable
from apus.services.image.drivers.fetch import HttpFetcher, is_public
from tests.doubles import run


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x", "http://[::1]/x", "http://10.0.0.1/", "http://169.254.169.254/latest", "http://0.0.0.0/",
        "http://192.168.1.1/", "http://[fe80::1]/", "http://[::ffff:127.0.0.1]/", "http://224.0.0.1/", "ftp://example.org/",
        "file:///etc/passwd", "http://", "http://[", "gopher://x", "http://example.org:22/", "http://100.64.0.1/", "",
        "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://example.org:99999/",
        "http://2130706433/", "http://127.1/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.0.0.1./",
    ],
)  # fmt: skip
def test_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(Invalid) as caught:
        HttpFetcher().check(url)
    assert caught.value.field == "method.uri"


def test_public_addresses() -> None:
    HttpFetcher().check("https://example.org/image.qcow2")
    assert is_public(ipaddress.ip_address("8.8.8.8"))
    assert is_public(ipaddress.ip_address("2606:4700::1111"))


async def _all(fetcher: HttpFetcher, url: str) -> bytes:
    return b"".join([chunk async for chunk in fetcher.fetch(url)])


def test_names_that_resolve_to_loopback() -> None:
    async def story() -> None:
        for url in ("http://localhost/x", "http://2130706433/x", "http://0x7f.1/x"):
            with pytest.raises((Invalid, Unavailable)):
                await _all(HttpFetcher(), url)

    run(story())


def test_fetching() -> None:
    async def story() -> None:
        asked: list[str] = []

        async def handle(request: web.Request) -> web.StreamResponse:
            asked.append(request.path)
            if request.path == "/image":
                return web.Response(body=b"x" * 3_000_000)
            if request.path == "/moved":
                raise web.HTTPFound("/image")
            if request.path == "/round":
                raise web.HTTPFound("/round")
            if request.path == "/away":
                raise web.HTTPFound("file:///etc/passwd")
            if request.path == "/busy":
                return web.Response(status=503)
            if request.path == "/cut":
                response = web.StreamResponse(headers={"Content-Length": "100"})
                await response.prepare(request)
                await response.write(b"x")
                assert request.transport is not None
                request.transport.close()
                return response
            return web.Response(status=404)

        server = web.AppRunner(_app(handle))
        await server.setup()
        site = web.TCPSite(server, "127.0.0.1", 0)
        await site.start()
        base = f"http://127.0.0.1:{server.addresses[0][1]}"
        fetcher = HttpFetcher(private_targets=True)
        try:
            assert len(await _all(fetcher, f"{base}/image")) == 3_000_000
            assert len(await _all(fetcher, f"{base}/moved")) == 3_000_000
            for path, error in (
                ("round", Invalid), ("away", Invalid), ("none", Invalid), ("busy", Unavailable), ("cut", Unavailable),
            ):  # fmt: skip
                with pytest.raises(error):
                    await _all(fetcher, f"{base}/{path}")
            with pytest.raises(Unavailable) as silent:
                await _all(fetcher, "http://127.0.0.1:1/nobody-listens")
            assert silent.value.code == "image.no_answer"
            asked.clear()
            with pytest.raises((Invalid, Unavailable)):
                await _all(HttpFetcher(), f"http://localhost:{server.addresses[0][1]}/image")
            assert asked == []
        finally:
            await server.cleanup()

    run(story())


def _app(handle: Any) -> web.Application:
    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    return app

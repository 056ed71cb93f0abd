"""Fetches what web-download asks for.  The targets are a tenant's words: by default only public addresses are reached.

The check is made on the address that is then connected to, after the name was resolved, on each redirect anew: a name
that answers a public address first and a private one later gets nowhere.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncIterator
from typing import Any, Protocol
from urllib.parse import urljoin, urlsplit

from apus.kernel.errors import Invalid, Unavailable
from apus.services.image import limits


class Fetcher(Protocol):
    def check(self, url: str) -> None:
        """Raise Invalid when such a URL is never fetched."""
        ...

    def fetch(self, url: str) -> AsyncIterator[bytes]:
        """Raise Invalid (refused, or the other side says no), Unavailable: it does not answer (`image.no_answer`) or
        breaks off."""
        ...


class HttpFetcher:
    def __init__(self, *, private_targets: bool = False) -> None:
        self._private_targets = private_targets

    def check(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or 0
        except ValueError:
            raise _refused(url, "it is malformed") from None
        if parts.scheme not in ("http", "https") or not host:
            raise _refused(url, "only http and https are possible")
        if not self._private_targets:
            if port not in (0, 80, 443):
                raise _refused(url, "only the ports 80 and 443 are possible")
            try:
                address = ipaddress.ip_address(host)
            except ValueError:
                last = host.rstrip(".").rpartition(".")[2]
                if last.isdigit() or last.startswith("0x"):  # 127.1, 2130706433: addresses that skip the resolver
                    raise _refused(url, "its address is not written in the usual way") from None
                return  # a name: its addresses are checked when it is resolved
            if not is_public(address):
                raise _refused(url, "its address is not a public one")

    async def fetch(self, url: str) -> AsyncIterator[bytes]:
        import aiohttp  # not at the top: it takes a tenth of a second, and most processes never fetch

        connector = aiohttp.TCPConnector(resolver=_resolver(self._private_targets), use_dns_cache=False)
        answered = False
        timeout = aiohttp.ClientTimeout(total=limits.DOWNLOAD_WITHIN_S, sock_connect=20, sock_read=60)
        try:
            async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
                for _ in range(limits.REDIRECTS_MAX + 1):
                    self.check(url)
                    headers = {"Accept-Encoding": "identity"}
                    async with session.get(url, headers=headers, allow_redirects=False) as response:
                        answered = True
                        if response.status in (301, 302, 303, 307, 308) and "location" in response.headers:
                            url = urljoin(url, response.headers["location"])
                            continue
                        if response.status >= 500:
                            raise Unavailable("image.fetch", f"{url} answers {response.status}.")
                        if response.status != 200:
                            raise _refused(url, f"it answers {response.status}")
                        async for chunk in response.content.iter_chunked(limits.CHUNK_BYTES):
                            yield chunk
                        return
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            code = "image.fetch" if answered else "image.no_answer"
            raise Unavailable(code, f"{url} could not be fetched: {error or type(error).__name__}.") from error
        raise _refused(url, f"it redirects more than {limits.REDIRECTS_MAX} times")


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is not None:
            return inner.is_global and not inner.is_multicast
        if address in _NAT64:
            return False
    return address.is_global and not address.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _resolver(private_targets: bool) -> Any:
    from aiohttp.abc import AbstractResolver, ResolveResult
    from aiohttp.resolver import ThreadedResolver

    class PublicOnly(AbstractResolver):
        def __init__(self) -> None:
            self._names = ThreadedResolver()

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found = await self._names.resolve(host, port, family)
            allowed = [one for one in found if private_targets or is_public(ipaddress.ip_address(one["host"]))]
            if not allowed:
                raise _refused(host, "its address is not a public one")
            return allowed

        async def close(self) -> None:
            await self._names.close()

    return PublicOnly()


def _refused(url: str, why: str) -> Invalid:
    return Invalid("image.uri", f"The URI {url[:200]!r} cannot be used for web-download: {why}.", field="method.uri")

"""Sends messages to URLs that clients named: to addresses that are open alone, without redirects or proxies."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any, Final, Protocol

from apus.services.object.logic.addresses import Network, may_reach

PATIENCE_S: Final = 10.0


class Webhooks(Protocol):
    async def send(self, url: str, body: bytes) -> int:
        """The status of the answer.  Raise OSError when there is none, or the address is closed."""
        ...


class HttpWebhooks:
    """`allowed`: networks that are open although they would be closed."""

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    async def send(self, url: str, body: bytes) -> int:
        import aiohttp  # not at the top: it takes a tenth of a second, and few containers have webhooks

        headers = {"content-type": "application/json", "user-agent": "apus"}
        timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
        try:
            connector = aiohttp.TCPConnector(resolver=_checked_resolver(self._allowed), force_close=True)
            async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
                async with session.post(url, data=body, headers=headers, allow_redirects=False) as reply:
                    return reply.status
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise OSError(f"{url}: {error or type(error).__name__}") from error


def _checked_resolver(allowed: Sequence[Network]) -> Any:
    """The address that is checked is the one that is connected to, whatever a second look-up would say."""
    import aiohttp

    class Checked(aiohttp.ThreadedResolver):
        async def resolve(self, host: str, *args: Any, **more: Any) -> list[Any]:
            found = [one for one in await super().resolve(host, *args, **more) if may_reach(one["host"], allowed)]
            if not found:
                raise OSError(errno.EACCES, f"{host} leads to no address that is open")
            return found

    return Checked()

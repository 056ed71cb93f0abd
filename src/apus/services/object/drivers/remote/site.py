"""Another host, as it is asked about directories that are not open as drives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from apus.services.object.drivers.fence import DriveIdentity
from apus.services.object.drivers.remote.channel import call_host
from apus.services.object.drivers.remote.drive import RemoteDrive
from apus.services.object.drivers.remote.verbs import VERBS, Hello, Request, decode_answer, encode, result_of


class RemoteSite:
    """Implements Site.  `secret` is the key that proxies and disk hosts share."""

    def __init__(self, host: str, port: int, secret: bytes) -> None:
        self._dial = partial(call_host, host, port, secret)

    async def marked_as(self, path: Path) -> DriveIdentity | None:
        found: DriveIdentity | None = await self._ask("site.marked_as", str(path))
        return found

    async def mark(self, path: Path, identity: DriveIdentity) -> None:
        await self._ask("site.mark", str(path), identity)

    async def names(self, path: Path) -> Sequence[str]:
        names: list[str] = await self._ask("site.names", str(path))
        return names

    def open(self, path: Path, identity: DriveIdentity, part_power: int, policies: int, turn: int = 0) -> RemoteDrive:
        return RemoteDrive(self._dial, str(path), identity, part_power=part_power, policies=policies, turn=turn)

    async def _ask(self, name: str, *arguments: Any) -> Any:
        """A connection for each question: they are as rare as new drives."""
        channel, verb = await self._dial(), VERBS[name]
        try:
            async with asyncio.timeout(verb.deadline_s):
                channel.send(encode(Hello("site", "/", DriveIdentity("", ""), 0, 0)))
                channel.send(encode(Request(0, name, msgspec.Raw(encode(arguments)))))
                return result_of(decode_answer(await channel.receive()), verb)
        except TimeoutError as error:
            raise channel.broken(error) from error
        finally:
            channel.close()

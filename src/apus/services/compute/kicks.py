"""Hints to host agents, from inside transactions: coalesced per host, published by one task."""

from __future__ import annotations

import asyncio
import contextlib

from apus.kernel.errors import Unavailable
from apus.kernel.world import Bus


def wanted_subject(host: str) -> str:
    """A bus subject is dotted words, and host names have dots."""
    return f"compute.wanted.{host.replace('.', '_')}"


def host_subject(host: str) -> str:
    return f"compute.host.{host.replace('.', '_')}"


class Kicks:
    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._hosts: dict[str, None] = {}
        self._filled = asyncio.Event()

    def kick(self, host: str) -> None:
        self._hosts[host] = None
        self._filled.set()

    async def run(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            hosts, self._hosts = self._hosts, {}
            for host in hosts:
                with contextlib.suppress(Unavailable):  # the host's own scan finds it
                    await self._bus.publish(wanted_subject(host))

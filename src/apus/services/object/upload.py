"""One body on its way to several drives; a drive that fails is left out while a quorum goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from apus.services.object.cluster import Cluster, too_few
from apus.services.object.drivers.drive import CopyWriter, Drive

Begin = Callable[[Drive], Awaitable[CopyWriter]]
Act = Callable[[str, CopyWriter], Awaitable[None]]
"""By the drive's name."""


class Upload:
    def __init__(self, cluster: Cluster, part: int, begin: Begin) -> None:
        self._cluster, self._part, self._begin = cluster, part, begin
        self._writers: dict[str, CopyWriter] = {}
        self._failed: list[CopyWriter] = []
        self._errors: list[OSError] = []

    async def open(self) -> None:
        """On as many drives as there are places.  Raise Unavailable without a quorum."""
        candidates = self._cluster.candidates(self._part)
        copies = self._cluster.copies(self._part)
        while candidates and len(self._writers) < copies:
            missing = copies - len(self._writers)
            batch, candidates = candidates[:missing], candidates[missing:]
            opened = await asyncio.gather(*(self._begin(drive) for drive in batch), return_exceptions=True)
            failure: BaseException | None = None
            for drive, writer in zip(batch, opened, strict=True):
                if isinstance(writer, OSError):
                    self._cluster.failed(drive, writer)
                    self._errors.append(writer)
                elif isinstance(writer, BaseException):
                    failure = writer
                else:
                    self._writers[drive.id] = writer
            if failure is not None:
                raise failure
        self._check()

    async def on_each(self, act: Act) -> None:
        """Raise Unavailable when fewer than a quorum are left."""
        names = list(self._writers)
        done = await asyncio.gather(*(act(name, self._writers[name]) for name in names), return_exceptions=True)
        for name, outcome in zip(names, done, strict=True):
            if isinstance(outcome, OSError):
                self._cluster.failed(self._cluster.drives[name], outcome)
                self._errors.append(outcome)
                self._failed.append(self._writers.pop(name))
            elif isinstance(outcome, BaseException):
                raise outcome
        self._check()

    async def commit(self, act: Act) -> None:
        """What is not where it belongs then is left to repair."""
        await self.on_each(act)
        if set(self._writers) != set(self._cluster.ring.primaries(self._part)):
            await self._cluster.short("objects", self._part, self._writers)

    async def close(self) -> None:
        """Leave nothing of what was not committed."""
        for writer in (*self._writers.values(), *self._failed):
            try:
                await writer.abort()
            except OSError:
                continue  # the drive clears it when it comes back

    def _check(self) -> None:
        if not self._cluster.is_enough(self._part, self._writers):
            needed = self._cluster.needed(self._part)
            raise too_few(f"{len(self._writers)} drives can take this object; {needed} are needed.", self._errors)

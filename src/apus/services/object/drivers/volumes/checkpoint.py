"""Writes the index to the drive now and then, so that little has to be read again after a crash."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from apus.kernel.log import get_logger
from apus.kernel.world import World
from apus.services.object.drivers.volumes.journal import Journal
from apus.services.object.drivers.volumes.large import LargeFiles
from apus.services.object.drivers.volumes.record import unpack
from apus.services.object.drivers.volumes.recovery import Manifest, save_manifest
from apus.services.object.model import CorruptCopy

RECENT_MAX: Final = 4096
"""Entries in memory: about half a KiB each."""

APPENDED_MAX: Final = 64 << 20
"""What is read again after a crash, at most: a fifth of a second's work."""

_log: Final = get_logger("apus.object.volumes")


class Checkpointer:
    def __init__(self, world: World, journal: Journal, large: LargeFiles) -> None:
        self._world, self._journal, self._large = world, journal, large
        self._running: asyncio.Task[None] | None = None
        self._saved_bytes = journal.volumes.appended_bytes

    def look(self) -> None:
        """After each commit."""
        if self._running is None and (self._due() or self._journal.ended_files):
            self._running = asyncio.create_task(self._run(), name="object-checkpoint")

    async def save(self) -> None:
        journal = self._journal
        index, volumes = journal.index, journal.volumes
        index.freeze()
        manifest = Manifest(
            runs=[],
            volumes={number: msgspec.structs.replace(usage) for number, usage in volumes.usage.items()},
            end=journal.end,
            nodes=[],
            part_power=index.part_power,
            parts=dict(index.parts),
            unlisted=dict(journal.unlisted),
        )
        appended = volumes.appended_bytes
        await index.flush()
        await self._save(manifest)
        self._saved_bytes = appended
        merged = await index.merge()
        if merged:
            await self._save(manifest)
            await index.forget(merged)

    async def settle(self) -> None:
        while self._running is not None:
            await asyncio.wait([self._running])

    async def close(self) -> None:
        """Let go of the files, when all that was begun has ended."""
        await self._journal.settle()
        await self.settle()
        await self._journal.volumes.close()
        await self._journal.index.close()

    async def _save(self, manifest: Manifest) -> None:
        index = self._journal.index
        runs, nodes = [run.path.name for run in index.runs], list(index.nodes.names)
        await save_manifest(
            self._world, self._journal.volumes.directory, msgspec.structs.replace(manifest, runs=runs, nodes=nodes)
        )

    def _due(self) -> bool:
        appended = self._journal.volumes.appended_bytes - self._saved_bytes
        return len(self._journal.index.recent) >= RECENT_MAX or appended >= APPENDED_MAX

    async def _run(self) -> None:
        try:
            await self._remove_ended()
            if self._due():
                await self.save()
        except OSError as error:  # all is as before; the next commit tries again
            _log.warning("checkpoint failed", path=str(self._journal.volumes.directory), error=str(error))
        finally:
            self._running = None

    async def _remove_ended(self) -> None:
        """Files of large objects that were replaced or deleted."""
        journal = self._journal
        while journal.ended_files:
            entry = journal.ended_files.pop()
            try:
                data = await journal.volumes.read(entry.volume, entry.offset, entry.head_bytes)
                path = unpack(data, journal.volumes.usage[entry.volume].marker).path
            except (CorruptCopy, KeyError):
                continue  # the sweep finds it
            await self._large.remove(path)

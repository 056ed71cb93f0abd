"""Drives of the layout before volumes, one file for each copy: `objects/PARTITION/HASH` and `HASH.meta`.

Each file gets a record that names it, and stays where it is.  A second start finds what a crash left undone.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.log import get_logger
from apus.kernel.world import World
from apus.services.object.drivers.trailer import FOOTER_BYTES, TAIL_BYTES, trailer_bytes, unseal
from apus.services.object.drivers.volumes.journal import Journal, Put
from apus.services.object.model import CorruptCopy, Head, Meta

ADOPTED: Final = "objects/adopted"
"""A file that says that this is done."""

_log: Final = get_logger("apus.object.volumes")


async def adopt_files(world: World, root: Path, journal: Journal) -> None:
    parts = [name for name in await world.disk.names(root / "objects") if name.isdigit()]
    if not parts or await world.disk.stat(root / ADOPTED) is not None:
        return
    _log.info("adopting files", path=str(root / "objects"))
    for part in parts:
        names = await world.disk.names(root / "objects" / part)
        wishes = [await _wish(world, root, f"objects/{part}/{name}") for name in names if len(name) == 32]
        await asyncio.gather(*(journal.submit(wish) for wish in wishes if wish is not None))
    await world.disk.write_synced(root / ADOPTED, b"")


async def _wish(world: World, root: Path, path: str) -> Put | None:
    try:
        head = await _head(world, root / path)
    except CorruptCopy as error:
        _log.warning("bad copy", path=path, error=str(error))
        return None
    return Put(bytes.fromhex(Path(path).name), head, b"", "" if head.gone else path)


async def _head(world: World, path: Path) -> Head:
    found = await world.disk.stat(path)
    size = found.size_bytes if found else 0
    tail = await world.disk.read(path, offset=max(0, size - TAIL_BYTES), length=TAIL_BYTES)
    length = trailer_bytes(tail)
    if FOOTER_BYTES + TAIL_BYTES < length <= size or len(tail) < length <= size:
        tail = await world.disk.read(path, offset=size - length, length=length)
    head = unseal(tail, size)
    try:
        data = await world.disk.read(path.with_name(f"{path.name}.meta"))
        meta = msgspec.json.decode(data, type=Meta)
    except (FileNotFoundError, msgspec.DecodeError):
        return head
    return msgspec.structs.replace(head, meta=meta) if meta.of == head.stamp and not head.gone else head

"""Makes the disks of a domain that are not there yet: overlays on cached bases, empty and swap disks.

A disk is made under another name and renamed when whole, so one that is there is complete.  Formats are always
said and never guessed: a guest may write a header of another format into its raw disk.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.errors import Invalid, Unavailable
from apus.kernel.world import World

from ..hypervisor import DiskSpec

QEMU_IMG_TIMEOUT_S: Final = 60.0


async def ensure_disk(world: World, disk: DiskSpec, path: Path) -> None:
    if await world.disk.stat(path) is None:
        if disk.backing_path is None and disk.size_bytes is None:
            raise Invalid("compute.no_disk", f"disk {disk.id}: {path.name} is not there", field="disks")
        await make(world, disk, path)
    elif disk.size_bytes is not None and not disk.read_only:
        await grow(world, disk, path)


async def make(world: World, disk: DiskSpec, path: Path) -> None:
    fresh = path.with_name(path.name + ".new")
    await world.disk.remove(fresh)
    await world.disk.make_directory(path.parent)
    argv = ["qemu-img", "create", "-q", "-f", disk.format]
    if disk.backing_path is not None:
        if disk.backing_format is None or disk.format != "qcow2":
            raise Invalid("compute.disk_format", f"disk {disk.id}: an overlay is qcow2 and names its base's format",
                          field="backing_format")  # fmt: skip
        argv += ["-b", disk.backing_path, "-F", disk.backing_format]
    argv.append(str(fresh))
    if disk.size_bytes is not None:
        size = disk.size_bytes
        if disk.backing_path is not None and disk.backing_format is not None:
            # Smaller than its base it would lose the end of it.
            size = max(size, await virtual_size(world, Path(disk.backing_path), disk.backing_format))
        argv.append(str(size))
    await run(world, argv)
    if disk.kind == "swap":
        await run(world, ["mkswap", str(fresh)])
    elif disk.kind == "ephemeral" and disk.format == "raw":
        await run(world, ["mke2fs", "-q", "-F", "-t", "ext4", "-L", disk.id[:16], str(fresh)])
    await world.disk.rename_synced(fresh, path)


async def grow(world: World, disk: DiskSpec, path: Path) -> None:
    assert disk.size_bytes is not None
    if await virtual_size(world, path, disk.format) < disk.size_bytes:
        await run(world, ["qemu-img", "resize", "-q", "-f", disk.format, str(path), str(disk.size_bytes)])


async def virtual_size(world: World, path: Path, format: str) -> int:
    """From the file itself: a raw disk is as long as its file, a qcow2 says it in its header (bytes 24 to 31)."""
    if format == "qcow2":
        head = await world.disk.read(path, length=32)
        if len(head) < 32 or head[:4] != b"QFI\xfb":
            raise Invalid("compute.disk_format", f"{path.name} is no qcow2 file", field="backing_format")
        return int.from_bytes(head[24:32], "big")
    found = await world.disk.stat(path)
    if found is None:
        raise Unavailable("compute.no_disk", f"{path.name} is not there")
    return found.size_bytes


async def info(world: World, path: Path, format: str) -> dict[str, object]:
    done = await run(world, ["qemu-img", "info", "-U", "-f", format, "--output=json", str(path)])
    return msgspec.json.decode(done, type=dict[str, object])


async def run(world: World, argv: list[str]) -> bytes:
    try:
        done = await world.run.run(argv, timeout_s=QEMU_IMG_TIMEOUT_S)
    except FileNotFoundError:
        raise Unavailable("compute.no_program", f"{argv[0]} is not installed on this host") from None
    except TimeoutError:
        raise Unavailable("compute.disk_slow", f"{argv[0]} did not end within {QEMU_IMG_TIMEOUT_S:g} s") from None
    if done.exit_code != 0:
        said = done.stderr.decode(errors="replace")[-2000:]
        if os.strerror(errno.ENOSPC) in said:
            raise Unavailable("compute.disk_full", "the disk of the host is full", hidden=said)
        raise Unavailable("compute.disk_failed", f"{argv[0]} {argv[1]} failed", hidden=said)
    return done.stdout

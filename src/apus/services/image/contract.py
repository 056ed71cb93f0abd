"""Images, as others see them: what a server can boot from, and its bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

from apus.kernel.buffers import Chunk
from apus.kernel.caller import Caller


class BootImage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An active image that passed inspection."""

    id: str
    name: str
    disk_format: str
    """raw, qcow2, iso, ami, aki, ari, …, as inspected, never as merely claimed."""
    container_format: str
    size_bytes: int
    virtual_size_bytes: int
    checksum_sha512: str
    min_disk_gib: int = 0
    min_memory_mib: int = 0
    properties: dict[str, str] = {}
    """kernel_id, ramdisk_id, hw_*, os_*, … as the user set them."""
    owner_project_id: str | None = None


class ImageService(Protocol):
    async def boot_image(self, caller: Caller, image_id: str) -> BootImage:
        """Raise NotFound (or not visible to the caller), Conflict when it is not active or not bootable."""
        ...

    def read(self, image_id: str, *, offset: int = 0) -> AsyncIterator[Chunk]:
        """Its bytes, for hosts.  Raise NotFound, Unavailable."""
        ...


class ImageUses(Protocol):
    """Asked before an image is deleted: does anything depend on its data being here?"""

    async def image_in_use(self, image_id: str) -> bool: ...

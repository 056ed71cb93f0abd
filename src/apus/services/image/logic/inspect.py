"""Looks at an image's bytes as they pass and says what they are, before QEMU ever opens them.

QEMU follows names that it finds in images: a backing file, an external data file, an extent.  An image that names
another file would let a tenant read the host's disk, so such an image never gets in.  The inspector is fed chunks of
any size, keeps the head, the tail and at most one region in between, and never needs the whole.
Sources: the published format descriptions of qcow2 (QEMU docs/interop), VMDK 5.0, VHD 1.0, VHDX 1.0, ECMA-119, UEFI.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from apus.services.image.logic import sparse

HEAD_BYTES: Final = 512 * 1024
"""Holds every header that we read: the last is VHDX's region table at 192 KiB; VMDK descriptors begin in it."""

TAIL_BYTES: Final = 1536
"""VHD's footer (512) and VMDK's end: footer marker, footer, end-of-stream marker (512 each)."""

REGION_BYTES: Final = 128 * 1024
"""VHDX: the metadata table (64 KiB) and its items, which follow it."""

VIRTUAL_SIZE_MAX_BYTES: Final = 1 << 50
"""A pebibyte; a header that claims more is a mistake or an attack on whoever allocates for it."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What the bytes are."""

    format: str
    """raw (nothing else recognised), qcow2, vmdk, vdi, vhd, vhdx, iso, gpt, mbr, qed."""
    also: tuple[str, ...] = ()
    """Further formats whose mark it bears: hybrid ISO images bear a partition table."""
    size_bytes: int
    virtual_size_bytes: int
    problem: str | None = None
    """Why it must not be opened."""


class Inspector:
    """Feed it all bytes in order, then ask."""

    def __init__(self) -> None:
        self._head, self._tail, self._region = bytearray(), b"", bytearray()
        self._size = 0
        self._region_at: int | None = None

    def feed(self, chunk: bytes) -> None:
        began = self._size
        self._size += len(chunk)
        missing = HEAD_BYTES - len(self._head)
        if missing > 0:
            self._head += chunk[:missing]
            if len(self._head) == HEAD_BYTES and self._head.startswith(b"vhdxfile"):
                self._region_at = sparse.vhdx_metadata_offset(self._head)
        if self._region_at is not None:
            at = self._region_at + len(self._region) - began
            room = REGION_BYTES - len(self._region)
            if 0 <= at < len(chunk) and room > 0:
                self._region += chunk[at : at + room]
        self._tail = (self._tail + chunk)[-TAIL_BYTES:] if len(chunk) < TAIL_BYTES else chunk[-TAIL_BYTES:]

    def finding(self) -> Finding:
        """What was fed until now; raises nothing, whatever it was fed."""
        found = formats_of(bytes(self._head), self._tail)
        if not found:
            return self._found("raw")
        hybrid = "iso" in found and set(found) <= {"iso", "gpt", "mbr"}
        if len(found) > 1 and not hybrid:
            return self._found(found[0], tuple(found[1:]), problem=f"it looks like several formats: {', '.join(found)}")
        name = found[0]
        if name in ("iso", "gpt", "mbr"):
            return self._found(name, tuple(found[1:]))
        data = sparse.Seen(bytes(self._head), self._tail, bytes(self._region), self._region_at, self._size)
        try:
            virtual_size, problem = sparse.READERS[name](data)
        except (struct.error, IndexError, ValueError):
            virtual_size, problem = 0, f"its {name} header is cut short or malformed"
        if problem is None and not 0 < virtual_size <= VIRTUAL_SIZE_MAX_BYTES:
            problem = f"its virtual size of {virtual_size} bytes is not between 1 byte and 1 PiB"
        return self._found(name, virtual_size=virtual_size, problem=problem)

    def _found(
        self, name: str, also: tuple[str, ...] = (), *, virtual_size: int | None = None, problem: str | None = None
    ) -> Finding:
        return Finding(
            format=name,
            also=also,
            size_bytes=self._size,
            virtual_size_bytes=self._size if virtual_size is None else virtual_size,
            problem=problem,
        )


_ISO_AT: Final = 32 * 1024
_MAGIC: Final = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "qed"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vhd"),
    (0x40, b"\x7f\x10\xda\xbe", "vdi"),
    (_ISO_AT + 1, b"CD001", "iso"),
)


def formats_of(head: bytes, tail: bytes) -> list[str]:
    """Every format whose mark is there, the most telling first."""
    found = [name for at, magic, name in _MAGIC if head[at : at + len(magic)] == magic]
    if head[:512].lstrip()[:21].lower() == b"# disk descriptorfile":
        found.append("vmdk")
    if tail[-512:].startswith(b"conectix") and "vhd" not in found:
        found.append("vhd")
    if head[512:520] == b"EFI PART":
        found.append("gpt")
    elif head[510:512] == b"\x55\xaa" and _has_partition(head):
        found.append("mbr")
    return found


def _has_partition(head: bytes) -> bool:
    """A boot signature alone is also on a FAT file system's first sector."""
    entries = [head[at : at + 16] for at in range(446, 510, 16)]
    flags_fit = all(entry[0] in (0x00, 0x80) for entry in entries)
    return flags_fit and any(entry[4] != 0 and entry[12:16] != b"\0\0\0\0" for entry in entries)


_DISKS: Final = frozenset({"raw", "gpt", "mbr"})
ACCEPTED: Final = {
    "raw": _DISKS,
    "ami": _DISKS,
    "aki": frozenset({"raw"}),
    "ari": frozenset({"raw"}),
    "iso": frozenset({"iso"}),
    "qcow2": frozenset({"qcow2"}),
    "vmdk": frozenset({"vmdk"}),
    "vdi": frozenset({"vdi"}),
    "vhd": frozenset({"vhd"}),
    "vhdx": frozenset({"vhdx"}),
}
"""Declared format -> what the bytes may be found to be."""

INSPECTED_CONTAINERS: Final = frozenset({"bare", "ami", "aki", "ari"})
"""In the others (ova, docker, …) the disk is wrapped, and no server boots from them."""


def refusal(declared: str, container: str, finding: Finding, *, min_disk_gib: int = 0) -> str | None:
    """Why these bytes are not what was declared; None when all is well."""
    if container not in INSPECTED_CONTAINERS:
        return None
    shown = "/".join((finding.format, *finding.also))
    if finding.problem is not None:
        return f"The data was found to be {shown} and is refused: {finding.problem}."
    marks = {finding.format, *finding.also}
    hybrid_as_disk = declared == "raw" and finding.format == "iso" and bool(finding.also)
    if not (marks & ACCEPTED[declared]) and not hybrid_as_disk:
        return f"disk_format is declared as {declared}, but the data was found to be {shown}."
    if min_disk_gib and finding.virtual_size_bytes > min_disk_gib << 30:
        return (
            f"min_disk is declared as {min_disk_gib} GiB, but the disk inside is {finding.virtual_size_bytes} bytes; "
            f"it needs min_disk {-(-finding.virtual_size_bytes >> 30)} or more."
        )
    return None

"""Reads the headers of the disk formats that carry a virtual size, and refuses all that reach outside themselves.

Each reader gives (virtual size, problem).  It may raise struct.error, IndexError or ValueError on nonsense: the
inspector makes a refusal of it.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from collections.abc import Callable, Mapping
from typing import Final
from uuid import UUID

Read = tuple[int, str | None]


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """What was kept of the bytes."""

    head: bytes
    tail: bytes
    region: bytes
    region_at: int | None
    size: int


# ---------------------------------------------------------------------------------------------------------- qcow2
_QCOW2_DIRTY, _QCOW2_CORRUPT, _QCOW2_DATA_FILE, _QCOW2_COMPRESSION, _QCOW2_EXTENDED_L2 = (1 << bit for bit in range(5))
_QCOW2_KNOWN: Final = _QCOW2_DIRTY | _QCOW2_COMPRESSION | _QCOW2_EXTENDED_L2
_EXT_END, _EXT_DATA_FILE, _EXT_ENCRYPTION = 0, 0x44415441, 0x0537BE77


def read_qcow2(seen: Seen) -> Read:
    head = seen.head
    version, backing_at, backing_length, cluster_bits, size, crypt, l1_entries, l1_at = struct.unpack_from(
        ">IQIIQIIQ", head, 4
    )
    if version not in (2, 3):
        return size, f"qcow2 version {version} is not one of 2, 3"
    if backing_at or backing_length:
        return size, "it has a backing file"
    if crypt:
        return size, "it is encrypted, and no host could open it"
    if not 9 <= cluster_bits <= 21:
        return size, f"a cluster size of 2^{cluster_bits} bytes is not possible"
    header_length = 72
    if version == 3:
        incompatible, header_length = struct.unpack_from(">Q", head, 72)[0], struct.unpack_from(">I", head, 100)[0]
        if incompatible & _QCOW2_DATA_FILE:
            return size, "it has an external data file"
        if incompatible & _QCOW2_CORRUPT:
            return size, "it is marked as corrupt"
        if incompatible & ~_QCOW2_KNOWN:
            return size, f"it needs features that are not known (incompatible bits {incompatible:#x})"
        if header_length < 104 or header_length > 1 << cluster_bits or header_length % 8:
            return size, f"a header of {header_length} bytes is not possible"
    if l1_at % 512 or l1_at + l1_entries * 8 > seen.size:
        return size, "it is cut short: its first-level table lies beyond its end"
    return size, _qcow2_extensions(head, header_length, 1 << cluster_bits)


def _qcow2_extensions(head: bytes, at: int, cluster_bytes: int) -> str | None:
    end = min(cluster_bytes, len(head))
    while at + 8 <= end:
        kind, length = struct.unpack_from(">II", head, at)
        if kind == _EXT_END:
            return None
        if kind == _EXT_DATA_FILE:
            return "it has an external data file"
        if kind == _EXT_ENCRYPTION:
            return "it is encrypted, and no host could open it"
        at += 8 + -(-length // 8) * 8
    return None if at <= end else "its header extensions do not end"


# ----------------------------------------------------------------------------------------------------------- vmdk
_VMDK_SUBFORMATS: Final = ("monolithicSparse", "streamOptimized")
_DESCRIPTOR_MAX_BYTES: Final = 64 * 1024
_GD_AT_END: Final = (1 << 64) - 1
_EXTENT: Final = re.compile(r'(RW|RDONLY|NOACCESS)\s+(\d+)\s+(\S+)(?:\s+"([^"]*)")?(?:\s+\d+)?', re.ASCII)


def read_vmdk(seen: Seen) -> Read:
    head = seen.head
    if not head.startswith(b"KDMV"):
        return 0, "only monolithicSparse and streamOptimized VMDK are taken; this one keeps its data in other files"
    version, _flags, capacity, _grain, descriptor_at, descriptor_sectors = struct.unpack_from("<IIQQQQ", head, 4)
    (directory_at,) = struct.unpack_from("<Q", head, 56)
    size = capacity * 512
    if version not in (1, 2, 3):
        return size, f"VMDK version {version} is not one of 1, 2, 3"
    if not capacity:
        return size, "it has no capacity: its data is in other files"
    begin, length = descriptor_at * 512, descriptor_sectors * 512
    if not (begin >= 512 and 0 < length <= _DESCRIPTOR_MAX_BYTES and begin + length <= len(head)):
        return size, "its descriptor is missing or not at its usual place"
    if directory_at == _GD_AT_END and (problem := _vmdk_footer(seen, capacity, descriptor_at, descriptor_sectors)):
        return size, problem
    return size, _vmdk_descriptor(head[begin : begin + length], capacity)


def _vmdk_footer(seen: Seen, capacity: int, descriptor_at: int, descriptor_sectors: int) -> str | None:
    """Hosts read the footer instead of the header: it must say the same."""
    footer = seen.tail[-1024:-512]
    if len(seen.tail) < 1536 or not footer.startswith(b"KDMV"):
        return "its footer is missing: it is cut short"
    found = struct.unpack_from("<QQQQ", footer, 12)
    if (found[0], found[2], found[3]) != (capacity, descriptor_at, descriptor_sectors):
        return "its footer contradicts its header"
    if struct.unpack_from("<Q", footer, 56)[0] == _GD_AT_END:
        return "its footer points to a further footer"
    return None


def _vmdk_descriptor(raw: bytes, capacity: int) -> str | None:
    try:
        text = raw.split(b"\0", 1)[0].decode("ascii")
    except UnicodeDecodeError:
        return "its descriptor is not text"
    subformat, extents = None, []
    for line in text.splitlines():
        line = line.strip()
        name, is_setting, value = line.partition("=")
        if not line or line.startswith("#"):
            continue
        if is_setting and '"' not in name:
            name, value = name.strip(), value.strip().strip('"')
            if name == "createType":
                if subformat is not None:
                    return "its descriptor names its type twice"
                subformat = value
            if name.startswith("parent") and name != "parentCID":
                return "it has a parent"
            if name == "parentCID" and value.lower() != "ffffffff":
                return "it has a parent"
            continue
        extent = _EXTENT.fullmatch(line)
        if extent is None:
            return "its descriptor holds a line that is neither a setting nor an extent"
        extents.append(extent)
    if subformat not in _VMDK_SUBFORMATS:
        return f"its type is {subformat or 'not given'}; possible: {', '.join(_VMDK_SUBFORMATS)}"
    if len(extents) != 1:
        return f"it has {len(extents)} extents where there is exactly one: itself"
    _access, sectors, kind, name = extents[0].groups()
    if kind != "SPARSE" or "/" in (name or "") or "\\" in (name or ""):
        return "its extent names another file"
    return None if int(sectors) == capacity else "its extent and its header differ in size"


# ------------------------------------------------------------------------------------------------------------ vdi
def read_vdi(seen: Seen) -> Read:
    head = seen.head
    (version,) = struct.unpack_from("<I", head, 0x44)
    (kind,) = struct.unpack_from("<I", head, 0x4C)
    (size,) = struct.unpack_from("<Q", head, 0x170)
    if version != 0x00010001:
        return size, f"VDI version {version >> 16}.{version & 0xFFFF} is not 1.1"
    if kind not in (1, 2):
        return size, "it is a differencing VDI: it has a parent"
    if any(head[0x1A8:0x1C8]):
        return size, "it is linked to another VDI"
    return size, None


# ------------------------------------------------------------------------------------------------------------ vhd
def read_vhd(seen: Seen) -> Read:
    at_head = seen.head.startswith(b"conectix")
    footer = seen.head[:512] if at_head else seen.tail[-512:]
    (version,) = struct.unpack_from(">I", footer, 12)
    (size,) = struct.unpack_from(">Q", footer, 48)
    (kind,) = struct.unpack_from(">I", footer, 60)
    if version >> 16 != 1:
        return size, f"VHD version {version >> 16} is not 1"
    if kind == 4:
        return size, "it is a differencing VHD: it has a parent"
    if kind not in (2, 3) or (kind == 3) != at_head:
        return size, "it is neither a fixed nor a dynamic VHD"
    if at_head and not seen.tail[-512:].startswith(b"conectix"):
        return size, "its footer is missing: it is cut short"
    if at_head and seen.tail[-512:] != footer:
        return size, "its footer contradicts its header"
    if kind == 2 and size > seen.size - 512:
        return size, "it is cut short: it declares more than it holds"
    return size, None


# ----------------------------------------------------------------------------------------------------------- vhdx
_REGIONS_AT: Final = 192 * 1024
_METADATA: Final = UUID("8b7ca206-4790-4b9a-b8fe-575f050f886e").bytes_le
_FILE_PARAMETERS: Final = UUID("caa16737-fa36-4d43-b3b6-33f0aa44e76b").bytes_le
_VIRTUAL_SIZE: Final = UUID("2fa54224-cd1b-4876-b211-5dbed83bf4b8").bytes_le
_PARENT_LOCATOR: Final = UUID("a8d35f2d-b30b-454d-abf7-d3d84834ab0c").bytes_le
_ENTRIES_MAX: Final = 2047


def vhdx_metadata_offset(head: bytes | bytearray) -> int | None:
    """Where the metadata region begins; None when there is none that could be read."""
    if head[_REGIONS_AT : _REGIONS_AT + 4] != b"regi" or len(head) < _REGIONS_AT + 64 * 1024:
        return None
    (count,) = struct.unpack_from("<I", head, _REGIONS_AT + 8)
    for index in range(min(count, _ENTRIES_MAX)):
        at = _REGIONS_AT + 16 + index * 32
        if head[at : at + 16] == _METADATA:
            (offset,) = struct.unpack_from("<Q", head, at + 16)
            return int(offset) if offset >= 1 << 20 else None
    return None


def read_vhdx(seen: Seen) -> Read:
    if seen.region_at is None:
        return 0, "its metadata region is missing or not at a possible place"
    table = seen.region
    if table[:8] != b"metadata":
        return 0, "its metadata region holds no metadata, or lies beyond its end"
    (count,) = struct.unpack_from("<H", table, 10)
    items: dict[bytes, int] = {}
    for index in range(min(count, (len(table) - 32) // 32)):
        at = 32 + index * 32
        items[table[at : at + 16]] = struct.unpack_from("<I", table, at + 16)[0]
    # The items lie beyond the table's 64 KiB: hosts find them by these offsets, and so does Inspector's region.
    if _PARENT_LOCATOR in items:
        return 0, "it has a parent"
    if _FILE_PARAMETERS not in items or _VIRTUAL_SIZE not in items:
        return 0, "its metadata is incomplete"
    (flags,) = struct.unpack_from("<I", table, items[_FILE_PARAMETERS] + 4)
    (size,) = struct.unpack_from("<Q", table, items[_VIRTUAL_SIZE])
    return size, "it has a parent" if flags & 2 else None


def read_qed(seen: Seen) -> Read:
    return 0, "QED is not a format that servers boot from"


READERS: Final[Mapping[str, Callable[[Seen], Read]]] = {
    "qcow2": read_qcow2,
    "vmdk": read_vmdk,
    "vdi": read_vdi,
    "vhd": read_vhd,
    "vhdx": read_vhdx,
    "qed": read_qed,
}

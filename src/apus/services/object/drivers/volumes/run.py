"""Runs: entries of the key index on the drive, sorted by hash, never changed.

    pages of 64 entries | first key of each page | CRC-32 of each page | Bloom filter | footer

The part behind the pages is kept in memory: about two bytes for each entry.  A look-up is then one read of a page, and
none at all for nearly every hash that is not there.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from apus.kernel.world import Disk, OpenFile
from apus.services.object.logic.merge import make_stamp, ticks_of
from apus.services.object.model import DriveTrouble

ENTRY: Final = struct.Struct("<16sQQIIIIHHH2x")
ENTRY_BYTES: Final = ENTRY.size
PAGE_ENTRIES: Final = 64
PAGE_BYTES: Final = PAGE_ENTRIES * ENTRY_BYTES
IN_FILE: Final = 1
"""Flag: the bytes are in a file of their own."""
ABSENT: Final = 2
"""Flag: what older runs say of this hash no longer holds."""

_FOOTER: Final = struct.Struct("<8sQQI")
_MAGIC: Final = b"apusrun1"
_BLOOM_BITS: Final = 10
BLOOM_PROBES: Final = 6
_MASK: Final = (1 << 64) - 1
_NO_NODE: Final = 0xFFFF


class IndexDamaged(DriveTrouble):
    """The index is not what was written: it has to be made again from the volumes."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """Where a version is: its record's volume, offset and length, and how much of that is before its data."""

    volume: int
    offset: int
    length: int
    head_bytes: int
    stamp: str
    told: str
    flags: int = 0

    @property
    def version(self) -> tuple[str, str]:
        return self.stamp, self.told

    @property
    def in_file(self) -> bool:
        return bool(self.flags & IN_FILE)


class Cold:
    """Stands for an answer that has to be read from the drive first."""


COLD: Final = Cold()


class Nodes:
    """Names of nodes as numbers, for stamps of a fixed size."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names = list(names)
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def number(self, name: str) -> int:
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self.names)
            self.names.append(name)
            assert number < _NO_NODE
        return number

    def split(self, stamp: str) -> tuple[int, int]:
        return (ticks_of(stamp), self.number(stamp[17:])) if stamp else (0, _NO_NODE)

    def stamp(self, ticks: int, node: int) -> str:
        return "" if node == _NO_NODE else make_stamp(ticks, self.names[node])


def pack_entry(nodes: Nodes, path_hash: bytes, entry: Entry | None) -> bytes:
    if entry is None:
        return ENTRY.pack(path_hash, 0, 0, 0, 0, 0, 0, _NO_NODE, _NO_NODE, ABSENT)
    ticks, node = nodes.split(entry.stamp)
    told_ticks, told_node = nodes.split(entry.told)
    return ENTRY.pack(
        path_hash, ticks, told_ticks, entry.volume, entry.offset, entry.length, entry.head_bytes, node, told_node,
        entry.flags,
    )  # fmt: skip


def unpack_entry(nodes: Nodes, data: bytes | memoryview) -> tuple[bytes, Entry | None]:
    path_hash, ticks, told_ticks, volume, offset, length, head_bytes, node, told_node, flags = ENTRY.unpack(data)
    if flags & ABSENT:
        return path_hash, None
    stamp, told = nodes.stamp(ticks, node), nodes.stamp(told_ticks, told_node)
    return path_hash, Entry(volume, offset, length, head_bytes, stamp, told, flags)


class Run:
    """One run, open."""

    def __init__(self, path: Path, file: OpenFile, nodes: Nodes, count: int, bloom: bytes, tail: bytes) -> None:
        self.path, self.count = path, count
        self._file, self._nodes, self._bloom = file, nodes, bloom
        pages = pages_of(count)
        self.first_keys = array("Q", tail[: 8 * pages])
        self._crcs = array("I", tail[8 * pages : 12 * pages])

    def find_cached(self, path_hash: bytes) -> Entry | Cold | None:
        page = self._page(path_hash)
        if page < 0:
            return None
        data = self._file.read_cached(page * PAGE_BYTES, self._page_bytes(page))
        return COLD if data is None else self._in(page, data, path_hash)

    async def find(self, path_hash: bytes) -> Entry | None:
        page = self._page(path_hash)
        if page < 0:
            return None
        return self._in(page, await self._file.read(page * PAGE_BYTES, self._page_bytes(page)), path_hash)

    def says(self, path_hash: bytes) -> bool:
        """Whether this may have an entry of the hash: nearly always right."""
        bloom, bits = self._bloom, len(self._bloom) * 8
        at, step = int.from_bytes(path_hash[:8], "big"), int.from_bytes(path_hash[8:], "big") | 1
        for _ in range(BLOOM_PROBES):
            place = at % bits
            if not bloom[place >> 3] & (1 << (place & 7)):
                return False
            at = (at + step) & _MASK
        return True

    async def between(self, low: int, high: int) -> bytes:
        """Entries whose first eight bytes are at least `low` and below `high`, in order."""
        first = max(0, bisect_right(self.first_keys, low) - 1)
        while first and self.first_keys[first] == low:  # the page before may end with the same key
            first -= 1
        last = bisect_left(self.first_keys, high)
        if last <= first:
            return b""
        size = min(last * PAGE_BYTES, self.count * ENTRY_BYTES) - first * PAGE_BYTES
        data = await self._file.read(first * PAGE_BYTES, size)
        for page in range(first, last):
            at = (page - first) * PAGE_BYTES
            self._verify(page, data[at : at + PAGE_BYTES])
        return data[_entries_below(data, low) * ENTRY_BYTES : _entries_below(data, high) * ENTRY_BYTES]

    async def close(self) -> None:
        await self._file.close()

    def _page(self, path_hash: bytes) -> int:
        if not self.says(path_hash):
            return -1
        return bisect_right(self.first_keys, int.from_bytes(path_hash[:8], "big")) - 1

    def _page_bytes(self, page: int) -> int:
        return min(PAGE_BYTES, self.count * ENTRY_BYTES - page * PAGE_BYTES)

    def _verify(self, page: int, data: bytes) -> None:
        if len(data) != self._page_bytes(page) or zlib.crc32(data) != self._crcs[page]:
            raise IndexDamaged(f"page {page} of {self.path.name} does not match its checksum")

    def _in(self, page: int, data: bytes, path_hash: bytes) -> Entry | None:
        self._verify(page, data)
        at = data.find(path_hash)
        while at >= 0 and at % ENTRY_BYTES:
            at = data.find(path_hash, at + 1)
        if at < 0:
            return None
        entry = unpack_entry(self._nodes, data[at : at + ENTRY_BYTES])[1]
        return entry if entry is not None else ABSENT_ENTRY


ABSENT_ENTRY: Final = Entry(0, 0, 0, 0, "", "", ABSENT)


async def open_run(disk: Disk, path: Path, nodes: Nodes) -> Run:
    """Raise IndexDamaged unless its end is whole; pages are checked when they are read."""
    file = await disk.open(path)
    size = file.size_bytes
    footer = await file.read(max(0, size - _FOOTER.size), _FOOTER.size)
    if len(footer) < _FOOTER.size:
        raise IndexDamaged(f"{path.name} has no footer")
    magic, count, bloom_bytes, crc = _FOOTER.unpack(footer)
    tail_bytes = 12 * pages_of(count) + bloom_bytes
    if magic != _MAGIC or count * ENTRY_BYTES + tail_bytes + _FOOTER.size != size:
        raise IndexDamaged(f"the footer of {path.name} is damaged")
    tail = await file.read(count * ENTRY_BYTES, tail_bytes)
    if zlib.crc32(tail) != crc:
        raise IndexDamaged(f"the end of {path.name} does not match its checksum")
    return Run(path, file, nodes, count, tail[12 * pages_of(count) :], tail)


def pages_of(count: int) -> int:
    return -(-count // PAGE_ENTRIES)


class RunBuilder:
    """Takes sorted entries piece by piece and makes a run of them."""

    def __init__(self, count_max: int) -> None:
        self.bloom = bytearray(max(8, -(-count_max * _BLOOM_BITS // 8)))
        self._first_keys, self._crcs = array("Q"), array("I")
        self._rest = b""
        self._count = 0

    def take(self, nodes: Nodes, entries: Iterable[tuple[bytes, Entry | None]]) -> bytes:
        """What is to be written for these, of which the filter says that they may be there."""
        bloom, bits, packed = self.bloom, len(self.bloom) * 8, []
        for path_hash, entry in entries:
            at, step = int.from_bytes(path_hash[:8], "big"), int.from_bytes(path_hash[8:], "big") | 1
            for _ in range(BLOOM_PROBES):  # as `Run.says`
                place = at % bits
                bloom[place >> 3] |= 1 << (place & 7)
                at = (at + step) & _MASK
            packed.append(pack_entry(nodes, path_hash, entry))
        return self.add(b"".join(packed))

    def add(self, entries: bytes) -> bytes:
        """What is to be written for these: whole pages.  Whoever calls this marks the filter."""
        self._count += len(entries) // ENTRY_BYTES
        data = self._rest + entries
        whole = len(data) - len(data) % PAGE_BYTES
        self._rest = data[whole:]
        for at in range(0, whole, PAGE_BYTES):
            self._page(data[at : at + PAGE_BYTES])
        return data[:whole]

    def end(self) -> bytes:
        rest = self._rest
        if rest:
            self._page(rest)
        tail = self._first_keys.tobytes() + self._crcs.tobytes() + self.bloom
        return rest + tail + _FOOTER.pack(_MAGIC, self._count, len(self.bloom), zlib.crc32(tail))

    def _page(self, page: bytes) -> None:
        self._first_keys.append(int.from_bytes(page[:8], "big"))
        self._crcs.append(zlib.crc32(page))


def _entries_below(data: bytes, key: int) -> int:
    """How many of the sorted entries begin with less than this."""
    low, high = 0, len(data) // ENTRY_BYTES
    while low < high:
        middle = (low + high) // 2
        if int.from_bytes(data[middle * ENTRY_BYTES : middle * ENTRY_BYTES + 8], "big") < key:
            low = middle + 1
        else:
            high = middle
    return low

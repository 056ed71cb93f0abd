"""Tar archives as they come: each regular file with its bytes, whatever the archive's size.

The headers themselves are read by the standard library; this finds them in a stream that is cut anywhere.
"""

from __future__ import annotations

import bz2
import dataclasses
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Final

from apus.kernel.errors import Invalid

BLOCK: Final = tarfile.BLOCKSIZE
LONG_MAX_BYTES: Final = 1 << 20
"""Of a long name or of extended headers."""

PIECE_BYTES: Final = 1 << 18
"""What is unpacked at once, so that a small body cannot fill the memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """A file, of which so many bytes follow; or a directory."""

    name: str
    size_bytes: int
    is_directory: bool
    pax: Mapping[str, str]


class EntryEnd:
    """The file is whole."""


Event = Entry | EntryEnd | bytes


class TarParser:
    """Give it bytes, take events.  Raise Invalid for what is no archive."""

    def __init__(self) -> None:
        self._held = b""
        self._left = 0
        """Bytes of the current file that are still to come."""
        self._skip = 0
        self._in_file = False
        self._long: tuple[bytes, int] | None = None
        """(type, size) of an entry that says something about the next."""
        self._name = ""
        self._pax: dict[str, str] = {}
        self._globals: dict[str, str] = {}
        self.ended = False

    def feed(self, data: bytes) -> Iterator[Event]:
        self._held += data
        while not self.ended:
            if self._in_file:
                piece, self._held = self._held[: self._left], self._held[self._left :]
                self._left -= len(piece)
                if piece:
                    yield piece
                if self._left:
                    return
                self._in_file = False
                yield EntryEnd()
            if self._skip:
                gone = min(self._skip, len(self._held))
                self._held, self._skip = self._held[gone:], self._skip - gone
                if self._skip:
                    return
            if self._long is not None:
                if len(self._held) < self._long[1]:
                    return
                self._understand()
            elif len(self._held) < BLOCK:
                return
            else:
                yield from self._header()
        self._held = b""

    def finish(self) -> None:
        """Raise Invalid when something is missing.  The two empty blocks at the end may be."""
        if self._in_file or self._skip >= BLOCK or self._long is not None or self._held:
            raise Invalid("object.archive", "Invalid Tar File: unexpected end of data")

    def _header(self) -> Iterator[Event]:
        block, self._held = self._held[:BLOCK], self._held[BLOCK:]
        if not block.strip(b"\0"):
            self.ended = True
            return
        try:
            info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            raise Invalid("object.archive", f"Invalid Tar File: {error}") from error
        if info.size < 0 or info.type == tarfile.GNUTYPE_SPARSE:
            raise Invalid("object.archive", "Invalid Tar File: a negative size, or a file with holes")
        padding = -info.size % BLOCK
        if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE):
            if info.size > LONG_MAX_BYTES:
                raise Invalid("object.archive", "Invalid Tar File: its headers are too long")
            self._long = info.type, info.size
            return
        pax, name = {**self._globals, **self._pax}, self._name or info.name
        self._name, self._pax = "", {}
        size = pax.get("size", "")
        if size.isascii() and size.isdigit() and len(size) < 19:
            info.size, padding = int(size), -int(size) % BLOCK
        name = pax.get("path", name)
        if info.isdir():
            yield Entry(name, 0, True, pax)
            self._skip = info.size + padding
        elif info.isreg():
            yield Entry(name, info.size, False, pax)
            self._in_file, self._left, self._skip = True, info.size, padding
        else:
            self._skip = info.size + padding if info.type not in tarfile.SUPPORTED_TYPES else 0

    def _understand(self) -> None:
        assert self._long is not None
        kind, size = self._long
        data, self._held = self._held[:size], self._held[size:]
        self._long, self._skip = None, -size % BLOCK
        if kind == tarfile.GNUTYPE_LONGNAME:
            self._name = data.split(b"\0")[0].decode("utf-8", "surrogateescape")
        elif kind == tarfile.XHDTYPE:
            self._pax = _records(data)
        elif kind == tarfile.XGLTYPE:
            self._globals |= _records(data)


def _records(data: bytes) -> dict[str, str]:
    """`LENGTH KEY=VALUE\\n`, one behind the other."""
    found: dict[str, str] = {}
    while data:
        length, space, _ = data[:20].partition(b" ")
        if not space or not length.isdigit() or not len(length) + 1 < int(length) <= len(data):
            raise Invalid("object.archive", "Invalid Tar File: its extended headers cannot be read")
        key, equals, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        if equals:
            found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        data = data[int(length) :]
    return found


class Unpacker:
    """Bytes of `tar`, `tar.gz` or `tar.bz2` as those of a tar, in pieces of a bounded size."""

    def __init__(self, form: str) -> None:
        self._form = form
        self._zlib, self._bz2 = zlib.decompressobj(31), bz2.BZ2Decompressor()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._form == "tar":
            yield data
            return
        try:
            yield from self._gunzip(data) if self._form == "tar.gz" else self._bunzip(data)
        except (zlib.error, OSError, EOFError, ValueError) as error:
            raise Invalid("object.archive", f"Invalid Tar File: {error}") from error

    def finish(self) -> None:
        whole = self._form == "tar" or (self._zlib.eof if self._form == "tar.gz" else self._bz2.eof)
        if not whole and self._begun:
            raise Invalid("object.archive", "Invalid Tar File: the compressed data end early")

    def _gunzip(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._zlib.eof:  # another member follows the last
                self._zlib = zlib.decompressobj(31)
            self._begun = True
            yield self._zlib.decompress(data, PIECE_BYTES)
            data = self._zlib.unconsumed_tail or self._zlib.unused_data

    def _bunzip(self, data: bytes) -> Iterator[bytes]:
        while data or not (self._bz2.needs_input or self._bz2.eof):
            if self._bz2.eof:
                self._bz2 = bz2.BZ2Decompressor()
            self._begun = True
            yield self._bz2.decompress(data, PIECE_BYTES)
            data = self._bz2.unused_data if self._bz2.eof else b""

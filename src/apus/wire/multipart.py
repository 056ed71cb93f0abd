"""`multipart/form-data` (RFC 7578) as it comes, whatever its size: what browsers send from a form with files."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Final

from apus.kernel.errors import Invalid

HEAD_MAX_BYTES: Final = 16 << 10
"""Headers of one part."""

PARTS_MAX: Final = 10_000
_PARAMETER: Final = re.compile(r';\s*([A-Za-z-]+)\*?=(?:"((?:\\"|[^"])*)"|([^\s;"]+))')


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """The beginning of one field or file."""

    name: str
    filename: str | None
    """None for a field."""
    headers: Mapping[str, str]


class PartEnd:
    """The field or file is whole."""


Event = Part | PartEnd | bytes


def boundary_of(content_type: str) -> bytes | None:
    """None when this is no form of this kind."""
    kind, _, _ = content_type.partition(";")
    if kind.strip().lower() != "multipart/form-data":
        return None
    found = _parameters(content_type).get("boundary", "")
    return found.encode("latin-1", "replace") if 0 < len(found) <= 200 else None


class MultipartParser:
    """Give it bytes, take events: a Part, its bytes, a PartEnd, and so on.  Raise Invalid for what is no form."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._held = b"\r\n"  # so that the first boundary looks like all others
        self._state = "preamble"
        self._parts = 0

    @property
    def ended(self) -> bool:
        return self._state == "ended"

    def feed(self, data: bytes) -> Iterator[Event]:
        self._held += data
        while True:
            before = self._state, len(self._held)
            yield from self._step()
            if (self._state, len(self._held)) == before:
                return

    def _step(self) -> Iterator[Event]:
        if self._state in ("preamble", "data"):
            yield from self._to_delimiter()
        elif self._state == "delimiter" and len(self._held) >= 2:
            self._after_delimiter()
        elif self._state == "head":
            yield from self._head()
        elif self._state == "ended":
            self._held = b""

    def _to_delimiter(self) -> Iterator[Event]:
        at, in_part = self._held.find(self._delimiter), self._state == "data"
        if at < 0:
            safe = len(self._held) - len(self._delimiter) + 1
            if safe > 0:
                if in_part:
                    yield self._held[:safe]
                self._held = self._held[safe:]
            return
        if in_part:
            if at:
                yield self._held[:at]
            yield PartEnd()
        self._held, self._state = self._held[at + len(self._delimiter) :], "delimiter"

    def _after_delimiter(self) -> None:
        mark = self._held[:2]
        if mark not in (b"\r\n", b"--"):
            raise _malformed("a boundary is followed by neither a line end nor two dashes")
        # The line end stays: with no headers it is half of the empty line that ends them.
        self._held, self._state = (b"", "ended") if mark == b"--" else (self._held, "head")

    def _head(self) -> Iterator[Event]:
        at = self._held.find(b"\r\n\r\n")
        if at > HEAD_MAX_BYTES or (at < 0 and len(self._held) > HEAD_MAX_BYTES):
            raise _malformed(f"the headers of a part are longer than {HEAD_MAX_BYTES} bytes")
        if at < 0:
            return
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise _malformed(f"it has more than {PARTS_MAX} parts")
        headers = _headers(self._held[:at])
        self._held, self._state = self._held[at + 4 :], "data"
        # A part without a byte: its end follows on the line end that was just taken.
        self._held = b"\r\n" + self._held if self._held.startswith(self._delimiter[2:]) else self._held
        said = _parameters(headers.get("content-disposition", ""))
        if "name" not in said:
            raise _malformed("a part has no name")
        yield Part(said["name"], said.get("filename"), headers)


class FormReader:
    """A form part by part.  Raise Invalid when it ends early."""

    def __init__(self, boundary: bytes, body: AsyncIterator[bytes]) -> None:
        self._events = self._parsed(MultipartParser(boundary), body)

    async def next_part(self) -> Part | None:
        """The next field or file; what was not read of the last is passed over."""
        async for event in self._events:
            if isinstance(event, Part):
                return event
        return None

    async def data(self) -> AsyncIterator[bytes]:
        """The bytes of the part that was begun last."""
        async for event in self._events:
            if isinstance(event, PartEnd):
                return
            assert isinstance(event, bytes)
            yield event

    async def text(self, limit_bytes: int) -> str:
        """The same as a field's value; raise Invalid past the limit."""
        held = b""
        async for chunk in self.data():
            held += chunk
            if len(held) > limit_bytes:
                raise _malformed(f"a field is longer than {limit_bytes} bytes")
        try:
            return held.decode()
        except UnicodeDecodeError as error:
            raise _malformed("a field is not UTF-8") from error

    async def _parsed(self, parser: MultipartParser, body: AsyncIterator[bytes]) -> AsyncIterator[Event]:
        async for chunk in body:
            for event in parser.feed(chunk):
                yield event
        if not parser.ended:
            raise _malformed("it ends before its last boundary")


def _headers(data: bytes) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in data.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if colon:
            found[name.strip().lower()] = value.strip()
    return found


def _parameters(text: str) -> dict[str, str]:
    return {
        name.lower(): (quoted or token).replace('\\"', '"') for name, quoted, token in _PARAMETER.findall(text)
    }  # fmt: skip


def _malformed(what: str) -> Invalid:
    return Invalid("wire.multipart", f"The form cannot be read: {what}.")

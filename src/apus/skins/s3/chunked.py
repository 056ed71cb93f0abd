"""`aws-chunked`: a body in chunks that may each be signed, and headers behind it.

A chunk is a line `SIZE[;chunk-signature=HEX]`, the bytes and an end of line; one of size 0 ends the body, and trailers
follow it.  Bytes are handed on as they come, before the signature of their chunk is known: whoever takes them keeps
nothing until the end.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import AsyncIterator
from typing import Final

from apus.skins.s3 import sigv4
from apus.skins.s3.errors import S3Error

LINE_MAX: Final = 8192
TRAILERS_MAX: Final = 32


@dataclasses.dataclass(slots=True)
class Chain:
    """Each signature covers the one before; the first is that of the headers."""

    key: bytes
    stamp: str
    scope: str
    previous: str

    def check_chunk(self, digest: str, signature: str) -> None:
        text = f"AWS4-HMAC-SHA256-PAYLOAD\n{self.stamp}\n{self.scope}\n{self.previous}\n{sigv4.EMPTY_SHA256}\n{digest}"
        self._check(text, signature)

    def check_trailers(self, lines: bytes, signature: str) -> None:
        digest = hashlib.sha256(lines).hexdigest()
        text = f"AWS4-HMAC-SHA256-TRAILER\n{self.stamp}\n{self.scope}\n{self.previous}\n{digest}"
        self._check(text, signature)

    def _check(self, text: str, signature: str) -> None:
        self.previous = sigv4.sign(self.key, text)
        if not sigv4.same(self.previous, signature):
            raise S3Error("SignatureDoesNotMatch")


class _Reader:
    """Lines and runs of bytes out of a stream."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source, self._held, self._at = source, b"", 0

    async def _more(self) -> None:
        try:
            more = await anext(self._source)
        except StopAsyncIteration:
            raise S3Error("IncompleteBody") from None
        self._held, self._at = self._held[self._at :] + more, 0

    async def line(self) -> bytes:
        while True:
            end = self._held.find(b"\n", self._at, self._at + LINE_MAX)
            if end >= 0:
                line, self._at = self._held[self._at : end], end + 1
                return line.removesuffix(b"\r")
            if len(self._held) - self._at >= LINE_MAX:
                raise _malformed()
            await self._more()

    async def run(self, size: int) -> AsyncIterator[bytes]:
        while size:
            if self._at == len(self._held):
                await self._more()
            piece = self._held[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            yield piece

    async def rest(self) -> bytes | None:
        """What is there of the rest; None at the end."""
        if self._at < len(self._held):
            piece, self._held, self._at = self._held[self._at :], b"", 0
            return piece
        return await anext(self._source, None)


class ChunkedBody:
    """The bytes inside; `trailers` are there once they were all taken."""

    def __init__(self, source: AsyncIterator[bytes], chain: Chain | None, *, trailing: bool) -> None:
        self._reader, self._chain, self._trailing = _Reader(source), chain, trailing
        self.trailers: dict[str, str] = {}

    async def stream(self) -> AsyncIterator[bytes]:
        """Raise S3Error when it is not as announced."""
        while True:
            size, signature = _head_of(await self._reader.line(), signed=self._chain is not None)
            digest = hashlib.sha256() if self._chain is not None else None
            if size:
                async for piece in self._reader.run(size):
                    if digest is not None:
                        digest.update(piece)
                    yield piece
            if self._chain is not None and digest is not None:
                self._chain.check_chunk(digest.hexdigest(), signature)
            if not size:
                break
            if await self._reader.line():
                raise _malformed()
        await self._end()

    async def _end(self) -> None:
        lines = b""
        signature = ""
        for _ in range(TRAILERS_MAX):
            line = await self._last_line()
            if not line:
                break
            name, colon, value = line.partition(b":")
            if not colon or not self._trailing:
                raise S3Error("MalformedTrailerError")
            key, text = name.strip().lower().decode("latin-1"), value.strip().decode("latin-1")
            if key == "x-amz-trailer-signature":
                signature = text
                continue
            lines += f"{key}:{text}\n".encode("latin-1")
            self.trailers[key] = text
        else:
            raise S3Error("MalformedTrailerError")
        if self._chain is not None and self._trailing:
            if not signature:
                raise _malformed("its trailers are not signed")
            self._chain.check_trailers(lines, signature)
        while (piece := await self._reader.rest()) is not None:
            if piece.strip(b"\r\n"):
                raise _malformed()

    async def _last_line(self) -> bytes:
        """One behind the last chunk; some clients leave the empty one out."""
        try:
            return await self._reader.line()
        except S3Error as error:
            if error.code == "IncompleteBody":
                return b""
            raise


def _head_of(line: bytes, *, signed: bool) -> tuple[int, str]:
    text, *extensions = line.split(b";")
    digits = text.strip()
    if not digits or len(digits) > 16 or any(digit not in b"0123456789abcdefABCDEF" for digit in digits):
        raise _malformed()
    signature = ""
    for extension in extensions:
        name, _, value = extension.partition(b"=")
        if name.strip() == b"chunk-signature":
            signature = value.strip().decode("latin-1")
    if signed and not signature:
        raise _malformed("a chunk is not signed")
    return int(digits, 16), signature


def _malformed(why: str = "") -> S3Error:
    """Amazon's word for all that ends otherwise than its own lengths and lines say."""
    return S3Error("IncompleteBody", f"The body is not well-formed aws-chunked{why and ': '}{why}.")

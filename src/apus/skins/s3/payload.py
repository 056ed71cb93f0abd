"""The body of an upload: unwrapped, hashed on its way, and held against all that was said of it.

What is wrong is found before the stream ends, so the store keeps nothing of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from apus.skins.s3 import checksums
from apus.skins.s3.chunked import ChunkedBody
from apus.skins.s3.errors import S3Error
from apus.skins.s3.request import DOCUMENT_BYTES_MAX, S3Request

PUT_BYTES_MAX: Final = 5 << 30
"""Of one upload, or one part."""


def content_md5(request: S3Request) -> str | None:
    """In hexadecimal, as the store compares it.  Raise S3Error for what is none."""
    text = request.headers.get("content-md5")
    if text is None:
        return None
    try:
        digest = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != 16:
        raise S3Error("InvalidDigest", fields={"Content-MD5": text})
    return digest.hex()


def announced_size(request: S3Request) -> int | None:
    """Of the object itself.  None only where nothing must be announced.  Raise S3Error."""
    assert request.proof is not None
    text = request.headers.get("content-length")
    if request.proof.chunked:
        text = request.headers.get("x-amz-decoded-content-length")
    if text is None:
        raise S3Error("MissingContentLength")
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise S3Error("InvalidArgument", f"{text!r} is no length.")
    size = int(text)
    if size > PUT_BYTES_MAX:
        shown = {"ProposedSize": text, "MaxSizeAllowed": str(PUT_BYTES_MAX)}
        raise S3Error("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size.", fields=shown)
    return size


class Payload:
    """One body, to be streamed once.  After that `checksum` is what was asked to be kept."""

    def __init__(
        self,
        request: S3Request,
        *,
        source: AsyncIterator[bytes] | None = None,
        at_end: AtEnd | None = None,
        algorithm: str | None = None,
        of_body: bool = True,
    ) -> None:
        """`algorithm`: the one checksum that is taken, and made where none is sent.  Without `of_body` those in the
        headers are of something else."""
        proof = request.proof
        assert proof is not None
        source = source or request.stream()
        self._chunked = ChunkedBody(source, proof.chain, trailing=proof.trailing) if proof.chunked else None
        self._source = self._chunked.stream() if self._chunked is not None else source
        self._announced_bytes = announced_size(request) if proof.chunked else None
        self._sha256 = hashlib.sha256() if proof.sha256 is not None else None
        self._wanted_sha256 = proof.sha256
        self._at_end = at_end
        self._trailer = ""
        self._wanted: str | None = None
        self.size_bytes = 0
        self.algorithm: str | None = None
        self.checksum: str | None = None
        self._digest: checksums.Digest | None = None
        if of_body:
            self._expect(request)
        if algorithm is not None:
            self._insist(algorithm)

    def _expect(self, request: S3Request) -> None:
        """Which checksum is promised: in a header, or by name in a trailer."""
        sent = checksums.sent_checksum(request.headers)
        text = request.headers.get("x-amz-trailer", "").rstrip(", ")
        announced = [item.strip().lower() for item in text.split(",")] if text else []
        if not checksums.HEADERS.keys() >= set(announced):
            raise S3Error("InvalidRequest", "The value specified in the x-amz-trailer header is not supported")
        if len(announced) + (sent is not None) > 1:
            raise S3Error("InvalidRequest", "Expecting a single x-amz-checksum- header or trailer.")
        if sent is not None:
            self.algorithm, self._wanted = sent
        elif announced:
            if self._chunked is None:
                raise S3Error("InvalidRequest", "x-amz-trailer needs a body of aws-chunked with trailers.")
            self._trailer, self.algorithm = announced[0], checksums.HEADERS[announced[0]]
        named = request.headers.get("x-amz-sdk-checksum-algorithm")
        if named is not None and checksums.algorithm_of(named) != self.algorithm:
            shown = "Value for x-amz-sdk-checksum-algorithm header is invalid: no such checksum is sent."
            raise S3Error("InvalidRequest", shown)
        if self.algorithm is not None:
            self._digest = checksums.ALGORITHMS[self.algorithm]()

    def _insist(self, algorithm: str) -> None:
        if self.algorithm not in (None, algorithm):
            shown = (
                f"Checksum Type mismatch occurred, expected checksum Type: {algorithm.lower()}, "
                f"actual checksum Type: {(self.algorithm or '').lower()}"
            )
            raise S3Error("InvalidRequest", shown)
        self.algorithm = algorithm
        self._digest = checksums.ALGORITHMS[algorithm]()

    async def stream(self) -> AsyncIterator[bytes]:
        async for piece in self._source:
            self.size_bytes += len(piece)
            self._check_size()
            if self._sha256 is not None:
                self._sha256.update(piece)
            if self._digest is not None:
                self._digest.update(piece)
            yield piece
        self._check()
        if self._at_end is not None:
            await self._at_end()

    def _check_size(self, *, at_end: bool = False) -> None:
        """Of what is in the chunks: the server holds the rest against Content-Length."""
        size, announced = self.size_bytes, self._announced_bytes
        if announced is not None and (size > announced or (at_end and size < announced)):
            fields = {"NumberBytesExpected": str(announced), "NumberBytesProvided": str(size)}
            raise S3Error("IncompleteBody", fields=fields)

    def _check(self) -> None:
        self._check_size(at_end=True)
        if self._trailer and self._chunked is not None and self._chunked.trailers.keys() - {self._trailer}:
            raise S3Error("MalformedTrailerError", "There are trailers that x-amz-trailer does not name.")
        if self._sha256 is not None and self._sha256.hexdigest() != self._wanted_sha256:
            fields = {
                "ClientComputedContentSHA256": self._wanted_sha256 or "",
                "S3ComputedContentSHA256": self._sha256.hexdigest(),
            }
            raise S3Error("XAmzContentSHA256Mismatch", fields=fields)
        if self._digest is None or self.algorithm is None:
            return
        self.checksum = checksums.encoded(self._digest.digest())
        if self._trailer:
            assert self._chunked is not None
            value = self._chunked.trailers.get(self._trailer)
            if value is None:
                raise S3Error("MalformedTrailerError")
            self._wanted = checksums.checked(self.algorithm, value, self._trailer)
        if self._wanted is not None and self._wanted != self.checksum:
            shown = f"The {self.algorithm} you specified did not match the calculated checksum."
            raise S3Error("BadDigest", shown)


AtEnd = Callable[[], Awaitable[None]]
"""Asked when the body is whole and right, before the store is told that it has ended."""


async def read_document(request: S3Request, *, needs_digest: bool = False, of_body: bool = True) -> bytes:
    """A small body, checked as an upload is.  Raise S3Error."""
    expected = content_md5(request)
    payload = Payload(request, of_body=of_body)
    if needs_digest and expected is None and payload.algorithm is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: Content-MD5 or x-amz-checksum-*")
    parts = []
    async for piece in payload.stream():
        if payload.size_bytes > DOCUMENT_BYTES_MAX:
            raise S3Error("MaxMessageLengthExceeded", fields={"MaxMessageLengthBytes": str(DOCUMENT_BYTES_MAX)})
        parts.append(piece)
    data = b"".join(parts)
    if expected is not None and hashlib.md5(data, usedforsecurity=False).hexdigest() != expected:
        raise S3Error("BadDigest")
    return data
